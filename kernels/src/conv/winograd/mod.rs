//! Winograd convolution: fewer multiplications by transforming tiles of the image.
//!
//! An *output tile* is a block of `m x m` neighbouring outputs. F(m x m, r x r) computes it from `n
//! * n` products, `n = m + r - 1`, where a direct sum takes `m * m * r * r`; a 3x3 kernel of stride
//! 2 takes `n = 2m + 1` (see [`transform`]).
//!
//! ```text
//! for block of tiles:                        V stays in the worker's second-level cache
//!   for tile in block:                       input transform, vectorised over channels
//!     V[0..n*n][tile] = Bt d B
//!   for panel of output channels:            M stays in the first
//!     for point in 0..n*n:                   n*n products [tiles, c] x [c, panel]
//!       M[point] = V[point] * U[panel][point]
//!     for tile in block:                     output transform, bias and ReLU
//!       y = At M[..][tile] A
//! ```
//!
//! It wins on kernels of 3x3 and more with many channels. Transformed filters `U` are `n * n / (r *
//! r)` times as large as the filters and stream by for each block of tiles: large tiles of large
//! filters on small maps are limited by that. The smallest tile has the smallest error. So `m` is a
//! tuning.
//!
//! **One-dimensional convolution**: a kernel of 1x3, 3x1, 1x5, 5x1, 1x7 or 7x1 has extent along one
//! axis only, so an output tile is a line of pixels: F(m, r) is applied along the line and the
//! identity along the other axis. It takes `m + r - 1` products in place of `m * r`: F(4, 7) needs
//! 10 products for 28, F(6, 7) 12 for 42. Where the map is no multiple of `m` wide, the last tile
//! of a line is part waste.

mod convert;
mod engine;
mod next_tile;
mod outputs;
mod tiling;
mod transform;
mod transformed;

use std::marker::PhantomData;

use super::{
    Conv, Cpu, Format, Formats, Isa, Kernel, Numerics, Prepared, Problem, Request, Tuning, Unsupported,
    Window,
};
use crate::conv::winograd::engine::PreparedTransform;
use crate::gemm::multiply::Single;
use crate::gemm::register_block::sizes;
use tiling::Tiling;
use transformed::Transformed;

pub struct Winograd<I, M = Single> {
    isa: I,
    multiply: PhantomData<M>,
    outputs: Outputs,
}

/// Sizes `m` of the output tiles of a window that [`engine`] has code for, or why the window is not
/// taken.
type Outputs = fn(&Window) -> Result<&'static [usize], Unsupported>;

fn square(window: &Window) -> Result<&'static [usize], Unsupported> {
    match (window.kernel, window.stride) {
        ([3, 3], [1, 1]) => Ok(&[2, 3, 4, 5, 6]),
        ([3, 3], [2, 2]) => Ok(&[2, 3, 4]),
        ([5, 5], [1, 1]) => Ok(&[2, 3, 4, 5]),
        ([3, 3], stride) => Err(refusal("stride", stride, "1x1 or 2x2")),
        ([5, 5], stride) => Err(refusal("stride", stride, "1x1")),
        (kernel, _) => Err(refusal("kernel", kernel, "3x3 or 5x5")),
    }
}

fn line(window: &Window) -> Result<&'static [usize], Unsupported> {
    match (window.kernel, window.stride) {
        ([1, 3] | [3, 1], [1, 1]) => Ok(&[2, 3, 4, 6]),
        ([1, 5] | [5, 1], [1, 1]) => Ok(&[2, 4]),
        ([1, 7] | [7, 1], [1, 1]) => Ok(&[2, 3, 4, 5, 6]),
        (kernel, [1, 1]) => Err(refusal("kernel", kernel, "1x3, 1x5, 1x7, 3x1, 5x1 or 7x1")),
        (_, stride) => Err(refusal("stride", stride, "1x1")),
    }
}

fn refusal(what: &'static str, [a, b]: [usize; 2], expected: &'static str) -> Unsupported {
    Unsupported::Shape { what, found: format!("{a}x{b}"), expected }
}

#[allow(private_bounds, reason = "what multiplies is this family's alone")]
impl<I: Isa, M: Transformed<I>> Winograd<I, M> {
    /// For the table: 3x3 and 5x5.
    pub fn square(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        Self::make(cpu, square)
    }

    /// For the table: 3, 5 or 7 pixels along one axis.
    pub fn line(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        Self::make(cpu, line)
    }

    fn make(cpu: &Cpu, outputs: Outputs) -> Result<Box<dyn Kernel>, Unsupported> {
        M::new(cpu)?;
        Ok(Box::new(Self { isa: I::new(cpu)?, multiply: PhantomData, outputs }))
    }
}

fn tiling(problem: &Problem, tuning: &Tuning) -> Result<Tiling, Unsupported> {
    problem.as_conv().map(|conv| Tiling::new(conv, tuning.get("m")))
}

impl<I: Isa, M: Transformed<I>> Kernel for Winograd<I, M> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        (self.outputs)(&problem.as_conv()?.window).map(drop)
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        (self.outputs)(&conv.window).map_or_else(|_| Vec::new(), |outputs| tunings::<I>(conv, outputs))
    }

    fn formats(&self, _: &Problem, _: &Tuning) -> Vec<Formats> {
        if !M::IS_WHOLE {
            return Formats::ALL.into();
        }
        [Format::U8, Format::F32, Format::BF16].map(|dst| Formats { src: Format::U8, dst }).into()
    }

    fn numerics(&self, problem: &Problem, tuning: &Tuning) -> Numerics {
        let of_tiling = |tiling: Tiling| match M::IS_WHOLE {
            true => tiling.growth() * transformed::growth(tiling.conv.depth()),
            false => tiling.growth(),
        };
        Numerics { growth: tiling(problem, tuning).map_or(1.0, of_tiling), ..Numerics::DIRECT_F32 }
    }

    fn multiply_adds(&self, problem: &Problem, tuning: &Tuning) -> u64 {
        tiling(problem, tuning).map_or(0, |tiling| tiling.multiply_adds())
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        let tiling = tiling(request.problem, request.tuning)?;
        Ok(Box::new(PreparedTransform::<I, M>::new(self.isa, tiling, request)))
    }
}

/// Multiply-adds that a core does while it reads one of the transformed weights from memory. It is
/// 120 to 140 G multiply-adds a second over 4 to 5 G weights a second.
const A_WEIGHT: u64 = 26;

/// Tilings by outputs that are worth a measurement, those with the least of multiply-adds and
/// weights to read first. One with no fewer products than a smaller tile has only drawbacks.
fn tilings(conv: &Conv, outputs: &[usize]) -> Vec<(usize, Tiling)> {
    let all: Vec<(usize, Tiling)> = outputs.iter().map(|&m| (m, Tiling::new(conv, m))).collect();
    let work: Vec<(usize, u64)> = all.iter().map(|(m, tiling)| (*m, tiling.multiply_adds())).collect();
    let is_useful = |(m, tiling): &(usize, Tiling)| {
        work.iter().all(|(less, work)| less >= m || *work > tiling.multiply_adds())
    };
    let mut useful: Vec<(usize, Tiling)> = all.into_iter().filter(is_useful).collect();
    useful.sort_by_key(|(_, tiling)| tiling.multiply_adds() + A_WEIGHT * tiling.weights());
    useful
}

/// Outputs `m` of a tile along an axis, pixels and vectors of a register block, tiles in a block,
/// and groups that panels are dealt in.
fn tunings<I: Isa>(conv: &Conv, outputs: &[usize]) -> Vec<Tuning> {
    let widest = conv.segments.iter().map(|s| s.channels.div_ceil(I::F32_LANES)).max();
    let fits = |vectors: usize| vectors == 2 || vectors == 3 && Some(vectors) <= widest;
    let mut list = Vec::new();
    for (m, tiling) in tilings(conv, outputs) {
        let tiles = conv.batch * tiling.tiles();
        for &[pixels, vectors] in sizes::<I>().iter().filter(|size| fits(size[1])) {
            let mut blocks: Vec<usize> = [2, 3, 6].iter().map(|count| (count * pixels).min(tiles)).collect();
            blocks.dedup();
            for block in blocks {
                let few = tiles.div_ceil(block) < 4 && widest > Some(vectors);
                let groups: &[usize] = if few { &[1, 4] } else { &[1] };
                list.extend(groups.iter().map(|&groups| {
                    let (pixels, vectors) = (("pixels", pixels), ("vectors", vectors));
                    Tuning::new([("m", m), pixels, vectors, ("block", block), ("groups", groups)])
                }));
            }
        }
    }
    list
}
