//! Direct convolution: register tiles that read NHWC in place.
//!
//! A tile takes up to `pixels` neighbouring output pixels of one row and a panel of output channels
//! through all taps of the kernel (see [`crate::gemm::register_block`]); nothing is copied, and the zero halo
//! of the source stands in for padding. Where neither the source nor a segment's destination
//! has a halo, the pixels of a pointwise convolution of stride 1 are one row.
//!
//! ```text
//! order 0                                order 1
//! for panel in panels:                   for block of tiles:
//!   for block of tiles:                    for panel in panels:
//!     for tile in block: tile x panel        for tile in block: tile x panel
//! ```
//!
//! Order 0 keeps a panel in cache while the image streams by; order 1 keeps a block of the image
//! while the weights stream by.
//!
//! A long pointwise sum may be taken in parts of `depth` products, for all tiles of a block in turn, with
//! the sums so far in the destination: a part of a panel then stays in the first-level cache while the
//! tiles pass.
//!
//! It wins where little else applies: pointwise convolutions, stride 2 and few input channels.
//!
//! In bf16 ([`crate::gemm::multiply`]) it reads half the bytes, sums in f32, and rounds once, on the way to
//! memory.

use std::marker::PhantomData;
use std::ops::Range;

use crate::cpu::{Cpu, Isa};
use crate::error::Unsupported;
use crate::filter::{Filter, Folded, Rounded};
use crate::gemm::multiply::{Multiply, Single};
use crate::gemm::panels::Panels;
use crate::gemm::register_block::{Finish, Operands, Taps, sizes};
use crate::gemm::rows::{Ahead, Cut, Rows};
use crate::kernel::{Io, Kernel, Numerics, Prepared, Signature, Tuning, validate};
use crate::memory::{Buffer, Scratch, ScratchReq};
use crate::problem::{Conv, Problem};
use crate::shape::Padding;
use crate::tensor::{Dtype, Element, Format, Formats};

/// The kernel, for one instruction set and one way to multiply.
#[derive(Debug)]
pub struct Direct<I, M = Single> {
    isa: I,
    multiply: PhantomData<M>,
}

impl<I: Isa, M: Multiply<I>> Direct<I, M> {
    /// For the table.
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        let isa = I::new(cpu)?;
        M::new(cpu)?;
        Ok(Box::new(Self { isa, multiply: PhantomData }))
    }

    /// With weights that are packed already.
    pub(super) fn with_panels(
        isa: I,
        conv: &Conv,
        tuning: &Tuning,
        formats: &Formats,
        panels: Panels,
    ) -> PreparedDirect<I, M> {
        let flat = conv.is_pointwise() && formats.src.halo == Padding::default();
        PreparedDirect {
            isa,
            signature: Signature::new(&Problem::Conv(conv.clone()), formats),
            conv: conv.clone(),
            panels,
            flat,
            pixels: tuning.get("pixels"),
            image_stays: tuning.get("order") == 1,
            part: tuning.get("depth"),
            multiply: PhantomData,
        }
    }
}

impl<I: Isa, M: Multiply<I>> Kernel for Direct<I, M> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        let channels = problem.as_conv()?.channels;
        if channels.is_multiple_of(M::GROUP) {
            return Ok(());
        }
        Err(Unsupported::Shape {
            what: "input channels",
            found: channels.to_string(),
            expected: "an even number",
        })
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = problem.as_conv() else {
            return Vec::new();
        };
        let widest = conv.segments.iter().map(|s| s.channels.div_ceil(I::F32_LANES)).max();
        let useful = |[_, vectors]: &[usize; 2]| *vectors == 1 || Some(*vectors) <= widest;
        let sizes = sizes::<I>().iter().filter(|size| useful(size));
        let tuning = |&[pixels, vectors]: &[usize; 2], order, depth| {
            Tuning::new([("pixels", pixels), ("vectors", vectors), ("order", order), ("depth", depth)])
        };
        let all = conv.depth();
        let parts: &[usize] = if conv.is_pointwise() && all > 256 { &[all, 256] } else { &[all] };
        let orders =
            |size| parts.iter().flat_map(move |&depth| [0, 1].map(|order| tuning(size, order, depth)));
        sizes.flat_map(orders).collect()
    }

    /// A sum in parts stays in f32.
    fn formats(&self, problem: &Problem, tuning: &Tuning) -> Vec<Formats> {
        let Ok(conv) = problem.as_conv() else {
            return Vec::new();
        };
        let src = Format::with_halo(M::Source::DTYPE, conv.window.padding);
        let to = |dst| Formats { src, dst };
        match (M::Source::DTYPE, tuning.get("depth") < conv.depth()) {
            (_, true) => vec![to(Format::F32)],
            (Dtype::F32, false) => vec![to(Format::F32), to(Format::BF16)],
            (Dtype::Bf16, false) => vec![to(Format::BF16), to(Format::F32)],
        }
    }

    fn numerics(&self, _: &Problem, _: &Tuning) -> Numerics {
        Numerics { rounding: M::Source::DTYPE, growth: 1.0 }
    }

    fn prepare(
        &self,
        problem: &Problem,
        tuning: &Tuning,
        formats: &Formats,
        filters: &[Filter],
    ) -> Result<Box<dyn Prepared>, Unsupported> {
        validate(self, problem, tuning, formats, filters)?;
        let conv = problem.as_conv()?;
        let (segments, lanes, vectors) = (&conv.segments, I::F32_LANES, tuning.get("vectors"));
        let panels = match M::Source::DTYPE {
            Dtype::F32 => {
                let folded: Vec<Folded> = filters.iter().map(Filter::folded).collect();
                Panels::pack(segments, lanes, vectors, &folded)
            }
            Dtype::Bf16 => {
                let rounded: Vec<Rounded> = filters.iter().map(Filter::rounded).collect();
                Panels::pack_pairs(segments, lanes, vectors, &rounded)
            }
        };
        Ok(Box::new(Self::with_panels(self.isa, conv, tuning, formats, panels)))
    }
}

/// Direct convolution with packed weights.
#[derive(Debug)]
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
    /// Products of a pointwise sum that are taken at a time.
    part: usize,
}

/// Units that keep a team busy without being too small to be worth dealing.
const UNITS: usize = 64;

impl<I: Isa, M: Multiply<I>> PreparedDirect<I, M> {
    /// Rows of output pixels of `n` images and their width, with all pixels as one row or not.
    fn rows(&self, n: usize, flat: bool) -> (usize, usize) {
        let [oh, ow] = self.conv.output();
        if flat { (1, n * oh * ow) } else { (n * oh, ow) }
    }

    /// Blocks that the tiles of `n` images are dealt in: at most as many as the fewest tiles that a
    /// destination may be cut into.
    fn blocks(&self, n: usize) -> usize {
        let panels = self.panels.list().len();
        let (rows, width) = self.rows(n, self.flat);
        UNITS.div_ceil(panels).clamp(1, rows * width.div_ceil(self.pixels))
    }
}

impl<I: Isa, M: Multiply<I>> Prepared for PreparedDirect<I, M> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn packed(&self) -> Vec<&Buffer> {
        self.panels.buffers().into()
    }

    fn packed_mut(&mut self) -> Vec<&mut Buffer> {
        self.panels.buffers_mut().into()
    }

    fn scratch(&self) -> ScratchReq {
        ScratchReq::default()
    }

    fn units(&self, _: usize, n: usize) -> usize {
        self.panels.list().len() * self.blocks(n)
    }

    // Inlined into its callers, it would be compiled once for each.
    #[inline(never)]
    #[allow(unsafe_code, reason = "vector code")]
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

impl<I: Isa, M: Multiply<I>> pulp::WithSimd for Run<'_, I, M> {
    type Output = ();

    #[inline(always)]
    #[allow(unsafe_code, reason = "vector code")]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { step, units, io } = self;
        let isa = step.isa;
        let n = io.images();
        let height = step.conv.output()[0];
        let blocks = step.blocks(n);
        let panels = step.panels.list();
        let [sh, sw] = step.conv.window.stride;
        let padding = step.conv.window.padding;
        let src = io.src.pitch;
        let taps = Taps::conv(step.conv.window.kernel, step.conv.channels, src.row, src.pixel);
        for unit in units {
            let (panel, block) = if step.image_stays {
                (unit % panels.len(), unit / panels.len())
            } else {
                (unit / blocks, unit % blocks)
            };
            let panel = &panels[panel];
            let epilogue = step.conv.segments[panel.segment].epilogue;
            let dst = io.dst(panel.segment);
            let dst_pitch = dst.pitch().pixel * dst.dtype().bytes();
            let flat = step.flat && dst.is_flat();
            let (rows, width) = step.rows(n, flat);
            let cut = Cut::<I, M>::new(width, step.pixels, panel.vectors);
            let count = rows * cut.blocks;
            let bias = if epilogue.bias { step.panels.bias(panel) } else { std::ptr::null() };
            let (first_tile, last_tile) = (count * block / blocks, count * (block + 1) / blocks);
            let mut done = 0;
            while done < step.conv.depth() {
                let part = step.part.min(step.conv.depth() - done);
                let last = done + part == step.conv.depth();
                let finish = Finish {
                    bias: if last { bias } else { std::ptr::null() },
                    relu: last && epilogue.relu,
                    accumulate: done > 0,
                    dtype: dst.dtype(),
                    width: panel.width,
                };
                let taps = if last && done == 0 { taps } else { Taps::matrix(part) };
                let offset = done / M::GROUP * panel.vectors * I::F32_LANES;
                let mut tile = first_tile;
                while tile < last_tile {
                    let (row, begin) = (tile / cut.blocks, tile % cut.blocks);
                    let tiles = begin..cut.blocks.min(begin + last_tile - tile);
                    let first = cut.first(begin);
                    let (a, out) = if flat {
                        let a = io.src.pixel::<M::Source>(0, 0, 0).wrapping_add(first * src.pixel);
                        (a, dst.byte(0, 0, 0).wrapping_add(first * dst_pitch))
                    } else {
                        let (image, y) = if n == 1 { (0, row) } else { (row / height, row % height) };
                        let top = (y * sh) as isize - padding.top as isize;
                        let left = (first * sw) as isize - padding.left as isize;
                        (io.src.pixel::<M::Source>(image, top, left), dst.byte(image, y, first))
                    };
                    let operands = Operands {
                        a: a.wrapping_add(done),
                        a_pitch: sw * src.pixel,
                        b: step.panels.weights(panel).wrapping_add(offset),
                        dst: out.wrapping_add(panel.first * dst.dtype().bytes()),
                        dst_pitch,
                    };
                    let panel = step.panels.following(panel).wrapping_add(offset);
                    let ahead = Ahead { panel, done: tile - first_tile, pixels: true };
                    tile += tiles.len();
                    let rows = Rows { count: 1, pitch: [0; 3], parts: 1, taps, operands, ahead, finish };
                    // SAFETY: the source's halo holds the padding, so that all taps of the tiles'
                    // pixels may be read; their outputs belong to this unit; the panel has `vectors`
                    // vectors and `depth` rows.
                    unsafe { cut.run(isa, tiles, &rows) };
                }
                done += part;
            }
        }
    }
}
