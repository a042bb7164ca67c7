//! Chooses a form for each block of a graph, and a kernel for each step.

use engine::network::{Block, BlockVariant, Graph, Precision, Step, with_variant};

use crate::measure::{ProblemResult, of_step, widest_tie};
use crate::planner::block_dp::cheapest_variants;
use crate::planner::ranking::{is_eligible, winner};

/// The form of a block that was chosen, and what all its forms cost.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockChoice {
    pub block: &'static str,
    pub variant: BlockVariant,
    /// Its forms, the plain one first; seconds of the steps that differ, none without a winner.
    pub costs: Vec<(BlockVariant, Option<f64>)>,
}

/// For every block with several forms the one whose winners take the least time together; the plain
/// one where no other gains more than what counts as a tie.
fn choose_forms(graph: &Graph, measurements: &[ProblemResult]) -> Vec<BlockChoice> {
    let seconds = |step: &Step| Some(winner(of_step(measurements, step)?, is_eligible)?.timing()?.median);
    let tie = widest_tie(measurements);
    let choose = |block: Block| {
        let cost = |steps: &[Step]| steps.iter().map(seconds).sum::<Option<f64>>();
        let costs: Vec<_> = block.forms.iter().map(|(rewrite, steps)| (*rewrite, cost(steps))).collect();
        let known = costs.iter().filter_map(|(rewrite, cost)| Some((*rewrite, (*cost)?)));
        let best = known.min_by(|(_, a), (_, b)| a.total_cmp(b));
        let rewrite = match (best, costs[0].1) {
            (Some((best, cost)), Some(plain)) if cost * (1.0 + tie) < plain => best,
            _ => BlockVariant::PLAIN,
        };
        BlockChoice { block: block.name, variant: rewrite, costs }
    };
    Block::all(graph).into_iter().map(choose).collect()
}

/// As [`choose_forms`], by what forms cost together with the types of all tensors.
pub fn choose_variants(graph: &Graph, measurements: &[ProblemResult], types: Precision) -> Vec<BlockChoice> {
    let mut list = choose_forms(graph, measurements);
    let tie = widest_tie(measurements);
    let repeats = |block: &str| graph.repeats(graph.block_steps(block).start) as f64;
    // What does not gain more than a tie stays plain.
    let extra = |block: &str, rewrite: BlockVariant| {
        let choice = list.iter().find(|c| c.block == block).filter(|_| rewrite != BlockVariant::PLAIN);
        let own = choice.and_then(|choice| choice.costs.iter().find(|(form, _)| *form == rewrite)?.1);
        own.unwrap_or(0.0) * tie * repeats(block)
    };
    if let Some(best) = cheapest_variants(graph, measurements, types, extra) {
        for (block, rewrite) in best.forms {
            list.iter_mut().filter(|choice| choice.block == block).for_each(|c| c.variant = rewrite);
        }
    }
    list
}

/// A plain graph with its blocks in the chosen forms, which they must have.
pub fn in_forms(graph: &Graph, choices: &[BlockChoice]) -> Graph {
    choices.iter().fold(graph.clone(), |graph, choice| {
        with_variant(&graph, choice.block, choice.variant).expect("a form of the block")
    })
}

#[cfg(test)]
mod tests {
    use crate::measure::CandidateResult;
    use engine::network::{Model, problems};
    use kernels::{Epilogue, Formats, PoolKind, Problem, Tuning};

    use super::*;

    /// Every problem of mixed0 with one candidate, which takes a second, or what is said.
    fn measurements(graph: &Graph, seconds: impl Fn(&Problem) -> f64) -> Vec<ProblemResult> {
        let measurement = |problem: Problem| {
            let seconds = seconds(&problem);
            let candidate = CandidateResult::taking(seconds, "direct_plain", Formats::F32, Tuning::default());
            ProblemResult::of(problem, vec![candidate])
        };
        problems(graph).into_iter().map(|(problem, _)| measurement(problem)).collect()
    }

    fn graph() -> Graph {
        Graph::new(&Model::block("mixed0").expect("a block"), 1, PoolKind::Average)
    }

    #[test]
    fn the_cheapest_form_is_chosen_and_ties_stay_plain() {
        let graph = graph();
        // Three siblings, a pool and the convolution behind it.
        let choose = |siblings: f64, pool: f64| {
            let seconds = |problem: &Problem| match problem {
                Problem::Conv(conv) => {
                    conv.segments.len() as f64 * if conv.segments.len() > 1 { siblings } else { 1.0 }
                }
                Problem::Pool(p) if p.epilogue != Epilogue::NONE => pool,
                _ => 1.0,
            };
            let choices = choose_forms(&graph, &measurements(&graph, seconds));
            assert_eq!(choices.len(), 1);
            let costs: Vec<f64> = choices[0].costs.iter().map(|(_, cost)| cost.expect("measured")).collect();
            assert_eq!(costs[0], 5.0);
            assert_eq!(costs[3], 4.0 * siblings + pool);
            (choices[0].variant, in_forms(&graph, &choices).steps.len())
        };
        let [plain, siblings, swap, both] = BlockVariant::ALL;
        assert_eq!(choose(1.0, 1.0), (plain, 8));
        assert_eq!(choose(0.99, 0.995), (plain, 8));
        assert_eq!(choose(0.97, 1.2), (siblings, 6));
        assert_eq!(choose(1.1, 0.5), (swap, 8));
        assert_eq!(choose(0.9, 0.9), (both, 5));
    }

    #[test]
    fn a_form_that_was_not_measured_is_not_chosen() {
        let graph = graph();
        let mut known = measurements(&graph, |_| 1.0);
        known.retain(|m| !matches!(&m.problem, Problem::Conv(conv) if conv.segments.len() > 1));
        let choices = choose_forms(&graph, &known);
        assert_eq!((choices[0].variant, choices[0].costs[1].1), (BlockVariant::PLAIN, None));
        assert_eq!(choose_forms(&graph, &[])[0].costs[0].1, None);
    }
}
