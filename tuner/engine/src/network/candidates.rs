//! The kernels that take a problem on this machine, and the choice without measurements.

use kernels::{Cpu, Kernel, KernelEntry, Problem, Role, Unsupported, table};

use crate::network::choice::Choice;
use crate::network::dtypes::Precision;
use crate::network::graph::Graph;

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
/// for a lower tier.
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
        match supported(row, cpu, problem) {
            Err(refusal) => leave(refusal.to_string()),
            Ok(kernel) => list.push(SupportedKernel { row, kernel }),
        }
    }
    (list, left_out)
}

/// A choice without measurements, in f32: of the rows that this machine has, the one with the
/// fewest multiply-adds by its default tuning; the first in the table where several are equal.
///
/// # Panics
/// If no row of the table takes the problem.
pub fn default_choice(problem: &Problem, cpu: &Cpu) -> Choice {
    let (list, _) = available(cpu, problem);
    let tuned = list.iter().filter(|a| a.row.role == Role::Candidate).filter_map(|a| {
        let tuning = a.kernel.tunings(problem).swap_remove(0);
        let formats = *Precision::F32.formats(&*a.kernel, problem, &tuning).first()?;
        Some((a.kernel.multiply_adds(problem, &tuning), Choice { row: a.row, tuning, formats }))
    });
    let best = tuned.min_by_key(|(work, _)| *work);
    best.unwrap_or_else(|| panic!("no kernel takes {problem}")).1
}

/// [`default_choice`] for every step.
pub fn default_choices(graph: &Graph, cpu: &Cpu) -> Vec<Choice> {
    graph.steps.iter().map(|step| default_choice(&step.problem, cpu)).collect()
}
