//! Direct convolution: register blocks that read NHWC in place.
//!
//! A register block takes up to `pixels` neighbouring output pixels of one row and a panel of
//! output channels through all taps of the kernel (see [`crate::gemm::register_block`]). Nothing is
//! copied, and the zero halo of the source stands in for padding. Where neither the source nor a
//! segment's destination has a halo, the pixels of a pointwise convolution of stride 1 are one row.
//!
//! ```text
//! order 0                                order 1
//! for panel in panels:                   for share of the blocks:
//!   for share of the blocks:               for panel in panels:
//!     for block in share: block x panel      for block in share: block x panel
//! ```
//!
//! Order 0 keeps a panel in cache while the image streams by; order 1 keeps a share of the image
//! while the weights stream by.
//!
//! A long pointwise sum may be computed in parts of `depth` products, for all blocks of a share in
//! turn, with the sums so far in the destination. A part of a panel then stays in the first-level
//! cache while the blocks pass.
//!
//! It wins where little else applies: pointwise convolutions, stride 2 and few input channels.
//!
//! In bf16 ([`crate::gemm::multiply`]) it reads half the bytes, sums in f32, and rounds once, on
//! the way to memory. From u8 it reads a quarter, and sums are exact before they are scaled.

use std::marker::PhantomData;
use std::ops::Range;

use super::{
    Buffer, Conv, Cpu, Dtype, Format, Formats, Io, Isa, Kernel, Numerics, Prepared, Problem, Request,
    Scratch, Signature, Tuning, Unsupported, ViewMut,
};
use crate::gemm::multiply::{Multiply, Single};
use crate::gemm::panels::{Panel, Panels};
use crate::gemm::register_block::{Finish, Operands, Taps, sizes};
use crate::gemm::rows::{Cut, Prefetch, Rows};
use crate::shape::Padding;
use crate::tensor::Element;

pub struct Direct<I, M = Single> {
    isa: I,
    multiply: PhantomData<M>,
}

impl<I: Isa, M: Multiply<I, Source: Element>> Direct<I, M> {
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        Ok(Box::new(Self::new(I::new(cpu)?, M::new(cpu)?)))
    }

    /// With proofs of its instructions.
    pub(super) fn new(isa: I, _: M) -> Self {
        Self { isa, multiply: PhantomData }
    }

    /// With weights that are packed already.
    pub(super) fn with_panels(&self, conv: &Conv, request: &Request, panels: Panels) -> PreparedDirect<I, M> {
        let flat = conv.is_pointwise() && request.formats.src.halo == Padding::default();
        PreparedDirect {
            isa: self.isa,
            signature: request.signature(),
            conv: conv.clone(),
            panels,
            flat,
            pixels: request.tuning("pixels"),
            image_stays: request.tuning("order") == 1,
            part: request.tuning("depth"),
            multiply: PhantomData,
        }
    }
}

impl<I: Isa, M: Multiply<I, Source: Element>> Kernel for Direct<I, M> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        let conv = problem.as_conv()?;
        ensure_summable(M::Source::DTYPE, conv)?;
        if conv.channels.is_multiple_of(M::GROUP) {
            return Ok(());
        }
        let expected = if M::GROUP == 2 { "an even number" } else { "a multiple of 4" };
        Err(Unsupported::Shape { what: "input channels", found: conv.channels.to_string(), expected })
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        let sizes = useful_sizes::<I>(conv);
        let tuning = |&[pixels, vectors]: &[usize; 2], order, depth| {
            Tuning::new([("pixels", pixels), ("vectors", vectors), ("order", order), ("depth", depth)])
        };
        let all = conv.depth();
        let is_long = conv.is_pointwise() && all > 256 && !M::IS_WHOLE;
        let parts: &[usize] = if is_long { &[all, 256] } else { &[all] };
        let orders =
            |size| parts.iter().flat_map(move |&depth| [0, 1].map(|order| tuning(size, order, depth)));
        sizes.flat_map(orders).collect()
    }

    /// A sum in parts stays in f32; whole numbers are not summed in parts.
    fn formats(&self, problem: &Problem, tuning: &Tuning) -> Vec<Formats> {
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        let mut formats = formats_from(M::Source::DTYPE, conv);
        if tuning.get("depth") < conv.depth() {
            formats.retain(|formats| formats.dst == Format::F32);
        }
        formats
    }

    /// A sum that is not in parts adds its products tap by tap.
    fn numerics(&self, problem: &Problem, tuning: &Tuning) -> Numerics {
        let is_whole = problem.as_conv().is_ok_and(|conv| tuning.get("depth") >= conv.depth());
        let rounding = M::Source::DTYPE;
        Numerics { rounding, reproducible: I::FUSES && is_whole && rounding == Dtype::F32, growth: 1.0 }
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        let conv = request.problem.as_conv()?;
        Ok(Box::new(self.with_panels(conv, request, packed::<I, M>(conv, request))))
    }
}

/// `[pixels, vectors]` of the blocks that a convolution has output channels for.
pub(super) fn useful_sizes<I: Isa>(conv: &Conv) -> impl Iterator<Item = &'static [usize; 2]> {
    let widest = conv.segments.iter().map(|s| s.channels.div_ceil(I::F32_LANES)).max();
    sizes::<I>().iter().filter(move |[_, vectors]| *vectors == 1 || Some(*vectors) <= widest)
}

/// From sources of a type to destinations of each, that type first.
pub(super) fn formats_from(dtype: Dtype, conv: &Conv) -> Vec<Formats> {
    let src = Format { dtype, halo: conv.window.padding };
    let order = match dtype {
        Dtype::F32 => [Format::F32, Format::BF16, Format::U8],
        Dtype::Bf16 => [Format::BF16, Format::F32, Format::U8],
        Dtype::U8 => [Format::U8, Format::F32, Format::BF16],
    };
    order.map(|dst| Formats { src, dst }).to_vec()
}

/// Refuses sums of products of u8 that may be too large for 32 bits.
pub(super) fn ensure_summable(dtype: Dtype, conv: &Conv) -> Result<(), Unsupported> {
    const MOST: usize = i32::MAX as usize / (u8::MAX as usize * i8::MAX as usize);
    if dtype == Dtype::U8 && conv.depth() > MOST {
        let found = conv.depth().to_string();
        return Err(Unsupported::Shape { what: "products of a sum", found, expected: "at most 66311" });
    }
    Ok(())
}

/// The filters as the blocks read them, in panels of the tuning's `vectors`.
pub(super) fn packed<I: Isa, M: Multiply<I>>(conv: &Conv, request: &Request) -> Panels {
    let (segments, lanes, vectors) = (&conv.segments, I::F32_LANES, request.tuning("vectors"));
    match M::Pixel::DTYPE {
        Dtype::F32 => Panels::pack(segments, lanes, vectors, &request.folded()),
        Dtype::Bf16 => Panels::pack_pairs(segments, lanes, vectors, &request.rounded()),
        Dtype::U8 => Panels::pack_groups(segments, lanes, vectors, M::GROUP, &request.quantized()),
    }
}

pub(super) struct PreparedDirect<I, M = Single> {
    isa: I,
    multiply: PhantomData<M>,
    signature: Signature,
    conv: Conv,
    panels: Panels,
    /// All pixels of all images of the source are one row.
    flat: bool,
    pixels: usize,
    image_stays: bool,
    /// Products of a part of a pointwise sum.
    part: usize,
}

impl<I: Isa, M: Multiply<I, Source: Element>> PreparedDirect<I, M> {
    /// Rows of output pixels of `n` images and their width, with all pixels as one row or not.
    fn rows(&self, n: usize, flat: bool) -> (usize, usize) {
        let [oh, ow] = self.conv.output();
        if flat { (1, n * oh * ow) } else { (n * oh, ow) }
    }

    /// Shares that the register blocks of `n` images are dealt in: at most as many as the fewest
    /// blocks that a destination may be cut into.
    fn shares(&self, n: usize) -> usize {
        let (rows, width) = self.rows(n, self.flat);
        self.panels.shares(rows * width.div_ceil(self.pixels))
    }
}

impl<I: Isa, M: Multiply<I, Source: Element>> Prepared for PreparedDirect<I, M> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn packed(&self) -> Vec<&Buffer> {
        self.panels.buffers.iter().collect()
    }

    fn packed_mut(&mut self) -> Vec<&mut Buffer> {
        self.panels.buffers.iter_mut().collect()
    }

    fn units(&self, _: usize, n: usize) -> usize {
        self.panels.list.len() * self.shares(n)
    }

    // Inlined into its callers, it would be compiled once for each.
    #[inline(never)]
    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, _: &mut Scratch) {
        // SAFETY: the caller's promises are passed on.
        self.isa.vectorize(Run { step: self, units, io })
    }
}

struct Run<'a, I, M> {
    step: &'a PreparedDirect<I, M>,
    units: Range<usize>,
    io: &'a Io<'a>,
}

struct Blocks<'a, I: Isa, M: Multiply<I, Source: Element>> {
    panel: &'a Panel,
    dst: ViewMut<'a>,
    /// All pixels of source and destination are one row.
    flat: bool,
    cut: Cut<I, M>,
    /// Those to compute, counted over all rows.
    range: Range<usize>,
}

impl<I: Isa, M: Multiply<I, Source: Element>> pulp::WithSimd for Run<'_, I, M> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let (step, n) = (self.step, self.io.images());
        let (panels, shares) = (&step.panels.list, step.shares(n));
        for unit in self.units.clone() {
            let (panel, share) = if step.image_stays {
                (unit % panels.len(), unit / panels.len())
            } else {
                (unit / shares, unit % shares)
            };
            let panel = &panels[panel];
            let dst = self.io.dst(panel.segment);
            let flat = step.flat && dst.is_flat();
            let (rows, width) = step.rows(n, flat);
            let cut = Cut::<I, M>::new(width, step.pixels, panel.vectors);
            let count = rows * cut.blocks;
            let range = count * share / shares..count * (share + 1) / shares;
            self.sum_in_parts(&Blocks { panel, dst, flat, cut, range });
        }
    }
}

impl<I: Isa, M: Multiply<I, Source: Element>> Run<'_, I, M> {
    #[inline(always)]
    fn sum_in_parts(&self, blocks: &Blocks<I, M>) {
        let (step, src) = (self.step, self.io.src.pitch);
        let Conv { channels, ref window, ref segments, .. } = step.conv;
        let (panel, depth) = (blocks.panel, step.conv.depth());
        let epilogue = segments[panel.segment].epilogue;
        let bias = if epilogue.bias { step.panels.bias(panel) } else { std::ptr::null() };
        for done in (0..depth).step_by(step.part) {
            let len = step.part.min(depth - done);
            let is_last = done + len == depth;
            let taps = if is_last && done == 0 {
                Taps::conv(window.kernel, channels, src.row, src.pixel)
            } else {
                Taps::matrix(len)
            };
            let finish = Finish {
                scales: step.panels.scales(panel),
                bias: if is_last { bias } else { std::ptr::null() },
                relu: is_last && epilogue.relu,
                accumulate: done > 0,
                dtype: blocks.dst.dtype,
                width: panel.width,
            };
            self.sum_part(blocks, done, taps, finish);
        }
    }

    /// Adds the products of `taps` from number `done` on, row after row.
    #[inline(always)]
    fn sum_part(&self, blocks: &Blocks<I, M>, done: usize, taps: Taps, finish: Finish) {
        let (step, dst) = (self.step, &blocks.dst);
        let Blocks { panel, ref cut, ref range, .. } = *blocks;
        let offset = done / M::GROUP * panel.vectors * I::F32_LANES;
        let next_panel = step.panels.following(panel).wrapping_add(offset);
        let mut block = range.start;
        while block < range.end {
            let (row, begin) = (block / cut.blocks, block % cut.blocks);
            let in_row = begin..cut.blocks.min(begin + range.end - block);
            let (a, out) = self.first_pixel(blocks, row, cut.first(begin));
            let operands = Operands {
                a: a.wrapping_add(done),
                a_pitch: step.conv.window.stride[1] * self.io.src.pitch.pixel,
                b: step.panels.weights(panel).wrapping_add(offset),
                dst: out.wrapping_add(panel.first * dst.dtype.bytes()),
                dst_pitch: dst.pitch.pixel * dst.dtype.bytes(),
            };
            let prefetch = Prefetch { panel: next_panel, done: block - range.start, pixels: true };
            block += in_row.len();
            let rows = Rows { count: 1, pitch: [0; 4], parts: 1, taps, operands, prefetch, finish };
            // SAFETY: the source's halo holds the padding, so that all taps of the blocks' pixels
            // may be read; the outputs are this unit's; the panel has `depth` rows of `vectors`.
            unsafe { cut.run(step.isa, in_row, &rows) };
        }
    }

    /// Where the taps of an output pixel begin, and where it is written, by row and column.
    #[inline(always)]
    fn first_pixel(&self, blocks: &Blocks<I, M>, row: usize, column: usize) -> (*const M::Source, *mut u8) {
        let (Io { src, .. }, dst) = (self.io, &blocks.dst);
        if blocks.flat {
            let a = src.pixel::<M::Source>(0, 0, 0).wrapping_add(column * src.pitch.pixel);
            let pitch = dst.pitch.pixel * dst.dtype.bytes();
            return (a, dst.byte(0, 0, 0).wrapping_add(column * pitch));
        }
        let height = self.step.conv.output()[0];
        let (image, y) = if self.io.images() == 1 { (0, row) } else { (row / height, row % height) };
        let [top, left] = self.step.conv.first_tap(y, column);
        (src.pixel::<M::Source>(image, top, left), dst.byte(image, y, column))
    }
}
