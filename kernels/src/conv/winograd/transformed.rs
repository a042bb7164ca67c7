//! How transformed samples and filters are stored and multiplied: as f32, or as 16 bits.
//!
//! With 16 bits, samples of u8 are transformed in f32, where all are exact or nearly so, and
//! rounded to whole numbers of at most `most` ([`largest_sample`]). No sample of a point is larger
//! than 255 times the sum of the magnitudes of its coefficients, `g` ([`Transform::input_sum`]), so
//! that `most / (255 g)` is a scale by which none is cut off. Transformed filters have a scale for
//! each point and output channel: the largest by which no sum of products overflows 32 bits, `sum
//! over c of |u_c| <= (2^31 - 1) / most`, and no weight 16. (Scales by point: R. Andri et al.,
//! "Going Further With Winograd Convolutions: Tap-Wise Quantization for Efficient Inference on 4x4
//! Tiles", 2022.)
//!
//! What 16 bits lose is little beside what 8 bits of the source have lost.

use crate::conv::Isa;
#[cfg(target_arch = "x86_64")]
use crate::cpu::Avx512;
use crate::filter::Folded;
#[cfg(target_arch = "x86_64")]
use crate::gemm::integers::Int16Vnni;
use crate::gemm::integers::{Int16, Pairs};
use crate::gemm::multiply::{Multiply, Single};
use crate::gemm::panels::Panels;
use crate::vector::{round_to_i16, store};

use super::tiling::{Tiling, fill, pack};

/// The largest transformed sample of so many channels: of 16 bits, or less where weights would be
/// of the order of fewer than 256, since samples twice as fine leave weights half as fine.
fn largest_sample(channels: usize) -> f64 {
    (f64::from(i32::MAX) / (256 * channels) as f64).min(i16::MAX.into()).floor()
}

/// How many times as large as of a sum of `products` in f32 the tolerance is, where they are of 16
/// bits.
///
/// Weights of the order of 256 are off by 1 in 2^10 of their root mean square, samples by less, and
/// f32 rounds to 1 in 2^24. These errors are independent of each other, so that sums of them grow
/// with the root of the number of products, not with the number as the tolerance does; none of a
/// million outputs is off by more than 6 standard deviations.
pub(super) fn growth(products: usize) -> f64 {
    16384.0 * 6.0 / (products as f64).sqrt()
}

/// A way to multiply transformed samples.
pub(super) trait Transformed<I: Isa>: Multiply<I> {
    /// The scales of the points, and the filters as [`Multiply::weights`] reads them.
    fn pack(isa: I, tiling: &Tiling, vectors: usize, filters: &[Folded]) -> (Panels, Vec<f32>);

    /// Stores a vector of samples of a point.
    ///
    /// # Safety
    /// A vector at `at` may be written by this caller alone, and the point's scale be read.
    unsafe fn store(isa: I, at: *mut Self::Source, samples: I::f32s, scale: *const f32);
}

impl<I: Isa> Transformed<I> for Single {
    fn pack(isa: I, tiling: &Tiling, vectors: usize, filters: &[Folded]) -> (Panels, Vec<f32>) {
        (pack(isa, tiling, vectors, filters), Vec::new())
    }

    #[inline(always)]
    unsafe fn store(_: I, at: *mut f32, samples: I::f32s, _: *const f32) {
        // SAFETY: by the caller.
        unsafe { store::<I>(at, samples) };
    }
}

macro_rules! of_16_bits {
    ([$($i:ident: $bound:ident)?] $isa:ty, $multiply:ty) => {
        impl<$($i: $bound)?> Transformed<$isa> for $multiply {
            fn pack(
                isa: $isa,
                tiling: &Tiling,
                vectors: usize,
                filters: &[Folded],
            ) -> (Panels, Vec<f32>) {
                pack_pairs(isa, tiling, vectors, filters)
            }

            #[inline(always)]
            unsafe fn store(
                isa: $isa,
                at: *mut i16,
                samples: <$isa as pulp::Simd>::f32s,
                scale: *const f32,
            ) {
                // SAFETY: by the caller.
                unsafe { round_to_i16(isa, at, samples, *scale) };
            }
        }
    };
}

of_16_bits!([I: Pairs] I, Int16);
#[cfg(target_arch = "x86_64")]
of_16_bits!([] Avx512, Int16Vnni);

/// The scales of the points, and the filters of 16 bits with theirs.
fn pack_pairs<I: Isa>(isa: I, tiling: &Tiling, vectors: usize, filters: &[Folded]) -> (Panels, Vec<f32>) {
    let ([down, across], channels) = (&tiling.transforms, tiling.conv.channels);
    let most = largest_sample(channels);
    let scale = |point: usize| {
        let largest = down.input_sum(point / across.n) * across.input_sum(point % across.n);
        // Samples are off by less than a millionth in f32.
        (most * (1.0 - 1e-6) / (f64::from(u8::MAX) * largest)) as f32
    };
    let points: Vec<f32> = (0..tiling.points()).map(scale).collect();
    let lanes = I::F32_LANES;
    let pairs = channels.div_ceil(2);
    let mut of_panels: Vec<Vec<f32>> = Vec::new();
    let (segments, depth) = (&tiling.conv.segments, points.len() * pairs);
    let mut panels = Panels::pack_panels(segments, lanes, vectors, depth, filters, |panel, packed| {
        let width = panel.vectors * lanes;
        let mut transformed = vec![0.0; points.len() * channels * width];
        fill(isa, tiling, &filters[panel.segment], panel, &mut transformed);
        let matrices = transformed.chunks_exact(channels * width).zip(packed.chunks_exact_mut(pairs * width));
        let of_points = matrices.zip(&points).flat_map(|((from, to), of_point)| {
            let scales = scales(from, width, most);
            for (row, weights) in from.chunks_exact(width).enumerate() {
                let to = &mut to[row / 2 * width..][..width];
                for ((to, weight), scale) in to.iter_mut().zip(weights).zip(&scales) {
                    let half = (weight * scale).round_ties_even() as i16 as u16;
                    *to = f32::from_bits(to.to_bits() | u32::from(half) << (16 * (row % 2)));
                }
            }
            scales.into_iter().map(move |scale| (1.0 / (f64::from(scale) * f64::from(*of_point))) as f32)
        });
        of_panels.push(of_points.collect());
    });
    let mut of_panels = of_panels.into_iter();
    panels.set_scales(points.len(), |_, scales| {
        // None of filters without weights.
        if let Some(of_panel) = of_panels.next() {
            scales.copy_from_slice(&of_panel);
        }
    });
    (panels, points)
}

/// The scale of each column of a matrix, `width` wide: the largest by which whole numbers neither
/// overflow 16 bits nor their sums of products with samples 32.
fn scales(matrix: &[f32], width: usize, largest_sample: f64) -> Vec<f32> {
    // Each is rounded up by a half at most.
    let most = (f64::from(i32::MAX) / largest_sample).floor() - 0.5 * (matrix.len() / width) as f64;
    let mut columns = vec![[0.0f64; 2]; width];
    for row in matrix.chunks_exact(width) {
        for ([sum, largest], weight) in columns.iter_mut().zip(row) {
            *sum += f64::from(weight.abs());
            *largest = largest.max(f64::from(weight.abs()));
        }
    }
    let scale = |[sum, largest]: [f64; 2]| {
        let scale = (most / sum).min(f64::from(i16::MAX) / largest) * (1.0 - 1e-6);
        if largest > 0.0 { scale as f32 } else { 1.0 }
    };
    columns.into_iter().map(scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sum_of_products_overflows_and_no_weight_does() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        // Many small weights, few large ones, one, none; the last channel has one much larger.
        for (rows, width) in [(2048, 8), (3, 8), (1, 4), (64, 4)] {
            let mut matrix: Vec<f32> = (0..rows * width).map(|_| 1e-3 * random()).collect();
            matrix.iter_mut().skip(1).step_by(width).for_each(|weight| *weight = 0.0);
            matrix[width - 1] = 1e3;
            let most = largest_sample(rows);
            let scales = scales(&matrix, width, most);
            assert_eq!(scales[1], 1.0);
            for (column, &scale) in scales.iter().enumerate() {
                let column = matrix.iter().skip(column).step_by(width);
                let whole: Vec<i64> = column.map(|w| (w * scale).round_ties_even() as i64).collect();
                let sum: i64 = whole.iter().map(|w| w.abs()).sum();
                assert!(sum * most as i64 <= i64::from(i32::MAX), "{rows} rows: {sum}");
                assert!(whole.iter().all(|w| i16::try_from(*w).is_ok()), "{whole:?}");
            }
        }
    }
}
