//! im2col on the register blocks of this library.
//!
//! ```text
//! for part of the output rows:                           a unit
//!   patches[pixel, (r, s, c)] = the taps of each pixel   copied to the worker's scratch
//!   for panel in panels:
//!     for block in patches: block x panel                as a matrix product
//! ```
//!
//! [`super::direct`] reads the taps of a pixel where they lie, and once for each panel of output
//! channels; here they are copied once, and each sum is then one run of neighbouring elements. It
//! takes what direct does not: any number of channels in bf16 and u8, since a patch ends with
//! zeros.
//!
//! A pointwise convolution of stride 1 has nothing to copy, and is left to direct; but where
//! processors lack instructions for u8, the copy of u8 is of 16 bits, which they multiply at once.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::direct::{ensure_summable, formats_from, packed, useful_sizes};
use super::{
    Buffer, Conv, Cpu, Formats, Io, Isa, Kernel, Numerics, Prepared, Problem, Request, Scratch, Signature,
    Tuning, Unsupported, Window,
};
use crate::gemm::multiply::{Multiply, Single};
use crate::gemm::panels::{Panel, Panels};
use crate::gemm::register_block::{Finish, Operands, Taps};
use crate::gemm::rows::{Cut, Prefetch, Rows};
use crate::memory::round_up;
use crate::tensor::Element;

/// Output rows whose patches are copied at once.
const ROWS: [usize; 4] = [1, 2, 4, 8];

/// Bytes of patches at most where there is more than one row: they are read once a panel, and stay
/// in the second-level cache.
const MOST_BYTES: usize = 1 << 19;

pub struct Im2col<I, M = Single> {
    isa: I,
    multiply: PhantomData<M>,
}

impl<I: Isa, M: Multiply<I>> Im2col<I, M> {
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        let (isa, _) = (I::new(cpu)?, M::new(cpu)?);
        Ok(Box::new(Self { isa, multiply: PhantomData }))
    }
}

/// Whether patches are wider than what they are copied from, so that a copy is worth its time even
/// where it moves nothing.
fn widens<I: Isa, M: Multiply<I>>() -> bool {
    size_of::<M::Source>() > size_of::<M::Pixel>()
}

/// Elements from a patch to the next: whole cache lines, so that each begins at one.
fn patch_pitch<T>(conv: &Conv) -> usize {
    round_up((conv.depth() * size_of::<T>()).div_ceil(size_of::<f32>())) * size_of::<f32>() / size_of::<T>()
}

impl<I: Isa, M: Multiply<I>> Kernel for Im2col<I, M> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        let conv = problem.as_conv()?;
        ensure_summable(M::Pixel::DTYPE, conv)?;
        if !conv.is_pointwise() || widens::<I, M>() {
            return Ok(());
        }
        let (found, expected) = ("1x1 of stride 1".to_string(), "more taps, or another stride");
        Err(Unsupported::Shape { what: "kernel", found, expected })
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        let [height, width] = conv.output();
        let row_bytes = width * patch_pitch::<M::Source>(conv) * size_of::<M::Source>();
        let fits = |rows: &usize| *rows == 1 || *rows < 2 * height && rows * row_bytes <= MOST_BYTES;
        let tuning = |&[pixels, vectors]: &[usize; 2], rows| {
            Tuning::new([("pixels", pixels), ("vectors", vectors), ("rows", rows)])
        };
        let sizes = useful_sizes::<I>(conv);
        sizes.flat_map(|size| ROWS.into_iter().filter(fits).map(move |rows| tuning(size, rows))).collect()
    }

    fn formats(&self, problem: &Problem, _: &Tuning) -> Vec<Formats> {
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        formats_from(M::Pixel::DTYPE, conv)
    }

    fn numerics(&self, _: &Problem, _: &Tuning) -> Numerics {
        Numerics { rounding: M::Pixel::DTYPE, ..Numerics::DIRECT_F32 }
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        let conv = request.problem.as_conv()?;
        Ok(Box::new(PreparedIm2col::<I, M> {
            isa: self.isa,
            signature: request.signature(),
            conv: conv.clone(),
            panels: packed::<I, M>(conv, request),
            pixels: request.tuning("pixels"),
            rows: request.tuning("rows"),
            multiply: PhantomData,
        }))
    }
}

struct PreparedIm2col<I, M> {
    isa: I,
    signature: Signature,
    conv: Conv,
    panels: Panels,
    pixels: usize,
    /// Output rows of a unit.
    rows: usize,
    multiply: PhantomData<M>,
}

impl<I: Isa, M: Multiply<I>> PreparedIm2col<I, M> {
    /// Units of an image.
    fn parts(&self) -> usize {
        self.conv.output()[0].div_ceil(self.rows)
    }
}

impl<I: Isa, M: Multiply<I>> Prepared for PreparedIm2col<I, M> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn packed(&self) -> Vec<&Buffer> {
        self.panels.buffers.iter().collect()
    }

    fn packed_mut(&mut self) -> Vec<&mut Buffer> {
        self.panels.buffers.iter_mut().collect()
    }

    fn scratch(&self) -> usize {
        let [height, width] = self.conv.output();
        let elements = self.rows.min(height) * width * patch_pitch::<M::Source>(&self.conv);
        (elements * size_of::<M::Source>()).div_ceil(size_of::<f32>())
    }

    fn units(&self, _: usize, n: usize) -> usize {
        n * self.parts()
    }

    // Inlined into its callers, it would be compiled once for each.
    #[inline(never)]
    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, scratch: &mut Scratch) {
        for unit in units {
            let (image, part) = (unit / self.parts(), unit % self.parts());
            let rows = part * self.rows..self.conv.output()[0].min((part + 1) * self.rows);
            let patches = scratch.worker.cast::<M::Source>();
            // SAFETY: the scratch holds the patches of `rows` rows, and is this caller's alone.
            unsafe { self.copy(io, image, rows.clone(), patches) };
            let products = MultiplyPatches { step: self, io, image, rows, patches };
            self.isa.vectorize(products);
        }
    }
}

impl<I: Isa, M: Multiply<I>> PreparedIm2col<I, M> {
    /// Copies the taps of the pixels of output rows, a patch a pixel, and zeros behind the last up
    /// to a whole group.
    ///
    /// # Safety
    /// `patches` may be written by this caller alone, a patch for each pixel.
    unsafe fn copy(&self, io: &Io, image: usize, rows: Range<usize>, patches: *mut M::Source) {
        let Conv { channels, window: Window { kernel: [r, s], .. }, .. } = self.conv;
        let (depth, pitch) = (self.conv.depth(), patch_pitch::<M::Source>(&self.conv));
        // Neighbouring pixels without other channels between them are one run.
        let (runs, len) = if io.src.pitch.pixel == channels { (1, s * channels) } else { (s, channels) };
        let mut patch = patches;
        for y in rows {
            for x in 0..self.conv.output()[1] {
                let [top, left] = self.conv.first_tap(y, x);
                let mut to = patch;
                for dy in 0..r as isize {
                    for dx in 0..runs as isize {
                        let from = io.src.pixel::<M::Pixel>(image, top + dy, left + dx);
                        // SAFETY: pixels of the source or its halo, which holds the padding; by the
                        // caller, a patch has an element for each tap.
                        unsafe {
                            let (from, to) = (
                                std::slice::from_raw_parts(from, len),
                                std::slice::from_raw_parts_mut(to.cast::<MaybeUninit<M::Source>>(), len),
                            );
                            to.iter_mut().zip(from).for_each(|(to, from)| _ = to.write((*from).into()));
                        }
                        to = to.wrapping_add(len);
                    }
                }
                for _ in depth..depth.next_multiple_of(M::GROUP) {
                    // SAFETY: a patch is padded to a cache line.
                    unsafe { to.write(M::Pixel::from_f32(0.0).into()) };
                    to = to.wrapping_add(1);
                }
                patch = patch.wrapping_add(pitch);
            }
        }
    }
}

/// The patches of some rows times all panels.
struct MultiplyPatches<'a, I: Isa, M: Multiply<I>> {
    step: &'a PreparedIm2col<I, M>,
    io: &'a Io<'a>,
    image: usize,
    rows: Range<usize>,
    patches: *const M::Source,
}

impl<I: Isa, M: Multiply<I>> pulp::WithSimd for MultiplyPatches<'_, I, M> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.step.panels.list.iter().for_each(|panel| self.panel(panel));
    }
}

impl<I: Isa, M: Multiply<I>> MultiplyPatches<'_, I, M> {
    #[inline(always)]
    fn panel(&self, panel: &Panel) {
        let (step, dst) = (self.step, self.io.dst(panel.segment));
        let epilogue = step.conv.segments[panel.segment].epilogue;
        let (width, pitch) = (step.conv.output()[1], patch_pitch::<M::Source>(&step.conv));
        let (count, width) =
            if dst.is_flat() { (1, self.rows.len() * width) } else { (self.rows.len(), width) };
        let cut = Cut::<I, M>::new(width, step.pixels, panel.vectors);
        let rows = Rows {
            count,
            pitch: [width * pitch, 0, dst.pitch.row * dst.dtype.bytes(), 0],
            parts: 1,
            taps: Taps::matrix(step.conv.depth().next_multiple_of(M::GROUP)),
            operands: Operands {
                a: self.patches,
                a_pitch: pitch,
                b: step.panels.weights(panel),
                dst: dst.byte(self.image, self.rows.start, 0).wrapping_add(panel.first * dst.dtype.bytes()),
                dst_pitch: dst.pitch.pixel * dst.dtype.bytes(),
            },
            prefetch: Prefetch { panel: step.panels.following(panel), done: 0, pixels: false },
            finish: Finish {
                scales: step.panels.scales(panel),
                bias: if epilogue.bias { step.panels.bias(panel) } else { std::ptr::null() },
                relu: epilogue.relu,
                accumulate: false,
                dtype: dst.dtype,
                width: panel.width,
            },
        };
        // SAFETY: there is a patch for each pixel; the outputs are this unit's; the panel has a row
        // for each group of a patch.
        unsafe { cut.run(step.isa, 0..cut.blocks, &rows) };
    }
}
