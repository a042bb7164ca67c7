//! Sums of products of whole numbers in lanes of 32 bits: VNNI.

use std::arch::x86_64::{__m256i, __m512i};

use super::cpuid::cpuid;

/// Proof that the processor has AVX512-VNNI.
#[derive(Clone, Copy, Debug)]
pub struct Avx512Vnni(());

/// Proof that the processor has AVX-VNNI, which needs no AVX-512.
#[derive(Clone, Copy, Debug)]
pub struct AvxVnni(());

impl Avx512Vnni {
    /// Asks the processor. That the system keeps the registers is proved by AVX-512.
    pub fn detect() -> Option<Self> {
        (cpuid(7, 0)[2] >> 11 & 1 == 1).then_some(Self(()))
    }
}

impl AvxVnni {
    /// Asks the processor. That the system keeps the registers is proved by AVX2.
    pub fn detect() -> Option<Self> {
        let [highest, ..] = cpuid(7, 0);
        (highest >= 1 && cpuid(7, 1)[0] >> 4 & 1 == 1).then_some(Self(()))
    }
}

macro_rules! sums {
    ($proof:ty, $name:ident, $instruction:literal, $feature:literal, $vector:ty, $register:ident, $doc:literal) => {
        impl $proof {
            #[doc = $doc]
            ///
            /// # Safety
            /// The processor has the instructions.
            #[inline]
            #[target_feature(enable = $feature)]
            pub unsafe fn $name(sums: $vector, a: $vector, b: $vector) -> $vector {
                let mut sums = sums;
                // SAFETY: by the caller.
                unsafe {
                    std::arch::asm!(
                        concat!($instruction, " {sums}, {a}, {b}"),
                        sums = inout($register) sums,
                        a = in($register) a,
                        b = in($register) b,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
                sums
            }
        }
    };
}

sums!(
    Avx512Vnni,
    add_fours,
    "vpdpbusd",
    "avx512f",
    __m512i,
    zmm_reg,
    "Adds the products of the four bytes of each lane, of `a` without and of `b` with a sign."
);
sums!(
    AvxVnni,
    add_fours,
    "{{vex}} vpdpbusd",
    "avx2",
    __m256i,
    ymm_reg,
    "Adds the products of the four bytes of each lane, of `a` without and of `b` with a sign."
);
sums!(
    Avx512Vnni,
    add_pairs,
    "vpdpwssd",
    "avx512f",
    __m512i,
    zmm_reg,
    "Adds the products of both halves of each lane, all with a sign."
);
