//! What comparing whole networks takes of memory.

use engine::MemoryError;
use engine::network::{Graph, Precision, built_in};
use engine::runtime::estimate::{self, reserved};
use engine::runtime::{elements, ensure_more};

use crate::autotune::options::Options;
use crate::planner::RULES;

/// Networks that are prepared at once beside those by rules: as chosen and as isolated times choose it,
/// each in block variants and plain, and the built-in choice.
const NETWORKS: usize = 5;

/// Refuses a network where those that are compared with it at the end do not fit in memory with it.
pub fn ensure_compared(what: &str, graph: &Graph, options: &Options) -> Result<(), MemoryError> {
    let Options { cpu, threads, bounds, .. } = options;
    let (graph, choices) = built_in(graph, cpu);
    // Where a kernel refuses its step, comparing says so.
    let Some(one) = estimate::network(&graph, &choices, cpu, *threads) else { return Ok(()) };
    let run = one.activations + one.scratch;
    let filters: u128 = graph.steps.iter().map(|step| elements(&step.problem)[2]).sum();
    let rules = if Precision::within(bounds.error) == Precision::F32 { RULES.len() } else { 0 };
    // Of an earlier plan, and of the batch in one piece where it may be split.
    let others = usize::from(options.earlier.is_some()) + usize::from(graph.batch > 1);
    let of_rule = filters as usize * size_of::<f32>() + run;
    let bytes = (NETWORKS + others) * (one.weights + run) + rules * of_rule;
    ensure_more(what, bytes as u128, reserved(*threads))
}
