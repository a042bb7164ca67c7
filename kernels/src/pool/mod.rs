//! Pooling: maximum and mean over a window, global pooling included.
//!
//! ```text
//! for output row and some of its channels:            one unit
//!   for up to four vectors of channels:
//!     for pixel:
//!       for column of its window that the pixel before it has not:
//!         for row: column = max(column, x), or column + x
//!       y = relu((its columns) * 1 / count + bias)
//! ```
//!
//! Windows of neighbouring pixels overlap. Where they are 3 wide, the columns that a pixel shares
//! with the next one stay in registers: a pixel reads one column at stride 1 and two at stride 2.
//! Taps outside the image are left out, not read as zeros, so that no halo is needed. A pixel with
//! such taps to its left or right reads all of its columns, and so does one with a window of
//! another width.
//!
//! [`join`] has the maxima and sums of vectors of each type.

#![allow(unsafe_code, reason = "vector code")]

use std::ops::Range;

use half::bf16;

use crate::cpu::{Cpu, Isa};
use crate::error::Unsupported;
use crate::kernel::{Io, Kernel, Prepared, Request, Signature, Tuning};
use crate::memory::{Buffer, Scratch};
use crate::problem::{Pool, PoolKind, Problem};
use crate::tensor::{Dtype, Format, Formats, Pitch};

mod join;

use join::{End, Join, Max, Sum, bias_len, order_bias};

pub struct Pooling<I> {
    isa: I,
}

impl<I: Isa> Pooling<I> {
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        Ok(Box::new(Self { isa: I::new(cpu)? }))
    }
}

impl<I: Isa> Kernel for Pooling<I> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        let pool = problem.as_pool()?;
        let (window, p) = (&pool.window, &pool.window.padding);
        if p.top.max(p.bottom) >= window.kernel[0] || p.left.max(p.right) >= window.kernel[1] {
            let found = format!("{p:?}");
            return Err(Unsupported::Shape { what: "padding", found, expected: "less than the window" });
        }
        Ok(())
    }

    fn formats(&self, _: &Problem, _: &Tuning) -> Vec<Formats> {
        [Format::F32, Format::BF16].map(|format| Formats { src: format, dst: format }).into()
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        let pool = request.problem.as_pool()?;
        let dtype = request.formats.src.dtype;
        let mut bias = Buffer::zeroed(bias_len::<I>(dtype, pool.channels));
        if let [filter] = request.filters {
            order_bias::<I>(dtype, &filter.folded().bias, bias.as_mut_slice());
        }
        let (signature, pool) = (request.signature(), pool.clone());
        Ok(Box::new(PreparedPool { isa: self.isa, signature, pool, bias }))
    }
}

/// Channels of a unit, whole vectors of every type: pools of few rows still split well.
const CHUNK: usize = 512;
/// Width of the windows that share columns.
const SHARING: usize = 3;

struct PreparedPool<I> {
    isa: I,
    signature: Signature,
    pool: Pool,
    /// In the order of the vectors; zeros where the pool has no bias.
    bias: Buffer,
}

impl<I: Isa> PreparedPool<I> {
    fn chunks(&self) -> usize {
        self.pool.channels.div_ceil(CHUNK)
    }
}

impl<I: Isa> Prepared for PreparedPool<I> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn packed(&self) -> Vec<&Buffer> {
        vec![&self.bias]
    }

    fn packed_mut(&mut self) -> Vec<&mut Buffer> {
        vec![&mut self.bias]
    }

    /// Some channels of an output row.
    fn units(&self, _: usize, n: usize) -> usize {
        n * self.pool.output()[0] * self.chunks()
    }

    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, _: &mut Scratch) {
        self.isa.vectorize(Run { step: self, units, io })
    }
}

struct Run<'a, I> {
    step: &'a PreparedPool<I>,
    units: Range<usize>,
    io: &'a Io<'a>,
}

/// Taps along one axis that lie inside the image, as image coordinates.
fn inside(at: usize, stride: usize, kernel: usize, before: usize, extent: usize) -> Range<usize> {
    let start = at * stride;
    start.saturating_sub(before)..(start + kernel - before).min(extent)
}

impl<I: Isa> pulp::WithSimd for Run<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        match (self.step.pool.kind, self.io.src.dtype) {
            (PoolKind::Max, Dtype::F32) => self.units::<Max<f32>>(),
            (PoolKind::Max, Dtype::Bf16) => self.units::<Max<bf16>>(),
            (_, Dtype::F32) => self.units::<Sum<f32>>(),
            (_, Dtype::Bf16) => self.units::<Sum<bf16>>(),
        }
    }
}

impl<I: Isa> Run<'_, I> {
    #[inline(always)]
    fn units<J: Join<I>>(self) {
        let Self { step, units, io } = self;
        let Pool { image, channels, ref window, .. } = step.pool;
        let [oh, ow] = step.pool.output();
        let ([_, s], [_, stride], left) = (window.kernel, window.stride, window.padding.left);
        let whole = if s == SHARING && stride < s && image[1] + left >= s {
            let end = ow.min((image[1] + left - s) / stride + 1);
            end.min(left.div_ceil(stride))..end
        } else {
            0..0
        };
        for unit in units {
            let (row, chunk) = (unit / step.chunks(), unit % step.chunks());
            let (n, y) = (row / oh, row % oh);
            let rows = inside(y, window.stride[0], window.kernel[0], window.padding.top, image[0]);
            let row = Row::<I, J> {
                step,
                src: io.src.pixel(n, rows.start as isize, 0),
                src_pitch: io.src.pitch,
                rows: rows.len(),
                dst: io.dst(0).pixel(n, y, 0),
                dst_pitch: io.dst(0).pitch.pixel,
                pixels: ow,
                whole: whole.clone(),
                channels: chunk * CHUNK..channels.min((chunk + 1) * CHUNK),
            };
            // SAFETY: the rows lie in the image, and their channels are this unit's.
            unsafe { row.all() };
        }
    }
}

/// Some channels of an output row.
///
/// # Safety of its functions
/// The channels of the image's rows may be read, and those of the pixels written by this caller
/// alone; there are `V` vectors from `c` on, all `WHOLE` or the last one not; pixels are those of the row.
struct Row<'a, I: Isa, J: Join<I>> {
    step: &'a PreparedPool<I>,
    /// Channel 0 of the first column of the first row of the windows.
    src: *const J::Element,
    src_pitch: Pitch,
    /// Rows of the windows.
    rows: usize,
    /// Channel 0 of the first pixel.
    dst: *mut J::Element,
    dst_pitch: usize,
    pixels: usize,
    /// Those of which all columns lie in the image and some are shared.
    whole: Range<usize>,
    channels: Range<usize>,
}

impl<I: Isa, J: Join<I>> Row<'_, I, J> {
    #[inline(always)]
    unsafe fn all(&self) {
        let mut c = self.channels.start;
        // Several vectors at a time: their lines follow each other in memory, and their sums wait
        // less for each other.
        // SAFETY: by the caller; all but the last are whole.
        unsafe {
            while c + 4 * J::LANES <= self.channels.end {
                self.vectors::<4, true>(c);
                c += 4 * J::LANES;
            }
            if c + 2 * J::LANES <= self.channels.end {
                self.vectors::<2, true>(c);
                c += 2 * J::LANES;
            }
            if c + J::LANES <= self.channels.end {
                self.vectors::<1, true>(c);
                c += J::LANES;
            }
            if c < self.channels.end {
                self.vectors::<1, false>(c);
            }
        }
    }

    /// All pixels of vectors of channels.
    #[inline(always)]
    unsafe fn vectors<const V: usize, const WHOLE: bool>(&self, c: usize) {
        // SAFETY: by the caller; the pixels are those of the row.
        unsafe {
            for x in (0..self.whole.start).chain(self.whole.end..self.pixels) {
                self.pixel::<V, WHOLE>(c, x);
            }
            if self.whole.is_empty() {
                return;
            }
            match (self.step.pool.window.stride[1], self.rows) {
                (1, 3) if WHOLE => self.shared::<V, 1, 3, WHOLE>(c),
                (1, _) => self.shared::<V, 1, 0, WHOLE>(c),
                (_, 3) if WHOLE => self.shared::<V, 2, 3, WHOLE>(c),
                _ => self.shared::<V, 2, 0, WHOLE>(c),
            }
        }
    }

    /// A pixel with any window.
    #[inline(always)]
    unsafe fn pixel<const V: usize, const WHOLE: bool>(&self, c: usize, x: usize) {
        let Pool { image, ref window, .. } = self.step.pool;
        let columns = inside(x, window.stride[1], window.kernel[1], window.padding.left, image[1]);
        let end = self.end(columns.len());
        // SAFETY: by the caller; the columns lie in the image, and there is one at least.
        unsafe {
            // Row by row, as they lie in memory.
            let first = self.src.wrapping_add(columns.start * self.src_pitch.pixel + c);
            let mut sum = self.load::<V, WHOLE>(first, c);
            for row in 0..self.rows {
                let first = first.wrapping_add(row * self.src_pitch.row);
                // That of the first row has been loaded.
                for column in usize::from(row == 0)..columns.len() {
                    let at = first.wrapping_add(column * self.src_pitch.pixel);
                    sum = self.join(sum, self.load::<V, WHOLE>(at, c));
                }
            }
            self.store::<V, WHOLE>(x, c, sum, &end);
        }
    }

    /// The pixels that share columns of [`SHARING`], of windows of `ROWS` rows, or any number if
    /// that is 0. The stride is `STRIDE`, 1 or 2.
    #[inline(always)]
    unsafe fn shared<const V: usize, const STRIDE: usize, const ROWS: usize, const WHOLE: bool>(
        &self,
        c: usize,
    ) {
        let end = self.end(SHARING);
        let mut at = self.whole.start * STRIDE - self.step.pool.window.padding.left;
        // SAFETY: by the caller; all columns of these windows lie in the image.
        unsafe {
            let mut first = self.column::<V, ROWS, WHOLE>(at, c);
            let mut second = first;
            if STRIDE == 1 {
                at += 1;
                second = self.column::<V, ROWS, WHOLE>(at, c);
            }
            for x in self.whole.clone() {
                if STRIDE == 2 {
                    at += 1;
                    second = self.column::<V, ROWS, WHOLE>(at, c);
                }
                at += 1;
                let third = self.column::<V, ROWS, WHOLE>(at, c);
                self.store::<V, WHOLE>(x, c, self.join(self.join(first, second), third), &end);
                (first, second) = if STRIDE == 1 { (second, third) } else { (third, third) };
            }
        }
    }

    /// A column of the image, of `ROWS` rows or as many as there are if that is 0.
    #[inline(always)]
    unsafe fn column<const V: usize, const ROWS: usize, const WHOLE: bool>(
        &self,
        column: usize,
        c: usize,
    ) -> [J::Vector; V] {
        let at = self.src.wrapping_add(column * self.src_pitch.pixel + c);
        // SAFETY: by the caller.
        unsafe {
            let mut sum = self.load::<V, WHOLE>(at, c);
            for row in 1..if ROWS == 0 { self.rows } else { ROWS } {
                sum = self.join(sum, self.load::<V, WHOLE>(at.wrapping_add(row * self.src_pitch.row), c));
            }
            sum
        }
    }

    #[inline(always)]
    fn join<const V: usize>(&self, a: [J::Vector; V], b: [J::Vector; V]) -> [J::Vector; V] {
        let mut joined = a;
        joined.iter_mut().zip(b).for_each(|(a, b)| *a = J::join(self.step.isa, *a, b));
        joined
    }

    /// What ends the maxima or sums of windows of so many columns.
    #[inline(always)]
    fn end(&self, columns: usize) -> End<I> {
        let Pool { ref window, kind, epilogue, .. } = self.step.pool;
        let count = match kind {
            PoolKind::Max => 1,
            PoolKind::Average => self.rows * columns,
            PoolKind::AverageCountingBorder => window.kernel[0] * window.kernel[1],
        };
        End { scale: self.step.isa.splat_f32s(1.0 / count as f32), epilogue, bias: self.step.bias.as_ptr() }
    }

    /// Channels of a vector at `c`: for whole ones the compiler knows how many.
    #[inline(always)]
    fn width<const WHOLE: bool>(&self, c: usize) -> usize {
        if WHOLE { J::LANES } else { self.channels.end - c }
    }

    /// The vectors at channel `c` of a pixel of the image.
    #[inline(always)]
    unsafe fn load<const V: usize, const WHOLE: bool>(
        &self,
        at: *const J::Element,
        c: usize,
    ) -> [J::Vector; V] {
        let (isa, width) = (self.step.isa, self.width::<WHOLE>(c));
        // SAFETY: by the caller.
        unsafe {
            let mut vectors = [J::load(isa, at, width); V];
            for (v, vector) in vectors.iter_mut().enumerate().skip(1) {
                *vector = J::load(isa, at.wrapping_add(v * J::LANES), width);
            }
            vectors
        }
    }

    #[inline(always)]
    unsafe fn store<const V: usize, const WHOLE: bool>(
        &self,
        x: usize,
        c: usize,
        vectors: [J::Vector; V],
        end: &End<I>,
    ) {
        let width = self.width::<WHOLE>(c);
        for (v, vector) in vectors.into_iter().enumerate() {
            let c = c + v * J::LANES;
            let to = self.dst.wrapping_add(x * self.dst_pitch + c);
            let end = End { bias: end.bias.wrapping_add(c), ..*end };
            // SAFETY: by the caller; there is a bias for each channel, of whole vectors for bf16.
            unsafe { J::store(self.step.isa, to, vector, &end, width) };
        }
    }
}
