//! What the cores read in a second: from each cache, and from the memory.

use std::sync::{Mutex, PoisonError};

use engine::plan::BandwidthRecord;
use engine::runtime::Threads;
use engine::runtime::memory::ensure_more;
use kernels::arch::pages::prefer_huge_pages;
use kernels::bandwidth::Reader;
use kernels::cpu::Caches;
use kernels::{Cpu, Team};

use crate::bench::policy::{BandwidthPolicy, POLICY};
use crate::bench::topology::Topology;

/// A cache line: bytes that begin elsewhere are read more slowly.
const LINE: usize = 64;

/// Bytes that each of so many workers reads, of each level from L1 to the memory:
/// half of its share of a cache, and of the memory a multiple of the last caches.
pub fn sizes(caches: &Caches, topology: &Topology, workers: usize) -> [Option<usize>; 4] {
    let BandwidthPolicy { kept, beyond, memory, memory_bytes: [least, most], .. } = POLICY.bandwidth;
    let sharers = |level: usize| {
        let unknown = if level == 3 { workers } else { 1 };
        topology.sharers(level).unwrap_or(unknown).clamp(1, workers)
    };
    let share = |bytes: usize, level: usize| bytes / sharers(level);
    let [l1, l2, l3] = [share(caches.l1d, 1), share(caches.l2, 2), share(caches.l3, 3)];
    let all_l3 = caches.l3 * topology.instances(3).unwrap_or(1).min(workers);
    // A cache that is no larger than the next nearer one has nothing that this has not.
    let of_cache = |bytes: usize, nearer: usize| {
        let bytes = bytes / kept;
        (bytes as f64 >= beyond * nearer as f64).then_some(bytes)
    };
    let of_memory = (memory * all_l3).clamp(least, most) / workers;
    [of_cache(l1, 0), of_cache(l2, l1), of_cache(l3, l2), Some(of_memory)]
}

/// What a core reads while all workers read so many bytes each: the mean, in the best of some rounds.
pub fn bandwidth(cpu: &Cpu, threads: &Threads, sizes: [Option<usize>; 4]) -> BandwidthRecord {
    let BandwidthPolicy { sample, rounds, .. } = POLICY.bandwidth;
    // Where memory is short, it is for what is tuned.
    let is_there = |bytes: &usize| ensure_more("bandwidth", (2 * bytes * threads.count()) as u128, 0).is_ok();
    let sizes = sizes.map(|bytes| bytes.filter(is_there));
    let most = sizes.into_iter().flatten().max().unwrap_or(0);
    let workers = Mutex::new(Vec::new());
    threads.region(&mut Team::new(threads.count()), |member| {
        let (memory, start) = touched(most);
        let read = |bytes: usize| {
            let mut reader = Reader::new(&memory[start..start + bytes]);
            let round = |_| {
                member.wait();
                reader.rate(cpu, sample)
            };
            (0..rounds).map(round).collect::<Vec<f64>>()
        };
        let rates = sizes.map(|bytes| bytes.map_or(Vec::new(), read));
        workers.lock().unwrap_or_else(PoisonError::into_inner).push(rates);
    });
    let workers = workers.into_inner().unwrap_or_else(PoisonError::into_inner);
    let best = |level: usize| {
        let mean = |round: usize| {
            let rates = workers.iter().map(|rates| rates[level].get(round).copied());
            Some(rates.sum::<Option<f64>>()? / workers.len() as f64)
        };
        (0..rounds).filter_map(mean).reduce(f64::max).filter(|rate| *rate > 0.0)
    };
    BandwidthRecord::of(std::array::from_fn(|level| Some((best(level)? / 1e8).round() / 10.0)))
}

/// Memory of the calling thread, and where its first cache line begins. All of it is written: pages
/// that nobody has written may be one and the same.
fn touched(bytes: usize) -> (Vec<u8>, usize) {
    let mut memory = vec![0; bytes + LINE];
    prefer_huge_pages(&mut memory);
    memory.fill(1);
    let start = memory.as_ptr().align_offset(LINE).min(LINE);
    (memory, start)
}

#[cfg(test)]
mod tests {
    use engine::plan::MemoryLevel;

    use super::*;

    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;

    fn caches(l1d: usize, l2: usize, l3: usize) -> Caches {
        Caches { l1d, l2, l3 }
    }

    #[test]
    fn a_worker_reads_half_of_its_share_of_a_cache_and_far_more_than_all_of_the_memory() {
        let of = |workers| sizes(&caches(32 * KIB, MIB, 32 * MIB), &Topology::default(), workers);
        assert_eq!(of(1), [16 * KIB, 512 * KIB, 16 * MIB, 128 * MIB].map(Some));
        assert_eq!(of(4), [16 * KIB, 512 * KIB, 4 * MIB, 32 * MIB].map(Some));
        // The share of one of 16 is no larger than its L2.
        assert_eq!(of(16)[2..], [None, Some(8 * MIB)]);
        let of = |l3| sizes(&caches(32 * KIB, MIB, l3), &Topology::default(), 1)[3];
        assert_eq!([MIB, 1 << 30].map(of), [64 * MIB, 512 * MIB].map(Some));
    }

    #[test]
    fn levels_that_are_asked_for_are_measured() {
        for workers in [1, 2] {
            let threads = Threads::new(workers).expect("threads");
            let sizes = [Some(16 * KIB), None, None, Some(8 * MIB)];
            let found = threads.install(|| bandwidth(&Cpu::detect(), &threads, sizes));
            let rates = MemoryLevel::ALL.map(|level| found.get(level));
            assert_eq!(rates.map(|rate| rate.is_some()), [true, false, false, true]);
            // No core of the last decades reads less than 100 MB in a second, or more than 10 TB.
            assert!(rates.into_iter().flatten().all(|rate| (0.1..10_000.0).contains(&rate)), "{found:?}");
        }
    }
}
