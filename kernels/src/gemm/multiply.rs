//! How a register block multiplies: what it loads of a source, and what of the packed weights.
//!
//! Elements of bf16 come in pairs: two neighbouring elements of a sum lie in the 32 bits of one
//! lane, for pixels as well as for weights, the first in the lower half. A bf16 is the upper half
//! of an f32, so that either half becomes f32 by one instruction, a shift or a mask. The product of
//! two is exact in f32.

use half::bf16;

use crate::cpu::{Cpu, Isa};
use crate::error::Unsupported;
use crate::tensor::Element;
use crate::vector::{each, load};

/// How products are summed on an instruction set; holding one proves that it is there.
///
/// # Safety of its functions
/// The group of [`Self::GROUP`] elements, or the vector, at `ptr` may be read.
pub trait Multiply<I: Isa>: Copy + Send + Sync + 'static {
    /// Elements of the tensor that is multiplied.
    type Pixel: Element;
    /// What they are in memory when they are multiplied by the weights: the same, or copies of
    /// them.
    type Source: Copy + From<Self::Pixel> + 'static;
    /// Neighbouring elements of a sum in a row of weights; runs of a sum are multiples of it.
    const GROUP: usize;
    /// Products of a row of weights, one after the other.
    const PRODUCTS: usize;
    /// The sums are whole numbers of 32 bits.
    const IS_WHOLE: bool = false;

    fn new(cpu: &Cpu) -> Result<Self, Unsupported>;

    /// The part of a pixel's group that a product takes, in all lanes.
    unsafe fn pixel(isa: I, product: usize, ptr: *const Self::Source) -> I::f32s;

    /// The part of a vector of weights that a product takes: all, unless there are several
    /// products.
    #[inline(always)]
    unsafe fn weights(_isa: I, _product: usize, ptr: *const f32) -> I::f32s {
        // SAFETY: by the caller.
        unsafe { load::<I>(ptr) }
    }

    /// The sums with the products added, those of the parts of all lanes.
    #[inline(always)]
    fn add(isa: I, pixel: I::f32s, weights: I::f32s, sums: I::f32s) -> I::f32s {
        isa.fma(pixel, weights, sums)
    }
}

/// A group of 32 bits in all lanes, whatever the bits mean.
///
/// # Safety
/// The group at `ptr` may be read; it need not be aligned.
#[inline(always)]
pub unsafe fn splat_bits<I: Isa>(isa: I, ptr: *const u32) -> I::f32s {
    // SAFETY: by the caller.
    isa.transmute_f32s_u32s(isa.splat_u32s(unsafe { ptr.read_unaligned() }))
}

/// f32 by fused multiply-add.
#[derive(Clone, Copy, Debug)]
pub struct Single;

impl<I: Isa> Multiply<I> for Single {
    type Pixel = f32;
    type Source = f32;
    const GROUP: usize = 1;
    const PRODUCTS: usize = 1;

    fn new(_: &Cpu) -> Result<Self, Unsupported> {
        Ok(Self)
    }

    #[inline(always)]
    unsafe fn pixel(isa: I, _: usize, ptr: *const f32) -> I::f32s {
        // SAFETY: by the caller.
        isa.splat_f32s(unsafe { *ptr })
    }
}

/// Pairs of bf16, each half widened to f32: any processor can do it.
#[derive(Clone, Copy, Debug)]
pub struct Widened;

/// A half of the pairs as f32: the lower one first.
#[inline(always)]
fn half<I: Isa>(isa: I, product: usize, pairs: I::u32s) -> I::f32s {
    let bits = match product {
        0 => each::<I>(pairs, |pair| pair << 16),
        _ => isa.and_u32s(pairs, isa.splat_u32s(0xffff_0000)),
    };
    isa.transmute_f32s_u32s(bits)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::__m512;

    use super::*;
    use crate::cpu::{Avx512, Avx512Bf16};

    type F32s = <Avx512 as pulp::Simd>::f32s;

    impl Multiply<Avx512> for Avx512Bf16 {
        type Pixel = bf16;
        type Source = bf16;
        const GROUP: usize = 2;
        const PRODUCTS: usize = 1;

        fn new(cpu: &Cpu) -> Result<Self, Unsupported> {
            Self::new(cpu)
        }

        #[inline(always)]
        unsafe fn pixel(isa: Avx512, _: usize, ptr: *const bf16) -> F32s {
            // SAFETY: by the caller.
            unsafe { splat_bits(isa, ptr.cast()) }
        }

        #[inline(always)]
        fn add(_: Avx512, pixel: F32s, weights: F32s, sums: F32s) -> F32s {
            let [sums, a, b]: [__m512; 3] = [sums, pixel, weights].map(pulp::cast);
            // SAFETY: nothing makes a kernel of this type without the proof.
            pulp::cast(unsafe { Self::add_products(sums, a, b) })
        }
    }
}

impl<I: Isa> Multiply<I> for Widened {
    type Pixel = bf16;
    type Source = bf16;
    const GROUP: usize = 2;
    const PRODUCTS: usize = 2;

    fn new(_: &Cpu) -> Result<Self, Unsupported> {
        Ok(Self)
    }

    #[inline(always)]
    unsafe fn pixel(isa: I, product: usize, ptr: *const bf16) -> I::f32s {
        // SAFETY: by the caller.
        half(isa, product, isa.splat_u32s(unsafe { ptr.cast::<u32>().read_unaligned() }))
    }

    #[inline(always)]
    unsafe fn weights(isa: I, product: usize, ptr: *const f32) -> I::f32s {
        // SAFETY: by the caller.
        half(isa, product, isa.transmute_u32s_f32s(unsafe { load::<I>(ptr) }))
    }
}
