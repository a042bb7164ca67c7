//! What kernels are checked against: exact outputs of some pixels.

use std::cell::OnceCell;

use engine::util::unit;
use kernels::verify::{Expected, Pixel, as_seen, expected, over_scales};
use kernels::{Dtype, Formats, Numerics, Problem, Shape};

use crate::bench::inputs::Inputs;
use crate::bench::timer::Bench;

/// Output pixels to check: the corners, where the last tile of each edge ends, and some between.
pub fn sample_pixels(shape: Shape, count: usize) -> Vec<Pixel> {
    let ends = |extent: usize| [0, extent - 1];
    let mut pixels = Vec::new();
    for y in ends(shape.h) {
        for x in ends(shape.w) {
            pixels.push(Pixel { n: shape.n - 1, y, x });
        }
    }
    for i in 0..count as u64 {
        let at = |stream, extent: usize| (unit(11, stream, i) * extent as f64) as usize;
        pixels.push(Pixel { n: at(0, shape.n), y: at(1, shape.h), x: at(2, shape.w) });
    }
    pixels.sort_by_key(|p| (p.n, p.y, p.x));
    pixels.dedup();
    pixels
}

/// Exact outputs of pixels: of the inputs as they are, and as kernels see them that round them.
pub struct Oracle<'a> {
    problem: &'a Problem,
    pub pixels: Vec<Pixel>,
    plain: Exact<'a>,
    /// For kernels that read u8, that write it, and that do both.
    scaled: [OnceCell<(Inputs, Vec<Expected>, Rounded)>; 3],
    rounded: Rounded,
}

/// Outputs of rounded inputs: by what they are multiplied as, f32, bf16 or u8.
type Rounded = [OnceCell<Vec<Expected>>; 3];

/// Inputs, and their outputs, one a segment.
struct Exact<'a> {
    inputs: &'a Inputs,
    given: Vec<Expected>,
}

impl<'a> Oracle<'a> {
    pub fn new(problem: &'a Problem, inputs: &'a Inputs, pixels: Vec<Pixel>) -> Self {
        let given = expected(problem, &inputs.src, &inputs.filters, &pixels);
        let plain = Exact { inputs, given };
        Self { problem, pixels, plain, scaled: Default::default(), rounded: Default::default() }
    }

    /// Outputs of the first segment.
    pub fn given(&self) -> &Expected {
        &self.plain.given[0]
    }

    /// With the values of outputs from elsewhere.
    pub fn with_values(mut self, values: Vec<f64>) -> Self {
        self.plain.given[0].values = values;
        self
    }

    /// Inputs for a kernel of these formats, over scales where it reads or writes u8; their
    /// outputs, and those of rounded ones.
    fn data(&self, formats: &Formats) -> (&Inputs, &[Expected], &Rounded) {
        let which = match [formats.src.dtype, formats.dst.dtype].map(|dtype| dtype == Dtype::U8) {
            [false, false] => return (self.plain.inputs, &self.plain.given, &self.rounded),
            [true, false] => 0,
            [false, true] => 1,
            [true, true] => 2,
        };
        let (inputs, given, rounded) = self.scaled[which].get_or_init(|| {
            let Exact { inputs: Inputs { src, filters }, given } = &self.plain;
            let (src, filters) = over_scales(self.problem, src, filters, formats, given);
            let given = expected(self.problem, &src, &filters, &self.pixels);
            (Inputs { src, filters }, given, Default::default())
        });
        (inputs, given, rounded)
    }

    /// What a kernel of these formats is given.
    pub fn inputs(&self, formats: &Formats) -> &Inputs {
        self.data(formats).0
    }

    /// Compares what a kernel has left in its bench with the outputs of the inputs as it sees them
    /// and as they were given. An output that is no number has an infinite error.
    pub fn judge(&self, bench: &Bench, numerics: &Numerics) -> Verdict {
        let formats = bench.signature().formats;
        let (inputs, given, rounded) = self.data(&formats);
        let seen = match (formats.src.dtype, numerics.rounding) {
            (Dtype::F32, Dtype::F32) => given,
            (stored, rounding) => rounded[rounding as usize].get_or_init(|| {
                let (src, filters) = as_seen(&inputs.src, &inputs.filters, stored, rounding);
                expected(self.problem, &src, &filters, &self.pixels)
            }),
        };
        let own = self.compare(bench, seen, |e| e.tolerance_of(numerics, formats.dst.dtype));
        let given = self.compare(bench, given, |e| e.tolerance_unrounded(numerics, &formats));
        Verdict { own, given }
    }

    fn compare(&self, bench: &Bench, exact: &[Expected], tolerance: impl Fn(&Expected) -> f64) -> Comparison {
        let mut worst = Comparison { error: 0.0, tolerance: f64::INFINITY, largest: 0.0, rms: 0.0 };
        let (mut errors, mut outputs) = (0.0, 0.0);
        for (segment, exact) in exact.iter().enumerate() {
            let shape = bench.signature().dst[segment];
            let mut largest: f64 = 0.0;
            for (pixel, values) in self.pixels.iter().zip(exact.values.chunks_exact(shape.c)) {
                let output = bench.output(segment, [pixel.n, pixel.y, pixel.x]);
                let dtype = bench.signature().formats.dst.dtype;
                for (&y, exact) in output.iter().zip(values.iter().map(|value| dtype.clamped(*value))) {
                    let error = (y as f64 - exact).abs();
                    largest = largest.max(if error.is_nan() { f64::INFINITY } else { error });
                    worst.largest = worst.largest.max(exact.abs());
                    errors += error * error;
                    outputs += exact * exact;
                }
            }
            let tolerance = tolerance(exact);
            if worst.tolerance.is_infinite() || largest / tolerance > worst.error / worst.tolerance {
                (worst.error, worst.tolerance) = (largest, tolerance);
            }
        }
        worst.rms = if errors == 0.0 { 0.0 } else { (errors / outputs).sqrt() };
        worst
    }
}

/// A candidate's results against exact ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Largest error of the segment where it is the largest part of what is allowed.
    pub error: f64,
    /// The largest that is allowed there.
    pub tolerance: f64,
    pub largest: f64,
    /// Root mean square of the errors over that of the exact outputs.
    pub rms: f64,
}

impl Comparison {
    pub fn holds(&self) -> bool {
        self.error <= self.tolerance
    }

    /// Error over the largest output.
    pub fn relative(&self) -> f64 {
        if self.largest > 0.0 { self.error / self.largest } else { self.error }
    }
}

/// A candidate's results against the oracle's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Of the inputs as the kernel sees them: its arithmetic.
    pub own: Comparison,
    /// Of the inputs as they were given: its arithmetic and its rounding of them.
    pub given: Comparison,
}

impl Verdict {
    pub fn holds(&self) -> bool {
        self.own.holds() && self.given.holds()
    }

    /// The comparison that is nearer to its tolerance, or further beyond it.
    pub fn nearer(&self) -> Comparison {
        let share = |c: &Comparison| c.error / c.tolerance;
        if share(&self.given) > share(&self.own) { self.given } else { self.own }
    }
}
