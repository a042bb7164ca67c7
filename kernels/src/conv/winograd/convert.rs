//! Tiles of bf16 or u8, widened to a patch of f32 before the transforms and rounded from one behind
//! them.

use std::ops::Range;

use half::bf16;

use crate::cpu::Isa;
use crate::tensor::{Dtype, Element};
use crate::vector::{narrow_first, widen_first};

/// Pixels of a tile.
pub(super) struct Pixels<T> {
    /// A vector's first channel of the tile's first pixel.
    pub(super) first: *mut T,
    /// Elements along the two axes.
    pub(super) pitch: [usize; 2],
    /// Pixels that lie inside the image, along the two axes.
    pub(super) inside: [Range<usize>; 2],
    /// Channels from the vector on.
    pub(super) width: usize,
}

/// [`convert_tile`] for pixels of a type that `first` is the first byte of, not f32.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn convert<I: Isa, const WIDENS: bool>(
    isa: I,
    dtype: Dtype,
    pixels: Pixels<u8>,
    patch: *mut I::f32s,
    columns: usize,
) {
    let Pixels { first, pitch, inside, width } = pixels;
    // SAFETY: by the caller.
    unsafe {
        if dtype == Dtype::U8 {
            convert_tile::<I, u8, WIDENS>(isa, &Pixels { first, pitch, inside, width }, patch, columns);
        } else {
            let pixels = Pixels { first: first.cast::<bf16>(), pitch, inside, width };
            convert_tile::<I, bf16, WIDENS>(isa, &pixels, patch, columns);
        }
    }
}

/// Converts a vector of each pixel from or to a patch of rows of `columns`: one that `WIDENS` reads
/// the pixels, one that does not rounds what it writes to them.
///
/// # Safety
/// A vector of each pixel, or `width` channels, may be read, or written by this caller alone; a
/// vector of the patch for each the other way round.
// A function that all transforms share: inside them it would take registers from f32.
#[inline(never)]
unsafe fn convert_tile<I: Isa, T: Element, const WIDENS: bool>(
    isa: I,
    pixels: &Pixels<T>,
    patch: *mut I::f32s,
    columns: usize,
) {
    isa.vectorize(Convert::<I, T, WIDENS> { isa, pixels, patch, columns });
}

struct Convert<'a, I: Isa, T, const WIDENS: bool> {
    isa: I,
    pixels: &'a Pixels<T>,
    patch: *mut I::f32s,
    columns: usize,
}

impl<I: Isa, T: Element, const WIDENS: bool> pulp::WithSimd for Convert<'_, I, T, WIDENS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { isa, pixels, patch, columns } = self;
        for i in pixels.inside[0].clone() {
            for j in pixels.inside[1].clone() {
                let pixel = pixels.first.wrapping_add(i * pixels.pitch[0] + j * pixels.pitch[1]);
                // SAFETY: promised to `convert_tile`, the only caller.
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
