//! Steps of a block that workers take beside each other, one each, instead of sharing every step: no waiting between them,
//! and each worker reads the weights of its own steps only; but the block takes as long as the worker that has most to
//! do.
//!
//! ```text
//! shared    every step by all workers                                          the sum of the steps' times
//! beside    some steps shared, of the rest each branch by one worker           that of the shared ones, and the longest worker's
//! ```
//!
//! Which steps go where is the best of all ways by the times of steps that one worker and that all workers take; blocks
//! where that is faster in the running network have it, unless others use the cores meanwhile.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::contest::{Entry, is_busy, least_of_two, two_in_turn};
use super::record::us;
use crate::choose::{Bounds, Chosen, Network, fits};
use crate::exact::Exact;
use crate::graph::Graph;
use crate::measure::{Measurement, Timing, widest_tie};
use crate::options::Failure;
use crate::plan::BlockBeside;
use crate::session::Session;
use crate::stats::ratio;

/// Steps of a block for which all ways are tried; a block with more is shared.
const STEPS: usize = 14;

/// Share of the time that is left for measuring in place, which this may take.
const SHARE: f64 = 0.2;
/// Comparisons in turn at least, for an interval, and at most.
const ROUNDS: [usize; 2] = [4, 12];

/// A graph of which the blocks that are faster so by more than a tie have steps beside each other, and what all that were
/// tried take; none are tried where there is no time for it.
///
/// # Errors
/// If steps can't be taken as they were assigned.
pub fn beside(
    network: &Network,
    measurements: &[Measurement],
    bounds: &Bounds,
    exact: &Exact,
) -> Result<(Graph, Vec<BlockBeside>), Failure> {
    let graph = network.graph;
    let workers = network.threads.count();
    let shared = || Ok((graph.clone(), Vec::new()));
    let start = Instant::now();
    let left = network.settled.map_or(Duration::ZERO, |end| end.saturating_duration_since(start));
    let time = left.mul_f64(SHARE);
    // What would be taken beside each other if that cost nothing.
    let [shared_each, alone_each] = [1.0, 0.0].map(|seconds| vec![seconds; graph.steps.len()]);
    let has_branches = || assigned(graph, &shared_each, &alone_each, workers).iter().any(Option::is_some);
    let is_short = time < least_of_two() * (1 + ROUNDS[0] as u32);
    if workers == 1 || is_short || !has_branches() {
        return shared();
    }
    let quick = Network { settled: None, ..*network };
    let Ok(Chosen { mut session, .. }) = quick.choose(measurements, bounds, exact) else { return shared() };
    let all_by_one: Vec<Option<usize>> =
        (0..graph.steps.len()).map(|step| (!graph.is_apart(step)).then_some(0)).collect();
    let began = Instant::now();
    let mut by_one = with_workers(&session, &all_by_one)?;
    let [of_all, of_one] = two_in_turn(network, &mut session, &mut by_one);
    drop(by_one);
    if began.elapsed() * ROUNDS[0] as u32 > time {
        return shared();
    }
    let one: Vec<f64> = of_one.steps.iter().map(|seconds| seconds * workers as f64).collect();
    let mut taken = assigned(graph, &of_all.steps, &one, workers);
    let mut list = Vec::new();
    let (blocks, is_busy) = compared(network, &mut session, &taken, start + time)?;
    for (block, samples) in blocks {
        let [shared, own] = &samples;
        let Some(versus) = ratio(own, shared) else { continue };
        let chosen = !is_busy && versus.is_gain(widest_tie(measurements));
        if !chosen {
            taken[graph.block_steps(block)].fill(None);
        }
        let shared_us = us(Timing::of(shared).median);
        let versus = [versus.value, versus.low, versus.high];
        list.push(BlockBeside { block: block.to_string(), shared_us, versus, chosen });
    }
    let other = with_workers(&session, &taken)?;
    if !fits(&other, network, bounds) {
        return shared();
    }
    Ok((other.graph().clone(), list))
}

/// Seconds of a block, round by round: with all steps shared, and with some beside each other.
type Compared<'a> = (&'a str, [Vec<f64>; 2]);

/// The blocks of which some steps are taken beside each other, in turn with all steps shared until the time is over; and
/// whether others used the cores.
fn compared<'a>(
    network: &Network<'a>,
    session: &mut Session,
    taken: &[Option<usize>],
    end: Instant,
) -> Result<(Vec<Compared<'a>>, bool), Failure> {
    let graph = network.graph;
    let mut blocks: Vec<Compared> = Vec::new();
    for block in graph.blocks() {
        if taken[graph.block_steps(block)].iter().any(Option::is_some) {
            blocks.push((block, [const { Vec::new() }; 2]));
        }
    }
    let mut other = with_workers(session, taken)?;
    let mut all = Vec::new();
    for round in 0..ROUNDS[1] {
        if blocks.is_empty() || round >= ROUNDS[0] && Instant::now() >= end {
            break;
        }
        let entries = two_in_turn(network, session, &mut other);
        for (block, samples) in &mut blocks {
            for (samples, Entry { steps, waits, .. }) in samples.iter_mut().zip(&entries) {
                let seconds = graph.block_steps(block).map(|step| steps[step] + waits[step]);
                samples.push(seconds.sum::<f64>());
            }
        }
        all.extend(entries);
    }
    Ok((blocks, is_busy(&all)))
}

fn cannot_be(graph: &Graph, step: usize) -> Failure {
    format!("step `{}`: it can't be taken beside others", graph.steps[step].layers[0]).into()
}

fn with_workers(session: &Session, workers: &[Option<usize>]) -> Result<Session, Failure> {
    session.with_workers(workers).map_err(|step| cannot_be(session.graph(), step))
}

/// For each step of a range, a bit for each step of it that it needs, directly or not.
fn needed(graph: &Graph, steps: &Range<usize>) -> Vec<u32> {
    let mut list: Vec<u32> = Vec::new();
    for step in &graph.steps[steps.clone()] {
        let before = &graph.steps[steps.start..steps.start + list.len()];
        let direct = before.iter().enumerate().filter(|(_, other)| other.writes(step.src.tensor));
        list.push(direct.fold(0, |bits, (index, _)| bits | 1 << index | list[index]));
    }
    list
}

/// How many parts of some steps, a bit each, do not need each other, as the bits of each.
fn parts(needed: &[u32], some: u32) -> Vec<u32> {
    let mut list: Vec<u32> = Vec::new();
    for (index, needed) in needed.iter().enumerate().filter(|(index, _)| some >> index & 1 == 1) {
        let (mine, others): (Vec<u32>, Vec<u32>) = list.iter().partition(|&&part| part & needed != 0);
        list = others;
        list.push(mine.into_iter().fold(1 << index, |bits, part| bits | part));
    }
    list
}

/// Whether nothing that is shared lies between two of some steps.
fn is_possible(needed: &[u32], some: u32) -> bool {
    let is_after = |index: usize| some >> index & 1 == 0 && needed[index] & some != 0;
    let after = (0..needed.len()).filter(|&index| is_after(index)).fold(0, |bits, index| bits | 1 << index);
    (0..needed.len()).all(|index| some >> index & 1 == 0 || needed[index] & after == 0)
}

/// The worker of each step that is taken beside others, where all take least time together, by the seconds of each step
/// that all workers share and of one that takes it alone.
fn assigned(graph: &Graph, shared: &[f64], one: &[f64], workers: usize) -> Vec<Option<usize>> {
    let mut list = vec![None; graph.steps.len()];
    for block in graph.blocks() {
        let steps = graph.block_steps(block);
        if steps.len() > STEPS || graph.is_apart(steps.start) {
            continue;
        }
        let needed = needed(graph, &steps);
        let ways = (0u32..1 << steps.len()).filter(|&some| is_possible(&needed, some));
        let (shared, one) = (&shared[steps.clone()], &one[steps.clone()]);
        let dealt = |some: u32| {
            let parts = parts(&needed, some);
            (parts.len() != 1).then(|| (some, deal(&parts, one, workers)))
        };
        let all = ways.filter_map(dealt).map(|(some, hands)| {
            let rest: f64 =
                (0..shared.len()).filter(|index| some >> index & 1 == 0).map(|index| shared[index]).sum();
            (rest + longest(&hands, one), hands)
        });
        let Some((_, hands)) = all.min_by(|(a, _), (b, _)| a.total_cmp(b)) else { continue };
        for (worker, hand) in hands.into_iter().enumerate() {
            for index in (0..steps.len()).filter(|index| hand >> index & 1 == 1) {
                list[steps.start + index] = Some(worker);
            }
        }
    }
    list
}

fn sum(some: u32, seconds: &[f64]) -> f64 {
    (0..seconds.len()).filter(|index| some >> index & 1 == 1).map(|index| seconds[index]).sum()
}

/// Deals parts to workers so that the longest hand is the least.
fn deal(parts: &[u32], one: &[f64], workers: usize) -> Vec<u32> {
    let mut best = (f64::INFINITY, vec![0; workers]);
    deal_rest(parts, one, &mut vec![0; workers], &mut best);
    best.1
}

/// The seconds of the longest hand.
fn longest(hands: &[u32], one: &[f64]) -> f64 {
    hands.iter().map(|hand| sum(*hand, one)).fold(0.0, f64::max)
}

/// Tries all ways to deal what is left; `best` is the best so far.
fn deal_rest(parts: &[u32], one: &[f64], hands: &mut Vec<u32>, best: &mut (f64, Vec<u32>)) {
    let so_far = longest(hands, one);
    if so_far >= best.0 {
        return;
    }
    let Some((part, rest)) = parts.split_first() else {
        *best = (so_far, hands.clone());
        return;
    };
    for worker in 0..hands.len() {
        let was_empty = hands[worker] == 0;
        hands[worker] |= part;
        deal_rest(rest, one, hands, best);
        hands[worker] &= !part;
        if was_empty {
            // The other empty hands would be the same.
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BLOCKS, Model};
    use crate::rewrite::{Rewrite, rewritten};
    use crate::weights::synthetic::unit;
    use kernels::problem::PoolKind;

    fn graph(block: &str) -> Graph {
        Graph::new(&Model::block(block).expect("a block"), 1, PoolKind::Average)
    }

    /// The layers of each worker's steps, and of the shared ones.
    fn hands(graph: &Graph, taken: &[Option<usize>]) -> Vec<Vec<String>> {
        let of = |worker| {
            let steps = graph.steps.iter().zip(taken).filter(|(_, own)| **own == worker);
            steps.map(|(step, _)| step.layers[0].clone()).collect()
        };
        vec![of(None), of(Some(0)), of(Some(1))]
    }

    #[test]
    fn branches_go_to_workers_where_sharing_takes_longer() {
        let graph = graph("mixed3");
        let count = graph.steps.len();
        // Sharing takes longer than taking a step alone.
        let taken = assigned(&graph, &vec![1.1; count], &vec![1.0; count], 2);
        let [shared, first, second] = hands(&graph, &taken).try_into().expect("three");
        assert!(shared.is_empty(), "{shared:?}");
        assert_eq!(first, ["mixed3.branch3x3", "mixed3.pool"]);
        assert_eq!(second, ["mixed3.branch3x3dbl_1", "mixed3.branch3x3dbl_2", "mixed3.branch3x3dbl_3"]);
        // Sharing halves each step exactly, and three do not go into two.
        let taken = assigned(&graph, &vec![0.5; count], &vec![1.0; count], 2);
        assert!(taken.iter().all(Option::is_none), "{taken:?}");
        // A chain has no branches.
        let stem = self::graph("stem");
        let ones = vec![1.0; stem.steps.len()];
        assert!(assigned(&stem, &ones, &ones, 2).iter().all(Option::is_none));
    }

    #[test]
    fn no_other_way_to_deal_has_a_shorter_longest_hand() {
        let parts = [1, 2, 4, 8, 16, 32];
        for (seed, workers) in (0..30).flat_map(|seed| [2, 3].map(|workers| (seed, workers))) {
            let one: Vec<f64> = (0..6).map(|i| unit(41, seed, i)).collect();
            let own = deal(&parts, &one, workers);
            assert_eq!(own.iter().fold(0, |all, hand| all | hand), 63, "{own:?}");
            let of = |way: usize| {
                let mut hands = vec![0; workers];
                (0..6).for_each(|i| hands[way / workers.pow(i) % workers] |= 1 << i);
                longest(&hands, &one)
            };
            let least = (0..workers.pow(6)).map(of).fold(f64::INFINITY, f64::min);
            assert!((longest(&own, &one) - least).abs() < 1e-12, "{own:?} for {least}");
        }
    }

    #[test]
    fn what_is_assigned_can_be_in_all_forms_of_all_blocks() {
        for (index, (block, _)) in BLOCKS.iter().enumerate() {
            for form in Rewrite::ALL {
                let Some(graph) = rewritten(&graph(block), block, form) else { continue };
                for workers in [2, 3, 5] {
                    let times = |stream: u64, scale: f64| -> Vec<f64> {
                        (0..graph.steps.len()).map(|i| scale * unit(stream, index as u64, i as u64)).collect()
                    };
                    let taken = assigned(&graph, &times(1, 1.0), &times(2, 1.2), workers);
                    let own =
                        graph.with_workers(&taken).unwrap_or_else(|step| panic!("{block} {form}: {step}"));
                    assert_eq!(own.steps.len(), graph.steps.len());
                }
            }
        }
    }
}
