//! Every row between pages that nobody may touch: a kernel that reads or writes one byte beyond an operand,
//! its packed weights or its scratch ends this process, with a signal.
//!
//! The edge is that of all buffers of a process: so these tests are a process of their own, and one test.

#![cfg(all(target_os = "linux", debug_assertions))]

use cross_checks::{Case, Subject, problems_of_inception_v3};
use kernels::memory::{Edge, guard};
use kernels::{Problem, table};

/// The problems of InceptionV3, and a softmax that ends within a vector.
fn cases() -> Vec<Case> {
    let softmax = Case::packed(Problem::Softmax { batch: 3, channels: 1001 });
    problems_of_inception_v3().into_iter().chain([softmax]).collect()
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
