//! Loads and stores of vectors: of f32, and of other elements widened to f32 and rounded back.
//!
//! # Safety
//! As many elements may be read or written at `ptr` as are loaded or stored: all lanes, or `width`
//! where that is less.

#![allow(unsafe_code, reason = "vector code")]

use std::mem::MaybeUninit;

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

/// Loads the first `width` elements as f32, at most a vector; the rest is zero.
#[inline(always)]
pub unsafe fn widen_first<I: Isa, T: Element>(isa: I, ptr: *const T, width: usize) -> I::f32s {
    // SAFETY: by the caller; `f32s` is plain data of `LANES` f32, all of which are initialised.
    unsafe {
        if T::DTYPE == Dtype::F32 {
            return load_first(isa, ptr.cast(), width);
        }
        if width >= I::F32_LANES {
            let mut vector = MaybeUninit::<I::f32s>::uninit();
            let lanes = vector.as_mut_ptr().cast::<MaybeUninit<f32>>();
            let lanes = std::slice::from_raw_parts_mut(lanes, I::F32_LANES);
            let elements = std::slice::from_raw_parts(ptr, I::F32_LANES);
            lanes.iter_mut().zip(elements).for_each(|(lane, element)| _ = lane.write(element.to_f32()));
            return vector.assume_init();
        }
        let mut vector = isa.splat_f32s(0.0);
        let lanes = std::slice::from_raw_parts_mut((&raw mut vector).cast::<f32>(), width);
        let elements = std::slice::from_raw_parts(ptr, width);
        lanes.iter_mut().zip(elements).for_each(|(lane, element)| *lane = element.to_f32());
        vector
    }
}

/// Stores the first `width` elements of a vector, at most all, rounded to nearest, ties to even.
#[inline(always)]
pub unsafe fn narrow_first<I: Isa, T: Element>(isa: I, ptr: *mut T, value: I::f32s, width: usize) {
    if T::DTYPE == Dtype::F32 {
        // SAFETY: by the caller.
        return unsafe { store_first(isa, ptr.cast(), value, width) };
    }
    let bits = rounded(isa, value);
    let lanes = (&raw const bits).cast::<u32>();
    let store = |count: usize| {
        // SAFETY: by the caller; `count` is at most the lanes.
        let (lanes, elements) = unsafe {
            let elements = std::slice::from_raw_parts_mut(ptr.cast::<u16>(), count);
            (std::slice::from_raw_parts(lanes, count), elements)
        };
        elements.iter_mut().zip(lanes).for_each(|(element, lane)| *element = (lane >> 16) as u16);
    };
    // The number of lanes is a constant, for which there are instructions.
    if width >= I::F32_LANES { store(I::F32_LANES) } else { store(width) }
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
