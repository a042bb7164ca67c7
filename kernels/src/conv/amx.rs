//! Convolution in bf16 on the tiles of AMX.
//!
//! The rows of a tile of `a` are neighbouring output pixels: the inputs of one tap lie at one distance from pixel
//! to pixel, whatever the stride, so that a tile is loaded in place, 32 channels at a time. Two tiles of pixels
//! and two of output channels are four products for four loads.
//!
//! ```text
//! for panel of 32 channels, block of 2 x 16 pixels:      in either order
//!   for (r, s) in taps, c in 0..channels by 32:          a step
//!     a[0..2] = load pixels' channels c of tap (r, s)    4 of the 8 tiles are operands
//!     b[0..2] = load 16 pairs of rows of the panel       4 are sums
//!     sums += a * b
//!   bias, ReLU, round and store                           the processor overlaps it with the next block
//! ```
//!
//! - **Pixels of a row that do not fill tiles** are cut into tiles of equal size, the last of which overlaps the
//!   one before and stores what is new: all tiles of a step then have one configuration, and none reads beyond
//!   its row. A product takes as long as it has rows, so that a smaller tile costs nothing but more loads of `b`.
//! - **Channels that are no multiple of 32** end with a step that overlaps the one before; its weights are zero
//!   where that has been there.
//! - **Fewer than 32 channels** are gathered: the taps of a block's pixels side by side, padded with zeros.
//! - A long sum may be taken in parts of `depth` steps, for several blocks in turn, so that a part of the panel
//!   stays in the first-level cache.

use std::ops::Range;

use half::bf16;

use crate::arch::amx::{Amx, BLOCK_ROWS, Block, COLUMNS, DEPTH, ROWS, Tiles};
use crate::conv::direct::conv_of;
use crate::cpu::{Avx512, Cpu, Isa};
use crate::filter::{Filter, Folded};
use crate::gemm::panels::{Panel, Panels, set_half};
use crate::kernel::{Bound, Io, Kernel, Numerics, Prepared, Refusal, Tuning, validate};
use crate::problem::{Conv, Padding, Problem};
use crate::scratch::{Buffer, Scratch, ScratchReq, round_up};
use crate::tensor::{Dtype, Format, Formats, ViewMut};
use crate::vector::{load, narrow_first, store_first};

/// The kernel.
#[derive(Debug)]
pub struct AmxConv {
    amx: Amx,
    /// For the epilogue.
    isa: Avx512,
}

impl AmxConv {
    /// For the table.
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Refusal> {
        let amx = Amx::of(cpu)?;
        Ok(Box::new(Self { amx, isa: Avx512::of(cpu)? }))
    }
}

/// Steps of a part where a sum is taken in parts: with two tiles of weights each they fill two thirds of a
/// first-level cache of 48 KiB.
const PART: usize = 16;

/// Blocks that are summed in turn where a sum is taken in parts.
const GROUP: usize = 8;

/// Units that keep a team busy without being too small to be worth dealing.
const UNITS: usize = 64;

impl Kernel for AmxConv {
    fn supports(&self, problem: &Problem) -> Result<(), Refusal> {
        conv_of(problem).map(|_| ())
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = conv_of(problem) else { return Vec::new() };
        let all = steps(conv).len();
        let parts: &[usize] = if all > PART + PART / 2 { &[all, PART] } else { &[all] };
        let tuning = |order, depth| Tuning::new([("order", order), ("depth", depth)]);
        [0, 1].into_iter().flat_map(|order| parts.iter().map(move |&depth| tuning(order, depth))).collect()
    }

    fn formats(&self, problem: &Problem, _: &Tuning) -> Vec<Formats> {
        let Ok(conv) = conv_of(problem) else { return Vec::new() };
        let src = Format::with_halo(Dtype::Bf16, conv.window.padding);
        vec![Formats { src, dst: Format::BF16 }, Formats { src, dst: Format::F32 }]
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
        Ok(Box::new(PreparedAmx {
            amx: self.amx,
            isa: self.isa,
            bound: Bound::new(problem, formats),
            panels: pack(conv, &steps, &folded),
            part: tuning.get("depth"),
            image_stays: tuning.get("order") == 1,
            flat: conv.is_pointwise() && formats.src.halo == Padding::default(),
            conv: conv.clone(),
            steps,
        }))
    }
}

/// Products that a step takes: those of [`DEPTH`] neighbouring elements of a pixel's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    /// The tap that they are read from.
    tap: [usize; 2],
    /// The first channel read.
    channel: usize,
    /// The first row of the filter, counted through taps and channels.
    row: usize,
    /// Elements before the first and after the last that are multiplied by zero.
    idle: [usize; 2],
}

/// Whether the inputs of pixels are gathered before they are multiplied.
fn gathers(conv: &Conv) -> bool {
    conv.channels < DEPTH
}

/// The steps of a sum.
fn steps(conv: &Conv) -> Vec<Step> {
    let [r, s] = conv.window.kernel;
    let all = conv.depth();
    if gathers(conv) {
        let step = |first: usize| {
            let idle = [0, (first + DEPTH).saturating_sub(all)];
            Step { tap: [0, 0], channel: first, row: first, idle }
        };
        return (0..all).step_by(DEPTH).map(step).collect();
    }
    let channels = conv.channels;
    let of_tap = |tap: usize| {
        (0..channels).step_by(DEPTH).map(move |first| {
            let channel = first.min(channels - DEPTH);
            let row = tap * channels + channel;
            Step { tap: [tap / s, tap % s], channel, row, idle: [first - channel, 0] }
        })
    };
    (0..r * s).flat_map(of_tap).collect()
}

/// The weights of all steps, a row for each pair.
fn pack(conv: &Conv, steps: &[Step], filters: &[Folded]) -> Panels {
    let pairs = DEPTH / 2;
    Panels::pack_rows(&conv.segments, ROWS, 2, steps.len() * pairs, filters, |filter, panel, row, packed| {
        let (step, pair) = (&steps[row / pairs], row % pairs);
        let [before, after] = step.idle;
        for half in 0..2 {
            let element = 2 * pair + half;
            if (before..DEPTH - after).contains(&element) {
                set_half(packed, half, filter.row(step.row + element, panel.channels()));
            }
        }
    })
}

#[derive(Debug)]
struct PreparedAmx {
    amx: Amx,
    isa: Avx512,
    bound: Bound,
    conv: Conv,
    steps: Vec<Step>,
    panels: Panels,
    /// Steps that are taken at a time.
    part: usize,
    image_stays: bool,
    /// All pixels of all images of the source are one row.
    flat: bool,
}

/// A row of pixels, cut into tiles of one size, the last of which may overlap the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    width: usize,
    /// Pixels of a tile.
    pixels: usize,
    tiles: usize,
}

impl Cut {
    fn new(width: usize) -> Self {
        let tiles = width.div_ceil(ROWS);
        Self { width, pixels: width.div_ceil(tiles), tiles }
    }

    /// The first pixel of a tile, and how many of its pixels the tile before has.
    fn tile(&self, tile: usize) -> [usize; 2] {
        let first = tile * self.pixels;
        let start = first.min(self.width - self.pixels);
        [start, first - start]
    }
}

impl PreparedAmx {
    /// Rows of output pixels of `n` images, with all pixels as one row or not, and their cut.
    fn rows(&self, n: usize, flat: bool) -> (usize, Cut) {
        let [oh, ow] = self.conv.output();
        if flat { (1, Cut::new(n * oh * ow)) } else { (n * oh, Cut::new(ow)) }
    }

    /// Blocks of tiles of `n` images: of two tiles each, but for the last.
    fn shares(&self, n: usize) -> usize {
        let (rows, cut) = self.rows(n, self.flat);
        UNITS.div_ceil(self.panels.list().len()).clamp(1, (rows * cut.tiles).div_ceil(2))
    }

    /// Elements of the worker's scratch: offsets of steps, sums of blocks, gathered pixels.
    fn worker(&self) -> [usize; 3] {
        let offsets = self.steps.len() * size_of::<usize>() / size_of::<f32>();
        let blocks = if self.part < self.steps.len() { GROUP } else { 1 };
        let gathered =
            if gathers(&self.conv) { blocks * self.gathered_bytes() / size_of::<f32>() } else { 0 };
        [round_up(offsets), blocks * BLOCK_ROWS * COLUMNS, round_up(gathered)]
    }

    /// Bytes of a pixel's gathered inputs.
    fn pixel_bytes(&self) -> usize {
        self.steps.len() * DEPTH * size_of::<bf16>()
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
        ScratchReq { shared: 0, worker: self.worker().iter().sum() }
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

/// A tile of pixels: where it is read and written.
#[derive(Clone, Copy)]
struct Pixels {
    src: *const u8,
    dst: *mut u8,
    /// Pixels that the tile before has stored.
    done: usize,
}

/// Where the pixels of a segment lie.
struct Rows<'a> {
    flat: bool,
    cut: Cut,
    height: usize,
    stride: [usize; 2],
    padding: Padding,
    io: &'a Io<'a>,
    dst: ViewMut<'a>,
}

impl Rows<'_> {
    #[inline(always)]
    fn pixels(&self, tile: usize) -> Pixels {
        let (row, tile) = (tile / self.cut.tiles, tile % self.cut.tiles);
        let [first, done] = self.cut.tile(tile);
        let (src, dst) = (&self.io.src, &self.dst);
        if self.flat {
            let at = |base: *const u8, pitch: usize| base.wrapping_add(first * pitch);
            let src_pitch = src.pitch.pixel * src.dtype.bytes();
            let out = at(dst.byte(0, 0, 0), dst.pitch().pixel * dst.dtype().bytes());
            return Pixels { src: at(src.byte(0, 0, 0), src_pitch), dst: out.cast_mut(), done };
        }
        let (image, y) = (row / self.height, row % self.height);
        let top = (y * self.stride[0]) as isize - self.padding.top as isize;
        let left = (first * self.stride[1]) as isize - self.padding.left as isize;
        Pixels { src: src.byte(image, top, left), dst: dst.byte(image, y, first), done }
    }
}

impl pulp::WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    #[allow(unsafe_code, reason = "tile code")]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { step, units, io, worker } = self;
        let conv = &step.conv;
        let (n, panels) = (io.images(), step.panels.list());
        let shares = step.shares(n);
        let [offsets_len, sums_len, _] = step.worker();
        let offsets = worker.cast::<usize>();
        let sums = worker.wrapping_add(offsets_len);
        let gathered = sums.wrapping_add(sums_len).cast::<u8>();
        let [row, pixel] = [io.src.pitch.row, io.src.pitch.pixel].map(|pitch| pitch * size_of::<bf16>());
        let gathers = gathers(conv);
        for (index, one) in step.steps.iter().enumerate() {
            let taps = if gathers { 0 } else { one.tap[0] * row + one.tap[1] * pixel };
            // SAFETY: the worker's scratch begins with an offset for each step.
            unsafe { offsets.add(index).write(taps + one.channel * size_of::<bf16>()) };
        }
        let pitch = if gathers { step.pixel_bytes() } else { conv.window.stride[1] * pixel };
        let mut tiles: Option<Tiles> = None;
        for unit in units {
            let (panel, share) = if step.image_stays {
                (unit % panels.len(), unit / panels.len())
            } else {
                (unit / shares, unit % shares)
            };
            let panel = &panels[panel];
            let dst = io.dst(panel.segment);
            let flat = step.flat && dst.is_flat();
            let (rows, cut) = step.rows(n, flat);
            if tiles.as_ref().is_none_or(|tiles| tiles.rows() != cut.pixels) {
                // Released before, not after, there are new ones.
                drop(tiles.take());
                tiles = Some(Tiles::new(step.amx, cut.pixels));
            }
            let Some(tiles) = &tiles else { continue };
            let [height, _] = conv.output();
            let (stride, padding) = (conv.window.stride, conv.window.padding);
            let rows_of = Rows { flat, cut, height, stride, padding, io, dst };
            // Two tiles of pixels are a block.
            let count = rows * cut.tiles;
            let blocks = count.div_ceil(2);
            let (first, last) = (blocks * share / shares, blocks * (share + 1) / shares);
            let group = if step.part < step.steps.len() { GROUP } else { 1 };
            let mut begin = first;
            while begin < last {
                let end = last.min(begin + group);
                let mut from = 0;
                while from < step.steps.len() {
                    let to = step.steps.len().min(from + step.part);
                    for block in begin..end {
                        let sums = sums.wrapping_add((block - begin) * BLOCK_ROWS * COLUMNS);
                        let second = (2 * block + 1 < count).then(|| rows_of.pixels(2 * block + 1));
                        let pair = [Some(rows_of.pixels(2 * block)), second];
                        let mut a = pair.map(|tile| tile.map_or(std::ptr::null(), |tile| tile.src));
                        if gathers {
                            let gathered = gathered.wrapping_add((block - begin) * step.gathered_bytes());
                            for (tile, a) in a.iter_mut().enumerate().filter(|(_, a)| !a.is_null()) {
                                let to = gathered.wrapping_add(tile * ROWS * step.pixel_bytes());
                                if from == 0 {
                                    // SAFETY: the taps of the tile's pixels may be read; the scratch
                                    // has room for them.
                                    unsafe { gather(step, *a, [row, pixel], cut.pixels, to) };
                                }
                                *a = to;
                            }
                        }
                        let offset = from * DEPTH / 2 * panel.vectors * ROWS;
                        let all = DEPTH / 2 * panel.vectors * ROWS * step.steps.len();
                        let ahead = (block - first) * (to - from) * 256;
                        let block = Block {
                            a,
                            pitch,
                            offsets: offsets.wrapping_add(from),
                            steps: to - from,
                            b: step.panels.weights(panel).wrapping_add(offset).cast(),
                            vectors: panel.vectors,
                            sums,
                            accumulate: from > 0,
                            next: step
                                .panels
                                .weights(panel)
                                .wrapping_add(all)
                                .cast::<u8>()
                                .wrapping_add(ahead),
                        };
                        // SAFETY: all taps of the tiles' pixels may be read, 32 elements from each
                        // step's first; the panel has the rows of all steps.
                        unsafe { tiles.multiply(&block) };
                        if to == step.steps.len() {
                            for (tile, pixels) in pair.into_iter().enumerate() {
                                let Some(pixels) = pixels else { continue };
                                let sums = sums.wrapping_add(tile * ROWS * COLUMNS);
                                // SAFETY: the sums of the tile's pixels are there, whose outputs that
                                // no tile before has are this unit's.
                                unsafe { finish(step, panel, &rows_of.dst, sums, pixels, cut.pixels) };
                            }
                        }
                    }
                    from = to;
                }
                begin = end;
            }
        }
    }
}

/// Copies the taps of pixels side by side, zeros behind them.
///
/// # Safety
/// All taps of `pixels` pixels from `src` on may be read, and [`PreparedAmx::pixel_bytes`] of each be written.
#[inline(always)]
#[allow(unsafe_code, reason = "tile code")]
unsafe fn gather(step: &PreparedAmx, src: *const u8, [row, pixel]: [usize; 2], pixels: usize, to: *mut u8) {
    let [r, s] = step.conv.window.kernel;
    let bytes = step.conv.channels * size_of::<bf16>();
    for i in 0..pixels {
        let from = src.wrapping_add(i * step.conv.window.stride[1] * pixel);
        let mut to = to.wrapping_add(i * step.pixel_bytes());
        let end = to.wrapping_add(step.pixel_bytes());
        for tap in 0..r * s {
            let from = from.wrapping_add(tap / s * row + tap % s * pixel);
            // SAFETY: by the caller.
            unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
            to = to.wrapping_add(bytes);
        }
        // SAFETY: by the caller.
        unsafe { std::ptr::write_bytes(to, 0, end as usize - to as usize) };
    }
}

/// Bias, ReLU and rounding of a tile's pixels on their way to memory.
///
/// # Safety
/// `pixels` rows of sums may be read; the outputs of the tile's pixels that are not done may be written by this
/// caller alone.
#[inline(always)]
#[allow(unsafe_code, reason = "tile code")]
unsafe fn finish(
    step: &PreparedAmx,
    panel: &Panel,
    dst: &ViewMut,
    sums: *const f32,
    tile: Pixels,
    pixels: usize,
) {
    use pulp::Simd;
    let isa = step.isa;
    let epilogue = step.conv.segments[panel.segment].epilogue;
    let (dtype, zero) = (dst.dtype(), isa.splat_f32s(0.0));
    let floor = isa.splat_f32s(if epilogue.relu { 0.0 } else { f32::NEG_INFINITY });
    let pitch = dst.pitch().pixel * dtype.bytes();
    for vector in 0..panel.vectors {
        let k = vector * Avx512::F32_LANES;
        let bias = if epilogue.bias {
            // SAFETY: a panel has a bias for each of its vectors.
            unsafe { load::<Avx512>(step.panels.bias(panel).add(k)) }
        } else {
            zero
        };
        let first = (panel.first + k) * dtype.bytes();
        let width = panel.width - k;
        for i in tile.done..pixels {
            // SAFETY: by the caller.
            let y = unsafe { load::<Avx512>(sums.add(i * COLUMNS + k)) };
            let y = isa.max_f32s(floor, isa.add_f32s(y, bias));
            let at = tile.dst.wrapping_add(i * pitch + first);
            // SAFETY: by the caller.
            unsafe {
                match dtype {
                    Dtype::F32 => store_first(isa, at.cast(), y, width),
                    Dtype::Bf16 => narrow_first(isa, at.cast::<bf16>(), y, width),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(text: &str) -> Conv {
        text.parse().expect("a shape")
    }

    #[test]
    fn steps_take_each_product_once() {
        for text in
            ["n1h5w5c48k8r3s3", "n1h5w5c80k8r1s1", "n1h5w5c3k8r3s3", "n1h5w5c31k8r1s7", "n1h5w5c64k8r1s3"]
        {
            let conv = conv(text);
            let mut taken = vec![0; conv.depth()];
            for step in steps(&conv) {
                let [before, after] = step.idle;
                (before..DEPTH - after).for_each(|element| taken[step.row + element] += 1);
                if !gathers(&conv) {
                    assert!(step.channel + DEPTH <= conv.channels, "{text}: {step:?}");
                }
            }
            assert!(taken.iter().all(|&times| times == 1), "{text}");
        }
    }

    #[test]
    fn tiles_of_a_row_are_alike_and_store_each_pixel_once() {
        for width in 1..=100 {
            let cut = Cut::new(width);
            let mut stored = vec![0; width];
            for tile in 0..cut.tiles {
                let [first, done] = cut.tile(tile);
                assert!(first + cut.pixels <= width && done < cut.pixels, "{width}: {cut:?}");
                (first + done..first + cut.pixels).for_each(|pixel| stored[pixel] += 1);
            }
            assert!(stored.iter().all(|&times| times == 1), "{width}: {cut:?}");
        }
    }
}
