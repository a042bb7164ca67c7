//! Loads and stores of vectors: of f32 as they are, of other elements widened to f32 and rounded back.

use std::mem::MaybeUninit;

use crate::cpu::Isa;
use crate::tensor::{Dtype, Element};

/// Loads a vector.
///
/// # Safety
/// `LANES` elements at `ptr` may be read.
#[inline(always)]
#[allow(unsafe_code, reason = "vector code")]
pub unsafe fn load<I: Isa>(ptr: *const f32) -> I::f32s {
    // SAFETY: by the caller; `f32s` is plain data of `LANES` f32.
    unsafe { ptr.cast::<I::f32s>().read_unaligned() }
}

/// Stores a vector.
///
/// # Safety
/// `LANES` elements at `ptr` may be written.
#[inline(always)]
#[allow(unsafe_code, reason = "vector code")]
pub unsafe fn store<I: Isa>(ptr: *mut f32, value: I::f32s) {
    // SAFETY: by the caller.
    unsafe { ptr.cast::<I::f32s>().write_unaligned(value) }
}

/// Stores the first `width` elements of a vector, at most all.
///
/// # Safety
/// `min(width, LANES)` elements at `ptr` may be written.
#[inline(always)]
#[allow(unsafe_code, reason = "vector code")]
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
///
/// # Safety
/// `min(width, LANES)` elements at `ptr` may be read.
#[inline(always)]
#[allow(unsafe_code, reason = "vector code")]
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
///
/// # Safety
/// `LANES` elements at `ptr` may be read.
#[inline(always)]
#[allow(unsafe_code, reason = "vector code")]
pub unsafe fn widen<I: Isa, T: Element>(ptr: *const T) -> I::f32s {
    if T::DTYPE == Dtype::F32 {
        // SAFETY: by the caller.
        return unsafe { load::<I>(ptr.cast()) };
    }
    let mut vector = MaybeUninit::<I::f32s>::uninit();
    let lanes = vector.as_mut_ptr().cast::<f32>();
    for lane in 0..I::F32_LANES {
        // SAFETY: by the caller; `f32s` is plain data of `LANES` f32.
        unsafe { lanes.add(lane).write(ptr.add(lane).read().value()) };
    }
    // SAFETY: all lanes have been written.
    unsafe { vector.assume_init() }
}

/// As [`widen`], of the first `width` elements, at most all; the rest is zero.
///
/// # Safety
/// `min(width, LANES)` elements at `ptr` may be read.
#[inline(always)]
#[allow(unsafe_code, reason = "vector code")]
pub unsafe fn widen_first<I: Isa, T: Element>(isa: I, ptr: *const T, width: usize) -> I::f32s {
    if T::DTYPE == Dtype::F32 {
        // SAFETY: by the caller.
        return unsafe { load_first(isa, ptr.cast(), width) };
    }
    if width >= I::F32_LANES {
        // SAFETY: by the caller.
        return unsafe { widen::<I, T>(ptr) };
    }
    let mut vector = isa.splat_f32s(0.0);
    let lanes = (&raw mut vector).cast::<f32>();
    for lane in 0..width {
        // SAFETY: by the caller; a lane of the vector.
        unsafe { lanes.add(lane).write(ptr.add(lane).read().value()) };
    }
    vector
}

/// Stores the first `width` elements of a vector, at most all, rounded to nearest, ties to even.
///
/// # Safety
/// `min(width, LANES)` elements at `ptr` may be written.
#[inline(always)]
#[allow(unsafe_code, reason = "vector code")]
pub unsafe fn narrow_first<I: Isa, T: Element>(isa: I, ptr: *mut T, value: I::f32s, width: usize) {
    if T::DTYPE == Dtype::F32 {
        // SAFETY: by the caller.
        return unsafe { store_first(isa, ptr.cast(), value, width) };
    }
    let lanes = (&raw const value).cast::<f32>();
    if width >= I::F32_LANES {
        for lane in 0..I::F32_LANES {
            // SAFETY: by the caller; a lane of the vector.
            unsafe { ptr.add(lane).write(T::of(lanes.add(lane).read())) };
        }
        return;
    }
    for lane in 0..width {
        // SAFETY: by the caller; a lane of the vector.
        unsafe { ptr.add(lane).write(T::of(lanes.add(lane).read())) };
    }
}
