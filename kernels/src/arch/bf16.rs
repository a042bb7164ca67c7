//! Products of pairs of bf16, and rounding to bf16, by AVX512-BF16.

use std::arch::x86_64::{__m512, __m512i};

use super::cpuid::cpuid;

/// Proof that the processor has AVX512-BF16.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Bf16(());

impl Avx512Bf16 {
    /// Asks the processor. That the system keeps the registers is proved by AVX-512.
    pub fn detect() -> Option<Self> {
        let [highest, ..] = cpuid(7, 0);
        (highest >= 1 && cpuid(7, 1)[0] >> 5 & 1 == 1).then_some(Self(()))
    }

    /// Adds the products of both elements of each pair to the sums: VDPBF16PS.
    ///
    /// # Safety
    /// The processor has AVX512-BF16.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub unsafe fn add_products(sums: __m512, a: __m512, b: __m512) -> __m512 {
        let mut sums = sums;
        // SAFETY: by the caller.
        unsafe {
            std::arch::asm!(
                "vdpbf16ps {sums}, {a}, {b}",
                sums = inout(zmm_reg) sums,
                a = in(zmm_reg) a,
                b = in(zmm_reg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }

    /// Rounds two vectors to bf16, to nearest, ties to even, `low` first: VCVTNE2PS2BF16. Denormals
    /// become zero.
    ///
    /// # Safety
    /// The processor has AVX-512.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub unsafe fn narrow(self, low: __m512, high: __m512) -> __m512i {
        let narrow: __m512i;
        // SAFETY: by the caller; `self` proves that the instruction is there.
        unsafe {
            std::arch::asm!(
                "vcvtne2ps2bf16 {narrow}, {high}, {low}",
                narrow = out(zmm_reg) narrow,
                high = in(zmm_reg) high,
                low = in(zmm_reg) low,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        narrow
    }
}
