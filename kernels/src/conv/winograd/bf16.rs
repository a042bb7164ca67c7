//! Tiles of bf16, widened to a patch of f32 before the transforms and rounded from one behind them.

use std::ops::Range;

use half::bf16;

use crate::cpu::Isa;
use crate::vector::{narrow_first, widen_first};

/// Pixels of a tile in bf16.
pub(super) struct Lower {
    /// A vector's first channel of the tile's first pixel.
    pub(super) first: *mut bf16,
    /// Elements from a row of pixels to the next, and from a pixel to the next.
    pub(super) pitch: [usize; 2],
    /// Which pixels there are.
    pub(super) pixels: [Range<usize>; 2],
    /// Channels from the vector on.
    pub(super) width: usize,
}

impl Lower {
    /// Calls `visit` for each pixel, with its number in a patch of rows of `columns`.
    #[inline(always)]
    fn each(&self, columns: usize, mut visit: impl FnMut(usize, *mut bf16)) {
        for i in self.pixels[0].clone() {
            for j in self.pixels[1].clone() {
                visit(i * columns + j, self.first.wrapping_add(i * self.pitch[0] + j * self.pitch[1]));
            }
        }
    }
}

/// Reads a vector of each pixel into a patch of rows of `columns`.
///
/// # Safety
/// A vector of each pixel, or `width` channels, may be read, and a vector of the patch written for each.
// A function of its own, which all transforms share: inside them it would take registers from f32.
#[inline(never)]
#[allow(unsafe_code, reason = "vector code")]
pub(super) unsafe fn widen_tile<I: Isa>(isa: I, tile: &Lower, patch: *mut I::f32s, columns: usize) {
    isa.vectorize(Widen { isa, tile, patch, columns });
}

struct Widen<'a, I: Isa> {
    isa: I,
    tile: &'a Lower,
    patch: *mut I::f32s,
    columns: usize,
}

impl<I: Isa> pulp::WithSimd for Widen<'_, I> {
    type Output = ();

    #[inline(always)]
    #[allow(unsafe_code, reason = "vector code")]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { isa, tile, patch, columns } = self;
        tile.each(columns, |at, pixel| {
            // SAFETY: promised to `widen_tile`, the only caller.
            unsafe { patch.add(at).write(widen_first(isa, pixel.cast_const(), tile.width)) };
        });
    }
}

/// Writes a vector of each pixel, rounded, from a patch of rows of `columns`.
///
/// # Safety
/// `width` channels of each pixel, at most a vector, may be written by this caller alone, and a vector of the
/// patch be read for each.
#[inline(never)]
#[allow(unsafe_code, reason = "vector code")]
pub(super) unsafe fn narrow_tile<I: Isa>(isa: I, tile: &Lower, patch: *const I::f32s, columns: usize) {
    isa.vectorize(Narrow { isa, tile, patch, columns });
}

struct Narrow<'a, I: Isa> {
    isa: I,
    tile: &'a Lower,
    patch: *const I::f32s,
    columns: usize,
}

impl<I: Isa> pulp::WithSimd for Narrow<'_, I> {
    type Output = ();

    #[inline(always)]
    #[allow(unsafe_code, reason = "vector code")]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { isa, tile, patch, columns } = self;
        tile.each(columns, |at, pixel| {
            // SAFETY: promised to `narrow_tile`, the only caller.
            unsafe { narrow_first(isa, pixel, patch.add(at).read(), tile.width) };
        });
    }
}
