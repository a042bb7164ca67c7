//! Strassen's algorithm: fewer multiplications for any convolution, above all for 1x1 kernels, which no
//! Winograd algorithm helps.
//!
//! A convolution is a product of a matrix of pixels `[M, K]`, `K = r * s * c`, with one of weights
//! `[K, N]`. V. Strassen, "Gaussian Elimination is not Optimal" (1969), multiplies 2x2 blocks with seven
//! products in place of eight:
//!
//! ```text
//! M1 = (A11 + A22)(B11 + B22)    M5 = (A11 + A12) B22             C11 = M1 + M4 - M5 + M7
//! M2 = (A21 + A22) B11           M6 = (A21 - A11)(B11 + B12)      C12 = M3 + M5
//! M3 = A11 (B12 - B22)           M7 = (A12 - A22)(B21 + B22)      C21 = M2 + M4
//! M4 = A22 (B21 - B11)                                            C22 = M1 - M2 + M3 + M6
//! ```
//!
//! The halves of K are those of the channels, the halves of N those of each segment. The sums of
//! weights are made once, at prepare. The sums of pixels are made for a block at a time, which is as
//! cheap as a copy, and so are the sums of products, in the epilogue: the scheme is that of
//! [`super::tiles`].
//!
//! ```text
//! for block of pixels:
//!   for row in block / 2:      V[0..7][row] = sums of pixels row and row + block / 2
//!   for panel of N / 2:
//!     for point in 0..7:       M[point] = V[point] * U[panel][point]
//!     for row in block / 2:    two pixels of both halves of the channels, bias and ReLU
//! ```
//!
//! Two levels do it to each of the seven again: 49 products in place of 64. Each level doubles the RMS
//! error: the variances of the terms of C add up to four times that of C. Packed weights grow by 7/4 a
//! level.

use crate::conv::direct::{conv_of, tile_sizes};
use crate::cpu::{Cpu, Isa};
use crate::filter::{Filter, Folded};
use crate::gemm::panels::Panels;
use crate::kernel::{Bound, Kernel, Numerics, Prepared, Refusal, Tuning, validate};
use crate::problem::{Conv, Problem, Segment};
use crate::scratch::Buffer;
use crate::tensor::{Dtype, Format, Formats};

mod blocks;

use blocks::PreparedStrassen;

/// The kernel, for one instruction set.
#[derive(Debug)]
pub struct Strassen<I> {
    isa: I,
}

impl<I: Isa> Strassen<I> {
    /// For the table.
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Refusal> {
        Ok(Box::new(Self { isa: I::of(cpu)? }))
    }
}

/// Whether channels in and out split into whole vectors at `levels` levels.
fn splits<I: Isa>(conv: &Conv, levels: usize) -> bool {
    let whole = I::F32_LANES << levels;
    conv.channels.is_multiple_of(whole) && conv.segments.iter().all(|s| s.channels.is_multiple_of(whole))
}

impl<I: Isa> Kernel for Strassen<I> {
    fn supports(&self, problem: &Problem) -> Result<(), Refusal> {
        let conv = conv_of(problem)?;
        if splits::<I>(conv, 1) {
            return Ok(());
        }
        let found: Vec<String> = conv.segments.iter().map(|s| s.channels.to_string()).collect();
        let found = format!("{} -> {}", conv.channels, found.join(" + "));
        Err(Refusal::Shape { what: "channels", found, expected: "multiples of two vectors" })
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = conv_of(problem) else { return Vec::new() };
        let [oh, ow] = conv.output();
        let pixels_in_all = conv.batch * oh * ow;
        let mut list = Vec::new();
        for levels in (1..=2).filter(|&levels| splits::<I>(conv, levels)) {
            let widest = conv.segments.iter().map(|s| (s.channels >> levels) / I::F32_LANES).max();
            for &[pixels, vectors] in tile_sizes::<I>().iter().filter(|size| matches!(size[1], 2 | 3)) {
                if vectors > 2 && Some(vectors) > widest {
                    continue;
                }
                let smallest = pixels << levels;
                let mut blocks: Vec<usize> =
                    [2, 4, 8, 24].iter().map(|n| (n * smallest).min(pixels_in_all)).collect();
                blocks.dedup();
                let tuning = |block| {
                    let block = ("block", block);
                    Tuning::new([("levels", levels), ("pixels", pixels), ("vectors", vectors), block])
                };
                list.extend(blocks.into_iter().map(tuning));
            }
        }
        list
    }

    fn formats(&self, problem: &Problem, _: &Tuning) -> Vec<Formats> {
        let Ok(conv) = conv_of(problem) else { return Vec::new() };
        vec![Formats { src: Format::f32_with_halo(conv.window.padding), dst: Format::F32 }]
    }

    fn numerics(&self, _: &Problem, tuning: &Tuning) -> Numerics {
        Numerics { rounding: Dtype::F32, growth: f64::from(1 << tuning.get("levels")) }
    }

    fn multiply_adds(&self, problem: &Problem, tuning: &Tuning) -> u64 {
        let (direct, levels) = (problem.flops() / 2, tuning.get("levels") as u32);
        direct * 7u64.pow(levels) / 8u64.pow(levels)
    }

    fn prepare(
        &self,
        problem: &Problem,
        tuning: &Tuning,
        formats: &Formats,
        filters: &[Filter],
    ) -> Result<Box<dyn Prepared>, Refusal> {
        validate(self, problem, tuning, formats, filters)?;
        let conv = conv_of(problem)?;
        let levels = tuning.get("levels");
        let mut biases = Buffer::zeroed(conv.filters());
        let mut first = 0;
        let mut split = Vec::new();
        for filter in filters {
            let folded = filter.folded();
            let k = folded.bias.len();
            biases.as_mut_slice()[first..first + k].copy_from_slice(&folded.bias);
            first += k;
            split.push(split_filter(&folded, levels));
        }
        let split: Vec<Folded> = split.iter().map(Filter::folded).collect();
        let part = |s: &Segment| Segment { channels: s.channels >> levels, ..*s };
        let segments: Vec<Segment> = conv.segments.iter().map(part).collect();
        let [oh, ow] = conv.output();
        Ok(Box::new(PreparedStrassen {
            isa: self.isa,
            bound: Bound::new(problem, formats),
            conv: conv.clone(),
            panels: Panels::pack(&segments, I::F32_LANES, tuning.get("vectors"), &split),
            biases,
            levels,
            pixels: tuning.get("pixels"),
            block: tuning.get("block").min(conv.batch * oh * ow),
        }))
    }
}

/// The seven sums of weights of each level: `[points, taps, c, k]` with parts of `c` and `k`.
fn split_filter(filter: &Folded, levels: usize) -> Filter {
    let [r, s, c, k] = filter.dims;
    if filter.is_hollow() {
        return Filter::hollow([7usize.pow(levels as u32), r * s, c >> levels, k >> levels]);
    }
    let weights: Vec<f32> = (0..filter.rows()).flat_map(|row| filter.row(row, 0..k)).collect();
    let mut matrices = vec![(weights, [r * s, c, k])];
    for _ in 0..levels {
        matrices = matrices.iter().flat_map(|(weights, dims)| seven(weights, *dims)).collect();
    }
    let [taps, c, k] = matrices[0].1;
    let dims = [matrices.len(), taps, c, k];
    Filter::new(dims, matrices.into_iter().flat_map(|(weights, _)| weights).collect())
}

/// The right factors of Strassen's products.
fn seven(weights: &[f32], [taps, c, k]: [usize; 3]) -> Vec<(Vec<f32>, [usize; 3])> {
    // Each is a sum of up to two blocks `(half of c, half of k, sign)`.
    const FACTORS: [&[(usize, usize, f32)]; 7] = [
        &[(0, 0, 1.0), (1, 1, 1.0)],
        &[(0, 0, 1.0)],
        &[(0, 1, 1.0), (1, 1, -1.0)],
        &[(1, 0, 1.0), (0, 0, -1.0)],
        &[(1, 1, 1.0)],
        &[(0, 0, 1.0), (0, 1, 1.0)],
        &[(1, 0, 1.0), (1, 1, 1.0)],
    ];
    let half = [taps, c / 2, k / 2];
    let factor = |terms: &&[(usize, usize, f32)]| {
        let mut sum = vec![0.0; taps * c / 2 * (k / 2)];
        for (row, sum) in sum.chunks_exact_mut(k / 2).enumerate() {
            let (tap, channel) = (row / (c / 2), row % (c / 2));
            for &(ch, kh, sign) in *terms {
                let at = (tap * c + ch * (c / 2) + channel) * k + kh * (k / 2);
                sum.iter_mut().zip(&weights[at..at + k / 2]).for_each(|(sum, w)| *sum += sign * w);
            }
        }
        (sum, half)
    };
    FACTORS.iter().map(factor).collect()
}
