//! How the elements of a window become one, a vector of channels at a time.
//!
//! A vector of bf16 has twice the channels of one of f32. No operation here shuffles them:
//!
//! - The largest bf16 is found among the bits. As signed integers, the bits of positive numbers are
//!   in order, and those of negative numbers in the opposite order. Of numbers that are all
//!   negative the largest is the smallest integer, else it is the largest integer. Both are kept.
//! - Sums of bf16 are two sums of f32: of the even channels, whose bits are shifted up, and of the
//!   odd channels, with the bits of their neighbours cleared. Rounded, they go back in that order.
//!
//! Sums of u8 are of f32, in which they are exact. Means may be stored as another type.
//!
//! A maximum or a mean with a NaN is NaN. In a maximum of bf16 that holds for NaN without a sign, as
//! [`rounded`](crate::vector) makes them.

use std::marker::PhantomData;

use half::bf16;
use pulp::bytemuck::{cast, cast_slice, cast_slice_mut};

use crate::cpu::Isa;
use crate::problem::Epilogue;
use crate::tensor::{Dtype, Element};
use crate::vector::{each, load_first, narrow_first_to, widen_first};

pub struct Max<T>(PhantomData<T>);
/// The sum, which the end multiplies.
pub struct Sum<T>(PhantomData<T>);

/// An operation that makes one element of many.
///
/// # Safety of its functions
/// `width` elements, at most [`Self::LANES`], may be read or written at `at`; there is a bias for
/// each, for bf16 that of a whole vector ([`bias_len`]), in the order of [`order_bias`].
pub trait Join<I: Isa> {
    type Element: Element;
    /// Elements as they are joined, of some channels.
    type Vector: Copy;
    const LANES: usize;

    /// The first `width` elements at `at`.
    unsafe fn load(isa: I, at: *const Self::Element, width: usize) -> Self::Vector;

    /// One of two.
    fn join(isa: I, a: Self::Vector, b: Self::Vector) -> Self::Vector;

    /// Ends what has been joined, and writes the first `width` channels of it.
    unsafe fn store(isa: I, at: *mut u8, vector: Self::Vector, end: &End<I>, width: usize);
}

/// What becomes of a sum or maximum: `relu(value * scale + bias)`.
#[derive(Clone, Copy)]
pub struct End<I: Isa> {
    /// One over the number of elements of a mean.
    pub scale: I::f32s,
    pub epilogue: Epilogue,
    /// That of the vector's first channel.
    pub bias: *const f32,
    /// What is written.
    pub dtype: Dtype,
}

impl<I: Isa> End<I> {
    /// The end of `width` channels whose biases are `from` elements behind the first.
    #[inline(always)]
    unsafe fn apply(&self, isa: I, value: I::f32s, from: usize, width: usize) -> I::f32s {
        // SAFETY: by the caller.
        let bias = unsafe { load_first(isa, self.bias.wrapping_add(from), width) };
        let y = isa.fma(value, self.scale, bias);
        if self.epilogue.relu { isa.at_least(isa.splat_f32s(0.0), y) } else { y }
    }

    /// Ends a vector of f32, and writes the first `width` channels of it.
    #[inline(always)]
    unsafe fn store(&self, isa: I, at: *mut u8, vector: I::f32s, width: usize) {
        // SAFETY: by the caller.
        unsafe {
            let y = self.apply(isa, vector, 0, width);
            narrow_first_to(isa, self.dtype, at, y, width);
        }
    }
}

/// Elements of the bias of so many channels.
pub fn bias_len<I: Isa>(dtype: Dtype, channels: usize) -> usize {
    match dtype {
        Dtype::F32 | Dtype::U8 => channels,
        Dtype::Bf16 => channels.next_multiple_of(I::U16_LANES),
    }
}

/// Writes the bias of each channel where [`Join::store`] finds it: of bf16 the even ones first.
pub fn order_bias<I: Isa>(dtype: Dtype, bias: &[f32], ordered: &mut [f32]) {
    for (channel, &value) in bias.iter().enumerate() {
        let (first, lane) = (channel - channel % I::U16_LANES, channel % I::U16_LANES);
        let at = match dtype {
            Dtype::F32 | Dtype::U8 => channel,
            Dtype::Bf16 => first + lane % 2 * I::F32_LANES + lane / 2,
        };
        ordered[at] = value;
    }
}

macro_rules! join_f32 {
    ($join:ident, |$isa:ident, $a:ident, $b:ident| $joined:expr) => {
        impl<I: Isa> Join<I> for $join<f32> {
            type Element = f32;
            type Vector = I::f32s;
            const LANES: usize = I::F32_LANES;

            #[inline(always)]
            unsafe fn load(isa: I, at: *const f32, width: usize) -> I::f32s {
                // SAFETY: by the caller.
                unsafe { load_first(isa, at, width) }
            }

            #[inline(always)]
            fn join($isa: I, $a: I::f32s, $b: I::f32s) -> I::f32s {
                $joined
            }

            #[inline(always)]
            unsafe fn store(isa: I, at: *mut u8, vector: I::f32s, end: &End<I>, width: usize) {
                // SAFETY: by the caller.
                unsafe { end.store(isa, at, vector, width) };
            }
        }
    };
}

join_f32!(Max, |isa, a, b| isa.select_f32s(isa.equal_f32s(a, a), isa.at_least(a, b), a));
join_f32!(Sum, |isa, a, b| isa.add_f32s(a, b));

impl<I: Isa> Join<I> for Max<bf16> {
    type Element = bf16;
    /// The largest and the smallest as integers.
    type Vector = [I::i16s; 2];
    const LANES: usize = I::U16_LANES;

    #[inline(always)]
    unsafe fn load(isa: I, at: *const bf16, width: usize) -> Self::Vector {
        // SAFETY: by the caller.
        [cast(unsafe { load_bf16(isa, at, width) }); 2]
    }

    #[inline(always)]
    fn join(isa: I, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        [isa.max_i16s(a[0], b[0]), isa.min_i16s(a[1], b[1])]
    }

    #[inline(always)]
    unsafe fn store(isa: I, at: *mut u8, vector: Self::Vector, end: &End<I>, width: usize) {
        let [largest, smallest] = vector;
        let other = isa.and_i16s(isa.xor_i16s(largest, smallest), signs::<I>(largest));
        let mut value = isa.xor_i16s(largest, other);
        if end.epilogue.bias {
            // SAFETY: by the caller.
            return unsafe { store_sums(isa, at.cast(), halves(isa, cast(value)), end, width) };
        }
        if end.epilogue.relu {
            value = isa.max_i16s(value, isa.splat_i16s(0));
        }
        // SAFETY: by the caller.
        unsafe { store_bf16::<I>(at.cast(), cast(value), width) };
    }
}

impl<I: Isa> Join<I> for Max<u8> {
    type Element = u8;
    type Vector = I::u32s;
    const LANES: usize = 2 * I::U16_LANES;

    #[inline(always)]
    unsafe fn load(isa: I, at: *const u8, width: usize) -> I::u32s {
        let mut vector = isa.splat_u32s(0);
        // SAFETY: by the caller; `u32s` is plain data of as many bytes.
        unsafe {
            if width >= <Self as Join<I>>::LANES {
                return at.cast::<I::u32s>().read_unaligned();
            }
            (&raw mut vector).cast::<u8>().copy_from_nonoverlapping(at, width);
        }
        vector
    }

    #[inline(always)]
    fn join(_: I, mut a: I::u32s, b: I::u32s) -> I::u32s {
        let largest: &mut [u8] = cast_slice_mut(std::slice::from_mut(&mut a));
        let other: &[u8] = cast_slice(std::slice::from_ref(&b));
        largest.iter_mut().zip(other).for_each(|(a, &b)| *a = (*a).max(b));
        a
    }

    /// ReLU changes nothing, and there is no bias.
    #[inline(always)]
    unsafe fn store(_: I, at: *mut u8, vector: I::u32s, _: &End<I>, width: usize) {
        // SAFETY: by the caller; `u32s` is plain data of as many bytes.
        unsafe {
            if width >= <Self as Join<I>>::LANES {
                at.cast::<I::u32s>().write_unaligned(vector);
            } else {
                at.copy_from_nonoverlapping((&raw const vector).cast(), width);
            }
        }
    }
}

impl<I: Isa> Join<I> for Sum<u8> {
    type Element = u8;
    type Vector = I::f32s;
    const LANES: usize = I::F32_LANES;

    #[inline(always)]
    unsafe fn load(isa: I, at: *const u8, width: usize) -> I::f32s {
        // SAFETY: by the caller.
        unsafe { widen_first(isa, at, width) }
    }

    #[inline(always)]
    fn join(isa: I, a: I::f32s, b: I::f32s) -> I::f32s {
        isa.add_f32s(a, b)
    }

    #[inline(always)]
    unsafe fn store(isa: I, at: *mut u8, vector: I::f32s, end: &End<I>, width: usize) {
        // SAFETY: by the caller.
        unsafe { end.store(isa, at, vector, width) };
    }
}

impl<I: Isa> Join<I> for Sum<bf16> {
    type Element = bf16;
    /// The even and the odd channels.
    type Vector = [I::f32s; 2];
    const LANES: usize = I::U16_LANES;

    #[inline(always)]
    unsafe fn load(isa: I, at: *const bf16, width: usize) -> Self::Vector {
        // SAFETY: by the caller.
        halves(isa, unsafe { load_bf16(isa, at, width) })
    }

    #[inline(always)]
    fn join(isa: I, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        [isa.add_f32s(a[0], b[0]), isa.add_f32s(a[1], b[1])]
    }

    #[inline(always)]
    unsafe fn store(isa: I, at: *mut u8, vector: Self::Vector, end: &End<I>, width: usize) {
        // SAFETY: by the caller.
        unsafe { store_sums(isa, at.cast(), vector, end, width) };
    }
}

/// Loads the first `width` elements of a vector as [`Join::load`] does; the rest is zero.
#[inline(always)]
unsafe fn load_bf16<I: Isa>(isa: I, at: *const bf16, width: usize) -> I::u32s {
    // SAFETY: by the caller; `u32s` is plain data of `U16_LANES` u16, and a bf16 is a u16.
    unsafe {
        if width >= I::U16_LANES {
            return at.cast::<I::u32s>().read_unaligned();
        }
        let mut vector = isa.splat_u32s(0);
        (&raw mut vector).cast::<bf16>().copy_from_nonoverlapping(at, width);
        vector
    }
}

/// Stores the first `width` elements of a vector as [`Join::store`] does.
#[inline(always)]
unsafe fn store_bf16<I: Isa>(at: *mut bf16, value: I::u32s, width: usize) {
    // SAFETY: by the caller; `u32s` is plain data of `U16_LANES` u16, and a bf16 is a u16.
    unsafe {
        if width >= I::U16_LANES {
            at.cast::<I::u32s>().write_unaligned(value);
        } else {
            at.copy_from_nonoverlapping((&raw const value).cast(), width);
        }
    }
}

/// The bits of the second of two neighbours.
const ODD: u32 = 0xffff_0000;

/// The even and the odd channels.
#[inline(always)]
fn halves<I: Isa>(isa: I, pairs: I::u32s) -> [I::f32s; 2] {
    let even = each::<I>(pairs, |pair| pair << 16);
    [even, isa.and_u32s(pairs, isa.splat_u32s(ODD))].map(|bits| isa.transmute_f32s_u32s(bits))
}

/// Ends, rounds and writes sums of the even and the odd channels, as [`Join::store`] does.
#[inline(always)]
unsafe fn store_sums<I: Isa>(isa: I, at: *mut bf16, sums: [I::f32s; 2], end: &End<I>, width: usize) {
    // SAFETY: by the caller, the bias of a whole vector is there.
    let [even, odd] = unsafe {
        [end.apply(isa, sums[0], 0, I::F32_LANES), end.apply(isa, sums[1], I::F32_LANES, I::F32_LANES)]
    };
    let even = each::<I>(rounded(isa, even), |bits| bits >> 16);
    let odd = isa.and_u32s(rounded(isa, odd), isa.splat_u32s(ODD));
    // SAFETY: by the caller.
    unsafe { store_bf16::<I>(at, isa.or_u32s(odd, even), width) };
}

/// Rounds: f32 whose upper halves are the nearest bf16, ties to even.
///
/// The lower half of a NaN is zero here, as it comes from a bf16 or an operation: it stays so.
#[inline(always)]
fn rounded<I: Isa>(isa: I, value: I::f32s) -> I::u32s {
    let bits = isa.transmute_u32s_f32s(value);
    // More than half of the last place is carried into it, and half is where that place is odd.
    let odd = isa.and_u32s(each::<I>(bits, |bits| bits >> 16), isa.splat_u32s(1));
    isa.add_u32s(isa.or_u32s(bits, odd), isa.splat_u32s(0x7fff))
}

/// All bits of the negative ones.
#[inline(always)]
fn signs<I: Isa>(mut vector: I::i16s) -> I::i16s {
    let lanes: &mut [i16] = cast_slice_mut(std::slice::from_mut(&mut vector));
    lanes.iter_mut().for_each(|lane| *lane >>= 15);
    vector
}
