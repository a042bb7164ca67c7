//! Tiles of bf16, widened to a patch of f32 before the transforms and rounded from one behind them.

use std::ops::Range;

use half::bf16;

use crate::cpu::Isa;
use crate::vector::{narrow_first, widen_first};

/// Pixels of a tile in bf16.
pub(super) struct Pixels {
    /// A vector's first channel of the tile's first pixel.
    pub(super) first: *mut bf16,
    /// Elements from a row of pixels to the next, and from a pixel to the next.
    pub(super) pitch: [usize; 2],
    /// Which pixels there are.
    pub(super) inside: [Range<usize>; 2],
    /// Channels from the vector on.
    pub(super) width: usize,
}

/// Reads a vector of each pixel into a patch of rows of `columns`.
///
/// # Safety
/// A vector of each pixel, or `width` channels, may be read, and a vector of the patch written for
/// each.
// A function that all transforms share: inside them it would take registers from f32.
#[inline(never)]
pub(super) unsafe fn widen_tile<I: Isa>(isa: I, pixels: &Pixels, patch: *mut I::f32s, columns: usize) {
    isa.vectorize(Convert::<I, true> { isa, pixels, patch, columns });
}

/// Writes a vector of each pixel, rounded, from a patch of rows of `columns`.
///
/// # Safety
/// `width` channels of each pixel, at most a vector, may be written by this caller alone, and a
/// vector of the patch be read for each.
#[inline(never)]
pub(super) unsafe fn narrow_tile<I: Isa>(isa: I, pixels: &Pixels, patch: *mut I::f32s, columns: usize) {
    isa.vectorize(Convert::<I, false> { isa, pixels, patch, columns });
}

/// From pixels to a patch, or back.
struct Convert<'a, I: Isa, const WIDENS: bool> {
    isa: I,
    pixels: &'a Pixels,
    patch: *mut I::f32s,
    columns: usize,
}

impl<I: Isa, const WIDENS: bool> pulp::WithSimd for Convert<'_, I, WIDENS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { isa, pixels, patch, columns } = self;
        for i in pixels.inside[0].clone() {
            for j in pixels.inside[1].clone() {
                let pixel = pixels.first.wrapping_add(i * pixels.pitch[0] + j * pixels.pitch[1]);
                // SAFETY: promised to `widen_tile` or `narrow_tile`, the only callers.
                unsafe {
                    let vector = patch.add(i * columns + j);
                    if WIDENS {
                        vector.write(widen_first(isa, pixel.cast_const(), pixels.width));
                    } else {
                        narrow_first(isa, pixel, vector.read(), pixels.width);
                    }
                }
            }
        }
    }
}
