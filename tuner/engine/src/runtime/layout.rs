//! Where activations are in memory: one arena, in which tensors overlap that never coexist.

use kernels::memory::round_up;
use kernels::{Dtype, Format, Placement, Shape};

use crate::network::{Graph, Split, TensorId};

/// The pixel stride: elements from one pixel to the next. Neighbouring pixels of many channels must
/// not fall into the same cache sets, which repeat every 4 KiB. AMX tiles read 16 pixels at once,
/// for which an odd number of lines is best.
pub fn pixel_stride(channels: usize, dtype: Dtype) -> usize {
    const LINE: usize = 64;
    let bytes = channels * dtype.bytes();
    let is_padded = match dtype {
        Dtype::F32 => bytes >= 2048 && bytes.is_multiple_of(1024),
        Dtype::Bf16 | Dtype::U8 => bytes >= 4 * LINE && bytes.is_multiple_of(2 * LINE),
    };
    if is_padded { channels + LINE / dtype.bytes() } else { channels }
}

/// For each tensor, the first and the last step that needs it.
fn lives(graph: &Graph) -> Vec<(usize, usize)> {
    let last = graph.steps.len();
    let mut lives = vec![(usize::MAX, 0); graph.tensors.len()];
    let mut touch = |tensor: TensorId, at: usize| {
        let life: &mut (usize, usize) = &mut lives[tensor];
        *life = (life.0.min(at), life.1.max(at));
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
        // A tensor of all images must outlive all repeats of the steps before the split.
        for (life, shape) in lives.iter_mut().zip(&graph.tensors) {
            if shape.n > images && life.0 < steps {
                *life = (0, life.1.max(steps - 1));
            }
        }
    }
    lives
}

/// Elements of the arena that all workers share, and of the one that each worker has for itself.
#[derive(Default)]
pub(super) struct ArenaSizes {
    pub shared: usize,
    pub per_worker: usize,
}

/// Places tensors so that those in use at the same time do not overlap: the largest first, each at
/// the lowest place that is free as long as it is in use. Tensors that each worker has for itself
/// are in an arena of the worker.
pub(super) fn lay_out(graph: &Graph, formats: &[Format]) -> (Vec<Placement>, ArenaSizes) {
    let lives = lives(graph);
    let placement = |(&shape, &Format { dtype, halo }): (&Shape, &Format)| {
        Placement::with_pixel_pitch(0, dtype, shape, halo, pixel_stride(shape.c, dtype))
    };
    let mut placements: Vec<Placement> = graph.tensors.iter().zip(formats).map(placement).collect();
    let elements: Vec<usize> = placements.iter().map(|placement| round_up(placement.elements())).collect();
    let mut order: Vec<TensorId> = (0..elements.len()).collect();
    order.sort_by_key(|&tensor| std::cmp::Reverse(elements[tensor]));
    let mut sizes = ArenaSizes::default();
    for (place, &tensor) in order.iter().enumerate() {
        let overlaps = |other: TensorId| {
            let ((first, last), (other_first, other_last)) = (lives[tensor], lives[other]);
            first <= other_last
                && other_first <= last
                && graph.is_tensor_per_worker(tensor) == graph.is_tensor_per_worker(other)
        };
        let range =
            |&other: &TensorId| (placements[other].offset, placements[other].offset + elements[other]);
        let placed = order[..place].iter().filter(|&&other| overlaps(other));
        let mut occupied: Vec<(usize, usize)> = placed.map(range).collect();
        occupied.sort_unstable();
        let mut offset = 0;
        for (start, end) in occupied {
            if offset + elements[tensor] <= start {
                break;
            }
            offset = offset.max(end);
        }
        placements[tensor].offset = offset;
        let total = match graph.is_tensor_per_worker(tensor) {
            true => &mut sizes.per_worker,
            false => &mut sizes.shared,
        };
        *total = (*total).max(offset + elements[tensor]);
    }
    (placements, sizes)
}

/// Elements that the tensors of a graph take in f32 without halos.
pub fn arena_elements(graph: &Graph) -> usize {
    let (_, sizes) = lay_out(graph, &vec![Format::F32; graph.tensors.len()]);
    sizes.shared + sizes.per_worker
}

#[cfg(test)]
mod tests {
    use kernels::PoolKind;

    use super::*;
    use crate::network::Model;

    #[test]
    fn tensors_that_are_needed_at_the_same_time_share_no_memory() {
        let graph = Graph::new(&Model::inception_v3().with_classes(Some(10)), 4, PoolKind::Average);
        for graph in
            [graph.clone(), graph.split_before("mixed3", 1), graph.split_before("mixed3", 1).per_worker()]
        {
            let (placements, _) = lay_out(&graph, &vec![Format::F32; graph.tensors.len()]);
            let lives = lives(&graph);
            let end = |tensor: TensorId| placements[tensor].offset + placements[tensor].elements();
            for a in 0..graph.tensors.len() {
                for b in (0..a).filter(|&b| graph.is_tensor_per_worker(a) == graph.is_tensor_per_worker(b)) {
                    let meet = lives[a].0 <= lives[b].1 && lives[b].0 <= lives[a].1;
                    let disjoint = end(a) <= placements[b].offset || end(b) <= placements[a].offset;
                    assert!(!meet || disjoint, "tensors {a} and {b}");
                }
            }
        }
    }
}
