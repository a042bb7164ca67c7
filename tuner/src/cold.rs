//! From where a network's weights come when their layer has its turn again: the cache that the cores share, or memory.

use kernels::arch::cache::{can_demote, demote, evict};
use kernels::cpu::Cpu;
use kernels::problem::Problem;
use serde::{Deserialize, Serialize};

use crate::types::Types;

/// Where weights are when a kernel is timed alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cold {
    /// In memory: those of all layers together are more than the caches hold.
    #[default]
    Memory,
    /// In the cache that the cores share, and in none of a core's own.
    Shared,
}

impl std::fmt::Display for Cold {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Shared => "the cache that the cores share",
        })
    }
}

/// A shared cache keeps what is at most this part of it: other data passes through it too.
const KEPT: usize = 2;

/// Where so many bytes are that all workers read again and again. By size, not by a measurement of pace: that changes its
/// mind from run to run where a host's other guests use the cache, and every choice with it.
pub fn weights_come_from(bytes: usize, cpu: &Cpu) -> Cold {
    if can_demote() && KEPT * bytes <= cpu.caches.l3 { Cold::Shared } else { Cold::Memory }
}

/// Moves values out of the caches, as far as they would be.
pub fn chill(values: &[f32], cold: Cold) {
    match cold {
        Cold::Memory => evict(values),
        Cold::Shared => demote(values),
    }
}

/// Bytes of the weights of convolutions that occur so many times.
pub fn weight_bytes<'a>(problems: impl IntoIterator<Item = (&'a Problem, usize)>, types: Types) -> usize {
    let elements = |(problem, count): (&Problem, usize)| match problem {
        Problem::Conv(conv) => conv.depth() * conv.filters() * count,
        _ => 0,
    };
    let size = if types == Types::Lower { size_of::<u16>() } else { size_of::<f32>() };
    problems.into_iter().map(elements).sum::<usize>() * size
}
