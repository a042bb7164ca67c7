//! Products of whole numbers, as [`super::multiply`] has those of other types.
//!
//! Their sums are whole numbers of 32 bits in registers of f32, scaled when a block is stored
//! ([`super::register_block`]).
//!
//! Elements of u8 come in fours, in the 32 bits of a lane, with weights of 8 bits and a sign: VNNI
//! sums all four products of a lane. Elements of 16 bits come in pairs, as those of bf16 do: what
//! is made of u8, or copies of it. Any processor sums pairs, which is exact, where the instruction
//! of AVX2 for products of u8 and 8 bits with a sign sums two of them in 16 bits and has no room
//! for 255 * 127 * 2.

use crate::cpu::{Cpu, Isa, Plain};
use crate::error::Unsupported;
use crate::gemm::multiply::{Multiply, splat_bits};

/// Fours of u8 and weights of 8 bits, summed one by one: what VNNI does, on any processor.
#[derive(Clone, Copy, Debug)]
pub struct Int8;

impl Multiply<Plain> for Int8 {
    type Pixel = u8;
    type Source = u8;
    const GROUP: usize = 4;
    const PRODUCTS: usize = 1;
    const IS_WHOLE: bool = true;

    fn new(_: &Cpu) -> Result<Self, Unsupported> {
        Ok(Self)
    }

    #[inline(always)]
    unsafe fn pixel(isa: Plain, _: usize, ptr: *const u8) -> <Plain as pulp::Simd>::f32s {
        // SAFETY: by the caller.
        unsafe { splat_bits(isa, ptr.cast()) }
    }

    #[inline(always)]
    fn add(
        _: Plain,
        pixel: <Plain as pulp::Simd>::f32s,
        weights: <Plain as pulp::Simd>::f32s,
        sums: <Plain as pulp::Simd>::f32s,
    ) -> <Plain as pulp::Simd>::f32s {
        let (a, b): ([[u8; 4]; 4], [[i8; 4]; 4]) = (pulp::cast(pixel), pulp::cast(weights));
        let mut sums: [i32; 4] = pulp::cast(sums);
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a.into_iter().zip(b).map(|(a, b)| i32::from(a) * i32::from(b)).sum::<i32>();
        }
        pulp::cast(sums)
    }
}

/// Sums of pairs of products.
pub trait Pairs: Isa {
    /// The products of both halves of each lane, all with a sign, added to sums.
    fn add_products(self, a: Self::u32s, b: Self::u32s, sums: Self::u32s) -> Self::u32s;
}

impl Pairs for Plain {
    #[inline(always)]
    fn add_products(self, a: Self::u32s, b: Self::u32s, sums: Self::u32s) -> Self::u32s {
        let product = |a: i16, b: i16| i32::from(a) * i32::from(b);
        let [a, b]: [[[i16; 2]; 4]; 2] = [a, b].map(pulp::cast);
        let mut sums: [i32; 4] = pulp::cast(sums);
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += product(a[0], b[0]) + product(a[1], b[1]);
        }
        pulp::cast(sums)
    }
}

/// Pairs of 16 bits: any processor can do it.
#[derive(Clone, Copy, Debug)]
pub struct Int16;

impl<I: Pairs> Multiply<I> for Int16 {
    type Pixel = u8;
    type Source = i16;
    const GROUP: usize = 2;
    const PRODUCTS: usize = 1;
    const IS_WHOLE: bool = true;

    fn new(_: &Cpu) -> Result<Self, Unsupported> {
        Ok(Self)
    }

    #[inline(always)]
    unsafe fn pixel(isa: I, _: usize, ptr: *const i16) -> I::f32s {
        // SAFETY: by the caller.
        unsafe { splat_bits(isa, ptr.cast()) }
    }

    #[inline(always)]
    fn add(isa: I, pixel: I::f32s, weights: I::f32s, sums: I::f32s) -> I::f32s {
        let [a, b, sums] = [pixel, weights, sums].map(|bits| isa.transmute_u32s_f32s(bits));
        isa.transmute_f32s_u32s(isa.add_products(a, b, sums))
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::Int16Vnni;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_add_epi32, _mm256_madd_epi16, _mm512_add_epi32, _mm512_madd_epi16,
    };

    use super::*;
    use crate::cpu::{Avx2, Avx512, Avx512Vnni, AvxVnni};

    macro_rules! pairs {
        ($isa:ty, $vector:ty, $products:ident, $add:ident) => {
            impl Pairs for $isa {
                #[inline(always)]
                fn add_products(self, a: Self::u32s, b: Self::u32s, sums: Self::u32s) -> Self::u32s {
                    let [a, b, sums]: [$vector; 3] = [a, b, sums].map(pulp::cast);
                    // SAFETY: `self` proves that the instructions are there.
                    pulp::cast(unsafe { $add(sums, $products(a, b)) })
                }
            }
        };
    }

    pairs!(Avx2, __m256i, _mm256_madd_epi16, _mm256_add_epi32);
    pairs!(Avx512, __m512i, _mm512_madd_epi16, _mm512_add_epi32);

    macro_rules! vnni {
        ($isa:ty, $proof:ty, $multiply:ty, $source:ty, $group:literal, $add:ident, $vector:ty) => {
            impl Multiply<$isa> for $multiply {
                type Pixel = u8;
                type Source = $source;
                const GROUP: usize = $group;
                const PRODUCTS: usize = 1;
                const IS_WHOLE: bool = true;

                fn new(cpu: &Cpu) -> Result<Self, Unsupported> {
                    <$proof>::new(cpu).map(Self::from)
                }

                #[inline(always)]
                unsafe fn pixel(isa: $isa, _: usize, ptr: *const $source) -> <$isa as pulp::Simd>::f32s {
                    // SAFETY: by the caller.
                    unsafe { splat_bits(isa, ptr.cast()) }
                }

                #[inline(always)]
                fn add(
                    _: $isa,
                    pixel: <$isa as pulp::Simd>::f32s,
                    weights: <$isa as pulp::Simd>::f32s,
                    sums: <$isa as pulp::Simd>::f32s,
                ) -> <$isa as pulp::Simd>::f32s {
                    let [sums, a, b]: [$vector; 3] = [sums, pixel, weights].map(pulp::cast);
                    // SAFETY: nothing makes a kernel of this type without the proof.
                    pulp::cast(unsafe { <$proof>::$add(sums, a, b) })
                }
            }
        };
    }

    /// Pairs of 16 bits by VNNI, of which it is the proof.
    #[derive(Clone, Copy, Debug)]
    pub struct Int16Vnni(Avx512Vnni);

    impl From<Avx512Vnni> for Int16Vnni {
        fn from(proof: Avx512Vnni) -> Self {
            Self(proof)
        }
    }

    vnni!(Avx512, Avx512Vnni, Avx512Vnni, u8, 4, add_fours, __m512i);
    vnni!(Avx2, AvxVnni, AvxVnni, u8, 4, add_fours, __m256i);
    vnni!(Avx512, Avx512Vnni, Int16Vnni, i16, 2, add_pairs, __m512i);
}
