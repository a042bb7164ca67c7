//! What a command will need of memory, and whether there is as much: a shape that is too large gets
//! a line and not the end of the process.

use kernels::{MAX_ELEMENTS, Problem};

use crate::network::{Graph, Precision};
use crate::runtime::layout::arena_elements;
use crate::runtime::limits::Limits;

/// A model or a problem needs more bytes of memory than there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what}: needs about {} of memory, expected at most {}, {limit}",
    rounded(*.needed), rounded(*.available)
)]
pub struct MemoryError {
    pub what: String,
    pub needed: u128,
    pub available: u128,
    /// What sets the limit.
    pub limit: String,
}

fn rounded(bytes: u128) -> String {
    match bytes >> 20 {
        mib @ 0..1024 => format!("{mib} MiB"),
        mib => format!("{:.1} GiB", mib as f64 / 1024.0),
    }
}

/// How many times as large as their filter packed weights are at most, by and large.
const PACKED: u128 = 4;

/// Elements of source, destinations and filters.
pub fn elements(problem: &Problem) -> [u128; 3] {
    let filters = match problem {
        Problem::Conv(conv) => conv.depth() as u128 * conv.filters() as u128,
        _ => 0,
    };
    let outputs = problem.dst().iter().map(|dst| dst.elements() as u128).sum();
    [problem.src().elements() as u128, outputs, filters]
}

/// The program itself with its stacks and what the heap keeps, in bytes: 10.5 MiB were measured.
const PROGRAM: usize = 12 << 20;

/// Bytes that a process takes at most on top of the packed weights, the activations and the scratch
/// of a network: the program, twice the weights of the layers that are packed at once, one a thread
/// and the largest ones at that, and twice the images and the results of a batch. Weights in f64
/// take more while they are read.
///
/// Measured for InceptionV3 as the peak of resident memory on Linux less the rest: 31 MiB of the 35
/// that this gives for one thread, 44 of 51 for two.
pub fn process_bytes(graph: &Graph, threads: usize) -> usize {
    let mut filters: Vec<u128> = graph.steps.iter().map(|step| elements(&step.problem)[2]).collect();
    filters.sort_unstable_by(|a, b| b.cmp(a));
    let layers = filters.iter().take(threads).sum::<u128>() as usize;
    let [images, results] = [0, graph.output.tensor].map(|tensor| graph.tensors[tensor].elements());
    PROGRAM + 2 * (layers + images + results) * size_of::<f32>()
}

/// Bytes that a process takes at least, whatever the kernels: [`process_bytes`], the weights and
/// the activations without what kernels add, in the smallest type that will do.
pub fn least_bytes(graph: &Graph, threads: usize, precision: Precision) -> usize {
    let weights = graph.steps.iter().map(|step| elements(&step.problem)[2]).sum::<u128>() as usize;
    process_bytes(graph, threads) + (weights + arena_elements(graph)) * precision.bytes()
}

/// Refuses a network that does not fit in memory whatever its kernels and types; see
/// [`crate::runtime::estimate`] for one whose kernels are known.
pub fn ensure_runs(what: &str, graph: &Graph) -> Result<(), MemoryError> {
    let largest_tensor = graph.tensors.iter().map(|tensor| tensor.elements() as u128).max().unwrap_or(0);
    if largest_tensor > MAX_ELEMENTS {
        let [needed, available] =
            [largest_tensor, MAX_ELEMENTS].map(|values| values * size_of::<f32>() as u128);
        return Err(MemoryError {
            what: what.to_string(),
            needed,
            available,
            limit: "the most for one tensor".to_owned(),
        });
    }
    let filters: u128 = graph.steps.iter().map(|step| elements(&step.problem)[2]).sum();
    let images = graph.tensors[0].elements() as u128;
    let in_u8 = (arena_elements(graph) as u128 + filters) / size_of::<f32>() as u128;
    ensure(what, images + in_u8)
}

/// Refuses problems of which one does not fit in memory with one kernel at a time.
pub fn ensure_checked<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Result<(), MemoryError> {
    for problem in problems {
        let [src, dst, filters] = elements(problem);
        ensure(&problem.to_string(), 2 * src + 2 * dst + (2 + PACKED) * filters)?;
    }
    Ok(())
}

/// Refuses what needs so many elements of f32 more than the process has already.
pub fn ensure(what: &str, elements: u128) -> Result<(), MemoryError> {
    ensure_more(what, elements * size_of::<f32>() as u128, 0)
}

/// Refuses what takes so many bytes more than the process has already, where a limit is lower than
/// both. `reserved` bytes of the address space are taken on top, but no memory.
pub fn ensure_more(what: &str, more: u128, reserved: usize) -> Result<(), MemoryError> {
    let limits = Limits::default();
    let taken = limits.taken();
    let of_address_space = reserved as u128 + more;
    let checks = [
        (limits.resident(), taken.resident, more),
        (limits.mapped(), taken.mapped, of_address_space),
        (limits.data(), taken.data, of_address_space),
    ];
    let failed = checks.into_iter().filter_map(|(limit, taken, more)| {
        let needed = u128::from(taken) + more;
        Some((limit.filter(|limit| needed > u128::from(limit.available))?, needed))
    });
    // Of several, the lowest.
    if let Some((limit, needed)) = failed.min_by_key(|(limit, _)| limit.available) {
        let (what, available) = (what.to_owned(), u128::from(limit.available));
        return Err(MemoryError { what, needed, available, limit: limit.name });
    }
    Ok(())
}
