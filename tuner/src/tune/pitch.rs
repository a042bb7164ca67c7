//! How far apart the pixels of each tensor lie: neighbouring pixels of many channels may fall into the same sets of a cache,
//! and those with a line between do not, but take more of it. A rule says which is meant to be better
//! ([`crate::session::pixel_pitch`]); here the other way is tried in the running network.
//!
//! All tensors are tried at once: a random half of them lies the other way in one network, the rest in another, and for each
//! tensor the two are compared by the steps that read or write it. What the others do differs from pair to pair and
//! cancels out.

use std::time::Instant;

use kernels::Shape;
use kernels::tensor::Placement;

use super::contest::{is_busy, least_of_two, two_in_turn};
use crate::choose::{Bounds, Network, fits};
use crate::graph::{Graph, Pitches, TensorId};
use crate::plan::TensorPitch;
use crate::session::{Session, pixel_pitch};
use crate::stats::{Interval, ratio};
use crate::weights::synthetic::unit;

/// Share of the time that is left, which this may take.
const SHARE: f64 = 0.3;
/// Pairs of networks at least, and at most.
const PAIRS: [usize; 2] = [6, 16];
/// Comparisons of the whole network at last, at least and at most.
const ROUNDS: [usize; 2] = [3, 6];
/// Channels of tensors that are tried: those of fewer are dense.
const CHANNELS: usize = 16;

/// The network with tensors the other way where that is faster by more than a tie, and what was tried; none where there
/// is no time for it.
pub fn pitches(
    network: &Network,
    session: &mut Session,
    bounds: &Bounds,
    tie: f64,
    end: Instant,
) -> (Option<Session>, Vec<TensorPitch>) {
    let start = Instant::now();
    let time = end.saturating_duration_since(start).mul_f64(SHARE);
    let end = start + time;
    if time < least_of_two() * PAIRS[0] as u32 {
        return (None, Vec::new());
    }
    let graph = session.graph().clone();
    let tensors: Vec<TensorId> =
        (0..graph.tensors.len()).filter(|&tensor| is_tried(&graph, tensor)).collect();
    let others: Vec<Pitches> =
        session.tensors().iter().zip(&graph.tensors).map(|(at, shape)| other(at, shape)).collect();
    let with = |session: &Session, is_other: &dyn Fn(TensorId) -> bool| {
        let own = |tensor: TensorId| if is_other(tensor) { others[tensor] } else { Pitches::ByRule };
        session.with_pitches(&(0..graph.tensors.len()).map(own).collect::<Vec<_>>())
    };
    let mut samples = vec![[const { Vec::new() }; 2]; graph.tensors.len()];
    for pair in 0..PAIRS[1] {
        let began = Instant::now();
        let is_first = |tensor: TensorId| unit(37, pair as u64, tensor as u64) < 0.5;
        let is_tried = |tensor: TensorId| tensors.contains(&tensor);
        let mut first = with(session, &|tensor| is_tried(tensor) && is_first(tensor));
        let mut second = with(session, &|tensor| is_tried(tensor) && !is_first(tensor));
        let times = two_in_turn(network, &mut first, &mut second);
        for &tensor in &tensors {
            let of = |entry: usize| {
                (graph.steps.iter().zip(&times[entry].steps))
                    .filter(|(step, _)| step.uses(tensor))
                    .map(|(_, seconds)| seconds)
                    .sum::<f64>()
            };
            let [rule, other] = &mut samples[tensor];
            let (lies_other, lies_so) = if is_first(tensor) { (of(0), of(1)) } else { (of(1), of(0)) };
            rule.push(lies_so);
            other.push(lies_other);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left < began.elapsed() * PAIRS[0].saturating_sub(pair + 1).max(1) as u32 {
            break;
        }
    }
    let tried = tensors.iter().filter_map(|&tensor| {
        let [rule, other] = &samples[tensor];
        Some((tensor, ratio(other, rule).filter(|_| rule.len() >= PAIRS[0])?))
    });
    let tried: Vec<(TensorId, Interval)> = tried.collect();
    let chosen: Vec<TensorId> =
        tried.iter().filter(|(_, versus)| versus.is_gain(tie)).map(|(t, _)| *t).collect();
    let mut better = (!chosen.is_empty()).then(|| with(session, &|tensor| chosen.contains(&tensor)));
    if let Some(other) = &mut better {
        let (mut samples, mut disturbed) = ([const { Vec::new() }; 2], Vec::new());
        for round in 0..ROUNDS[1] {
            if round >= ROUNDS[0] && Instant::now() >= end {
                break;
            }
            let times = two_in_turn(network, session, other);
            samples.iter_mut().zip(&times).for_each(|(samples, entry)| samples.push(entry.timing.median));
            disturbed.push(times[0].disturbed);
        }
        if is_busy(&disturbed) || ratio(&samples[1], &samples[0]).is_none_or(|versus| versus.high >= 1.0) {
            better = None;
        }
    }
    better = better.filter(|other| fits(other, network, bounds));
    let placements = better.as_ref().unwrap_or(session).tensors();
    let list = tried.into_iter().map(|(tensor, Interval { value, low, high })| TensorPitch {
        of: name(&graph, tensor),
        channels: graph.tensors[tensor].c,
        pixel_pitch: placements[tensor].pitch.pixel,
        rule: pixel_pitch(graph.tensors[tensor].c, placements[tensor].dtype, Pitches::ByRule),
        versus: [value, low, high],
    });
    let list = list.collect();
    (better, list)
}

/// Tensors that steps write; those of one pixel have no neighbours.
fn is_tried(graph: &Graph, tensor: TensorId) -> bool {
    let shape = graph.tensors[tensor];
    shape.c > CHANNELS && shape.h * shape.w > 1 && graph.steps.iter().any(|step| step.writes(tensor))
}

/// What the rule does not say.
fn other(at: &Placement, shape: &Shape) -> Pitches {
    let by_rule = pixel_pitch(shape.c, at.dtype, Pitches::ByRule);
    if by_rule == shape.c { Pitches::Padded } else { Pitches::Dense }
}

/// The first layer that writes a tensor.
fn name(graph: &Graph, tensor: TensorId) -> String {
    let written = graph.steps.iter().flat_map(|step| step.layers.iter().zip(&step.dst));
    let first = written.into_iter().find(|(_, dst)| dst.tensor == tensor);
    first.map_or(String::new(), |(layer, _)| layer.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BLOCKS, Model};
    use kernels::problem::PoolKind;

    #[test]
    fn tensors_are_named_by_a_layer_that_writes_them() {
        let blocks = BLOCKS.iter().map(|(block, _)| Model::block(block).expect("a block"));
        for model in blocks.chain([Model::inception_v3(Some(10))]) {
            let graph = Graph::new(&model, 1, PoolKind::Average);
            let tried: Vec<TensorId> =
                (0..graph.tensors.len()).filter(|&tensor| is_tried(&graph, tensor)).collect();
            assert!(!tried.is_empty(), "{model}");
            for tensor in tried {
                let name = name(&graph, tensor);
                let writer = graph.steps.iter().find(|step| step.layers.contains(&name)).expect("a layer");
                assert_eq!(writer.dst[0].tensor, tensor, "{name}");
            }
        }
    }

    #[test]
    fn the_other_distance_is_the_one_that_the_rule_does_not_say() {
        use kernels::tensor::Dtype;
        for (channels, dtype) in [(64, Dtype::F32), (768, Dtype::F32), (64, Dtype::Bf16), (768, Dtype::Bf16)]
        {
            let shape = Shape::new(1, [3, 3], channels);
            let at = Placement::with_pixel_pitch(0, dtype, shape, kernels::Padding::default(), channels);
            let [rule, other] =
                [Pitches::ByRule, other(&at, &shape)].map(|way| pixel_pitch(channels, dtype, way));
            assert_eq!(rule.min(other), channels);
            assert_eq!((rule.max(other) - channels) * dtype.bytes(), 64);
        }
    }
}
