//! Lanes of 32 bits from and to elements of 8 and 16 bits.
//!
//! Written as loops they are at the compiler's mercy, which takes vectors apart, byte by byte,
//! where a store is one of many.

/// # Safety of its functions
/// A vector's number of elements may be read at the pointer, or written by this caller alone; they
/// need not be aligned.
pub trait Lanes: pulp::Simd {
    /// Elements of 8 bits, zeros above.
    unsafe fn load_bytes(self, from: *const u8) -> Self::u32s;

    /// Elements of 16 bits, zeros above.
    unsafe fn load_halves(self, from: *const u16) -> Self::u32s;

    /// The lowest 8 bits of each lane.
    unsafe fn store_bytes(self, to: *mut u8, lanes: Self::u32s);

    /// The lower 16 bits of each lane.
    unsafe fn store_halves(self, to: *mut u16, lanes: Self::u32s);
}

impl Lanes for pulp::Scalar128b {
    #[inline(always)]
    unsafe fn load_bytes(self, from: *const u8) -> Self::u32s {
        // SAFETY: by the caller.
        pulp::cast(unsafe { from.cast::<[u8; 4]>().read() }.map(u32::from))
    }

    #[inline(always)]
    unsafe fn load_halves(self, from: *const u16) -> Self::u32s {
        // SAFETY: by the caller.
        pulp::cast(unsafe { from.cast::<[u16; 4]>().read_unaligned() }.map(u32::from))
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, lanes: Self::u32s) {
        let lanes: [u32; 4] = pulp::cast(lanes);
        // SAFETY: by the caller.
        unsafe { to.cast::<[u8; 4]>().write(lanes.map(|lane| lane as u8)) };
    }

    #[inline(always)]
    unsafe fn store_halves(self, to: *mut u16, lanes: Self::u32s) {
        let lanes: [u32; 4] = pulp::cast(lanes);
        // SAFETY: by the caller.
        unsafe { to.cast::<[u16; 4]>().write_unaligned(lanes.map(|lane| lane as u16)) };
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Lanes;

    // SAFETY of both: `self` proves that the instructions are there; pointers by the caller.

    impl Lanes for pulp::x86::V3 {
        #[inline(always)]
        unsafe fn load_bytes(self, from: *const u8) -> Self::u32s {
            // SAFETY: as above.
            pulp::cast(unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())) })
        }

        #[inline(always)]
        unsafe fn load_halves(self, from: *const u16) -> Self::u32s {
            // SAFETY: as above.
            pulp::cast(unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())) })
        }

        #[inline(always)]
        unsafe fn store_bytes(self, to: *mut u8, lanes: Self::u32s) {
            // SAFETY: as above.
            unsafe {
                // The bytes of each half of the vector, in the lowest places of it.
                let order = _mm256_setr_epi8(
                    0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1,
                    -1, -1, -1, -1, -1, -1, -1, -1,
                );
                let halves = _mm256_shuffle_epi8(pulp::cast(lanes), order);
                let upper = _mm256_extracti128_si256::<1>(halves);
                _mm_storel_epi64(to.cast(), _mm_unpacklo_epi32(_mm256_castsi256_si128(halves), upper));
            }
        }

        #[inline(always)]
        unsafe fn store_halves(self, to: *mut u16, lanes: Self::u32s) {
            // SAFETY: as above.
            unsafe {
                let order = _mm256_setr_epi8(
                    0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, 0, 1, 4, 5, 8, 9, 12, 13, -1,
                    -1, -1, -1, -1, -1, -1, -1,
                );
                let halves = _mm256_shuffle_epi8(pulp::cast(lanes), order);
                let whole = _mm256_permute4x64_epi64::<0b10_00>(halves);
                _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(whole));
            }
        }
    }

    impl Lanes for pulp::x86::V4 {
        #[inline(always)]
        unsafe fn load_bytes(self, from: *const u8) -> Self::u32s {
            // SAFETY: as above.
            pulp::cast(unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())) })
        }

        #[inline(always)]
        unsafe fn load_halves(self, from: *const u16) -> Self::u32s {
            // SAFETY: as above.
            pulp::cast(unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())) })
        }

        #[inline(always)]
        unsafe fn store_bytes(self, to: *mut u8, lanes: Self::u32s) {
            // SAFETY: as above.
            unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(pulp::cast(lanes))) };
        }

        #[inline(always)]
        unsafe fn store_halves(self, to: *mut u16, lanes: Self::u32s) {
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(pulp::cast(lanes))) };
        }
    }
}
