//! im2col and the `gemm` crate: the textbook algorithm, and the baseline of every product here.
//!
//! ```text
//! for block of pixels:
//!   patches[pixel, (r, s, c)] = the taps of each pixel     copied to the worker's scratch
//!   dst = patches * weights                                gemm::gemm
//!   dst = relu(dst + bias)                                 while it is in cache
//! ```
//!
//! A pointwise convolution of stride 1 without halos reads the image in place of the patches.
//!
//! `gemm` packs its operands into fresh memory on every call and picks its instructions itself, so
//! it neither keeps to a run without allocation nor to a limit on instructions.

use std::ops::Range;

use super::{
    Buffer, Conv, Cpu, Format, Formats, Io, Kernel, Prepared, Problem, Request, Scratch, Signature, Tuning,
    Unsupported, Window, round_up,
};
use crate::gemm::panels::Panels;
use crate::gemm::product::product;
use crate::problem::Segment;
use crate::shape::Padding;

pub struct Im2colGemm;

impl Im2colGemm {
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        cpu.ensure_unlimited()?;
        Ok(Box::new(Self))
    }
}

impl Kernel for Im2colGemm {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        problem.as_conv().map(|_| ())
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        let pixels = conv.output_pixels(conv.batch);
        let mut blocks: Vec<usize> = [512, 128, 2048].into_iter().map(|block| pixels.min(block)).collect();
        blocks.dedup();
        blocks.into_iter().map(|block| Tuning::new([("block", block)])).collect()
    }

    fn formats(&self, problem: &Problem, _: &Tuning) -> Vec<Formats> {
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        vec![Formats { src: Format { halo: conv.window.padding, ..Format::F32 }, dst: Format::F32 }]
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        let conv = request.problem.as_conv()?.clone();
        Ok(Box::new(PreparedIm2col {
            signature: request.signature(),
            in_place: conv.is_pointwise() && request.formats.src.halo == Padding::default(),
            // A panel a segment: its weights, row-major.
            panels: Panels::pack(&conv.segments, 1, conv.filters(), &request.folded()),
            conv,
            block: request.tuning("block"),
        }))
    }
}

struct PreparedIm2col {
    signature: Signature,
    conv: Conv,
    panels: Panels,
    /// The image itself is the matrix of patches.
    in_place: bool,
    block: usize,
}

impl PreparedIm2col {
    fn depth_pitch(&self) -> usize {
        round_up(self.conv.depth())
    }

    /// Copies the taps of the pixels into the rows of `patches`.
    unsafe fn gather(&self, io: &Io, pixels: Range<usize>, patches: *mut f32) {
        let Conv { channels, window: Window { kernel: [r, s], .. }, .. } = self.conv;
        for (i, pixel) in pixels.enumerate() {
            let [n, y, x] = self.conv.output_pixel(pixel);
            let [top, left] = self.conv.first_tap(y, x);
            let mut to = patches.wrapping_add(i * self.depth_pitch());
            for dy in 0..r as isize {
                for dx in 0..s as isize {
                    let from = io.src.pixel::<f32>(n, top + dy, left + dx);
                    // SAFETY: a pixel of the source or its halo; `patches` has a row a pixel.
                    unsafe { std::ptr::copy_nonoverlapping(from, to, channels) };
                    to = to.wrapping_add(channels);
                }
            }
        }
    }

    /// `dst = relu(a * weights + bias)` for pixels that lie at one distance in both.
    unsafe fn product(&self, io: &Io, pixels: Range<usize>, a: *const f32, a_pitch: usize) {
        for panel in &self.panels.list {
            let Segment { channels, epilogue } = self.conv.segments[panel.segment];
            let dst = io.dst(panel.segment);
            let [n, y, x] = self.conv.output_pixel(pixels.start);
            let out = dst.pixel::<f32>(n, y, x);
            let pitch = dst.pitch.pixel;
            let sizes = [pixels.len(), channels, self.conv.depth()];
            // SAFETY: `a` has a row of `depth` elements for each pixel, the weights `depth` rows of
            // `channels`, and the output pixels of this unit are written by it alone.
            unsafe { product(sizes, out, pitch, a, a_pitch, self.panels.weights(panel)) };
            // SAFETY: a panel has a bias for each of its channels.
            let bias = unsafe { std::slice::from_raw_parts(self.panels.bias(panel), channels) };
            pulp::Arch::new().dispatch(|| {
                for i in 0..pixels.len() {
                    // SAFETY: as above.
                    let y = unsafe { std::slice::from_raw_parts_mut(out.wrapping_add(i * pitch), channels) };
                    if epilogue.bias {
                        y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
                    }
                    if epilogue.relu {
                        // NaN stays NaN, which `max` would replace.
                        y.iter_mut().for_each(|y| *y = if *y < 0.0 { 0.0 } else { *y });
                    }
                }
            });
        }
    }
}

impl Prepared for PreparedIm2col {
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
        if self.in_place { 0 } else { self.block * self.depth_pitch() }
    }

    fn units(&self, _: usize, n: usize) -> usize {
        self.conv.output_pixels(n).div_ceil(self.block)
    }

    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, scratch: &mut Scratch) {
        let total = self.conv.output_pixels(io.images());
        let width = self.conv.output()[1];
        let flat = (0..io.segments).all(|segment| io.dst(segment).is_flat());
        for unit in units {
            let end = ((unit + 1) * self.block).min(total);
            let mut first = unit * self.block;
            while first < end {
                // Pixels of a destination with a halo lie at one distance within a row only.
                let left = if flat { end - first } else { (width - first % width).min(end - first) };
                let pixels = first..first + left;
                // SAFETY: the scratch holds `block` rows; the pixels belong to this unit.
                unsafe {
                    if self.in_place {
                        let [n, y, x] = self.conv.output_pixel(first);
                        let a = io.src.pixel(n, y as isize, x as isize);
                        self.product(io, pixels, a, io.src.pitch.pixel);
                    } else {
                        self.gather(io, pixels.clone(), scratch.worker);
                        self.product(io, pixels, scratch.worker, self.depth_pitch());
                    }
                }
                first += left;
            }
        }
    }
}
