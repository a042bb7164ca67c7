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
    // SAFETY: by the caller.
    unsafe {
        match T::DTYPE {
            Dtype::F32 => store_first(isa, ptr.cast(), value, width),
            Dtype::Bf16 => {
                store_lanes::<I, u16>(ptr.cast(), rounded(isa, value), width, |lane| (lane >> 16) as u16);
            }
            Dtype::U8 => store_lanes::<I, u8>(ptr.cast(), whole(isa, value), width, |lane| lane as u8),
        }
    }
}

/// Stores what is made of each of the first `width` lanes, at most all.
#[inline(always)]
unsafe fn store_lanes<I: Isa, T>(ptr: *mut T, bits: I::u32s, width: usize, narrow: impl Fn(u32) -> T) {
    let lanes = (&raw const bits).cast::<u32>();
    let store = |count: usize| {
        // SAFETY: by the caller; `count` is at most the lanes.
        let (lanes, elements) =
            unsafe { (std::slice::from_raw_parts(lanes, count), std::slice::from_raw_parts_mut(ptr, count)) };
        elements.iter_mut().zip(lanes).for_each(|(element, lane)| *element = narrow(*lane));
    };
    // The number of lanes is a constant, for which there are instructions.
    if width >= I::F32_LANES { store(I::F32_LANES) } else { store(width) }
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
        store_lanes::<I, i16>(ptr, isa.transmute_u32s_f32s(whole), I::F32_LANES, |lane| lane as i16);
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
