//! The kernels of a network's steps.

use kernels::KernelEntry;
use kernels::cpu::Cpu;
use kernels::kernel::{Kernel, Tuning};
use kernels::problem::Problem;
use kernels::tensor::Formats;

use crate::graph::{Graph, Step};

/// The kernel and tuning of one step.
#[derive(Clone)]
pub struct Choice {
    /// Row of the table of kernels.
    pub row: &'static KernelEntry,
    /// Its tuning.
    pub tuning: Tuning,
    /// What it reads, with the halo that it wants, and what it writes.
    pub formats: Formats,
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}[{}] {} to {}", self.row.id, self.tuning, self.formats.src, self.formats.dst)
    }
}

impl Choice {
    /// A kernel and a tuning that it offers, in its first formats.
    ///
    /// # Panics
    /// If it has none.
    pub fn of(row: &'static KernelEntry, kernel: &dyn Kernel, problem: &Problem, tuning: Tuning) -> Self {
        let formats = kernel.formats(problem, &tuning)[0];
        Self { row, tuning, formats }
    }

    /// Multiply-adds that it executes for a convolution; 0 for other problems, and where this machine lacks
    /// the kernel.
    pub fn multiply_adds(&self, problem: &Problem, cpu: &Cpu) -> u64 {
        match ((self.row.make)(cpu), problem) {
            (Ok(kernel), Problem::Conv(_)) => kernel.multiply_adds(problem, &self.tuning),
            _ => 0,
        }
    }
}

/// Multiply-adds that choices execute for a batch of a graph.
pub fn multiply_adds(graph: &Graph, choices: &[Choice], cpu: &Cpu) -> u64 {
    let of = |(index, (step, choice)): (usize, (&Step, &Choice))| {
        choice.multiply_adds(&step.problem, cpu) * graph.repeats(index) as u64
    };
    graph.steps.iter().zip(choices).enumerate().map(of).sum()
}
