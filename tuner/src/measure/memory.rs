//! What measuring takes of memory, before any of it is taken.

use std::cmp::Reverse;

use engine::MemoryError;
use engine::network::{Precision, SupportedKernel, available};
use engine::runtime::estimate::reserved;
use engine::runtime::{elements, ensure_more};
use kernels::{Cpu, Filter, Formats, Problem};

use crate::bench::POLICY;

/// Refuses problems of which one does not fit in memory while each of its candidates has packed
/// weights and destinations of its own. The error says how much the first that does not needs and how
/// much there is.
pub fn ensure_measured<'a>(
    problems: impl IntoIterator<Item = &'a Problem>,
    cpu: &Cpu,
    types: Precision,
    threads: usize,
) -> Result<(), MemoryError> {
    for problem in problems {
        ensure_more(&problem.to_string(), bytes(problem, cpu, types, threads), reserved(threads))?;
    }
    Ok(())
}

/// Bytes that measuring a problem takes at most: inputs, sources and destinations, the packed weights
/// of the candidates that are there at a time, the scratch that they share, and what passes through
/// the caches between two of them.
fn bytes(problem: &Problem, cpu: &Cpu, types: Precision, threads: usize) -> u128 {
    let (kernels, _) = available(cpu, problem);
    let mut packed = Vec::new();
    let mut scratch = 0;
    for SupportedKernel { kernel, .. } in &kernels {
        for tuning in kernel.tunings(problem) {
            let formats = kernel.formats(problem, &tuning)[0];
            let filters: Vec<Filter> = problem.filter_dims().into_iter().map(Filter::dims_only).collect();
            // What is refused is no candidate.
            if let Ok(prepared) = kernel.prepare(problem, &tuning, &formats, &filters) {
                packed.push(prepared.packed_bytes());
                scratch = scratch.max(prepared.scratch_of_team(threads) * size_of::<f32>());
            }
        }
    }
    packed.sort_unstable_by_key(|bytes| Reverse(*bytes));
    // Those that are left, and some tunings more or, in lower types, the best of each kernel in all
    // formats.
    let formats = if types == Precision::F32 { 0 } else { Formats::ALL.len() };
    let in_all_formats = kernels.len() * POLICY.race.finalists * formats;
    let at_once = packed.len().min(POLICY.race.most + POLICY.search.at_a_time.max(in_all_formats));
    let [src, dst, filters] = elements(problem).map(|elements| elements * size_of::<f32>() as u128);
    let packed = packed[..at_once].iter().sum::<usize>() as u128;
    let passing = cpu.caches.l2 * POLICY.cold.parts;
    // The inputs, a source with a halo, and the filters of each thread that packs.
    2 * src + filters + at_once as u128 * dst + packed + (scratch + passing) as u128
}
