//! Loads and stores of vectors: of f32, and of other elements widened to f32 and rounded back.
//!
//! # Safety
//! As many elements may be read or written at `ptr` as are loaded or stored: all lanes, or `width`
//! where that is less.

#![allow(unsafe_code, reason = "vector code")]

use std::mem::MaybeUninit;

use half::bf16;

use crate::cpu::Isa;
use crate::tensor::{Dtype, Element};

/// Loads a vector.
#[inline(always)]
pub unsafe fn load<I: Isa>(ptr: *const f32) -> I::f32s {
    // SAFETY: by the caller; `f32s` is plain data of `LANES` f32.
    unsafe { ptr.cast::<I::f32s>().read_unaligned() }
}

/// Stores a vector.
#[inline(always)]
pub unsafe fn store<I: Isa>(ptr: *mut f32, value: I::f32s) {
    // SAFETY: by the caller.
    unsafe { ptr.cast::<I::f32s>().write_unaligned(value) }
}

/// Stores the first `width` elements of a vector, at most all.
#[inline(always)]
pub unsafe fn store_first<I: Isa>(isa: I, ptr: *mut f32, value: I::f32s, width: usize) {
    if width >= I::F32_LANES {
        // SAFETY: by the caller.
        unsafe { store::<I>(ptr, value) };
    } else {
        // SAFETY: by the caller.
        let tail = unsafe { std::slice::from_raw_parts_mut(ptr, width) };
        isa.partial_store_f32s(tail, value);
    }
}

/// Loads the first `width` elements of a vector, at most all; the rest is zero.
#[inline(always)]
pub unsafe fn load_first<I: Isa>(isa: I, ptr: *const f32, width: usize) -> I::f32s {
    if width >= I::F32_LANES {
        // SAFETY: by the caller.
        unsafe { load::<I>(ptr) }
    } else {
        // SAFETY: by the caller.
        isa.partial_load_f32s(unsafe { std::slice::from_raw_parts(ptr, width) })
    }
}

/// Loads a vector of elements as f32.
#[inline(always)]
pub unsafe fn widen<I: Isa, T: Element>(isa: I, ptr: *const T) -> I::f32s {
    // SAFETY: by the caller.
    unsafe {
        match T::DTYPE {
            Dtype::F32 => load::<I>(ptr.cast()),
            Dtype::Bf16 => {
                let bits = each::<I>(isa.load_halves(ptr.cast()), |half| half << 16);
                isa.transmute_f32s_u32s(bits)
            }
            Dtype::U8 => from_whole(isa, isa.load_bytes(ptr.cast())),
        }
    }
}

/// Loads the first `width` elements as f32, at most a vector; the rest is zero.
#[inline(always)]
pub unsafe fn widen_first<I: Isa, T: Element>(isa: I, ptr: *const T, width: usize) -> I::f32s {
    if width >= I::F32_LANES {
        // SAFETY: by the caller.
        return unsafe { widen(isa, ptr) };
    }
    let mut vector = isa.splat_f32s(0.0);
    // SAFETY: by the caller; `f32s` is plain data of `LANES` f32.
    let (lanes, elements) = unsafe {
        let lanes = std::slice::from_raw_parts_mut((&raw mut vector).cast::<f32>(), width);
        (lanes, std::slice::from_raw_parts(ptr, width))
    };
    lanes.iter_mut().zip(elements).for_each(|(lane, element)| *lane = element.to_f32());
    vector
}

/// Stores the first `width` elements of a vector, at most all, rounded to nearest, ties to even.
#[inline(always)]
pub unsafe fn narrow_first<I: Isa, T: Element>(isa: I, ptr: *mut T, value: I::f32s, width: usize) {
    // SAFETY: by the caller.
    unsafe {
        match T::DTYPE {
            Dtype::F32 => store_first(isa, ptr.cast(), value, width),
            Dtype::Bf16 => {
                let halves = each::<I>(rounded(isa, value), |bits| bits >> 16);
                store_elements(isa, ptr, width, |to| isa.store_halves(to.cast(), halves));
            }
            Dtype::U8 => store_elements(isa, ptr, width, |to| isa.store_bytes(to.cast(), whole(isa, value))),
        }
    }
}

/// [`narrow_first`] for a type that `ptr` is the first byte of.
#[inline(always)]
pub unsafe fn narrow_first_to<I: Isa>(isa: I, dtype: Dtype, ptr: *mut u8, value: I::f32s, width: usize) {
    // SAFETY: by the caller.
    unsafe {
        match dtype {
            Dtype::F32 => narrow_first(isa, ptr.cast::<f32>(), value, width),
            Dtype::Bf16 => narrow_first(isa, ptr.cast::<bf16>(), value, width),
            Dtype::U8 => narrow_first(isa, ptr, value, width),
        }
    }
}

/// The most lanes of any vector.
const MOST_LANES: usize = 16;

/// Stores the first `width` elements of the vector that `store` writes, at most all.
#[inline(always)]
unsafe fn store_elements<I: Isa, T>(_: I, ptr: *mut T, width: usize, store: impl Fn(*mut T)) {
    if width >= I::F32_LANES {
        return store(ptr);
    }
    let mut elements = MaybeUninit::<[T; MOST_LANES]>::uninit();
    store(elements.as_mut_ptr().cast());
    // SAFETY: by the caller; a vector of elements has been written.
    unsafe { ptr.copy_from_nonoverlapping(elements.as_ptr().cast(), width) };
}

/// Stores a vector times a factor as whole numbers of 16 bits, the nearest, ties to even: none is
/// larger.
///
/// A sum with `1.5 * 2^23` is rounded to a whole number, whose bits are its lowest ones.
#[inline(always)]
pub unsafe fn round_to_i16<I: Isa>(isa: I, ptr: *mut i16, value: I::f32s, factor: f32) {
    let whole = isa.fma(value, isa.splat_f32s(factor), isa.splat_f32s(12_582_912.0));
    // SAFETY: by the caller.
    unsafe {
        isa.store_halves(ptr.cast(), isa.transmute_u32s_f32s(whole));
    }
}

/// Numbers whose lowest bytes are the nearest from 0 to 255, ties to even; 0 for a NaN.
///
/// A sum with `1.5 * 2^23` is rounded to a whole number, whose bits are its lowest ones.
#[inline(always)]
fn whole<I: Isa>(isa: I, value: I::f32s) -> I::u32s {
    let [least, most, shifter] = [0.0, 255.0, 12_582_912.0].map(|value| isa.splat_f32s(value));
    // The second is the result where one is no number.
    let clamped = isa.min_f32s(isa.max_f32s(value, least), most);
    isa.transmute_u32s_f32s(isa.add_f32s(clamped, shifter))
}

/// Whole numbers of 32 bits with a sign, as f32.
#[inline(always)]
pub fn from_whole<I: Isa>(isa: I, numbers: I::u32s) -> I::f32s {
    isa.transmute_f32s_u32s(each::<I>(numbers, |number| (number as i32 as f32).to_bits()))
}

/// An operation on each lane, which becomes one of vectors where there is one.
#[inline(always)]
pub fn each<I: Isa>(mut vector: I::u32s, operation: impl Fn(u32) -> u32) -> I::u32s {
    let lanes = (&raw mut vector).cast::<u32>();
    // SAFETY: `u32s` is plain data of as many u32 as `f32s` is of f32.
    let lanes = unsafe { std::slice::from_raw_parts_mut(lanes, I::F32_LANES) };
    lanes.iter_mut().for_each(|lane| *lane = operation(*lane));
    vector
}

/// f32 whose upper halves are the nearest bf16, ties to even; a NaN stays a NaN.
#[inline(always)]
fn rounded<I: Isa>(isa: I, value: I::f32s) -> I::u32s {
    let bits = isa.transmute_u32s_f32s(value);
    // One more than half of the last place where that is odd, else half less one: ties go to even.
    let odd = isa.and_u32s(each::<I>(bits, |bits| bits >> 16), isa.splat_u32s(1));
    let nearest = isa.add_u32s(isa.add_u32s(bits, isa.splat_u32s(0x7fff)), odd);
    let quiet = isa.or_u32s(bits, isa.splat_u32s(1 << 22));
    isa.select_u32s(isa.equal_f32s(value, value), nearest, quiet)
}

/// `e^x` for `x <= 0`; below -87 it stays at `e^-87`.
///
/// It is `2^n * e^r` with `n = round(x / ln 2)`, `|r| <= ln 2 / 2` and a polynomial of degree 6 for
/// `e^r` (the rest of its Taylor series is below `2^-22` there). `n` is found by adding `1.5 *
/// 2^23`, which leaves it in the low bits of the sum.
#[inline(always)]
pub fn exp<I: Isa>(isa: I, x: I::f32s) -> I::f32s {
    let splat = |v| isa.splat_f32s(v);
    let shifter = splat(12_582_912.0);
    let x = isa.max_f32s(x, splat(-87.0));
    let shifted = isa.add_f32s(isa.mul_f32s(x, splat(std::f32::consts::LOG2_E)), shifter);
    let n = isa.sub_f32s(shifted, shifter);
    // ln 2 in two parts: n times the first is exact.
    let r = isa.fma(n, splat(-0.693_359_4), x);
    let r = isa.fma(n, splat(2.121_944_4e-4), r);
    let mut p = splat(1.0 / 720.0);
    for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = isa.fma(p, r, splat(c));
    }
    let exponent = isa.wrapping_dyn_shl_u32s(isa.transmute_u32s_f32s(shifted), isa.splat_u32s(23));
    isa.transmute_f32s_u32s(isa.add_u32s(isa.transmute_u32s_f32s(p), exponent))
}
