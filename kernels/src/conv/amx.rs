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
//! - Meanwhile the next panel, or the next layer's first, is brought to the second level.
//! - **Few input channels**, f32, and channels that do not follow each other where they must, are gathered:
//!   the inputs of a block's pixels side by side, rounded, padded with zeros.

use std::arch::x86_64::__m512i;
use std::ops::Range;

use half::bf16;

use crate::arch::amx::{Amx, BLOCK_ROWS, Block, DEPTH, ROWS, SUMS, Streamed, TILE, Tiles};
use crate::conv::direct::conv_of;
use crate::cpu::{Avx512, Avx512Bf16, Cpu, Isa};
use crate::filter::{Filter, Folded};
use crate::gemm::panels::{Panel, Panels};
use crate::kernel::{Bound, Io, Kernel, Numerics, Prepared, Refusal, Tuning, validate};
use crate::problem::{Conv, Problem};
use crate::scratch::{Buffer, Scratch, ScratchReq, round_up};
use crate::tensor::{Dtype, Format, Formats, View, ViewMut};
use crate::vector::{load, load_first, narrow_first, store_first};

mod pixels;
mod steps;

use pixels::{Cut, Flat, Tile};
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
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Refusal> {
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

/// Units that keep a team busy without being too small to be worth dealing.
const UNITS: usize = 64;

/// Output pixels of an image up to which f32 is taken and rounded on the way: a copy of so few costs nothing.
const FEW_PIXELS: usize = 4;

impl Kernel for AmxConv {
    fn supports(&self, problem: &Problem) -> Result<(), Refusal> {
        conv_of(problem).map(|_| ())
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = conv_of(problem) else { return Vec::new() };
        let all = steps(conv).len();
        let parts = [all].into_iter().chain(PARTS.into_iter().filter(|part| all > part + part / 2));
        let mut tunings = Vec::new();
        for order in [0, 1] {
            for depth in parts.clone() {
                tunings.extend(
                    [3, 2, 1, 0]
                        .map(|stream| Tuning::new([("order", order), ("depth", depth), ("stream", stream)])),
                );
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
    ) -> Result<Box<dyn Prepared>, Refusal> {
        validate(self, problem, tuning, formats, filters)?;
        let conv = conv_of(problem)?;
        let folded: Vec<Folded> = filters.iter().map(Filter::folded).collect();
        let steps = steps(conv);
        let halo = formats.src.halo;
        let neighbours =
            conv.window.kernel[1] == 1 && conv.window.stride == [1, 1] && halo.left + halo.right == 0;
        let flat = match neighbours && conv.output()[1] == conv.image[1] {
            true if conv.window.kernel[0] == 1 && halo.top + halo.bottom == 0 => Flat::Images,
            true => Flat::Image,
            false => Flat::No,
        };
        Ok(Box::new(PreparedAmx {
            amx: self.amx,
            isa: self.isa,
            bf16: self.bf16,
            bound: Bound::new(problem, formats),
            panels: pack(conv, &steps, &folded),
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
    bound: Bound,
    conv: Conv,
    steps: Vec<Step>,
    panels: Panels,
    /// Steps that are taken at a time.
    part: usize,
    image_stays: bool,
    streamed: Streamed,
    flat: Flat,
}

/// Parts of a worker's scratch, in elements from its start.
struct Parts {
    sums: usize,
    gathered: usize,
    end: usize,
}

impl PreparedAmx {
    fn cut(&self, n: usize) -> Cut {
        Cut::new(&self.conv, n, self.flat)
    }

    /// Shares of the blocks of `n` images that are dealt.
    fn shares(&self, n: usize) -> usize {
        UNITS.div_ceil(self.panels.list().len()).clamp(1, self.cut(n).blocks())
    }

    fn in_parts(&self) -> bool {
        self.part < self.steps.len()
    }

    /// Whether the inputs of pixels of a source are gathered before they are multiplied.
    fn gathers(&self, src: &View) -> bool {
        is_narrow(&self.conv)
            || src.dtype == Dtype::F32
            || runs_over_taps(&self.conv) && src.pitch.pixel != self.conv.channels
    }

    /// Whether it may, for any source of the bound format.
    fn may_gather(&self) -> bool {
        is_narrow(&self.conv) || self.bound.formats.src.dtype == Dtype::F32 || runs_over_taps(&self.conv)
    }

    /// Offsets of steps, sums of blocks, gathered pixels.
    fn parts(&self) -> Parts {
        let offsets = self.steps.len() * size_of::<usize>() / size_of::<f32>();
        let blocks = if self.in_parts() { GROUP } else { 1 };
        // Vectors are written whole: a line more behind the last.
        let gathered = blocks * self.gathered_bytes() / size_of::<f32>() + ROWS;
        let sums = round_up(offsets);
        let end = sums + blocks * SUMS_PITCH;
        Parts { sums, gathered: end, end: end + if self.may_gather() { round_up(gathered) } else { 0 } }
    }

    /// Bytes of a pixel's gathered inputs.
    fn pixel_bytes(&self) -> usize {
        (self.conv.depth() * size_of::<bf16>()).next_multiple_of(DEPTH * size_of::<bf16>())
    }

    /// Bytes of a block's.
    fn gathered_bytes(&self) -> usize {
        BLOCK_ROWS * self.pixel_bytes()
    }
}

impl Prepared for PreparedAmx {
    fn bound(&self) -> &Bound {
        &self.bound
    }

    fn packed(&self) -> Vec<&Buffer> {
        self.panels.buffers().into()
    }

    fn packed_mut(&mut self) -> Vec<&mut Buffer> {
        self.panels.buffers_mut().into()
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
        pulp::Simd::vectorize(self.isa, Run { step: self, units, io, worker: scratch.worker })
    }
}

struct Run<'a> {
    step: &'a PreparedAmx,
    units: Range<usize>,
    io: &'a Io<'a>,
    /// The worker's scratch.
    worker: *mut f32,
}

impl pulp::WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    #[allow(unsafe_code, reason = "tile code")]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { step, units, io, worker } = self;
        let (src, conv) = (&io.src, &step.conv);
        let parts = step.parts();
        let cut = step.cut(io.images());
        let gathers = step.gathers(src);
        let offsets = worker.cast::<usize>();
        let [row, pixel] = [src.pitch.row, src.pitch.pixel].map(|pitch| pitch * size_of::<bf16>());
        for (index, one) in step.steps.iter().enumerate() {
            let offset = match gathers {
                true => one.row * size_of::<bf16>(),
                false => one.tap[0] * row + one.tap[1] * pixel + one.element * size_of::<bf16>(),
            };
            // SAFETY: the worker's scratch begins with an offset for each step.
            unsafe { offsets.add(index).write(offset) };
        }
        let blocks = Blocks {
            step,
            conv,
            io,
            cut,
            tiles: Tiles::new(step.amx, cut.pixels()),
            gathers,
            offsets,
            sums: worker.wrapping_add(parts.sums),
            gathered: worker.wrapping_add(parts.gathered).cast(),
        };
        let (panels, all, shares) = (step.panels.list().len(), cut.blocks(), step.shares(io.images()));
        let from_share = |share: usize| all * share / shares;
        if step.image_stays {
            // Shares one after the other, and in each the panels.
            for share in units.start / panels..units.end.div_ceil(panels) {
                let first = units.start.saturating_sub(share * panels);
                let last = (units.end - share * panels).min(panels);
                let fetch = share == units.start / panels;
                for panel in first..last {
                    // SAFETY: the blocks of the share and the panel are this caller's.
                    unsafe { blocks.run(panel, from_share(share)..from_share(share + 1), fetch) };
                }
            }
        } else {
            for panel in units.start / shares..units.end.div_ceil(shares) {
                let first = units.start.saturating_sub(panel * shares);
                let last = (units.end - panel * shares).min(shares);
                // SAFETY: as above.
                unsafe { blocks.run(panel, from_share(first)..from_share(last), true) };
            }
        }
    }
}

/// What is the same for all blocks of a run.
struct Blocks<'a> {
    step: &'a PreparedAmx,
    conv: &'a Conv,
    io: &'a Io<'a>,
    cut: Cut,
    tiles: Tiles,
    gathers: bool,
    offsets: *const usize,
    sums: *mut f32,
    gathered: *mut u8,
}

impl Blocks<'_> {
    /// Computes a panel of some blocks, and brings the panel that follows near if it is to be fetched.
    ///
    /// # Safety
    /// The outputs are this caller's alone.
    #[inline(always)]
    #[allow(unsafe_code, reason = "tile code")]
    unsafe fn run(&self, panel: usize, blocks: Range<usize>, fetch: bool) {
        let Self { step, conv, cut, sums, .. } = self;
        let list = step.panels.list();
        let panel = &list[panel];
        let dst = self.io.dst(panel.segment);
        let all = step.steps.len();
        let in_parts = step.in_parts();
        let step_lines = panel.vectors * TILE * size_of::<f32>() / 64;
        let lines = if fetch { step_lines.div_ceil(blocks.len().max(1)) } else { 0 };
        let mut next = step.panels.following(panel).cast::<u8>();
        let group = if in_parts { GROUP } else { 1 };
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
                    for (index, tile) in pair.iter().enumerate() {
                        let Some(tile) = tile else { continue };
                        let (at, distance) = cut.src(tile, conv, &self.io.src);
                        (a[index], pitch) = (at, distance);
                        if self.gathers {
                            let bytes = step.pixel_bytes();
                            let place = (block - begin) * BLOCK_ROWS + index * ROWS;
                            let to = self.gathered.wrapping_add(place * bytes);
                            if from == 0 {
                                // SAFETY: the taps of the tile's pixels may be read; the scratch has
                                // room for them.
                                unsafe { gather(step, &self.io.src, at, distance, cut.pixels(), to) };
                            }
                            (a[index], pitch) = (to.cast_const(), bytes);
                        }
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
                        next,
                        lines,
                    };
                    next = next.wrapping_add((to - from) * lines * 64);
                    // SAFETY: all taps of the tiles' pixels may be read, 32 elements from each step's
                    // first; the panel has the tiles of all steps.
                    unsafe { self.tiles.multiply(&block) };
                    if to == all {
                        for (index, tile) in pair.iter().enumerate() {
                            let Some(tile) = tile else { continue };
                            // SAFETY: the sums of the tile's pixels are there, whose outputs that no
                            // tile before has are this unit's.
                            unsafe { self.finish(panel, &dst, sums.wrapping_add(2 * index * TILE), tile) };
                        }
                    }
                }
                from = to;
            }
            begin = end;
        }
    }

    /// Bias, ReLU and rounding of a tile's pixels on their way to memory.
    ///
    /// # Safety
    /// The sums of the tile may be read; the outputs of the tile's pixels that are not done may be written by this
    /// caller alone.
    #[inline(always)]
    #[allow(unsafe_code, reason = "tile code")]
    unsafe fn finish(&self, panel: &Panel, dst: &ViewMut, sums: *const f32, tile: &Tile) {
        use pulp::Simd;
        let (isa, cut) = (self.step.isa, &self.cut);
        let epilogue = self.conv.segments[panel.segment].epilogue;
        let (dtype, zero) = (dst.dtype(), isa.splat_f32s(0.0));
        let floor = isa.splat_f32s(if epilogue.relu { 0.0 } else { f32::NEG_INFINITY });
        let mut bias = [zero; 2];
        if epilogue.bias {
            for (vector, bias) in bias.iter_mut().take(panel.vectors).enumerate() {
                // SAFETY: a panel has a bias for each of its vectors.
                *bias = unsafe { load::<Avx512>(self.step.panels.bias(panel).add(vector * ROWS)) };
            }
        }
        // SAFETY: by the caller.
        let value = |pixel: usize, vector: usize| unsafe {
            let sum = load::<Avx512>(sums.add(vector * TILE + pixel * ROWS));
            isa.max_f32s(floor, isa.add_f32s(sum, bias[vector]))
        };
        let whole = dtype == Dtype::Bf16 && panel.width == 2 * ROWS;
        let mut pixel = tile.done;
        while pixel < cut.pixels() {
            let (at, count, pitch) = cut.dst(tile, pixel, dst);
            let mut at = at.wrapping_add(panel.first * dtype.bytes());
            for pixel in pixel..pixel + count {
                if whole {
                    let [low, high] = [value(pixel, 0), value(pixel, 1)].map(pulp::cast);
                    // SAFETY: `isa` proves that the vectors are there; 32 outputs may be written.
                    unsafe { at.cast::<__m512i>().write_unaligned(self.step.bf16.narrow(low, high)) };
                } else {
                    for vector in 0..panel.vectors {
                        let (value, k) = (value(pixel, vector), vector * ROWS);
                        let at = at.wrapping_add(k * dtype.bytes());
                        // SAFETY: by the caller.
                        unsafe {
                            match dtype {
                                Dtype::F32 => store_first(isa, at.cast(), value, panel.width - k),
                                Dtype::Bf16 => narrow_first(isa, at.cast::<bf16>(), value, panel.width - k),
                            }
                        }
                    }
                }
                at = at.wrapping_add(pitch);
            }
            pixel += count;
        }
    }
}

/// Copies the inputs of pixels side by side in the order of the filter's rows, rounded, zeros behind them.
///
/// # Safety
/// All taps of `pixels` pixels from `from` on, `distance` bytes from each to the next, may be read; after
/// [`PreparedAmx::pixel_bytes`] for each of them a line more may be written.
#[inline(always)]
#[allow(unsafe_code, reason = "tile code")]
unsafe fn gather(
    step: &PreparedAmx,
    src: &View,
    from: *const u8,
    distance: usize,
    pixels: usize,
    to: *mut u8,
) {
    use pulp::Simd;
    let isa = step.isa;
    let [r, s] = step.conv.window.kernel;
    let (channels, bytes) = (step.conv.channels, src.dtype.bytes());
    // Runs of elements that follow each other, and their first elements' distance.
    let (runs, length) = if src.pitch.pixel == channels { (1, s * channels) } else { (s, channels) };
    for pixel in 0..pixels {
        let from = from.wrapping_add(pixel * distance);
        let mut to = to.wrapping_add(pixel * step.pixel_bytes());
        let end = to.wrapping_add(step.pixel_bytes());
        for run in 0..r * runs {
            let offset = run / runs * src.pitch.row + run % runs * src.pitch.pixel;
            let from = from.wrapping_add(offset * bytes);
            for first in (0..length).step_by(ROWS) {
                let width = (length - first).min(ROWS);
                // SAFETY: by the caller.
                unsafe {
                    match src.dtype {
                        Dtype::F32 => {
                            let value = load_first(isa, from.cast::<f32>().add(first), width);
                            let [low, high] = [value, isa.splat_f32s(0.0)].map(pulp::cast);
                            to.cast::<__m512i>().write_unaligned(step.bf16.narrow(low, high));
                        }
                        Dtype::Bf16 => copy(from.cast::<u16>().add(first), to.cast(), width),
                    }
                }
                to = to.wrapping_add(width * size_of::<bf16>());
            }
        }
        // SAFETY: by the caller.
        unsafe { std::ptr::write_bytes(to, 0, end as usize - to as usize) };
    }
}

/// Copies up to 16 elements, by two vectors that may overlap where there are eight.
///
/// # Safety
/// `count` elements may be read and written.
#[inline(always)]
#[allow(unsafe_code, reason = "tile code")]
unsafe fn copy(from: *const u16, to: *mut u16, count: usize) {
    const HALF: usize = ROWS / 2;
    type Half = [u16; HALF];
    if !(HALF..=ROWS).contains(&count) {
        // SAFETY: by the caller.
        return unsafe { std::ptr::copy_nonoverlapping(from, to, count) };
    }
    // SAFETY: by the caller.
    unsafe {
        let parts = [0, count - HALF].map(|first| (first, from.add(first).cast::<Half>().read_unaligned()));
        parts.into_iter().for_each(|(first, part)| to.add(first).cast::<Half>().write_unaligned(part));
    }
}
