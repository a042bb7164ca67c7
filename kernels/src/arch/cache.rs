//! Eviction of memory from the caches, to measure a kernel as cold as it is in a network.

/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Evicts a range from all caches; the memory keeps its values. Does nothing where the processor has no
/// instruction for it.
pub fn evict(values: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "an instruction that pulp lacks")]
    {
        use std::arch::x86_64::{_mm_clflush, _mm_mfence};
        let start = values.as_ptr().cast::<u8>();
        for offset in (0..size_of_val(values)).step_by(LINE) {
            // SAFETY: the line holds a byte of the slice; SSE2 is part of x86-64.
            unsafe { _mm_clflush(start.add(offset)) };
        }
        // SAFETY: as above.
        unsafe { _mm_mfence() };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}
