//! From where a network's weights come when their layer has its turn again: the cache that the
//! cores share, or memory.

use engine::network::Precision;
use engine::plan::WeightResidency;
use kernels::arch::cache::{can_demote, demote, evict};
use kernels::{Cpu, Problem};

use crate::bench::policy::POLICY;

/// Where so many bytes are that all workers read again and again. By size, not by a measurement of
/// pace: that changes its mind from run to run where a host's other guests use the cache, and every
/// choice with it.
pub fn weights_come_from(bytes: usize, cpu: &Cpu) -> WeightResidency {
    if can_demote() && POLICY.cold.kept * bytes <= cpu.caches.l3 {
        WeightResidency::SharedCache
    } else {
        WeightResidency::Dram
    }
}

/// Moves values out of the caches, as far as they would be.
pub fn chill(values: &[f32], cold: WeightResidency) {
    match cold {
        WeightResidency::Dram => evict(values),
        WeightResidency::SharedCache => demote(values),
    }
}

/// Bytes of the weights of convolutions that occur so many times.
pub fn weight_bytes<'a>(problems: impl IntoIterator<Item = (&'a Problem, usize)>, types: Precision) -> usize {
    let elements = |(problem, count): (&Problem, usize)| match problem {
        Problem::Conv(conv) => conv.depth() * conv.filters() * count,
        _ => 0,
    };
    problems.into_iter().map(elements).sum::<usize>() * types.bytes()
}
