//! The kernels that take a problem on this machine, and the choice without measurements.

use kernels::{Cpu, Dtype, Formats, Kernel, KernelEntry, Problem, Role, Tier, Unsupported, table};

use crate::network::block_variant::{Block, with_variant};
use crate::network::choice::Choice;
use crate::network::dtypes::{Precision, cheapest, pair};
use crate::network::graph::{Graph, Step};

/// A kernel of the table that this machine can run, for one problem.
pub struct SupportedKernel {
    pub row: &'static KernelEntry,
    pub kernel: Box<dyn Kernel>,
}

/// Why a row has no candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excluded {
    pub id: &'static str,
    pub reason: String,
}

/// The kernel of a row, if this machine has it and it takes a problem.
pub fn supported(row: &KernelEntry, cpu: &Cpu, problem: &Problem) -> Result<Box<dyn Kernel>, Unsupported> {
    let kernel = (row.make)(cpu)?;
    kernel.supports(problem).map(|()| kernel)
}

/// The rows that take a problem on this machine, and those that do not with their reasons. Of the
/// rows of one family only the first that this machine has is listed: the others are the same code
/// for a lower tier. Those of the plain tier are for machines that have no other.
pub fn available(cpu: &Cpu, problem: &Problem) -> (Vec<SupportedKernel>, Vec<Excluded>) {
    let (mut list, mut left_out): (Vec<SupportedKernel>, Vec<Excluded>) = (Vec::new(), Vec::new());
    for row in table() {
        let mut leave = |reason| left_out.push(Excluded { id: row.id, reason });
        if row.role == Role::Oracle {
            leave("the oracle: exact and slow".to_string());
            continue;
        }
        if let Some(first) = list.iter().find(|a| a.row.family == row.family) {
            leave(format!("{} stands for its family", first.row.id));
            continue;
        }
        if row.tier == Some(Tier::Plain) && cpu.tier() != Tier::Plain {
            leave("for machines without vectors of 256 bits".to_string());
            continue;
        }
        match supported(row, cpu, problem) {
            Err(refusal) => leave(refusal.to_string()),
            Ok(kernel) => list.push(SupportedKernel { row, kernel }),
        }
    }
    (list, left_out)
}

/// Families that compute fewer products, by transforms that cost little where there are channels to
/// share them. Strassen's saves an eighth of the products at most, less than its additions cost in
/// most steps.
const TRANSFORMS: [&str; 2] = ["winograd", "separable"];

/// Channels in from which on a transform is the default.
const TRANSFORM_CHANNELS: usize = 16;

/// A choice without measurements, in f32: a transform wherever it is valid and there are enough
/// channels, else the first row of the table that this machine has and that takes the problem; by
/// its default tuning.
///
/// # Panics
/// If no row of the table takes the problem.
pub fn default_choice(problem: &Problem, cpu: &Cpu) -> Choice {
    let (list, _) = available(cpu, problem);
    let is_deep = problem.as_conv().is_ok_and(|conv| conv.channels >= TRANSFORM_CHANNELS);
    let is_transform = |a: &&SupportedKernel| is_deep && TRANSFORMS.contains(&a.row.family);
    let choice = |a: &SupportedKernel| {
        let tuning = a.kernel.tunings(problem).swap_remove(0);
        let formats = *Precision::F32.formats(&*a.kernel, problem, &tuning).first()?;
        Some(Choice { row: a.row, tuning, formats })
    };
    let candidates = || list.iter().filter(|a| a.row.role == Role::Candidate);
    let best = candidates().filter(is_transform).find_map(choice).or_else(|| candidates().find_map(choice));
    best.unwrap_or_else(|| panic!("no kernel takes {problem}"))
}

/// A choice without measurements that reads a type and writes f32: [`default_choice`] for f32, of
/// other types the first candidate that does, if there is one.
pub fn choice_reading(problem: &Problem, cpu: &Cpu, dtype: Dtype) -> Option<Choice> {
    if dtype == Dtype::F32 {
        return Some(default_choice(problem, cpu));
    }
    let (list, _) = available(cpu, problem);
    list.iter().filter(|a| a.row.role == Role::Candidate).find_map(|SupportedKernel { row, kernel }| {
        let tuning = kernel.tunings(problem).swap_remove(0);
        let formats = kernel.formats(problem, &tuning);
        let formats = formats.into_iter().find(|formats| pair(formats) == [dtype, Dtype::F32])?;
        Some(Choice { row, tuning, formats })
    })
}

/// [`default_choice`] for every step.
pub fn default_choices(graph: &Graph, cpu: &Cpu) -> Vec<Choice> {
    graph.steps.iter().map(|step| default_choice(&step.problem, cpu)).collect()
}

/// Choices in f32 that give the same bits on all processors with fused multiply-add, whatever the
/// batch and the number of threads: of each step the first candidate and tuning that do. The index of
/// a step for which there is none as the error.
pub fn reproducible_choices(graph: &Graph, cpu: &Cpu) -> Result<Vec<Choice>, usize> {
    let of_kernel = |SupportedKernel { row, kernel }: &SupportedKernel, problem: &Problem| {
        let tuning =
            kernel.tunings(problem).into_iter().find(|t| kernel.numerics(problem, t).reproducible)?;
        let formats = *Precision::F32.formats(&**kernel, problem, &tuning).first()?;
        Some(Choice { row, tuning, formats })
    };
    let of_step = |(index, step): (usize, &Step)| {
        let (list, _) = available(cpu, &step.problem);
        let mut candidates = list.iter().filter(|a| a.row.role == Role::Candidate);
        candidates.find_map(|a| of_kernel(a, &step.problem)).ok_or(index)
    };
    graph.steps.iter().enumerate().map(of_step).collect()
}

/// A network in the smallest types that a precision allows: of each step the first candidate of the
/// types that take the fewest bytes over all steps, by its default tuning. None if no candidate
/// computes a step.
pub fn lowest_choices(graph: &Graph, cpu: &Cpu, precision: Precision) -> Option<Vec<Choice>> {
    let candidates = |step: &Step| -> Vec<(usize, Choice)> {
        let of_kernel = |SupportedKernel { row, kernel }: &SupportedKernel| -> Vec<(usize, Choice)> {
            let tuning = kernel.tunings(&step.problem).swap_remove(0);
            let rounding = kernel.numerics(&step.problem, &tuning).rounding.bytes();
            let formats = precision.formats(&**kernel, &step.problem, &tuning);
            let bytes = |formats: &Formats| rounding + pair(formats).map(Dtype::bytes).iter().sum::<usize>();
            formats
                .into_iter()
                .map(|f| (bytes(&f), Choice { row, tuning: tuning.clone(), formats: f }))
                .collect()
        };
        let (list, _) = available(cpu, &step.problem);
        list.iter().filter(|a| a.row.role == Role::Candidate).flat_map(of_kernel).collect()
    };
    let candidates: Vec<_> = graph.steps.iter().map(candidates).collect();
    let best = |step: usize, types: [Dtype; 2]| {
        candidates[step].iter().filter(|(_, c)| pair(&c.formats) == types).min_by_key(|(bytes, _)| *bytes)
    };
    let types = cheapest(graph, |step, types| best(step, types).map(|(bytes, _)| *bytes as f64))?;
    let of_step = |(index, step): (usize, &Step)| {
        let found = best(index, [types[step.src.tensor], types[step.dst[0].tensor]]);
        Some(found?.1.clone())
    };
    graph.steps.iter().enumerate().map(of_step).collect()
}

/// A plain graph with each block in the variant that changes most, and [`default_choices`] for it:
/// the network without measurements.
pub fn built_in(plain: &Graph, cpu: &Cpu) -> (Graph, Vec<Choice>) {
    let graph = Block::all(plain).iter().fold(plain.clone(), |graph, block| {
        with_variant(&graph, block.name, block.most()).expect("a variant of the block")
    });
    let choices = default_choices(&graph, cpu);
    (graph, choices)
}
