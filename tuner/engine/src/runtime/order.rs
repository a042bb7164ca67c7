//! The order of a run: which step computes which images, and by which worker.

use std::ops::Range;

use crate::network::{Graph, Split};

/// One execution of a step: the first of its images, and how many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub step: usize,
    pub first: usize,
    pub count: usize,
}

/// The turns of a range of steps for `n` images, in order.
pub(super) fn turns(graph: &Graph, n: usize, range: Range<usize>) -> impl Iterator<Item = Turn> {
    let Split { steps, images, .. } = graph.split.unwrap_or(Split { steps: 0, images: n, per_worker: false });
    let (start, end) = (range.start, range.end);
    let of_some = (0..n).step_by(images).flat_map(move |first| {
        let count = images.min(n - first);
        (start..end.min(steps)).map(move |step| Turn { step, first, count })
    });
    let of_all = (start.max(steps)..end).map(move |step| Turn { step, first: 0, count: n });
    of_some.chain(of_all)
}

/// The worker that executes a turn, where each worker takes images of its own.
pub(super) fn worker_of(graph: &Graph, turn: Turn, workers: usize) -> usize {
    graph.split.map_or(0, |split| turn.first / split.images % workers)
}
