//! Scales, bias, ReLU and rounding of sums on their way to memory.

use std::arch::x86_64::{__m256i, __m512i};
use std::marker::PhantomData;
use std::ops::Range;

use pulp::Simd;

use super::PreparedAmx;
use super::element::TilePixel;
use super::pixels::{Cut, Tile};
use crate::arch::amx::{ROWS, TILE};
use crate::cpu::{Avx512, Avx512Bf16, Isa};
use crate::gemm::panels::Panel;
use crate::tensor::{Dtype, ViewMut};
use crate::vector::{from_whole, load, narrow_first, narrow_first_to};

/// Ends the sums of a tile's pixels.
///
/// # Safety
/// The sums of the tile, a tile for each vector of the panel, may be read; the outputs of the
/// tile's pixels that are not done may be written by this caller alone.
#[inline(always)]
pub unsafe fn finish<T: TilePixel>(
    step: &PreparedAmx<T>,
    panel: &Panel,
    dst: &ViewMut,
    sums: *const f32,
    cut: &Cut,
    tile: &Tile,
) {
    let isa = step.isa;
    let epilogue = step.conv.segments[panel.segment].epilogue;
    let (dtype, zero) = (dst.dtype, isa.splat_f32s(0.0));
    let floor = isa.splat_f32s(if epilogue.relu { 0.0 } else { f32::NEG_INFINITY });
    let vectors = |of: *const f32| {
        // SAFETY: a panel has as many biases, and scales where its sums are whole numbers.
        let load = |vector| unsafe { load::<Avx512>(of.wrapping_add(vector * ROWS)) };
        [0, 1].map(|vector| if vector < panel.vectors { load(vector) } else { zero })
    };
    let bias = if epilogue.bias { vectors(step.panels.bias(panel)) } else { [zero; 2] };
    let scales = if is_whole::<T>() { vectors(step.panels.scales(panel)) } else { [zero; 2] };
    let end = End::<T> { isa, bf16: step.bf16, scales, bias, floor, sums, element: PhantomData };
    let mut pixel = tile.done;
    while pixel < cut.pixels() {
        let (at, count, pitch) = cut.dst(tile, pixel, dst);
        let at = at.wrapping_add(panel.first * dtype.bytes());
        let pixels = pixel..pixel + count;
        // SAFETY: by the caller.
        unsafe {
            match (dtype, panel.width) {
                (Dtype::Bf16, WIDE) => end.bf16::<2>(pixels, at, pitch),
                (Dtype::Bf16, ROWS) => end.bf16::<1>(pixels, at, pitch),
                (Dtype::U8, WIDE) => end.u8::<2>(pixels, at, pitch),
                (Dtype::U8, ROWS) => end.u8::<1>(pixels, at, pitch),
                _ => end.first(pixels, at, pitch, dtype, panel.width),
            }
        }
        pixel += count;
    }
}

/// Whether the sums are whole numbers of 32 bits.
const fn is_whole<T: TilePixel>() -> bool {
    size_of::<T>() == 1
}

/// Channels of a panel of two vectors.
const WIDE: usize = 2 * ROWS;

type Vector = <Avx512 as pulp::Simd>::f32s;

/// The epilogue of a tile.
///
/// # Safety of its functions
/// There are sums of the pixels and vectors. Their outputs may be written at `at`, `pitch` bytes
/// from one to the next.
struct End<T> {
    isa: Avx512,
    bf16: Avx512Bf16,
    scales: [Vector; 2],
    bias: [Vector; 2],
    floor: Vector,
    sums: *const f32,
    element: PhantomData<T>,
}

impl<T: TilePixel> End<T> {
    /// An output of a pixel and a vector.
    #[inline(always)]
    unsafe fn value(&self, pixel: usize, vector: usize) -> Vector {
        // SAFETY: by the caller.
        let mut sum = unsafe { load::<Avx512>(self.sums.add(vector * TILE + pixel * ROWS)) };
        if is_whole::<T>() {
            sum = self
                .isa
                .mul_f32s(from_whole(self.isa, self.isa.transmute_u32s_f32s(sum)), self.scales[vector]);
        }
        self.isa.at_least(self.floor, self.isa.add_f32s(sum, self.bias[vector]))
    }

    /// One or two whole vectors in bf16.
    #[inline(always)]
    unsafe fn bf16<const VECTORS: usize>(&self, pixels: Range<usize>, mut at: *mut u8, pitch: usize) {
        for pixel in pixels {
            // SAFETY: by the caller; the token proves that the instruction is there.
            unsafe {
                let low = self.value(pixel, 0);
                let high = if VECTORS == 2 { self.value(pixel, 1) } else { self.floor };
                let both = self.bf16.narrow(pulp::cast(low), pulp::cast(high));
                if VECTORS == 2 {
                    at.cast::<__m512i>().write_unaligned(both);
                } else {
                    let [half, _]: [__m256i; 2] = pulp::cast(both);
                    at.cast::<__m256i>().write_unaligned(half);
                }
            }
            at = at.wrapping_add(pitch);
        }
    }

    /// One or two whole vectors in u8.
    #[inline(always)]
    unsafe fn u8<const VECTORS: usize>(&self, pixels: Range<usize>, mut at: *mut u8, pitch: usize) {
        for pixel in pixels {
            for vector in 0..VECTORS {
                let at = at.wrapping_add(vector * ROWS);
                // SAFETY: by the caller.
                unsafe { narrow_first(self.isa, at, self.value(pixel, vector), ROWS) };
            }
            at = at.wrapping_add(pitch);
        }
    }

    /// The first `width` channels in any type.
    #[inline(always)]
    unsafe fn first(&self, pixels: Range<usize>, mut at: *mut u8, pitch: usize, dtype: Dtype, width: usize) {
        for pixel in pixels {
            for (vector, first) in (0..width).step_by(ROWS).enumerate() {
                let at = at.wrapping_add(first * dtype.bytes());
                // SAFETY: by the caller.
                unsafe {
                    let value = self.value(pixel, vector);
                    narrow_first_to(self.isa, dtype, at, value, width - first);
                }
            }
            at = at.wrapping_add(pitch);
        }
    }
}
