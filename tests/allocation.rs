//! A run does not allocate: rows that are chosen for a plan have all memory before it.

#![allow(unsafe_code, reason = "counts the allocations of a thread")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use cross_checks::{Data, EPILOGUES, Subject, conv_with};
use kernels::kernel::{Io, Role, table};
use kernels::problem::{Epilogue, Pool, PoolKind, Problem, Window};
use kernels::team::{run_alone, scratch_for};
use kernels::tensor::Tensor;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: by the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn candidates_do_not_allocate_while_they_run() {
    let shapes = ["n2h9w9c18k20+33r1s1", "n1h9w9c18k20+33r3s3", "n1h9w9c18k20+33r1s7", "n1h9w9c3k20r3s3u2"];
    let mut problems: Vec<Problem> = shapes.map(|text| conv_with(text, &EPILOGUES)).into();
    problems.push(Problem::Softmax { batch: 2, channels: 37 });
    problems.push(Problem::Pool(Pool {
        batch: 2,
        image: [9, 9],
        channels: 37,
        window: Window::valid([3, 3], [2, 2]),
        kind: PoolKind::Max,
        epilogue: Epilogue::NONE,
    }));
    for row in table().iter().filter(|row| row.role == Role::Candidate) {
        let Some(Subject { kernel, .. }) = Subject::of(row.id) else { continue };
        for problem in problems.iter().filter(|problem| kernel.supports(problem).is_ok()) {
            let data = Data::shared(problem);
            for tuning in kernel.tunings(problem) {
                let formats = kernel.formats(problem, &tuning)[0];
                let step = kernel.prepare(problem, &tuning, &formats, &data.filters).expect("supported");
                let src = Tensor::from_nhwc(problem.src(), formats.src.halo, &data.src);
                let mut dst: Vec<Tensor> =
                    problem.dst().into_iter().map(|shape| Tensor::zeros(shape, formats.dst.halo)).collect();
                let io = Io::new(src.view(), dst.iter_mut().map(Tensor::view_mut));
                let scratch = scratch_for(&*step, 1);
                let before = ALLOCATIONS.get();
                run_alone(&*step, &io, &scratch);
                let count = ALLOCATIONS.get() - before;
                assert_eq!(count, 0, "{} on {problem}, tuning {tuning}", row.id);
            }
        }
    }
}
