//! Forms of blocks, types of tensors and kernels of steps together: the exact least sum of times.
//!
//! A block hands one tensor on to the next. So of each block it is enough to know what each of its
//! forms costs at least for each type of the tensor that it reads and of that it hands on, which
//! [`cheapest`] finds exactly; and block after block, for each type of the tensor handed on, the
//! fastest path there is kept (R. Bellman, "Dynamic Programming", 1957). What it leaves out are
//! bounds on error and memory, which only add to the time: its sum is a lower bound of all plans.

use engine::network::{
    BlockVariant, DTYPES, Graph, Precision, Step, TensorId, cheapest, may_be_u8, pairs, with_variant,
};
use kernels::Dtype;

use crate::measure::{CandidateResult, ProblemResult, of_step};
use crate::planner::ranking::{is_eligible, types_of};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockDp {
    pub forms: Vec<(&'static str, BlockVariant)>,
    /// Sum of the times of the fastest candidates.
    pub seconds: f64,
    /// The same, and what was laid on top of forms.
    weighed: f64,
}

/// What a step takes once that reads one type and writes another; nothing where it was not
/// measured, in f32.
fn seconds(measurements: &[ProblemResult], types: Precision, step: &Step, wanted: [Dtype; 2]) -> Option<f64> {
    let Some(measurement) = of_step(measurements, step) else {
        return (wanted == [Dtype::F32; 2]).then_some(0.0);
    };
    let admits =
        |c: &CandidateResult| is_eligible(c) && c.types().into_iter().all(|dtype| types.allows(dtype));
    let own = measurement.candidates.iter().filter(|c| admits(c) && c.types() == wanted);
    own.map(CandidateResult::seconds).filter(|seconds| seconds.is_finite()).min_by(f64::total_cmp)
}

/// The fastest forms, types and kernels of a plain graph, where `extra` is laid on top of each form
/// of a block. None where blocks hand on more than one tensor, or nothing computes a step.
pub fn cheapest_variants(
    graph: &Graph,
    measurements: &[ProblemResult],
    types: Precision,
    extra: impl Fn(&str, BlockVariant) -> f64,
) -> Option<BlockDp> {
    let mut paths = DTYPES.map(|_| Some(BlockDp::default()));
    let mut handed = graph.steps.first()?.src.tensor;
    for block in graph.blocks() {
        let ends = Ends::of(graph, block)?;
        if ends.reads != handed {
            return None;
        }
        let repeats = graph.repeats(graph.block_steps(block).start) as f64;
        let mut next: [Option<BlockDp>; DTYPES.len()] = Default::default();
        for rewrite in BlockVariant::ALL {
            let Some(form) = with_variant(graph, block, rewrite) else { continue };
            let steps = form.steps[form.block_steps(block)].to_vec();
            let part = Graph { steps, split: None, ..form };
            let extra = extra(block, rewrite);
            for (from, path) in DTYPES.iter().zip(&paths) {
                let Some(path) = path else { continue };
                for (to, best) in DTYPES.iter().zip(&mut next) {
                    let own = ends.least(&part, [*from, *to], |step, wanted| {
                        seconds(measurements, types, step, wanted)
                    });
                    let Some(own) = own else { continue };
                    let weighed = path.weighed + own * repeats + extra;
                    if best.as_ref().is_none_or(|best| weighed < best.weighed) {
                        let mut forms = path.forms.clone();
                        forms.push((block, rewrite));
                        *best = Some(BlockDp { forms, seconds: path.seconds + own * repeats, weighed });
                    }
                }
            }
        }
        paths = next;
        handed = ends.hands_on.unwrap_or(handed);
    }
    paths.into_iter().flatten().min_by(|a, b| a.weighed.total_cmp(&b.weighed))
}

/// The tensors at a block's ends.
struct Ends {
    reads: TensorId,
    /// What later blocks read; none of the last.
    hands_on: Option<TensorId>,
}

impl Ends {
    /// None where it reads or hands on several.
    fn of(graph: &Graph, block: &str) -> Option<Self> {
        let inside = |step: &&Step| step.block == block;
        let is_made_inside = |tensor| graph.steps.iter().filter(inside).any(|step| step.writes(tensor));
        let mut reads: Vec<_> = graph.steps.iter().filter(inside).map(|step| step.src.tensor).collect();
        reads.retain(|tensor| !is_made_inside(*tensor));
        let outside = graph.steps.iter().filter(|step| step.block != block);
        let mut hands_on: Vec<TensorId> = outside.map(|step| step.src.tensor).collect();
        hands_on.retain(|tensor| is_made_inside(*tensor));
        for list in [&mut reads, &mut hands_on] {
            list.sort_unstable();
            list.dedup();
        }
        (reads.len() == 1 && hands_on.len() <= 1)
            .then(|| Self { reads: reads[0], hands_on: hands_on.first().copied() })
    }

    fn least(
        &self,
        part: &Graph,
        [from, to]: [Dtype; 2],
        seconds: impl Fn(&Step, [Dtype; 2]) -> Option<f64>,
    ) -> Option<f64> {
        let cost = |index: usize, [src, dst]: [Dtype; 2]| {
            let step: &Step = &part.steps[index];
            let fits = (step.src.tensor != self.reads || src == from)
                && step.dst.iter().all(|slice| Some(slice.tensor) != self.hands_on || dst == to);
            fits.then(|| seconds(step, [src, dst]))?
        };
        least_sum(part, cost)
    }
}

/// What all steps cost by the types of tensors that cost least.
fn least_sum(graph: &Graph, cost: impl Fn(usize, [Dtype; 2]) -> Option<f64>) -> Option<f64> {
    let types = cheapest(graph, &cost)?;
    graph.steps.iter().enumerate().map(|(index, step)| cost(index, types_of(step, &types))).sum()
}

/// What the steps of a plain graph take where each has its fastest candidate that reads what those
/// before it have written: a choice layer by layer. None where none does any more.
pub fn layerwise(graph: &Graph, measurements: &[ProblemResult], types: Precision) -> Option<f64> {
    let mut known: Vec<Option<Dtype>> = vec![None; graph.tensors.len()];
    let may_be_u8 = may_be_u8(graph);
    let mut sum = 0.0;
    for (index, step) in graph.steps.iter().enumerate() {
        let fits = |tensor: TensorId, dtype| {
            (dtype != Dtype::U8 || may_be_u8[tensor]) && known[tensor].is_none_or(|known| known == dtype)
        };
        let paths = pairs().filter(|[src, dst]| {
            fits(step.src.tensor, *src) && step.dst.iter().all(|slice| fits(slice.tensor, *dst))
        });
        let timed = paths.filter_map(|path| Some((path, seconds(measurements, types, step, path)?)));
        let ([src, dst], least) = timed.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        sum += least * graph.repeats(index) as f64;
        known[step.src.tensor] = Some(src);
        step.dst.iter().for_each(|slice| known[slice.tensor] = Some(dst));
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use engine::network::{Model, problems};
    use engine::util::unit;
    use kernels::{Formats, PoolKind, Problem, Tuning};

    use super::*;

    /// Every problem with a candidate of each pair of types, whose times are drawn.
    fn measurements(graph: &Graph, seed: u64) -> Vec<ProblemResult> {
        let all = problems(graph).into_iter().enumerate();
        let measurement = |(index, (problem, _)): (usize, (Problem, _))| {
            let candidate = |(which, formats): (usize, &Formats)| {
                let seconds = 0.5 + unit(seed, index as u64, which as u64);
                CandidateResult::taking(seconds, "direct_plain", *formats, Tuning::default())
            };
            let candidates = Formats::ALL.iter().enumerate().map(candidate).collect();
            ProblemResult::of(problem, candidates)
        };
        all.map(measurement).collect()
    }

    #[test]
    fn forms_and_types_together_are_the_best_of_all() {
        let graph = Graph::new(&Model::block("mixed0").expect("a block"), 1, PoolKind::Average);
        for seed in 0..10 {
            let known = measurements(&graph, seed);
            for types in [Precision::F32, Precision::Bf16, Precision::Int8] {
                let found = cheapest_variants(&graph, &known, types, |_, _| 0.0).expect("a path");
                let of_form = |rewrite| {
                    let form = with_variant(&graph, "mixed0", rewrite)?;
                    let cost = |step: usize, pair| seconds(&known, types, &form.steps[step], pair);
                    least_sum(&form, cost)
                };
                let best = BlockVariant::ALL.into_iter().filter_map(of_form).min_by(f64::total_cmp);
                let best = best.expect("a form");
                assert!((found.seconds - best).abs() < 1e-9, "seed {seed}: {} for {best}", found.seconds);
                assert!(layerwise(&graph, &known, types).expect("a path") >= best - 1e-9);
            }
        }
    }

    #[test]
    fn blocks_of_the_network_hand_on_one_tensor_and_a_weight_keeps_forms_away() {
        let graph = Graph::new(&Model::inception_v3().with_classes(Some(10)), 1, PoolKind::Average);
        let known = measurements(&graph, 3);
        let free = cheapest_variants(&graph, &known, Precision::Bf16, |_, _| 0.0).expect("a path");
        assert!(free.forms.iter().any(|(_, rewrite)| *rewrite != BlockVariant::PLAIN));
        let extra = |_: &str, rewrite| if rewrite == BlockVariant::PLAIN { 0.0 } else { 100.0 };
        let plain = cheapest_variants(&graph, &known, Precision::Bf16, extra).expect("a path");
        assert!(plain.forms.iter().all(|(_, rewrite)| *rewrite == BlockVariant::PLAIN));
        assert!(plain.seconds >= free.seconds);
        let cost = |step: usize, pair| seconds(&known, Precision::Bf16, &graph.steps[step], pair);
        let whole = least_sum(&graph, cost).expect("a path");
        assert!((plain.seconds - whole).abs() < 1e-9, "{} in blocks, {whole} at once", plain.seconds);
    }
}
