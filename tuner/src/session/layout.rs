//! Where activations lie: one arena, in which tensors share what they do not need at the same time.

use kernels::Shape;
use kernels::memory::round_up;
use kernels::tensor::{Dtype, Format, Placement};

use crate::graph::{Graph, Pitches, Split, TensorId};

/// Elements from a pixel to the next. By the rule, neighbouring pixels of many channels do not fall into the same
/// cache sets, which repeat every 4 KiB; tiles of bf16 read 16 pixels at once, for which an odd number of lines is
/// best.
pub fn pixel_pitch(channels: usize, dtype: Dtype, pitches: Pitches) -> usize {
    const LINE: usize = 64;
    let bytes = channels * dtype.bytes();
    let is_padded = match (pitches, dtype) {
        (Pitches::Dense, _) => false,
        (Pitches::Padded, _) => true,
        (Pitches::ByRule, Dtype::F32) => bytes >= 2048 && bytes.is_multiple_of(1024),
        (Pitches::ByRule, Dtype::Bf16) => bytes >= 4 * LINE && bytes.is_multiple_of(2 * LINE),
    };
    if is_padded { channels + LINE / dtype.bytes() } else { channels }
}

/// When a tensor is needed.
#[derive(Clone, Copy)]
struct Life {
    /// From this step on, to that one.
    steps: (usize, usize),
    /// The same where nobody knows in which order workers take the steps that they take beside each other: from the
    /// first of those to the last.
    any_order: (usize, usize),
    /// The worker that alone uses it, and the first of the steps among which that is.
    worker: Option<(usize, usize)>,
}

impl Life {
    fn meets(&self, other: &Self) -> bool {
        let same = self.worker.is_some() && self.worker == other.worker;
        let ((a, b), (c, d)) =
            if same { (self.steps, other.steps) } else { (self.any_order, other.any_order) };
        a <= d && c <= b
    }
}

/// The life of each tensor.
fn lives(graph: &Graph) -> Vec<Life> {
    let last = graph.steps.len();
    let mut lives =
        vec![Life { steps: (usize::MAX, 0), any_order: (usize::MAX, 0), worker: None }; graph.tensors.len()];
    let mut touch = |tensor: TensorId, at: usize| {
        let among = if at < last { graph.beside(at) } else { None };
        let life: &mut Life = &mut lives[tensor];
        let worker = among.as_ref().and_then(|among| Some((graph.steps[at].worker?, among.start)));
        life.worker =
            if life.steps.0 == usize::MAX { worker } else { life.worker.filter(|_| life.worker == worker) };
        life.steps = (life.steps.0.min(at), life.steps.1.max(at));
        let (first, end) = among.map_or((at, at), |among| (among.start, among.end - 1));
        life.any_order = (life.any_order.0.min(first), life.any_order.1.max(end));
    };
    touch(0, 0);
    for (at, step) in graph.steps.iter().enumerate() {
        touch(step.src.tensor, at);
        step.dst.iter().for_each(|dst| touch(dst.tensor, at));
    }
    for slice in graph.features.iter().chain([&graph.output]) {
        touch(slice.tensor, last);
    }
    if let Some(Split { steps, images, .. }) = graph.split {
        // What holds all images must outlive every turn of the steps that take some at a time.
        for (life, shape) in lives.iter_mut().zip(&graph.tensors) {
            if shape.n > images && life.steps.0 < steps {
                let whole = (0, life.any_order.1.max(steps - 1));
                *life = Life { steps: whole, any_order: whole, worker: None };
            }
        }
    }
    lives
}

/// Lays tensors out in one arena so that those alive at the same time do not overlap: the largest
/// first, each at the lowest place that is free over its life. Tensors that each worker has for itself are in an arena of
/// their own. Gives the elements of both.
pub(super) fn lay_out(graph: &Graph, formats: &[Format]) -> (Vec<Placement>, [usize; 2]) {
    let lives = lives(graph);
    let placement = |tensor: TensorId, offset| {
        let (shape, Format { dtype, halo }): (Shape, Format) = (graph.tensors[tensor], formats[tensor]);
        Placement::with_pixel_pitch(
            offset,
            dtype,
            shape,
            halo,
            pixel_pitch(shape.c, dtype, graph.pitches[tensor]),
        )
    };
    let size = |tensor| round_up(placement(tensor, 0).elements());
    let mut order: Vec<TensorId> = (0..graph.tensors.len()).collect();
    order.sort_by_key(|&tensor| std::cmp::Reverse(size(tensor)));
    let mut placed: Vec<(TensorId, usize)> = Vec::new();
    let mut totals = [0; 2];
    for tensor in order {
        let overlaps = |other: TensorId| {
            lives[tensor].meets(&lives[other]) && graph.is_own(tensor) == graph.is_own(other)
        };
        let mut taken: Vec<(usize, usize)> = placed
            .iter()
            .filter(|(t, _)| overlaps(*t))
            .map(|&(t, offset)| (offset, offset + size(t)))
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + size(tensor) <= start {
                break;
            }
            offset = offset.max(end);
        }
        placed.push((tensor, offset));
        let total = &mut totals[usize::from(graph.is_own(tensor))];
        *total = (*total).max(offset + size(tensor));
    }
    let mut placements: Vec<Placement> = (0..graph.tensors.len()).map(|t| placement(t, 0)).collect();
    for (tensor, offset) in placed {
        placements[tensor].offset = offset;
    }
    (placements, totals)
}

/// Elements that the tensors of a graph take in f32 without halos.
pub fn arena_elements(graph: &Graph) -> usize {
    lay_out(graph, &vec![Format::F32; graph.tensors.len()]).1.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use kernels::problem::PoolKind;

    /// Elements of the arena that the steps of a worker use.
    fn used(graph: &Graph, placements: &[Placement], worker: usize) -> Vec<(usize, usize, TensorId)> {
        let steps = graph.steps.iter().filter(|step| step.worker == Some(worker));
        let tensors = steps.flat_map(|step| step.dst.iter().chain([&step.src]));
        let place = |tensor: usize| (placements[tensor].offset, placements[tensor].elements(), tensor);
        tensors.map(|slice| place(slice.tensor)).collect()
    }

    #[test]
    fn tensors_of_workers_beside_each_other_share_no_memory() {
        for block in ["mixed0", "mixed7", "mixed8", "mixed10"] {
            let graph = Graph::new(&Model::block(block).expect("a block"), 1, PoolKind::Average);
            let branch = |layer: &str| match layer.split(['.', '_']).nth(1) {
                Some("branch1x1" | "branch3x3" | "branch5x5" | "branch7x7") => 0,
                Some("pool") => 1,
                Some("branch") => 1,
                _ => 2,
            };
            let workers: Vec<Option<usize>> =
                graph.steps.iter().map(|step| Some(branch(&step.layers[0]))).collect();
            let beside = graph.with_workers(&workers).expect("a worker for each branch");
            let formats = vec![Format::F32; graph.tensors.len()];
            let (placements, _) = lay_out(&beside, &formats);
            let all = [0, 1, 2].map(|worker| used(&beside, &placements, worker));
            for (a, b) in [(0, 1), (0, 2), (1, 2)] {
                for (start, length, tensor) in &all[a] {
                    for (other, size, second) in &all[b] {
                        let apart = start + length <= *other || other + size <= *start;
                        assert!(tensor == second || apart, "{block}: tensors {tensor} and {second}");
                    }
                }
            }
            // A worker's own tensors share memory as in a graph whose steps are shared.
            let [own, plain] = [lay_out(&beside, &formats).1[0], lay_out(&graph, &formats).1[0]];
            let sum: usize = placements.iter().map(Placement::elements).sum();
            assert!(
                plain <= own && own <= round_up(sum) + 64 * graph.tensors.len(),
                "{block}: {own}, {plain}"
            );
        }
    }
}
