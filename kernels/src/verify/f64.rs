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

use super::reference::{all_pixels, taps};
use crate::filter::Filter;
use crate::problem::{Conv, Epilogue, Pool, PoolKind, Problem};

/// Pixels whose patches are gathered at a time.
const BLOCK: usize = 256;

/// All outputs `[n, oh, ow, k]` of a problem in f64, one tensor a segment.
///
/// `src` holds `[n, h, w, c]` values; `filters` has one a segment, one for a pool with a bias, none
/// else.
///
/// # Panics
/// If `src` or `filters` do not have the problem's sizes.
pub fn exact(problem: &Problem, src: &[f64], filters: &[Filter]) -> Vec<Vec<f64>> {
    assert_eq!(src.len(), problem.src().elements(), "source of {problem}");
    match problem {
        Problem::Conv(conv) => convolution(problem, conv, src, filters),
        Problem::Pool(pool) => vec![pooled(problem, pool, src, filters.first())],
        Problem::Softmax { channels, .. } => vec![src.chunks_exact(*channels).flat_map(softmax).collect()],
    }
}

/// The start of the channels of an input pixel.
fn at(problem: &Problem, n: usize, y: usize, x: usize) -> usize {
    let shape = problem.src();
    ((n * shape.h + y) * shape.w + x) * shape.c
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

fn finish(value: f64, epilogue: Epilogue) -> f64 {
    if epilogue.relu { value.max(0.0) } else { value }
}

fn convolution(problem: &Problem, conv: &Conv, src: &[f64], filters: &[Filter]) -> Vec<Vec<f64>> {
    let (channels, depth) = (conv.channels, conv.depth());
    let pixels = all_pixels(problem.dst()[0]);
    let folded: Vec<_> = filters.iter().map(folded).collect();
    let mut outputs: Vec<Vec<f64>> =
        conv.segments.iter().map(|segment| vec![0.0; pixels.len() * segment.channels]).collect();
    let mut patches = vec![0.0; BLOCK.min(pixels.len()) * depth];
    for (block, pixels) in pixels.chunks(BLOCK).enumerate() {
        patches.fill(0.0);
        for (patch, &pixel) in patches.chunks_exact_mut(depth).zip(pixels) {
            taps(&conv.window, conv.image, pixel, |r, s, y, x| {
                let (to, from) = ((r * conv.window.kernel[1] + s) * channels, at(problem, pixel.n, y, x));
                patch[to..to + channels].copy_from_slice(&src[from..from + channels]);
            });
        }
        for ((output, (weights, shifts)), segment) in outputs.iter_mut().zip(&folded).zip(&conv.segments) {
            let k = segment.channels;
            let output = &mut output[block * BLOCK * k..][..pixels.len() * k];
            product(&patches[..pixels.len() * depth], weights, output, depth);
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

/// `dst = a * b`, where a row of `a` has `depth` elements; all row-major.
#[allow(unsafe_code, reason = "calls the gemm crate")]
fn product(a: &[f64], b: &[f64], dst: &mut [f64], depth: usize) {
    let (rows, columns) = (a.len() / depth, b.len() / depth);
    assert_eq!([a.len(), b.len(), dst.len()], [rows * depth, depth * columns, rows * columns]);
    // SAFETY: the matrices have the sizes that were just compared, and `dst` is borrowed alone.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            dst.as_mut_ptr(),
            1,
            columns as isize,
            false,
            a.as_ptr(),
            1,
            depth as isize,
            b.as_ptr(),
            1,
            columns as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

fn pooled(problem: &Problem, pool: &Pool, src: &[f64], filter: Option<&Filter>) -> Vec<f64> {
    let shift = |k: usize| match filter {
        Some(filter) if pool.epilogue.bias => filter.scale_shift(k).1,
        _ => 0.0,
    };
    let shifts: Vec<f64> = (0..pool.channels).map(shift).collect();
    let mut output = Vec::new();
    for pixel in all_pixels(problem.dst()[0]) {
        let is_max = pool.kind == PoolKind::Max;
        let mut values = vec![if is_max { f64::NEG_INFINITY } else { 0.0 }; pool.channels];
        let mut count = 0;
        taps(&pool.window, pool.image, pixel, |_, _, y, x| {
            count += 1;
            for (value, &x) in values.iter_mut().zip(&src[at(problem, pixel.n, y, x)..]) {
                *value = if is_max { value.max(x) } else { *value + x };
            }
        });
        let divisor = match pool.kind {
            PoolKind::Max => 1,
            PoolKind::Average => count,
            PoolKind::AverageCountingBorder => pool.window.kernel.iter().product(),
        };
        let shifted = values.into_iter().zip(&shifts).map(|(value, shift)| value / divisor as f64 + shift);
        output.extend(shifted.map(|value| finish(value, pool.epilogue)));
    }
    output
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = x.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}
