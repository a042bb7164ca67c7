//! What a process will take that runs a network, before any of it is taken.

use kernels::{Cpu, Filter, Formats, Prepared};

use crate::network::{Choice, Graph, of_tensors, supported};
use crate::runtime::layout::lay_out;
use crate::runtime::memory::{MemoryError, elements, ensure_more};
use crate::runtime::prepared::{MemoryBytes, formats, scratch};
use crate::runtime::threads::STACK;

/// How a network is run.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// Threads that prepare it, and that run it where there is one stream.
    pub threads: usize,
    /// Inferences at the same time.
    pub streams: usize,
    /// Of each stream.
    pub threads_each: usize,
    /// Threads that load images.
    pub loaders: usize,
    /// All images.
    pub images: usize,
}

impl Running {
    /// All threads run so many images, one batch after the other.
    pub fn one(threads: usize, images: usize) -> Self {
        Self { threads, streams: 1, threads_each: threads, loaders: 1, images }
    }

    /// Threads that are started, at most.
    fn started(self) -> usize {
        let more = if self.streams > 1 { self.streams * self.threads_each } else { 0 };
        self.threads + self.loaders + self.streams + more
    }
}

/// Code, tables and stack of the program, and headers of weights, that it has not touched before it
/// prepares a network, in bytes.
const PROGRAM: usize = 18 << 20;

/// What a thread touches of its stack, and what the heap keeps for it, in bytes.
const A_THREAD: usize = 64 << 10;

/// The most of freed memory that the heap keeps, in bytes; see
/// [`kernels::arch::pages::return_large_blocks`].
const KEPT: usize = 12 << 20;

/// Bytes of the address space that are reserved for buffers and may stay unused: a region.
const REGION: usize = 64 << 20;

/// Bytes of the address space for the guard pages, the signal stack and the heap of a thread.
const BESIDE_STACK: usize = 1 << 20;

/// Refuses a network that does not fit in memory when it runs by these choices. What a kernel or a
/// type refuses passes: preparing the network says what is wrong.
pub fn ensure_network(
    what: &str,
    graph: &Graph,
    choices: &[Choice],
    cpu: &Cpu,
    running: Running,
) -> Result<(), MemoryError> {
    match bytes(graph, choices, cpu, running) {
        Some(bytes) => ensure_more(what, bytes as u128, reserved(running.started())),
        None => Ok(()),
    }
}

/// Bytes of the address space that a command reserves with so many threads, but does not take.
pub fn reserved(threads: usize) -> usize {
    REGION + threads * (STACK + BESIDE_STACK)
}

/// Bytes that running a network adds to a process; none where it can't be prepared.
pub fn bytes(graph: &Graph, choices: &[Choice], cpu: &Cpu, running: Running) -> Option<usize> {
    let Running { threads, streams, threads_each, loaders, images } = running;
    let all = network(graph, choices, cpu, threads)?;
    let of_run = |bytes: MemoryBytes| bytes.activations + bytes.scratch;
    let split = if streams > 1 { streams * of_run(network(graph, choices, cpu, threads_each)?) } else { 0 };
    let bytes_of = |tensor: usize| graph.tensors[tensor].elements() * size_of::<f32>() / graph.batch;
    let (image, result) = (bytes_of(0), bytes_of(graph.output.tensor));
    // Those that wait, and of each stream a batch at work, which is in one piece as well.
    let at_work = graph.batch * streams;
    let in_one_piece = if graph.batch > 1 { at_work } else { 0 };
    let loaded = images.min(loaders + 3 * at_work) + in_one_piece;
    let results = images.min(2 * at_work);
    let filters = filters_at_once(graph, threads);
    let preparing = filters + loaded * image;
    let run = filters.min(KEPT * threads) + of_run(all) + split + loaded * image + results * result;
    Some(PROGRAM + running.started() * A_THREAD + all.weights + preparing.max(run))
}

/// Bytes of the filters that are read and packed at once: one layer a thread, and the largest at that.
fn filters_at_once(graph: &Graph, threads: usize) -> usize {
    let of_step = |problem| elements(problem)[2] as usize * size_of::<f32>();
    let mut filters: Vec<usize> = graph.steps.iter().map(|step| of_step(&step.problem)).collect();
    filters.sort_unstable_by(|a, b| b.cmp(a));
    filters.iter().take(threads).sum()
}

/// Bytes of a network as so many workers run it, without memory for it; none where it can't be
/// prepared.
pub fn network(graph: &Graph, choices: &[Choice], cpu: &Cpu, workers: usize) -> Option<MemoryBytes> {
    let types = of_tensors(graph, choices).ok()?;
    let formats = formats(graph, choices, &types, &[]);
    let mut prepared: Vec<Box<dyn Prepared>> = Vec::new();
    for (step, choice) in graph.steps.iter().zip(choices) {
        let formats = Formats { src: formats[step.src.tensor], ..choice.formats };
        let kernel = supported(choice.row, cpu, &step.problem).ok()?;
        let filters: Vec<Filter> = step.problem.filter_dims().into_iter().map(Filter::dims_only).collect();
        prepared.push(kernel.prepare(&step.problem, &choice.tuning, &formats, &filters).ok()?);
    }
    let (_, sizes) = lay_out(graph, &formats);
    let prepared: Vec<&dyn Prepared> = prepared.iter().map(|step| &**step).collect();
    let solo_workers = if graph.steps.is_empty() || !graph.is_per_worker(0) { 0 } else { workers };
    let of_solo = scratch(graph, &prepared, true, 1);
    Some(MemoryBytes {
        weights: prepared.iter().map(|step| step.packed_bytes()).sum(),
        activations: (sizes.shared + solo_workers * sizes.per_worker) * size_of::<f32>(),
        scratch: (scratch(graph, &prepared, false, workers) + solo_workers * of_solo) * size_of::<f32>(),
        process: None,
    })
}
