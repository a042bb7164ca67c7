//! From where a network's weights come when their layer has its turn again: the cache that the cores share, or memory.

use std::hint::black_box;
use std::time::Instant;

use kernels::arch::cache::{can_demote, demote, evict};
use kernels::problem::Problem;
use kernels::team::Team;
use serde::{Deserialize, Serialize};

use crate::threads::Threads;
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

/// Floats that each worker reads to learn the pace of the shared cache and of memory: more than a core's own caches.
const NEAR: usize = 1 << 21;
/// Times that each is read; the fastest counts.
const READS: usize = 3;

impl Cold {
    /// Where so many bytes are that all workers read again and again, each its share: where their pace is nearer to that
    /// of the shared cache, or to that of memory.
    pub fn of(bytes: usize, threads: &Threads) -> Self {
        if !can_demote() {
            return Self::Memory;
        }
        let mut team = Team::new(threads.count());
        let near = vec![1.0; NEAR * threads.count()];
        let all = vec![1.0; bytes.div_ceil(size_of::<f32>()).max(1)];
        let mut pace = |values: &[f32], prepare: &(dyn Fn(&[f32]) + Sync)| {
            let seconds = (0..READS).map(|_| read(values, prepare, threads, &mut team));
            seconds.fold(f64::INFINITY, f64::min) / values.len() as f64
        };
        let [shared, memory, own] = [pace(&near, &demote), pace(&near, &evict), pace(&all, &|_| {})];
        if own * own < shared * memory { Self::Shared } else { Self::Memory }
    }

    /// As cold as that.
    pub fn chill(self, values: &[f32]) {
        match self {
            Self::Memory => evict(values),
            Self::Shared => demote(values),
        }
    }
}

/// Seconds in which all workers read values, after each has prepared its share.
fn read(values: &[f32], prepare: &(dyn Fn(&[f32]) + Sync), threads: &Threads, team: &mut Team) -> f64 {
    let share = |worker: usize, workers: usize| {
        &values[values.len() * worker / workers..values.len() * (worker + 1) / workers]
    };
    let workers = threads.count();
    threads.region(team, |member| prepare(share(member.index(), workers)));
    let start = Instant::now();
    threads.region(team, |member| {
        // Four sums, so that none waits for the one before.
        let sums = share(member.index(), workers)
            .chunks_exact(64)
            .fold([0.0f32; 4], |[a, b, c, d], four| [a + four[0], b + four[16], c + four[32], d + four[48]]);
        black_box(sums);
    });
    start.elapsed().as_secs_f64()
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
