//! Prefetching of weights that the next panel will need.

/// Elements of a cache line.
pub const LINE: usize = 16;

/// Asks for the line at `ptr` to be brought to the first-level cache. Any address will do.
#[inline(always)]
pub fn to_l1(ptr: *const f32) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "an instruction that pulp lacks")]
    // SAFETY: as below.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(ptr.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = ptr;
}

/// Asks for the line at `ptr` to be brought to the second-level cache. Any address will do.
#[inline(always)]
pub fn to_l2(ptr: *const f32) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "an instruction that pulp lacks")]
    // SAFETY: a prefetch reads nothing that the program can see and never faults; SSE is part of
    // x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(ptr.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = ptr;
}
