//! Convolution in bf16 on the tiles of AMX.
//!
//! The rows of a tile of `a` are output pixels at one distance from each other ([`pixels`]): the inputs of one tap
//! then lie at one distance too, whatever the stride, so that a tile is loaded in place, 32 channels at a time
//! ([`steps`]). Two tiles of pixels and two of output channels are four products for four loads.
//!
//! ```text
//! for panel of 32 channels, block of 2 x 16 pixels:      in either order
//!   for c in 0..channels by 32, (r, s) in taps:          a step
//!     a[0..2] = load pixels' channels c of tap (r, s)    4 of the 8 tiles are operands
//!     b[0..2] = load 16 pairs of rows of the panel       4 are sums
//!     sums += a * b
//!   bias, ReLU, round and store                           the processor overlaps it with the next block
//! ```
//!
//! - Four products take 64 cycles, four loads 32 from the first-level cache, but some 90 from the second. So one
//!   operand should stay in the first level: a panel while the pixels pass (order 0), or a block of pixels while the
//!   panels pass (order 1), or the pixels that several taps share. What passes would push it out, and is loaded by an
//!   instruction that leaves no copy there (`stream`: 1 pixels, 2 weights, 3 both).
//! - A long sum may be taken in parts of `depth` steps, for several blocks in turn, so that a part of the panel
//!   stays.
//! - Meanwhile the rest of the weights, and the first of the next layer's, are brought to the second level
//!   ([`ahead`]).
//! - **Few input channels**, f32, and channels that do not follow each other where they must, are copied: the rows
//!   of the source that an output row takes, rounded, its channels side by side ([`rows`]).

use std::ops::Range;

use crate::arch::amx::{Amx, Block, SUMS, Streamed, TILE, Tiles};
use crate::conv::direct::conv_of;
use crate::cpu::{Avx512, Avx512Bf16, Cpu, Isa};
use crate::error::Unsupported;
use crate::filter::{Filter, Rounded};
use crate::gemm::panels::Panels;
use crate::kernel::{Io, Kernel, Numerics, Prepared, Signature, Tuning, validate};
use crate::memory::{Buffer, Scratch, ScratchReq, round_up};
use crate::problem::{Conv, Problem};
use crate::tensor::{Dtype, Format, Formats, View};

mod ahead;
mod finish;
mod pixels;
mod rows;
mod steps;

use ahead::Ahead;
use finish::finish;
use pixels::{Cut, Flat};
use rows::{Layout, Rows};
use steps::{Step, is_narrow, pack, runs_over_taps, steps};

/// The kernel.
#[derive(Debug)]
pub struct AmxConv {
    amx: Amx,
    /// For the epilogue.
    isa: Avx512,
    bf16: Avx512Bf16,
}

impl AmxConv {
    /// For the table.
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        let amx = Amx::of(cpu)?;
        Ok(Box::new(Self { amx, isa: Avx512::of(cpu)?, bf16: Avx512Bf16::of(cpu)? }))
    }
}

/// Steps of a part where a sum is taken in parts: with two tiles of weights each they fill a first-level cache of
/// 48 KiB, or half of it.
const PARTS: [usize; 2] = [24, 12];

/// Blocks that are summed in turn where a sum is taken in parts.
const GROUP: usize = 10;

/// Elements from the sums of a block to the next: a tile lies between that means nothing.
const SUMS_PITCH: usize = SUMS + TILE;

/// Elements of the next layer's weights that are brought near: a quarter of a second-level cache of 2 MiB.
const AHEAD: usize = (512 << 10) / size_of::<f32>();

/// Units that keep a team busy without being too small to be worth dealing.
const UNITS: usize = 64;

/// Output pixels of an image up to which f32 is taken and rounded on the way: a copy of so few costs nothing.
const FEW_PIXELS: usize = 4;

impl Kernel for AmxConv {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        conv_of(problem).map(|_| ())
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = conv_of(problem) else { return Vec::new() };
        let all = steps(conv).len();
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
        let Ok(conv) = conv_of(problem) else { return Vec::new() };
        let of = |src| {
            let src = Format::with_halo(src, conv.window.padding);
            [Format::BF16, Format::F32].map(|dst| Formats { src, dst })
        };
        let mut formats = of(Dtype::Bf16).to_vec();
        if is_narrow(conv) || conv.output().iter().product::<usize>() <= FEW_PIXELS {
            formats.extend(of(Dtype::F32));
        }
        formats
    }

    fn numerics(&self, _: &Problem, _: &Tuning) -> Numerics {
        Numerics { rounding: Dtype::Bf16, growth: 1.0 }
    }

    fn prepare(
        &self,
        problem: &Problem,
        tuning: &Tuning,
        formats: &Formats,
        filters: &[Filter],
    ) -> Result<Box<dyn Prepared>, Unsupported> {
        validate(self, problem, tuning, formats, filters)?;
        let conv = conv_of(problem)?;
        let rounded: Vec<Rounded> = filters.iter().map(Filter::rounded).collect();
        let steps = steps(conv);
        let halo = formats.src.halo;
        let neighbours = conv.window.kernel[1] == 1
            && conv.window.stride == [1, 1]
            && halo.left + halo.right == 0
            && !is_copied(conv, formats.src.dtype);
        let flat = match neighbours && conv.output()[1] == conv.image[1] {
            true if conv.window.kernel[0] == 1 && halo.top + halo.bottom == 0 => Flat::Images,
            true => Flat::Image,
            false => Flat::No,
        };
        Ok(Box::new(PreparedAmx {
            amx: self.amx,
            isa: self.isa,
            bf16: self.bf16,
            signature: Signature::new(problem, formats),
            panels: pack(conv, &steps, &rounded),
            rows: Layout::new(conv),
            part: tuning.get("depth"),
            image_stays: tuning.get("order") == 1,
            streamed: [Streamed::None, Streamed::A, Streamed::B, Streamed::Both][tuning.get("stream")],
            flat,
            conv: conv.clone(),
            steps,
        }))
    }
}

#[derive(Debug)]
struct PreparedAmx {
    amx: Amx,
    isa: Avx512,
    bf16: Avx512Bf16,
    signature: Signature,
    conv: Conv,
    steps: Vec<Step>,
    panels: Panels,
    /// Of a source that is copied.
    rows: Layout,
    /// Steps that are taken at a time.
    part: usize,
    image_stays: bool,
    streamed: Streamed,
    flat: Flat,
}

/// Whether a source of a type is copied whatever its pitches.
fn is_copied(conv: &Conv, dtype: Dtype) -> bool {
    is_narrow(conv) || dtype == Dtype::F32
}

/// Parts of a worker's scratch, in elements from its start.
struct Parts {
    sums: usize,
    rows: usize,
    end: usize,
}

impl PreparedAmx {
    /// Shares of the blocks of `n` images that are dealt.
    fn shares(&self, n: usize) -> usize {
        UNITS.div_ceil(self.panels.list().len()).clamp(1, Cut::new(&self.conv, n, self.flat, true).blocks())
    }

    fn in_parts(&self) -> bool {
        self.part < self.steps.len()
    }

    /// Whether the rows of a source are copied.
    fn copies(&self, src: &View) -> bool {
        is_copied(&self.conv, src.dtype)
            || runs_over_taps(&self.conv) && src.pitch.pixel != self.conv.channels
    }

    /// Offsets of steps, sums of blocks, rows.
    fn parts(&self) -> Parts {
        let offsets = self.steps.len() * size_of::<usize>() / size_of::<f32>();
        let blocks = if self.in_parts() { GROUP } else { 1 };
        let may_copy = is_copied(&self.conv, self.signature.formats.src.dtype) || runs_over_taps(&self.conv);
        let sums = round_up(offsets);
        let rows = sums + blocks * SUMS_PITCH;
        // An element of f32 is two of bf16.
        Parts { sums, rows, end: rows + if may_copy { round_up(self.rows.elements() / 2) } else { 0 } }
    }

    /// The units that are one worker's, unless another takes them first, and their panels.
    fn mine(&self, worker: usize, workers: usize, shares: usize) -> [Range<usize>; 2] {
        let panels = self.panels.list().len();
        let units = panels * shares;
        let mine = units * worker / workers..units * (worker + 1) / workers;
        let own = match self.image_stays {
            true => 0..panels,
            false => mine.start / shares..mine.end.div_ceil(shares),
        };
        [mine, own]
    }
}

impl Prepared for PreparedAmx {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn packed(&self) -> Vec<&Buffer> {
        self.panels.buffers().into()
    }

    fn packed_mut(&mut self) -> Vec<&mut Buffer> {
        self.panels.buffers_mut().into()
    }

    /// All of them at once where the pixels stay; else panel by panel, in whose time the next one can be brought.
    fn worker_weights(&self, worker: usize, workers: usize, n: usize) -> &[f32] {
        let [_, panels] = self.mine(worker, workers, self.shares(n));
        self.panels.weights_of(if self.image_stays { panels } else { panels.start..panels.start + 1 })
    }

    fn prefetch_capacity(&self) -> usize {
        AHEAD
    }

    fn scratch(&self) -> ScratchReq {
        ScratchReq { shared: 0, worker: self.parts().end }
    }

    fn units(&self, _: usize, n: usize) -> usize {
        self.panels.list().len() * self.shares(n)
    }

    #[allow(unsafe_code, reason = "tile code")]
    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, scratch: &mut Scratch) {
        // SAFETY: the caller's promises are passed on.
        pulp::Simd::vectorize(self.isa, Run { step: self, units, io, scratch })
    }
}

struct Run<'a> {
    step: &'a PreparedAmx,
    units: Range<usize>,
    io: &'a Io<'a>,
    scratch: &'a Scratch,
}

impl pulp::WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    #[allow(unsafe_code, reason = "tile code")]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { step, units, io, scratch } = self;
        let (src, n, worker) = (&io.src, io.images(), scratch.worker);
        let parts = step.parts();
        let copies = step.copies(src);
        let cut = Cut::new(&step.conv, n, step.flat, !copies);
        let offsets = worker.cast::<usize>();
        let [row, pixel] = match copies {
            true => [step.rows.row_bytes(), step.conv.channels * Dtype::Bf16.bytes()],
            false => [src.pitch.row, src.pitch.pixel].map(|pitch| pitch * Dtype::Bf16.bytes()),
        };
        for (index, one) in step.steps.iter().enumerate() {
            let offset = one.tap[0] * row + one.tap[1] * pixel + one.element * Dtype::Bf16.bytes();
            // SAFETY: the worker's scratch begins with an offset for each step.
            unsafe { offsets.add(index).write(offset) };
        }
        let shares = step.shares(n);
        let [mine, own] = step.mine(scratch.index, scratch.workers, shares);
        // The first panel is read at once.
        let near = io.prefetched.max(step.panels.weights_of(own.start..own.start + 1).len());
        let blocks = Blocks {
            step,
            io,
            cut,
            tiles: Tiles::new(step.amx, cut.pixels()),
            ahead: Ahead::new(step.panels.weights_of(own), near, io.prefetch_next),
            copies: copies.then(|| Rows::new(step, src, worker.wrapping_add(parts.rows).cast())),
            offsets,
            sums: worker.wrapping_add(parts.sums),
        };
        let (panels, all) = (step.panels.list().len(), cut.blocks());
        let from_share = |share: usize| all * share / shares;
        let mut unit = units.start;
        while unit < units.end {
            // Units that follow each other: the panels of a share, or the shares of a panel.
            let inner = if step.image_stays { panels } else { shares };
            let (outer, first) = (unit / inner, unit % inner);
            let last = inner.min(first + units.end - unit);
            let due =
                |from: usize, to: usize| blocks.ahead.due(outer * inner + from..outer * inner + to, &mine);
            if step.image_stays {
                for panel in first..last {
                    let share = from_share(outer)..from_share(outer + 1);
                    // SAFETY: the blocks of the share and the panel are this caller's.
                    unsafe { blocks.run(panel, share, due(panel, panel + 1)) };
                }
            } else {
                // SAFETY: as above.
                unsafe { blocks.run(outer, from_share(first)..from_share(last), due(first, last)) };
            }
            unit += last - first;
        }
    }
}

/// What is the same for all blocks of a run.
struct Blocks<'a> {
    step: &'a PreparedAmx,
    io: &'a Io<'a>,
    cut: Cut,
    tiles: Tiles,
    ahead: Ahead<'a>,
    copies: Option<Rows<'a>>,
    offsets: *const usize,
    sums: *mut f32,
}

impl Blocks<'_> {
    /// Computes a panel of some blocks, and brings lines near on the way.
    ///
    /// # Safety
    /// The outputs are this caller's alone.
    #[inline(always)]
    #[allow(unsafe_code, reason = "tile code")]
    unsafe fn run(&self, panel: usize, blocks: Range<usize>, mut due: Range<usize>) {
        let Self { step, cut, sums, .. } = self;
        let panel = &step.panels.list()[panel];
        let dst = self.io.dst(panel.segment);
        let all = step.steps.len();
        let lines = due.len().div_ceil((all * blocks.len()).max(1));
        let group = if step.in_parts() { GROUP } else { 1 };
        let mut begin = blocks.start;
        while begin < blocks.end {
            let end = blocks.end.min(begin + group);
            let mut from = 0;
            while from < all {
                let to = all.min(from + step.part);
                for block in begin..end {
                    let pair = cut.block(block);
                    let sums = sums.wrapping_add((block - begin) * SUMS_PITCH);
                    let mut a = [std::ptr::null(); 2];
                    let mut pitch = 0;
                    for (tile, a) in pair.iter().zip(&mut a) {
                        let Some(tile) = tile else { continue };
                        (*a, pitch) = match &self.copies {
                            // SAFETY: the taps of the row's pixels may be read; the scratch has room.
                            Some(rows) => unsafe { rows.at(cut.place(tile, 0)) },
                            None => cut.src(tile, &step.conv, &self.io.src),
                        };
                    }
                    let block = Block {
                        a,
                        pitch,
                        offsets: self.offsets.wrapping_add(from),
                        steps: to - from,
                        b: step.panels.weights(panel).wrapping_add(from * panel.vectors * TILE).cast(),
                        vectors: panel.vectors,
                        streamed: step.streamed,
                        sums,
                        accumulate: from > 0,
                        next: self.ahead.line(due.start),
                        lines: if due.is_empty() { 0 } else { lines },
                    };
                    due.start = due.end.min(due.start + (to - from) * lines);
                    // SAFETY: all taps of the tiles' pixels may be read, 32 elements from each step's
                    // first; the panel has the tiles of all steps.
                    unsafe { self.tiles.multiply(&block) };
                    if to == all {
                        for (index, tile) in pair.iter().enumerate() {
                            let Some(tile) = tile else { continue };
                            let sums = sums.wrapping_add(2 * index * TILE);
                            // SAFETY: the sums of the tile's pixels are there, whose outputs that no
                            // tile before has are this unit's.
                            unsafe { finish(step, panel, &dst, sums, cut, tile) };
                        }
                    }
                }
                from = to;
            }
            begin = end;
        }
    }
}
