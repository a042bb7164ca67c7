//! Where a batch is split: of blocks that take image by image, all workers together or each its
//! own, and of those that take all at once, which is faster in the running network.

use std::iter::zip;
use std::time::Instant;

use engine::network::Graph;
use engine::plan::PlanSplit;
use engine::runtime::PreparedNetwork;

use crate::planner::compare::{NetworkTime, compare};
use crate::planner::context::Network;
use crate::planner::error::PlannerError;
use crate::planner::forms::{choose_variants, in_forms};

const IMAGES: usize = 1;

/// The graph with all of its steps for one image.
pub fn split_all(graph: &Graph) -> Graph {
    graph.split_before("", IMAGES)
}

/// Splits a batch at the block from where on all images at once are faster. Runs networks without
/// and with a split, chosen by isolated times, and adds up the blocks' times. The network that
/// takes all images at once comes with it, if it is not chosen.
pub fn split(network: &Network) -> Result<(Option<PlanSplit>, Graph, Option<PreparedNetwork>), PlannerError> {
    let whole = network.graph.clone();
    let blocks = whole.blocks();
    if whole.batch <= IMAGES || blocks.len() < 2 {
        return Ok((None, whole, None));
    }
    let choose = |graph: Graph| {
        let forms = choose_variants(&graph, network.measurements, network.precision());
        let graph = in_forms(&graph, &forms);
        let quick = Network { graph: &graph, in_network_until: None, ..*network };
        Ok::<PreparedNetwork, PlannerError>(quick.choose()?.session)
    };
    let (Ok(mut at_once), Ok(single)) = (choose(whole.clone()), choose(split_all(&whole))) else {
        return Ok((None, whole, None));
    };
    let mut splits = vec![(false, single)];
    if network.threads.count() > 1
        && let Ok(per_worker) = choose(split_all(&whole).per_worker())
    {
        splits.push((true, per_worker));
    }
    let others = splits.iter_mut().map(|(_, session)| session);
    let sessions: Vec<&mut PreparedNetwork> = std::iter::once(&mut at_once).chain(others).collect();
    let count = sessions.len();
    let times = compare(network, sessions, count, Instant::now());
    let with_waits = |time: &NetworkTime| zip(&time.steps, &time.waits).map(|(s, wait)| s + wait).collect();
    let seconds: Vec<Vec<f64>> = times.iter().map(with_waits).collect();
    let of_blocks = |session: &PreparedNetwork, seconds: &[f64]| -> Vec<f64> {
        blocks.iter().map(|block| seconds[session.graph().block_steps(block)].iter().sum()).collect()
    };
    let at_once_blocks = of_blocks(&at_once, &seconds[0]);
    let counts = splits.iter().zip(&seconds[1..]).map(|((per_worker, session), seconds)| {
        let (count, total) = best_count(&of_blocks(session, seconds), &at_once_blocks);
        (*per_worker, count, total)
    });
    let best = counts.min_by(|(.., a), (.., b)| a.total_cmp(b)).filter(|(_, count, _)| *count > 0);
    let Some((per_worker, count, _)) = best else { return Ok((None, whole, None)) };
    let before = blocks.get(count).map(ToString::to_string);
    let graph = whole.split_before(before.as_deref().unwrap_or_default(), IMAGES);
    let graph = if per_worker { graph.per_worker() } else { graph };
    Ok((Some(PlanSplit { before, images: IMAGES, per_worker }), graph, Some(at_once)))
}

/// How many of the first blocks take single images where that is fastest, and the seconds of all.
fn best_count(single: &[f64], at_once: &[f64]) -> (usize, f64) {
    let total = |count: usize| single[..count].iter().chain(&at_once[count..]).sum::<f64>();
    let all = (0..=single.len()).map(|count| (count, total(count)));
    all.min_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap_or((0, 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_split_where_both_parts_together_are_fastest() {
        assert_eq!(best_count(&[1.0, 2.0, 5.0], &[2.0, 2.5, 3.0]), (2, 6.0));
        assert_eq!(best_count(&[3.0, 1.0], &[1.0, 2.0]), (0, 3.0));
        assert_eq!(best_count(&[3.0, 1.0], &[1.0, 4.0]), (2, 4.0));
        assert_eq!(best_count(&[1.0], &[1.0]), (0, 1.0));
    }
}
