//! Which steps of a block go to which worker, and which are shared: the best of all ways, by what each step takes so and so.

use std::ops::Range;

use crate::graph::Graph;

/// Steps of a block for which all ways are tried; a block with more is shared.
const STEPS: usize = 14;

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
pub fn assigned(graph: &Graph, shared: &[f64], one: &[f64], workers: usize) -> Vec<Option<usize>> {
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

/// What steps take where some are taken by one worker each, by the seconds of each that all share and of one alone.
pub fn total(taken: &[Option<usize>], shared: &[f64], one: &[f64], workers: usize) -> f64 {
    let of = |own: Option<usize>, seconds: &[f64]| {
        let some = taken.iter().zip(seconds).filter(|(worker, _)| **worker == own);
        some.map(|(_, seconds)| seconds).sum::<f64>()
    };
    of(None, shared) + (0..workers).map(|worker| of(Some(worker), one)).fold(0.0, f64::max)
}

/// What no way of taking steps can be below: each in the way that costs the workers least, without waiting.
pub fn bound(shared: &[f64], one: &[f64], workers: usize) -> f64 {
    shared.iter().zip(one).map(|(shared, one)| shared.min(one / workers as f64)).sum()
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
    fn what_is_assigned_takes_the_least_of_all_ways_and_no_less_than_the_bound() {
        for (block, seed) in
            ["mixed3", "mixed8"].into_iter().flat_map(|block| (0..8).map(move |s| (block, s)))
        {
            let graph = graph(block);
            let count = graph.steps.len();
            let times = |stream: u64, low: f64| -> Vec<f64> {
                (0..count).map(|i| low + unit(43, 2 * seed + stream, i as u64)).collect()
            };
            let (shared, one) = (times(0, 0.2), times(1, 0.6));
            let taken = assigned(&graph, &shared, &one, 2);
            let own = total(&taken, &shared, &one, 2);
            let all = (0..3usize.pow(count as u32)).map(|way| {
                let of = |step: usize| (way / 3usize.pow(step as u32) % 3).checked_sub(1);
                (0..count).map(of).collect::<Vec<_>>()
            });
            let possible = all.filter(|taken| graph.with_workers(taken).is_ok());
            let least = possible.map(|taken| total(&taken, &shared, &one, 2)).fold(f64::INFINITY, f64::min);
            assert!(
                (own - least).abs() < 1e-12,
                "{block} {seed}: {taken:?} takes {own}, the least is {least}"
            );
            assert!(own >= bound(&shared, &one, 2));
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
