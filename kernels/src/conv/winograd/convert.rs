//! Tiles of bf16 or u8, widened to a patch of f32 for transforms that read f32.

use std::marker::PhantomData;

use half::bf16;

use crate::cpu::Isa;
use crate::tensor::{Dtype, Element};
use crate::vector::widen_first;

/// Pixels of a tile.
pub(super) struct Pixels {
    /// The first byte of the tile's first pixel.
    pub(super) first: *const u8,
    /// Bytes along the two axes.
    pub(super) pitch: [usize; 2],
    /// The pixels that lie inside the image, along the two axes: the first, and the one behind the
    /// last.
    pub(super) inside: [[usize; 2]; 2],
}

impl Pixels {
    #[inline(always)]
    pub(super) fn at(&self, i: usize, j: usize) -> *const u8 {
        self.first.wrapping_add(i * self.pitch[0] + j * self.pitch[1])
    }
}

/// Widens a vector of each pixel inside the image, or `width` channels from `c` on, to its place in
/// a patch of rows of `columns`.
///
/// # Safety
/// These may be read, and are of type `dtype`, not f32; the vectors of the patch may be written by
/// this caller alone.
#[inline(always)]
pub(super) unsafe fn widen_tile<I: Isa>(
    isa: I,
    dtype: Dtype,
    pixels: &Pixels,
    [c, width]: [usize; 2],
    patch: *mut I::f32s,
    columns: usize,
) {
    // SAFETY: by the caller.
    unsafe {
        if dtype == Dtype::U8 {
            widen_tile_of::<I, u8>(isa, pixels, [c, width], patch, columns);
        } else {
            widen_tile_of::<I, bf16>(isa, pixels, [c, width], patch, columns);
        }
    }
}

/// [`widen_tile`] of one type.
///
/// # Safety
/// As there.
// A function that all transforms share: inside them it would take registers from f32.
#[inline(never)]
unsafe fn widen_tile_of<I: Isa, T: Element>(
    isa: I,
    pixels: &Pixels,
    channels: [usize; 2],
    patch: *mut I::f32s,
    columns: usize,
) {
    isa.vectorize(Widen::<I, T> { isa, pixels, channels, patch, columns, element: PhantomData });
}

struct Widen<'a, I: Isa, T> {
    isa: I,
    pixels: &'a Pixels,
    channels: [usize; 2],
    patch: *mut I::f32s,
    columns: usize,
    element: PhantomData<T>,
}

impl<I: Isa, T: Element> pulp::WithSimd for Widen<'_, I, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { isa, pixels, channels: [c, width], patch, columns, .. } = self;
        for i in pixels.inside[0][0]..pixels.inside[0][1] {
            for j in pixels.inside[1][0]..pixels.inside[1][1] {
                let pixel = pixels.at(i, j).cast::<T>().wrapping_add(c);
                // SAFETY: promised to `widen_tile_of`, the only caller.
                unsafe { patch.add(i * columns + j).write(widen_first(isa, pixel, width)) };
            }
        }
    }
}
