//! The oracle: naive loops with f64 sums, and the tolerance that every kernel is held to.
//!
//! # Tolerance
//!
//! A sum of `K` products of independent terms with root mean square `sigma`, each partial sum
//! rounded to f32, is off by about `eps * K * sigma`. (Partial sums grow like `sqrt(k) * sigma`,
//! and `K` independent roundings of up to `eps / 2` of them add up in quadrature: N. Higham and T.
//! Mary, "A new approach to probabilistic rounding error analysis", 2019.) Where the terms have a
//! mean, the partial sums grow to the sum itself, which adds `eps * sqrt(K) * |sum|`. So with
//!
//! ```text
//! magnitude = max over outputs of (sigma + |sum| / sqrt(K))
//! tolerance = eps * K * magnitude * growth + eps * max |output|
//! ```
//!
//! where `growth` is that of the kernel ([`crate::kernel::Numerics`]). The last term is the
//! rounding of the result. One number holds for the whole tensor, since a fast algorithm spreads
//! the errors of a pixel over its tile.

#![allow(unsafe_code, reason = "reads and writes views")]

use std::ops::Range;

use half::bf16;

use crate::cpu::Cpu;
use crate::error::Unsupported;
use crate::filter::Filter;
use crate::kernel::{Io, Kernel, Numerics, Prepared, Request, Signature, Tuning};
use crate::memory::Scratch;
use crate::problem::{Conv, Epilogue, Pool, PoolKind, Problem, Segment, Window};
use crate::shape::Shape;
use crate::tensor::{Dtype, Formats, View, ViewMut};

/// Exact outputs of some pixels of one segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// `[pixel, channel]`.
    pub values: Vec<f64>,
    /// `max (sigma + |sum| / sqrt(K))`, see the module.
    pub magnitude: f64,
    /// Products summed for an output.
    pub depth: usize,
}

/// Source and filters as a kernel multiplies them: the source as it is stored, then source and
/// folded weights rounded to `rounding`.
pub fn as_seen(src: &[f32], filters: &[Filter], stored: Dtype, rounding: Dtype) -> (Vec<f32>, Vec<Filter>) {
    let src = src.iter().map(|&value| rounding.round(stored.round(value))).collect();
    let filter = |filter: &Filter| match rounding {
        Dtype::F32 => filter.clone(),
        Dtype::Bf16 => {
            let rounded = filter.rounded();
            let weights = rounded.weights.iter().map(|weight| weight.to_f32()).collect();
            Filter { bias: Some(rounded.folded.bias), ..Filter::new(filter.dims, weights) }
        }
    };
    (src, filters.iter().map(filter).collect())
}

impl Expected {
    /// As [`Self::tolerance`], for outputs of a type: they are rounded once more.
    pub fn tolerance_of(&self, numerics: &Numerics, stored: Dtype) -> f64 {
        let tolerance = self.tolerance(numerics);
        match stored {
            Dtype::F32 => tolerance,
            _ => {
                let largest = self.values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                tolerance + stored.unit_roundoff() * (largest + tolerance)
            }
        }
    }

    /// As [`Self::tolerance_of`], where the kernel rounds its inputs and these outputs are of the
    /// inputs before.
    ///
    /// Source values are off by up to a unit roundoff `u`, and weights, which need not be the
    /// nearest, by `2 u`; so their products are off by `3 u + 2 u^2`. The sum of the magnitudes of
    /// `K` products is at most `K sigma`.
    pub fn tolerance_unrounded(&self, numerics: &Numerics, formats: &Formats) -> f64 {
        let unit = |dtype: Dtype| if dtype == Dtype::F32 { 0.0 } else { dtype.unit_roundoff() };
        let (src, weights) =
            (unit(numerics.rounding).max(unit(formats.src.dtype)), 2.0 * unit(numerics.rounding));
        let inputs = (src + weights + src * weights) * self.depth as f64 * self.magnitude;
        self.tolerance_of(numerics, formats.dst.dtype) + inputs * (1.0 + unit(formats.dst.dtype))
    }

    /// The largest error that a kernel of these numerics may make.
    pub fn tolerance(&self, numerics: &Numerics) -> f64 {
        let eps = f32::EPSILON as f64;
        let largest = self.values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        eps * self.depth as f64 * self.magnitude * numerics.growth + eps * largest
    }
}

/// An output pixel of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pixel {
    /// Image.
    pub n: usize,
    /// Row.
    pub y: usize,
    /// Column.
    pub x: usize,
}

/// All output pixels of a shape, row by row.
pub fn all_pixels(shape: Shape) -> Vec<Pixel> {
    let count = shape.n * shape.h * shape.w;
    let pixel = |i: usize| Pixel { n: i / (shape.h * shape.w), y: i / shape.w % shape.h, x: i % shape.w };
    (0..count).map(pixel).collect()
}

/// Exact outputs of the given pixels, one result a segment.
///
/// `src` holds `[n, h, w, c]` values; `filters` are as [`Problem::filter_dims`] says.
pub fn expected<T: Copy + Into<f64>>(
    problem: &Problem,
    src: &[T],
    filters: &[Filter],
    pixels: &[Pixel],
) -> Vec<Expected> {
    let shape = problem.src();
    assert_eq!(src.len(), shape.elements(), "source of {problem}");
    let src = Source { shape, values: src.iter().map(|&value| value.into()).collect() };
    let outputs = |depth: usize, of_pixel: &dyn Fn(Pixel, &mut Expected)| {
        let mut outputs = Expected { values: Vec::new(), magnitude: 0.0, depth };
        pixels.iter().for_each(|&pixel| of_pixel(pixel, &mut outputs));
        outputs
    };
    match problem {
        Problem::Conv(conv) => {
            let of_segment = |(index, segment): (usize, &Segment)| {
                let (end, filter) = (segment.epilogue, &filters[index]);
                outputs(conv.depth(), &|at, outputs| conv_pixel(conv, end, filter, at, &src, outputs))
            };
            conv.segments.iter().enumerate().map(of_segment).collect()
        }
        Problem::Pool(pool) => {
            let shift = |k| filters.first().map_or(0.0, |filter| filter.scale_shift(k).1);
            let shifts: Vec<f64> = (0..pool.channels).map(shift).collect();
            let depth = pool.window.kernel.iter().product();
            vec![outputs(depth, &|at, outputs| pool_pixel(pool, &shifts, at, &src, outputs))]
        }
        Problem::Softmax { channels, .. } => {
            vec![outputs(*channels, &|at, outputs| softmax_pixel(src.pixel(at.n, 0, 0), outputs))]
        }
        Problem::Sigmoid { .. } => {
            vec![outputs(1, &|at, outputs| sigmoid_pixel(src.pixel(at.n, 0, 0), outputs))]
        }
    }
}

/// `[n, h, w, c]` values.
struct Source {
    shape: Shape,
    values: Vec<f64>,
}

impl Source {
    fn pixel(&self, n: usize, y: usize, x: usize) -> &[f64] {
        let Shape { h, w, c, .. } = self.shape;
        &self.values[((n * h + y) * w + x) * c..][..c]
    }
}

/// Calls `visit(r, s, y, x)` for the taps of an output pixel that lie in the image.
pub(crate) fn taps(
    window: &Window,
    image: [usize; 2],
    at: Pixel,
    mut visit: impl FnMut(usize, usize, usize, usize),
) {
    for r in 0..window.kernel[0] {
        for s in 0..window.kernel[1] {
            let y = (at.y * window.stride[0] + r).wrapping_sub(window.padding.top);
            let x = (at.x * window.stride[1] + s).wrapping_sub(window.padding.left);
            if y < image[0] && x < image[1] {
                visit(r, s, y, x);
            }
        }
    }
}

pub(crate) fn finish(value: f64, epilogue: Epilogue) -> f64 {
    if epilogue.relu { value.max(0.0) } else { value }
}

fn conv_pixel(conv: &Conv, end: Epilogue, filter: &Filter, at: Pixel, src: &Source, outputs: &mut Expected) {
    let k = filter.dims[3];
    let (mut sums, mut squares) = (vec![0.0f64; k], vec![0.0f64; k]);
    taps(&conv.window, conv.image, at, |r, s, y, x| {
        for (c, &x) in src.pixel(at.n, y, x).iter().enumerate() {
            let row = (r * filter.dims[1] + s) * filter.dims[2] + c;
            let weights = &filter.weights[row * k..(row + 1) * k];
            for ((sum, square), &w) in sums.iter_mut().zip(&mut squares).zip(weights) {
                let product = x * w as f64;
                *sum += product;
                *square += product * product;
            }
        }
    });
    let depth = conv.depth() as f64;
    for (k, (sum, square)) in sums.into_iter().zip(squares).enumerate() {
        let (scale, shift) = filter.scale_shift(k);
        let sigma = (square / depth).sqrt();
        outputs.magnitude = outputs.magnitude.max(scale.abs() * (sigma + sum.abs() / depth.sqrt()));
        let shift = if end.bias { shift } else { 0.0 };
        outputs.values.push(finish(sum * scale + shift, end));
    }
}

fn pool_pixel(pool: &Pool, shifts: &[f64], at: Pixel, src: &Source, outputs: &mut Expected) {
    let mut count = 0;
    let mut values = vec![if pool.kind == PoolKind::Max { f64::NEG_INFINITY } else { 0.0 }; pool.channels];
    let mut squares = vec![0.0f64; pool.channels];
    taps(&pool.window, pool.image, at, |_, _, y, x| {
        count += 1;
        for ((value, square), &x) in values.iter_mut().zip(&mut squares).zip(src.pixel(at.n, y, x)) {
            *value = if pool.kind == PoolKind::Max { value.max(x) } else { *value + x };
            *square += x * x;
        }
    });
    // A mean is a sum of `depth` products with `1 / depth`.
    let depth = outputs.depth as f64;
    for (value, square) in values.iter().zip(&squares) {
        let sigma = (square / depth).sqrt() / depth;
        let sum = if pool.kind == PoolKind::Max { 0.0 } else { value / depth };
        outputs.magnitude = outputs.magnitude.max(sigma + sum.abs() / depth.sqrt());
    }
    let divisor = match pool.kind {
        PoolKind::Max => 1,
        PoolKind::Average => count,
        PoolKind::AverageCountingBorder => outputs.depth,
    };
    let mean = |(value, shift): (f64, &f64)| finish(value / divisor as f64 + shift, pool.epilogue);
    outputs.values.extend(values.into_iter().zip(shifts).map(mean));
}

fn softmax_pixel(x: &[f64], outputs: &mut Expected) {
    let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = x.iter().map(|&v| (v - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    outputs.values.extend(powers.iter().map(|p| p / sum));
    // Each power is off by a few roundings of itself, and their sum, whose terms have a mean, by
    // `sqrt(K)` roundings.
    let channels = x.len() as f64;
    outputs.magnitude = outputs.magnitude.max((8.0 + channels.sqrt()) / sum / channels);
}

fn sigmoid_pixel(x: &[f64], outputs: &mut Expected) {
    outputs.values.extend(x.iter().map(|x| 1.0 / (1.0 + (-x).exp())));
    // No value is above 1, and each is off by a few roundings.
    outputs.magnitude = 8.0;
}

/// The oracle as a row of the table: correct for every problem, and as slow as it looks.
#[derive(Debug)]
pub struct Reference;

impl Reference {
    /// For the table.
    pub fn make(_: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        Ok(Box::new(Self))
    }
}

impl Kernel for Reference {
    fn supports(&self, _: &Problem) -> Result<(), Unsupported> {
        Ok(())
    }

    fn formats(&self, _: &Problem, _: &Tuning) -> Vec<Formats> {
        Formats::ALL.into()
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        let (signature, filters) = (request.signature(), request.filters.to_vec());
        Ok(Box::new(PreparedReference { signature, filters }))
    }
}

struct PreparedReference {
    signature: Signature,
    filters: Vec<Filter>,
}

impl Prepared for PreparedReference {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// One image.
    fn units(&self, _: usize, n: usize) -> usize {
        n
    }

    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, _: &mut Scratch) {
        let problem = self.signature.problem.with_batch(1);
        let pixels = all_pixels(problem.dst()[0]);
        for n in units {
            let mut src = Vec::with_capacity(problem.src().elements());
            for Pixel { y, x, .. } in all_pixels(problem.src()) {
                // SAFETY: a pixel of the source.
                src.extend((0..io.src.shape.c).map(|c| unsafe { load(&io.src, n, [y, x, c]) }));
            }
            for (segment, result) in expected(&problem, &src, &self.filters, &pixels).iter().enumerate() {
                let dst = io.dst(segment);
                for (pixel, values) in pixels.iter().zip(result.values.chunks_exact(dst.shape.c)) {
                    for (c, &value) in values.iter().enumerate() {
                        // SAFETY: the image is this unit's.
                        unsafe { store(&dst, n, [pixel.y, pixel.x, c], value as f32) };
                    }
                }
            }
        }
    }
}

/// # Safety
/// The element may be read.
unsafe fn load(src: &View, n: usize, [y, x, c]: [usize; 3]) -> f32 {
    let (y, x) = (y as isize, x as isize);
    // SAFETY: by the caller.
    unsafe {
        match src.dtype {
            Dtype::F32 => *src.pixel::<f32>(n, y, x).add(c),
            Dtype::Bf16 => (*src.pixel::<bf16>(n, y, x).add(c)).to_f32(),
        }
    }
}

/// # Safety
/// The element may be written by this caller alone.
unsafe fn store(dst: &ViewMut, n: usize, [y, x, c]: [usize; 3], value: f32) {
    // SAFETY: by the caller.
    unsafe {
        match dst.dtype {
            Dtype::F32 => *dst.pixel::<f32>(n, y, x).add(c) = value,
            Dtype::Bf16 => *dst.pixel::<bf16>(n, y, x).add(c) = bf16::from_f32(value),
        }
    }
}
