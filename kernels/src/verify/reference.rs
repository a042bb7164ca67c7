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
use crate::filter::{Filter, Quantized};
use crate::kernel::{Io, Kernel, Numerics, Prepared, Request, Signature, Tuning};
use crate::memory::Scratch;
use crate::problem::{Conv, Epilogue, Pool, PoolKind, Problem, Segment, Window};
use crate::shape::Shape;
use crate::tensor::{Dtype, Element, Formats, View, ViewMut};

/// Exact outputs of some pixels of one segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// `[pixel, channel]`.
    pub values: Vec<f64>,
    /// `max (sigma + |sum| / sqrt(K))`, see the module.
    pub magnitude: f64,
    /// Products summed for an output.
    pub depth: usize,
    /// The largest magnitude of a source value, and of a weight with its BatchNorms.
    pub largest: [f64; 2],
}

/// Source and filters for a kernel that reads or writes u8: over scales by which the largest
/// magnitudes of the source and of the outputs of each segment are 255. The source has its
/// magnitudes then, since u8 has no sign. Others stay as they are.
pub fn over_scales(
    problem: &Problem,
    src: &[f32],
    filters: &[Filter],
    formats: &Formats,
    outputs: &[Expected],
) -> (Vec<f32>, Vec<Filter>) {
    let scale = |values: &mut dyn Iterator<Item = f64>| {
        let largest = values.fold(0.0f64, |largest, value| largest.max(value.abs()));
        if largest > 0.0 { (largest / f64::from(u8::MAX)) as f32 } else { 1.0 }
    };
    let [reads, writes] = [formats.src.dtype, formats.dst.dtype].map(|dtype| dtype == Dtype::U8);
    let is_conv = problem.as_conv().is_ok();
    // A pool leaves the scale of its source.
    let of_src = (reads || writes && !is_conv).then(|| scale(&mut src.iter().map(|&x| x.into())));
    let src = src.iter().map(|x| of_src.map_or(*x, |scale| x.abs() / scale)).collect();
    let filter = |(filter, outputs): (&Filter, &Expected)| {
        let [_, _, channels, k] = filter.dims;
        let inputs = of_src.filter(|_| is_conv).map(|scale| vec![scale; channels]);
        let of_dst =
            if is_conv { writes.then(|| scale(&mut outputs.values.iter().copied())) } else { of_src };
        filter.clone().rescaled(inputs.as_deref(), of_dst.map(|scale| vec![scale; k]).as_deref())
    };
    (src, filters.iter().zip(outputs).map(filter).collect())
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
        Dtype::U8 => {
            let Quantized { folded, weights, scales } = filter.quantized();
            let scale = |(weight, scale): (&i8, &f32)| f32::from(*weight) * scale;
            let weights = weights.iter().zip(scales.iter().cycle()).map(scale).collect();
            Filter { bias: Some(folded.bias), ..Filter::new(filter.dims, weights) }
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
            _ => tolerance + stored.rounding_error(self.largest_output() + tolerance),
        }
    }

    fn largest_output(&self) -> f64 {
        self.values.iter().fold(0.0f64, |m, v| m.max(v.abs()))
    }

    /// As [`Self::tolerance_of`], where the kernel rounds its inputs and these outputs are of the
    /// inputs before.
    ///
    /// In bf16, source values are off by up to a share `u`, and weights, which need not be the
    /// nearest, by `2 u`; so their products are off by `3 u + 2 u^2`. The sum of the magnitudes of
    /// `K` products is at most `K sigma`. In 8 bits, source values are off by up to 1/2 and weights
    /// by 1/254 of the largest, so that each product is off by at most that of the largest ones
    /// with these errors.
    pub fn tolerance_unrounded(&self, numerics: &Numerics, formats: &Formats) -> f64 {
        let (src, rounding, dst) = (formats.src.dtype, numerics.rounding, formats.dst.dtype);
        let share = |dtype: Dtype| if dtype == Dtype::Bf16 { dtype.rounding_error(1.0) } else { 0.0 };
        let depth = self.depth as f64;
        let mut inputs = 0.0;
        if src == Dtype::U8 || rounding == Dtype::U8 {
            let [x, w] = self.largest;
            let [dx, dw] = [0.5, if rounding == Dtype::U8 { w / 254.0 } else { 0.0 }];
            inputs += depth * (x * dw + dx * w + dx * dw);
        }
        let (u, v) = (share(rounding).max(share(src)), 2.0 * share(rounding));
        inputs += (u + v + u * v) * depth * self.magnitude;
        self.tolerance_of(numerics, dst) + inputs * (1.0 + share(dst))
    }

    /// The largest error that a kernel of these numerics may make.
    pub fn tolerance(&self, numerics: &Numerics) -> f64 {
        let eps = f32::EPSILON as f64;
        eps * self.depth as f64 * self.magnitude * numerics.growth + eps * self.largest_output()
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
    let largest_source = src.values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let outputs = |depth: usize, largest_weight: f64, of_pixel: &dyn Fn(Pixel, &mut Expected)| {
        let largest = [largest_source, largest_weight];
        let mut outputs = Expected { values: Vec::new(), magnitude: 0.0, depth, largest };
        pixels.iter().for_each(|&pixel| of_pixel(pixel, &mut outputs));
        outputs
    };
    match problem {
        Problem::Conv(conv) => {
            let of_segment = |(index, segment): (usize, &Segment)| {
                let (end, filter) = (segment.epilogue, &filters[index]);
                outputs(conv.depth(), largest_weight(filter), &|at, outputs| {
                    conv_pixel(conv, end, filter, at, &src, outputs)
                })
            };
            conv.segments.iter().enumerate().map(of_segment).collect()
        }
        Problem::Pool(pool) => {
            let shift = |k| filters.first().map_or(0.0, |filter| filter.scale_shift(k).1);
            let shifts: Vec<f64> = (0..pool.channels).map(shift).collect();
            let depth: usize = pool.window.kernel.iter().product();
            vec![outputs(depth, 1.0 / depth as f64, &|at, outputs| {
                pool_pixel(pool, &shifts, at, &src, outputs)
            })]
        }
        Problem::Softmax { channels, .. } => {
            vec![outputs(*channels, 1.0, &|at, outputs| softmax_pixel(src.pixel(at.n, 0, 0), outputs))]
        }
        Problem::Sigmoid { .. } => {
            vec![outputs(1, 1.0, &|at, outputs| sigmoid_pixel(src.pixel(at.n, 0, 0), outputs))]
        }
    }
}

/// The largest magnitude of a weight with its BatchNorms.
fn largest_weight(filter: &Filter) -> f64 {
    let k = filter.dims[3];
    let scales: Vec<f64> = (0..k).map(|k| filter.scale_shift(k).0).collect();
    let weights = filter.weights.iter().zip(scales.iter().cycle());
    weights.fold(0.0f64, |largest, (&weight, scale)| largest.max((weight as f64 * scale).abs()))
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
    // NaN stays NaN, which `max` would replace.
    if epilogue.relu && value < 0.0 { 0.0 } else { value }
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
            *value = match pool.kind {
                PoolKind::Max if x.is_nan() || *value < x => x,
                PoolKind::Max => *value,
                _ => *value + x,
            };
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
            Dtype::U8 => (*src.pixel::<u8>(n, y, x).add(c)).into(),
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
            Dtype::U8 => *dst.pixel::<u8>(n, y, x).add(c) = u8::from_f32(value),
        }
    }
}
