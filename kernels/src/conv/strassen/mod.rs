//! Strassen's algorithm: fewer multiplications for any convolution, above all for 1x1 kernels,
//! which no Winograd algorithm helps.
//!
//! A convolution is a product of a matrix of pixels `[M, K]`, `K = r * s * c`, with one of weights
//! `[K, N]`. V. Strassen, "Gaussian Elimination is not Optimal" (1969), multiplies 2x2 blocks with
//! seven products in place of eight:
//!
//! ```text
//! M1 = (A11 + A22)(B11 + B22)    M5 = (A11 + A12) B22             C11 = M1 + M4 - M5 + M7
//! M2 = (A21 + A22) B11           M6 = (A21 - A11)(B11 + B12)      C12 = M3 + M5
//! M3 = A11 (B12 - B22)           M7 = (A12 - A22)(B21 + B22)      C21 = M2 + M4
//! M4 = A22 (B21 - B11)                                            C22 = M1 - M2 + M3 + M6
//! ```
//!
//! The halves of K are those of the channels, the halves of N those of each segment. The sums of
//! weights are made once, at prepare. The sums of pixels are made for a block at a time, which is
//! as cheap as a copy, and so are the sums of products, in the epilogue: the scheme is that of
//! [`super::winograd`].
//!
//! ```text
//! for block of pixels:
//!   for row in block / 2:      V[0..7][row] = sums of pixels row and row + block / 2
//!   for panel of N / 2:
//!     for point in 0..7:       M[point] = V[point] * U[panel][point]
//!     for row in block / 2:    two pixels of both halves of the channels, bias and ReLU
//! ```
//!
//! Two levels do it to each of the seven again: 49 products in place of 64. Each level doubles the
//! RMS error: the variances of the terms of C add up to four times that of C. Packed weights grow
//! by 7/4 a level.

mod blocks;

use super::{
    Buffer, Conv, Cpu, Format, Formats, Isa, Kernel, Numerics, Prepared, Problem, Request, Tuning,
    Unsupported,
};
use crate::filter::Folded;
use crate::gemm::panels::{CHUNK, Panel, Panels, add, set_rounded};
use crate::gemm::register_block::sizes;
use crate::problem::Segment;
use blocks::PreparedStrassen;

pub struct Strassen<I> {
    isa: I,
}

impl<I: Isa> Strassen<I> {
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        Ok(Box::new(Self { isa: I::new(cpu)? }))
    }
}

/// Whether channels in and out split into whole vectors at `levels` levels.
fn splits<I: Isa>(conv: &Conv, levels: usize) -> bool {
    let whole = I::F32_LANES << levels;
    conv.channels.is_multiple_of(whole) && conv.segments.iter().all(|s| s.channels.is_multiple_of(whole))
}

impl<I: Isa> Kernel for Strassen<I> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        let conv = problem.as_conv()?;
        if splits::<I>(conv, 1) {
            return Ok(());
        }
        let found: Vec<String> = conv.segments.iter().map(|s| s.channels.to_string()).collect();
        let found = format!("{} -> {}", conv.channels, found.join(" + "));
        Err(Unsupported::Shape { what: "channels", found, expected: "multiples of two vectors" })
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        let pixels_in_all = conv.output_pixels(conv.batch);
        let mut list = Vec::new();
        for levels in (1..=2).filter(|&levels| splits::<I>(conv, levels)) {
            let widest = conv.segments.iter().map(|s| (s.channels >> levels) / I::F32_LANES).max();
            for &[pixels, vectors] in sizes::<I>().iter().filter(|size| matches!(size[1], 2 | 3)) {
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
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        vec![Formats { src: Format { halo: conv.window.padding, ..Format::F32 }, dst: Format::F32 }]
    }

    fn numerics(&self, _: &Problem, tuning: &Tuning) -> Numerics {
        Numerics { growth: f64::from(1 << tuning.get("levels")), ..Numerics::DIRECT_F32 }
    }

    fn multiply_adds(&self, problem: &Problem, tuning: &Tuning) -> u64 {
        let (direct, levels) = (problem.flops() / 2, tuning.get("levels") as u32);
        direct * 7u64.pow(levels) / 8u64.pow(levels)
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        let conv = request.problem.as_conv()?;
        let (levels, vectors) = (request.tuning("levels"), request.tuning("vectors"));
        let (isa, factors, filters) = (self.isa, right_factors(levels), request.folded());
        let depth = factors.len() * (conv.depth() >> levels);
        let sums = |panel: &Panel, packed: &mut [f32]| {
            let filter = &filters[panel.segment];
            isa.vectorize(Pack { isa, levels, factors: &factors, filter, panel, packed });
        };
        let part = |s: &Segment| Segment { channels: s.channels >> levels, ..*s };
        let segments: Vec<Segment> = conv.segments.iter().map(part).collect();
        let mut panels = Panels::pack_panels(&segments, I::F32_LANES, vectors, depth, &filters, sums);
        // Of all channels: a panel has those of the first of the parts that its products end in.
        panels.buffers[1] = Buffer::zeroed(conv.filters());
        let biases = filters.iter().flat_map(|filter| &filter.bias);
        panels.buffers[1].as_mut_slice().iter_mut().zip(biases).for_each(|(to, bias)| *to = *bias);
        Ok(Box::new(PreparedStrassen {
            isa: self.isa,
            signature: request.signature(),
            conv: conv.clone(),
            panels,
            levels,
            pixels: request.tuning("pixels"),
            block: request.tuning("block").min(conv.output_pixels(conv.batch)),
        }))
    }
}

/// Two levels split channels in and out into four parts each.
const BLOCKS: usize = 16;

/// The right factors of a panel.
struct Pack<'a, I> {
    isa: I,
    levels: usize,
    factors: &'a [Vec<(usize, f64)>],
    filter: &'a Folded<'a>,
    panel: &'a Panel,
    packed: &'a mut [f32],
}

impl<I: Isa> pulp::WithSimd for Pack<'_, I> {
    type Output = ();

    /// All sums of the same weights of all blocks, so that each is read once.
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { isa, levels, factors, filter, panel, packed } = self;
        let [_, _, c, k] = filter.dims.map(|size| size >> levels);
        let pitch = panel.vectors * I::F32_LANES;
        let of_product = packed.len() / factors.len();
        let mut blocks = [[0.0; CHUNK]; BLOCKS];
        for row in 0..of_product / pitch {
            let first = row / c * (c << levels) + row % c;
            for (number, chunk) in panel.chunks().enumerate() {
                for (block, weights) in blocks[..1 << (2 * levels)].iter_mut().enumerate() {
                    let [channels, outputs] = [c * (block >> levels), k * (block % (1 << levels))];
                    *weights = filter.scaled(first + channels, outputs + chunk.start..outputs + chunk.end);
                }
                for (terms, packed) in factors.iter().zip(packed.chunks_exact_mut(of_product)) {
                    let mut sum = [0.0; CHUNK];
                    for &(block, sign) in terms {
                        // The number is below that, which the compiler does not know.
                        add(isa, &mut sum, sign, &blocks[block % BLOCKS]);
                    }
                    let packed = &mut packed[row * pitch..][..pitch][CHUNK * number..];
                    set_rounded(packed, &sum);
                }
            }
        }
    }
}

/// Of each product at the deepest level the blocks of the weights that its right factor sums, with
/// their signs. Blocks are numbered by their part of the input channels, then of the output.
fn right_factors(levels: usize) -> Vec<Vec<(usize, f64)>> {
    // Each is a sum of up to two blocks `(half of c, half of k, sign)`.
    const FACTORS: [&[(usize, usize, f64)]; 7] = [
        &[(0, 0, 1.0), (1, 1, 1.0)],
        &[(0, 0, 1.0)],
        &[(0, 1, 1.0), (1, 1, -1.0)],
        &[(1, 0, 1.0), (0, 0, -1.0)],
        &[(1, 1, 1.0)],
        &[(0, 0, 1.0), (0, 1, 1.0)],
        &[(1, 0, 1.0), (1, 1, 1.0)],
    ];
    let mut list = vec![vec![(0usize, 0usize, 1.0)]];
    for _ in 0..levels {
        let block = |(c, k, sign): (usize, usize, f64), &(c_half, k_half, factor): &(usize, usize, f64)| {
            (2 * c + c_half, 2 * k + k_half, sign * factor)
        };
        let sums = |outer: &Vec<_>, inner: &[_]| {
            outer.iter().flat_map(|&of| inner.iter().map(move |term| block(of, term))).collect()
        };
        list = list.iter().flat_map(|outer| FACTORS.iter().map(move |inner| sums(outer, inner))).collect();
    }
    let number = |(c, k, sign)| ((c << levels) + k, sign);
    list.into_iter().map(|terms| terms.into_iter().map(number).collect()).collect()
}
