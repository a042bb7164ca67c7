//! Random problems in random memory: every row that supports one computes it.

use cross_checks::{Case, Data, Layout, Subject};
#[cfg(debug_assertions)]
use kernels::memory::{Edge, guard};
use kernels::{Conv, Epilogue, Padding, Pool, PoolKind, Problem, Segment, Window, table};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Each side from 0 to `most`.
fn padding(most: usize) -> impl Strategy<Value = Padding> {
    let sides = [0..=most, 0..=most, 0..=most, 0..=most];
    sides.prop_map(|[top, bottom, left, right]| Padding { top, bottom, left, right })
}

/// Windows that all kernels take and others, and images that hold them. The padding of convolutions
/// reaches the kernel's size and beyond.
fn geometry(is_pool: bool) -> impl Strategy<Value = (Window, [usize; 2])> {
    let most = if is_pool { 3 } else { 12 };
    let favoured =
        prop::sample::select(vec![[1, 1], [3, 3], [5, 5], [1, 3], [3, 1], [1, 5], [5, 1], [1, 7], [7, 1]]);
    let kernel = prop_oneof![3 => favoured, 1 => [1usize..=11, 1usize..=11]];
    // Strides above the kernel leave pixels out.
    let stride =
        prop_oneof![3 => Just([1, 1]), 1 => [1usize..=3, 1usize..=3], 1 => [1usize..=13, 1usize..=13]];
    (kernel, stride, padding(most), [0usize..=13, 0usize..=15]).prop_map(
        move |(kernel, stride, mut p, more)| {
            if is_pool {
                // A pool's padding is less than its window.
                (p.top, p.bottom) = (p.top.min(kernel[0] - 1), p.bottom.min(kernel[0] - 1));
                (p.left, p.right) = (p.left.min(kernel[1] - 1), p.right.min(kernel[1] - 1));
            }
            let paddings = [p.top + p.bottom, p.left + p.right];
            let image = [0, 1].map(|axis| (kernel[axis].saturating_sub(paddings[axis]) + more[axis]).max(1));
            (Window { kernel, stride, padding: p }, image)
        },
    )
}

fn convolution() -> impl Strategy<Value = Problem> {
    let segment = (1usize..=70, any::<bool>(), any::<bool>())
        .prop_map(|(channels, bias, relu)| Segment { channels, epilogue: Epilogue { bias, relu } });
    let segments = prop::collection::vec(segment, 1..=3);
    let parts = (1usize..=3, geometry(false), 1usize..=40, segments);
    parts.prop_map(|(batch, (window, image), channels, segments)| {
        Problem::Conv(Conv { batch, image, channels, window, segments })
    })
}

fn pool() -> impl Strategy<Value = Problem> {
    let kind = prop::sample::select(vec![PoolKind::Max, PoolKind::Average, PoolKind::AverageCountingBorder]);
    (1usize..=3, geometry(true), 1usize..=600, kind, [any::<bool>(), any::<bool>()])
        // A window that covers nothing but padding has no maximum and no mean.
        .prop_filter("windows meet the image", |(_, (window, image), ..)| {
            let Padding { top, bottom, left, right } = window.padding;
            let [r, s] = window.kernel;
            r > top.max(bottom) && s > left.max(right) && image[0] >= bottom && image[1] >= right
        })
        .prop_map(|(batch, (window, image), channels, kind, [bias, relu])| {
            let epilogue = Epilogue { bias, relu };
            Problem::Pool(Pool { batch, image, channels, window, kind, epilogue })
        })
}

fn case() -> impl Strategy<Value = Case> {
    let softmax =
        (1usize..=3, 1usize..=1200).prop_map(|(batch, channels)| Problem::Softmax { batch, channels });
    let problem = prop_oneof![6 => convolution(), 2 => pool(), 1 => softmax];
    let layout = prop::sample::select(vec![Layout::Packed, Layout::Slices]);
    let halo = || prop_oneof![Just(Padding::default()), padding(3)];
    (problem, 1usize..=3, halo(), halo(), layout).prop_map(|(problem, images, extra, halo, layout)| {
        let images = images.min(problem.batch());
        Case { problem, images, extra, halo, layout }
    })
}

/// So many random problems, or as many as `PROPTEST_CASES` says.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(299),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_row_that_supports_a_problem_computes_it(case in case(), turn in 0usize..1000) {
        // Between pages that nobody may touch, at either edge.
        #[cfg(debug_assertions)]
        guard(Some([Edge::Start, Edge::End][turn % 2]));
        let data = Data::new(&case.problem);
        for row in table() {
            let Some(subject) = Subject::of(row.id) else { continue };
            if subject.kernel.supports(&case.problem).is_ok() {
                let tunings = subject.kernel.tunings(&case.problem);
                subject.check_in_turn(turn, &case, &data, &tunings, 2);
            }
        }
    }
}
