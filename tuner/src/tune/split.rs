//! Where a batch is split: of blocks that take image by image and of those that take all at once, which is faster in
//! the running network.

use std::time::Instant;

use super::contest::contest;
use crate::choose::{Bounds, Network};
use crate::exact::Exact;
use crate::graph::Graph;
use crate::measure::Measurement;
use crate::options::Failure;
use crate::plan::PlanSplit;
use crate::planner::{choose_forms_and_types, in_forms};
use crate::session::Session;
use crate::types::Types;

/// What the network that takes all images at once is called beside one that does not.
pub const AT_ONCE: &str = "tuned alone, all images at once";

/// Images that are taken at a time.
const IMAGES: usize = 1;

/// The graph with all of its steps for one image.
pub fn split_all(graph: &Graph) -> Graph {
    graph.split_before("", IMAGES)
}

/// Splits a batch at the block from where on all images at once are faster: runs the network both ways, chosen by
/// times alone, and adds up the blocks' times. The network that takes all at once comes with it, if it is not chosen.
///
/// # Errors
/// If no network keeps the bounds.
pub fn split(
    network: &Network,
    measurements: &[Measurement],
    bounds: &Bounds,
    exact: &Exact,
) -> Result<(Option<PlanSplit>, Graph, Option<Session>), Failure> {
    let whole = network.graph.clone();
    let blocks = whole.blocks();
    if whole.batch <= IMAGES || blocks.len() < 2 {
        return Ok((None, whole, None));
    }
    let choose = |graph: Graph| {
        let graph =
            in_forms(&graph, &choose_forms_and_types(&graph, measurements, Types::within(bounds.error)));
        let quick = Network { graph: &graph, settled: None, ..*network };
        Ok::<Session, Failure>(quick.choose(measurements, bounds, exact)?.session)
    };
    let (Ok(mut at_once), Ok(mut single)) = (choose(whole.clone()), choose(split_all(&whole))) else {
        return Ok((None, whole, None));
    };
    let entries = vec![(String::new(), &mut at_once), (String::new(), &mut single)];
    let [at_once_seconds, single_seconds] = {
        let entries = contest(network, entries, 2, Instant::now());
        [0, 1].map(|entry: usize| entries[entry].steps.clone())
    };
    let of_blocks = |session: &Session, seconds: &[f64]| -> Vec<f64> {
        let steps = &session.graph().steps;
        let of = |name: &&str| {
            steps.iter().zip(seconds).filter(|(step, _)| step.block == *name).map(|(_, s)| s).sum()
        };
        blocks.iter().map(of).collect()
    };
    let at_once_blocks = of_blocks(&at_once, &at_once_seconds);
    let count = best_count(&of_blocks(&single, &single_seconds), &at_once_blocks);
    if count == 0 {
        return Ok((None, whole, None));
    }
    let before = blocks.get(count).map(ToString::to_string);
    let graph = whole.split_before(before.as_deref().unwrap_or_default(), IMAGES);
    Ok((Some(PlanSplit { before, images: IMAGES }), graph, Some(at_once)))
}

/// How many of the first blocks take single images where that is fastest.
fn best_count(single: &[f64], at_once: &[f64]) -> usize {
    let total = |count: usize| single[..count].iter().chain(&at_once[count..]).sum::<f64>();
    (0..=single.len()).min_by(|&a, &b| total(a).total_cmp(&total(b))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_split_where_both_parts_together_are_fastest() {
        assert_eq!(best_count(&[1.0, 2.0, 5.0], &[2.0, 2.5, 3.0]), 2);
        assert_eq!(best_count(&[3.0, 1.0], &[1.0, 2.0]), 0);
        assert_eq!(best_count(&[3.0, 1.0], &[1.0, 4.0]), 2);
        assert_eq!(best_count(&[1.0], &[1.0]), 0);
    }
}
