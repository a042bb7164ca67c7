//! Convolution in bf16 and in u8 on the tile registers of AMX.
//!
//! In this folder a *tile* is an AMX tile register, or the pixels or weights that are loaded into
//! one. The rows of a tile of `a` are output pixels at one distance from each other ([`pixels`]):
//! the inputs of one tap then lie at one distance too, whatever the stride, so that a tile is
//! loaded in place, 32 channels of bf16 or 64 of u8 at a time ([`steps`]). Two tiles of pixels and
//! two of output channels are four products for four loads.
//!
//! ```text
//! for panel of 32 channels, block of 2 x 16 pixels:      in either order
//!   for c in 0..channels by 32 or 64, (r, s) in taps:    a step
//!     a[0..2] = load pixels' channels c of tap (r, s)    4 of the 8 tiles are operands
//!     b[0..2] = load 16 groups of rows of the panel      4 are sums
//!     sums += a * b
//!   bias, ReLU, round and store                           the processor overlaps it with the next
//!   block
//! ```
//!
//! - Four products take 64 cycles, four loads 32 from the first-level cache, but some 90 from the
//!   second. So one operand should stay in the first level: a panel while the pixels pass (order
//!   0), or a block of pixels while the panels pass (order 1), or the pixels that several taps
//!   share. What passes would push it out, and is loaded by an instruction that leaves no copy
//!   there (`stream`: 1 pixels, 2 weights, 3 both).
//! - A long sum may be computed in parts of `depth` steps, for several blocks in turn, so that a
//!   part of the panel stays.
//! - Meanwhile the rest of the weights, and the first of the next step, are prefetched into the
//!   second level ([`prefetch`]).
//! - **Few input channels**, f32, and channels that do not follow each other where they must, are
//!   copied: the rows of the source that an output row takes, rounded and without gaps ([`rows`]).
//! - Sums of u8 are whole numbers of 32 bits, which a scale for each output channel makes f32
//!   ([`finish`]).

mod element;
mod finish;
mod pixels;
mod prefetch;
mod rows;
mod run;
mod steps;

use std::marker::PhantomData;
use std::ops::Range;

use super::direct::{ensure_summable, formats_from};
use super::{
    Conv, Cpu, Dtype, Formats, Isa, Kernel, Numerics, Prepared, Problem, Request, Signature, Tuning,
    Unsupported, View, round_up,
};
use crate::arch::amx::{Amx, SUMS, TILE};
use crate::cpu::{Avx512, Avx512Bf16};
use crate::gemm::panels::Panels;
use element::TilePixel;
use pixels::{Cut, Flat};
use steps::{Step, is_narrow, pack, runs_over_taps, steps};

/// For elements of bf16, or of u8.
pub struct AmxConv<T> {
    amx: Amx,
    /// For the epilogue.
    isa: Avx512,
    bf16: Avx512Bf16,
    element: PhantomData<T>,
}

impl<T: TilePixel> AmxConv<T> {
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        let amx = Amx::new(cpu)?;
        Ok(Box::new(Self { amx, isa: Avx512::new(cpu)?, bf16: Avx512Bf16::new(cpu)?, element: PhantomData }))
    }
}

/// Steps of a part of a sum: with two tiles of weights each they fill a first-level cache of 48
/// KiB, or half of it.
const PARTS: [usize; 2] = [24, 12];

/// Output pixels of an image up to which a source of f32 is allowed: rounding so few costs little.
const FEW_PIXELS: usize = 4;

impl<T: TilePixel> Kernel for AmxConv<T> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        problem.as_conv().and_then(|conv| ensure_summable(T::DTYPE, conv))
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        let all = steps::<T>(conv).len();
        let parts = [all].into_iter().chain(PARTS.into_iter().filter(|part| all > part + part / 2));
        let mut tunings = Vec::new();
        for order in [0, 1] {
            for depth in parts.clone() {
                let tuning = |stream| Tuning::new([("order", order), ("depth", depth), ("stream", stream)]);
                // Pixels that several taps share must not pass by the cache.
                let streams: &[usize] = if conv.is_pointwise() { &[3, 2, 1, 0] } else { &[2, 0] };
                tunings.extend(streams.iter().copied().map(tuning));
            }
        }
        tunings
    }

    fn formats(&self, problem: &Problem, _: &Tuning) -> Vec<Formats> {
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        let mut formats = formats_from(T::DTYPE, conv);
        let is_few = conv.output().iter().product::<usize>() <= FEW_PIXELS;
        if T::DTYPE == Dtype::Bf16 && (is_narrow::<T>(conv) || is_few) {
            let copied = [Dtype::F32, Dtype::U8].into_iter();
            formats.extend(copied.flat_map(|dtype| formats_from(dtype, conv)));
        }
        formats
    }

    fn numerics(&self, _: &Problem, _: &Tuning) -> Numerics {
        Numerics { rounding: T::DTYPE, ..Numerics::DIRECT_F32 }
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        let conv = request.problem.as_conv()?;
        let steps = steps::<T>(conv);
        let src = request.formats.src;
        let neighbours = conv.window.kernel[1] == 1
            && conv.window.stride == [1, 1]
            && src.halo.left + src.halo.right == 0
            && !is_copied::<T>(conv, src.dtype);
        let flat = match neighbours && conv.output()[1] == conv.image[1] {
            true if conv.window.kernel[0] == 1 && src.halo.top + src.halo.bottom == 0 => Flat::Images,
            true => Flat::Image,
            false => Flat::No,
        };
        Ok(Box::new(PreparedAmx::<T> {
            amx: self.amx,
            isa: self.isa,
            bf16: self.bf16,
            signature: request.signature(),
            panels: pack::<T>(conv, &steps, request),
            rows: Layout::new(conv, T::DEPTH),
            part: request.tuning("depth"),
            image_stays: request.tuning("order") == 1,
            streamed: [1, 2].map(|operand| request.tuning("stream") & operand != 0),
            flat,
            conv: conv.clone(),
            steps,
            element: PhantomData,
        }))
    }
}

/// Blocks that are summed in turn where a sum is computed in parts.
const GROUP: usize = 10;

/// Sums from those of a block to the next: a tile without meaning lies between
/// ([`crate::arch::amx::Block::sums`]).
const SUMS_PITCH: usize = SUMS + TILE;

struct PreparedAmx<T> {
    amx: Amx,
    isa: Avx512,
    bf16: Avx512Bf16,
    signature: Signature,
    conv: Conv,
    steps: Vec<Step>,
    panels: Panels,
    /// For a source that is copied.
    rows: Layout,
    /// Steps of a part of the sums.
    part: usize,
    image_stays: bool,
    /// Which of pixels and weights are streamed ([`crate::arch::amx::Block::streamed`]).
    streamed: [bool; 2],
    flat: Flat,
    element: PhantomData<T>,
}

/// Whether a source of a type is copied whatever its pitches.
fn is_copied<T: TilePixel>(conv: &Conv, dtype: Dtype) -> bool {
    is_narrow::<T>(conv) || dtype != T::DTYPE
}

/// Where the parts of a worker's scratch begin and end, in elements of f32 from its start: offsets
/// of steps, sums, rows.
struct Parts {
    sums: usize,
    rows: usize,
    end: usize,
}

impl<T: TilePixel> PreparedAmx<T> {
    fn shares(&self, n: usize) -> usize {
        self.panels.shares(Cut::new(&self.conv, n, self.flat, true).blocks())
    }

    fn in_parts(&self) -> bool {
        self.part < self.steps.len()
    }

    fn copies(&self, src: &View) -> bool {
        is_copied::<T>(&self.conv, src.dtype)
            || runs_over_taps::<T>(&self.conv) && src.pitch.pixel != self.conv.channels
    }

    fn parts(&self) -> Parts {
        let offsets = self.steps.len() * size_of::<usize>() / size_of::<f32>();
        let blocks = if self.in_parts() { GROUP } else { 1 };
        let copied = LINES * self.rows.rows * self.rows.row;
        let source = self.signature.formats.src.dtype;
        let may_copy = is_copied::<T>(&self.conv, source) || runs_over_taps::<T>(&self.conv);
        let sums = round_up(offsets);
        let rows = sums + blocks * SUMS_PITCH;
        Parts { sums, rows, end: rows + if may_copy { round_up(copied.div_ceil(T::GROUP)) } else { 0 } }
    }

    /// Units that a worker computes, unless another takes some of them, and their panels.
    fn worker_share(&self, worker: usize, workers: usize, shares: usize) -> [Range<usize>; 2] {
        let panels = self.panels.list.len();
        let units = panels * shares;
        let mine = units * worker / workers..units * (worker + 1) / workers;
        let panels = match self.image_stays {
            true => 0..panels,
            false => mine.start / shares..mine.end.div_ceil(shares),
        };
        [mine, panels]
    }
}

/// Output rows whose sources are kept: the tiles of a block may lie in two.
const LINES: usize = 2;

/// How much of the source is copied for the tiles.
#[derive(Clone, Copy)]
struct Layout {
    /// Elements of a row that are read with weights.
    length: usize,
    row: usize,
    /// Rows of an output row.
    rows: usize,
}

impl Layout {
    /// For steps of `depth` elements.
    fn new(conv: &Conv, depth: usize) -> Self {
        let [rows, s] = conv.window.kernel;
        let length = ((conv.output()[1] - 1) * conv.window.stride[1] + s) * conv.channels;
        // The last step of the last pixel reads less than a step behind.
        Self { length, row: length.next_multiple_of(depth) + depth, rows }
    }
}
