//! Prefetching of weights and pixels.

/// Elements of a cache line.
pub const LINE: usize = 16;

/// The hints of the instruction, as in `core::arch`.
const T0: i32 = 3;
const T1: i32 = 2;

/// Prefetches the line at `ptr` into the first-level cache. Any address is allowed.
#[inline(always)]
pub fn to_l1(ptr: *const f32) {
    prefetch::<T0>(ptr);
}

/// Prefetches the line at `ptr` into the second-level cache. Any address is allowed.
#[inline(always)]
pub fn to_l2(ptr: *const f32) {
    prefetch::<T1>(ptr);
}

#[inline(always)]
fn prefetch<const HINT: i32>(ptr: *const f32) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "an instruction that pulp lacks")]
    // SAFETY: a prefetch reads nothing that the program can see and never faults; SSE is part of
    // x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<HINT>(ptr.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = ptr;
}
