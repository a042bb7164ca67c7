//! Prefetching of weights and pixels.

/// Elements of f32 of a cache line.
pub const LINE: usize = 16;

/// Prefetches the line at `ptr` into the first-level cache. Any address is allowed.
#[inline(always)]
pub fn to_l1(ptr: *const f32) {
    prefetch::<3>(ptr);
}

/// Prefetches the line at `ptr` into the second-level cache. Any address is allowed.
#[inline(always)]
pub fn to_l2(ptr: *const f32) {
    prefetch::<2>(ptr);
}

/// The hints are those of the instruction: 3 for T0, 2 for T1.
#[inline(always)]
fn prefetch<const HINT: i32>(ptr: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing that is seen and never faults; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<HINT>(ptr.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = ptr;
}
