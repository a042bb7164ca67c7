//! The run path allocates nothing: a counting allocator is the proof.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use cross_checks::network::{Network, plans};
use kernels::problem::PoolKind;
use tuner::weights::synthetic;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "a global allocator")]
// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as promised to us.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of three inferences after a first one.
fn allocations(network: &Network, rule: cross_checks::network::Rule) -> usize {
    let mut session = network.session(&rule(&network.graph, &network.cpu));
    let image = synthetic::image(1, 299, 299, 3, 0);
    network.threads.install(|| {
        session.run(&network.threads, &image, 1);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for _ in 0..3 {
            session.run(&network.threads, &image, 1);
        }
        ALLOCATIONS.load(Ordering::Relaxed) - before
    })
}

#[test]
fn inferences_allocate_only_inside_the_gemm_crate() {
    for threads in [1, 2] {
        let network = Network::synthetic(PoolKind::Average, 1, threads);
        for (name, rule) in plans() {
            let count = allocations(&network, rule);
            if name == "im2col_gemm" {
                assert!(count > 0, "the counter counts, and the baseline's role tells the truth");
            } else {
                assert_eq!(count, 0, "plan `{name}` on {threads} threads");
            }
        }
    }
}
