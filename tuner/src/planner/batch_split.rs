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
use crate::planner::forms::{BlockChoice, choose_variants, in_forms};
use crate::planner::search::Chosen;

const IMAGES: usize = 1;

/// The graph with all of its steps for one image.
pub fn split_all(graph: &Graph) -> Graph {
    graph.split_before("", IMAGES)
}

/// How a batch is taken.
pub struct Batch<'m> {
    /// The graph, split as it says.
    pub graph: Graph,
    pub split: Option<PlanSplit>,
    /// Where it is split: all images at once, chosen by isolated times, and the block variants of
    /// that.
    pub at_once: Option<(Chosen<'m>, Vec<BlockChoice>)>,
}

/// Splits a batch at the block from where on all images at once are faster. Runs networks without
/// and with a split, chosen by isolated times, and adds up the blocks' times.
pub fn split<'m>(network: &Network<'_, 'm>) -> Result<Batch<'m>, PlannerError> {
    let whole = network.graph.clone();
    let blocks = whole.blocks();
    let at_once = |graph: Graph| Ok(Batch { graph, split: None, at_once: None });
    if whole.batch <= IMAGES || blocks.len() < 2 {
        return at_once(whole);
    }
    let choose = |graph: Graph| {
        let forms = choose_variants(&graph, network.measurements, network.precision());
        let graph = in_forms(&graph, &forms);
        let quick = Network { graph: &graph, in_network_until: None, ..*network };
        Ok::<_, PlannerError>((quick.choose()?, forms))
    };
    let (Ok((mut whole_batch, forms)), Ok((single, _))) = (choose(whole.clone()), choose(split_all(&whole)))
    else {
        return at_once(whole);
    };
    let mut splits = vec![(false, single)];
    if network.threads.count() > 1
        && let Ok((per_worker, _)) = choose(split_all(&whole).per_worker())
    {
        splits.push((true, per_worker));
    }
    let others = splits.iter_mut().map(|(_, chosen)| &mut chosen.session);
    let sessions: Vec<&mut PreparedNetwork> =
        std::iter::once(&mut whole_batch.session).chain(others).collect();
    let times = compare(network, sessions, Instant::now());
    let with_waits = |time: &NetworkTime| zip(&time.steps, &time.waits).map(|(s, wait)| s + wait).collect();
    let seconds: Vec<Vec<f64>> = times.iter().map(with_waits).collect();
    let of_blocks = |session: &PreparedNetwork, seconds: &[f64]| -> Vec<f64> {
        blocks.iter().map(|block| seconds[session.graph().block_steps(block)].iter().sum()).collect()
    };
    let at_once_blocks = of_blocks(&whole_batch.session, &seconds[0]);
    let counts = splits.iter().zip(&seconds[1..]).map(|((per_worker, chosen), seconds)| {
        let (count, total) = best_count(&of_blocks(&chosen.session, seconds), &at_once_blocks);
        (*per_worker, count, total)
    });
    let best = counts.min_by(|(.., a), (.., b)| a.total_cmp(b)).filter(|(_, count, _)| *count > 0);
    let Some((per_worker, count, _)) = best else { return at_once(whole) };
    let before = blocks.get(count).map(ToString::to_string);
    let graph = whole.split_before(before.as_deref().unwrap_or_default(), IMAGES);
    let graph = if per_worker { graph.per_worker() } else { graph };
    let split = Some(PlanSplit { before, images: IMAGES, per_worker });
    Ok(Batch { graph, split, at_once: Some((whole_batch, forms)) })
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
