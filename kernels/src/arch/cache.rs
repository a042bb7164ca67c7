//! Moves memory out of the caches, to measure a kernel with the caches of a running network.

use super::cpuid::cpuid;

/// Whether the processor has an instruction for [`demote`].
pub fn can_demote() -> bool {
    cpuid(7, 0)[2] >> 25 & 1 == 1
}

/// Evicts a range from all caches; the memory keeps its values. Does nothing where the processor
/// has no instruction for it.
pub fn evict(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: each line holds a byte of the slice; SSE2 is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_mm_clflush, _mm_mfence};
        lines(values).for_each(|line| _mm_clflush(line));
        _mm_mfence();
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Moves a range from the caches of a core to the one that the cores share; does nothing where the
/// processor has no instruction for it, see [`can_demote`].
pub fn demote(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in lines(values) {
        // SAFETY: CLDEMOTE is a hint: it changes no memory, and does nothing where it is unknown.
        unsafe { std::arch::asm!("cldemote [{0}]", in(reg) line, options(nostack, preserves_flags)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// The cache lines of a slice, each by one of its bytes.
#[cfg(target_arch = "x86_64")]
fn lines(values: &[f32]) -> impl Iterator<Item = *const u8> {
    let start = values.as_ptr().cast::<u8>();
    (0..size_of_val(values)).step_by(64).map(move |offset| start.wrapping_add(offset))
}
