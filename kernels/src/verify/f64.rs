//! Problems in f64 at the speed of a matrix product: the reference of whole networks.
//!
//! The oracle of [`super::reference`] takes f32 tensors and has a tolerance for single outputs.
//! This module computes all outputs from f64 tensors, so that a whole network stays in f64. Filters
//! are folded in f64 too: the error that a kernel makes by rounding its folded weights is a part of
//! its error.
//!
//! ```text
//! for block of output pixels:
//!   patches[pixel, (r, s, c)] = the taps of each pixel
//!   for segment: dst = relu(patches * weights + bias)       gemm::gemm in f64
//! ```

use super::reference::{Pixel, all_pixels, expected, finish, taps};
use crate::filter::Filter;
use crate::gemm::product::product;
use crate::problem::{Conv, Problem};

/// Pixels whose patches are gathered at a time.
const BLOCK: usize = 256;

/// All outputs `[n, oh, ow, k]` of a problem in f64, one tensor a segment.
///
/// `src` holds `[n, h, w, c]` values; `filters` are as [`Problem::filter_dims`] says.
///
/// # Panics
/// If `src` or `filters` do not have the problem's sizes.
pub fn exact(problem: &Problem, src: &[f64], filters: &[Filter]) -> Vec<Vec<f64>> {
    assert_eq!(src.len(), problem.src().elements(), "source of {problem}");
    let pixels = all_pixels(problem.dst()[0]);
    match problem {
        Problem::Conv(conv) => convolution(conv, src, filters, &pixels),
        _ => expected(problem, src, filters, &pixels).into_iter().map(|expected| expected.values).collect(),
    }
}

/// Weights `[r, s, c, k]` with scale, and the shifts.
fn folded(filter: &Filter) -> (Vec<f64>, Vec<f64>) {
    let k = filter.dims[3];
    let (scales, shifts): (Vec<f64>, Vec<f64>) = (0..k).map(|k| filter.scale_shift(k)).unzip();
    let mut weights: Vec<f64> = filter.weights.iter().map(|&w| w.into()).collect();
    for row in weights.chunks_exact_mut(k) {
        row.iter_mut().zip(&scales).for_each(|(w, scale)| *w *= scale);
    }
    (weights, shifts)
}

#[allow(unsafe_code, reason = "calls the gemm crate")]
fn convolution(conv: &Conv, src: &[f64], filters: &[Filter], pixels: &[Pixel]) -> Vec<Vec<f64>> {
    let ([h, w], channels, depth) = (conv.image, conv.channels, conv.depth());
    let folded: Vec<_> = filters.iter().map(folded).collect();
    let mut outputs: Vec<Vec<f64>> =
        conv.segments.iter().map(|segment| vec![0.0; pixels.len() * segment.channels]).collect();
    let mut patches = vec![0.0; BLOCK.min(pixels.len()) * depth];
    for (block, pixels) in pixels.chunks(BLOCK).enumerate() {
        patches.fill(0.0);
        for (patch, &pixel) in patches.chunks_exact_mut(depth).zip(pixels) {
            taps(&conv.window, conv.image, pixel, |r, s, y, x| {
                let (to, from) = (r * conv.window.kernel[1] + s, (pixel.n * h + y) * w + x);
                patch[to * channels..][..channels].copy_from_slice(&src[from * channels..][..channels]);
            });
        }
        for ((output, (weights, shifts)), segment) in outputs.iter_mut().zip(&folded).zip(&conv.segments) {
            let k = segment.channels;
            let output = &mut output[block * BLOCK * k..][..pixels.len() * k];
            let sizes = [pixels.len(), k, depth];
            assert_eq!([weights.len(), shifts.len()], [depth * k, k], "filters of {conv}");
            // SAFETY: the matrices have these sizes, and `output` is borrowed alone.
            unsafe { product(sizes, output.as_mut_ptr(), k, patches.as_ptr(), depth, weights.as_ptr()) };
            for row in output.chunks_exact_mut(k) {
                for (y, shift) in row.iter_mut().zip(shifts) {
                    let shift = if segment.epilogue.bias { *shift } else { 0.0 };
                    *y = finish(*y + shift, segment.epilogue);
                }
            }
        }
    }
    outputs
}
