//! Every row between pages that nobody may touch: a kernel that reads or writes one byte beyond an operand,
//! its packed weights or its scratch ends this process, with a signal.
//!
//! The edge is that of all buffers of a process: so these tests are a process of their own, and one test.

#![cfg(all(target_os = "linux", debug_assertions))]

use std::collections::HashSet;

use cross_checks::{Case, Subject};
use engine::network::{Graph, Model, problems};
use kernels::memory::{Edge, guard};
use kernels::{Conv, Pool, PoolKind, Problem, table};

/// All problems of InceptionV3 and of its block variants, with their channels, on images that take seconds
/// in all, with tails of every tile.
fn cases() -> Vec<Case> {
    let kinds = [PoolKind::Average, PoolKind::AverageCountingBorder];
    let all = kinds.into_iter().flat_map(|kind| problems(&Graph::new(&Model::inception_v3(), 1, kind)));
    let mut seen = HashSet::new();
    let small = all.map(|(mut problem, _)| {
        match &mut problem {
            Problem::Pool(Pool { image, window, .. }) if window.kernel == *image => (),
            Problem::Conv(Conv { image, .. }) | Problem::Pool(Pool { image, .. }) => {
                *image = [image[0].min(9), image[1].min(11)];
            }
            _ => (),
        }
        problem
    });
    let distinct = small.filter(|problem| seen.insert(problem.to_string()));
    let more = [Problem::Sigmoid { batch: 1, channels: 1000 }, Problem::Softmax { batch: 3, channels: 1001 }];
    distinct.chain(more).map(Case::packed).collect()
}

#[test]
fn no_row_touches_a_byte_beyond_its_operands() {
    let cases = cases();
    for edge in [Edge::End, Edge::Start] {
        guard(Some(edge));
        for row in table() {
            // The oracle reads no operands by vectors, and takes minutes.
            let Some(subject) = Subject::of(row.id).filter(|_| row.id != "reference") else { continue };
            let supported = cases.iter().filter(|case| subject.kernel.supports(&case.problem).is_ok());
            // Reads before the start are rarer: a third of the cases look for them.
            let step = if edge == Edge::End { 1 } else { 3 };
            for (turn, case) in supported.enumerate().step_by(step) {
                let tunings = subject.kernel.tunings(&case.problem);
                let tuning = &tunings[turn * 7 % tunings.len()];
                subject.touch(case, tuning, 1 + turn % 3);
            }
        }
    }
    guard(None);
}
