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
//! such taps to its left or right reads all of its columns, and so do windows of another width.
//!
//! [`join`] has the maxima and sums of vectors of each type.

#![allow(unsafe_code, reason = "vector code")]

use std::ops::Range;

use half::bf16;

use crate::cpu::{Cpu, Isa};
use crate::error::Unsupported;
use crate::kernel::{Io, Kernel, Numerics, Prepared, Request, Signature, Tuning};
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

    /// An element is joined of its window's alone, in the order of the window.
    fn numerics(&self, _: &Problem, _: &Tuning) -> Numerics {
        Numerics { reproducible: I::FUSES, ..Numerics::DIRECT_F32 }
    }

    /// From a type to the same; means also from u8 to f32 and back. A maximum of u8 has no bias.
    fn formats(&self, problem: &Problem, _: &Tuning) -> Vec<Formats> {
        let Ok(Pool { kind, epilogue, .. }) = problem.as_pool() else { return Vec::new() };
        let mut pairs = vec![[Format::F32; 2], [Format::BF16; 2]];
        match kind {
            PoolKind::Max if epilogue.bias => {}
            PoolKind::Max => pairs.push([Format::U8; 2]),
            _ => pairs.extend([[Format::U8; 2], [Format::F32, Format::U8], [Format::U8, Format::F32]]),
        }
        pairs.into_iter().map(|[src, dst]| Formats { src, dst }).collect()
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
            (PoolKind::Max, Dtype::U8) => self.units::<Max<u8>>(),
            (_, Dtype::F32) => self.units::<Sum<f32>>(),
            (_, Dtype::Bf16) => self.units::<Sum<bf16>>(),
            (_, Dtype::U8) => self.units::<Sum<u8>>(),
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
                dst: io.dst(0).byte(n, y, 0),
                dst_pitch: io.dst(0).pitch.pixel,
                dtype: io.dst(0).dtype,
                pixels: ow,
                whole: whole.clone(),
                channels: chunk * CHUNK..channels.min((chunk + 1) * CHUNK),
            };
            // SAFETY: the rows lie in the image, and their channels are this unit's.
            unsafe { row.all() };
        }
    }
}

/// Some channels of an output row, which one caller alone may write. It may read the image's rows.
struct Row<'a, I: Isa, J: Join<I>> {
    step: &'a PreparedPool<I>,
    /// Channel 0 of the first column of the first row of the windows.
    src: *const J::Element,
    src_pitch: Pitch,
    /// Rows of the windows.
    rows: usize,
    /// Channel 0 of the first pixel.
    dst: *mut u8,
    dst_pitch: usize,
    /// What is written.
    dtype: Dtype,
    pixels: usize,
    /// Those of which all columns lie in the image and some are shared.
    whole: Range<usize>,
    channels: Range<usize>,
}

impl<I: Isa, J: Join<I>> Row<'_, I, J> {
    /// # Safety
    /// The image's rows may be read, and the row's channels written by this caller alone.
    #[inline(always)]
    unsafe fn all(&self) {
        let (mut c, row) = (self.channels.start, self);
        // Several vectors at a time: their lines follow each other in memory, and their sums wait
        // less for each other.
        // SAFETY: by the caller; all but the last are whole.
        unsafe {
            while c + 4 * J::LANES <= self.channels.end {
                Vectors::<I, J, 4, true> { row, c }.all();
                c += 4 * J::LANES;
            }
            if c + 2 * J::LANES <= self.channels.end {
                Vectors::<I, J, 2, true> { row, c }.all();
                c += 2 * J::LANES;
            }
            if c + J::LANES <= self.channels.end {
                Vectors::<I, J, 1, true> { row, c }.all();
                c += J::LANES;
            }
            if c < self.channels.end {
                Vectors::<I, J, 1, false> { row, c }.all();
            }
        }
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
        let scale = self.step.isa.splat_f32s(1.0 / count as f32);
        End { scale, epilogue, bias: self.step.bias.as_ptr(), dtype: self.dtype }
    }
}

/// `V` vectors of a row's channels from `c` on, all of them `WHOLE` or the last one not.
///
/// # Safety of its functions
/// The row has these vectors, and the pixels and columns that are named.
struct Vectors<'a, I: Isa, J: Join<I>, const V: usize, const WHOLE: bool> {
    row: &'a Row<'a, I, J>,
    c: usize,
}

impl<I: Isa, J: Join<I>, const V: usize, const WHOLE: bool> pulp::WithSimd for Vectors<'_, I, J, V, WHOLE> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        // SAFETY: promised to [`Self::all`], the only caller.
        unsafe { self.pixels() }
    }
}

impl<I: Isa, J: Join<I>, const V: usize, const WHOLE: bool> Vectors<'_, I, J, V, WHOLE> {
    /// A function for each number of vectors: one with all of them compiles ten times as long.
    #[inline(never)]
    unsafe fn all(self) {
        self.row.step.isa.vectorize(self);
    }

    #[inline(always)]
    unsafe fn pixels(&self) {
        let Row { step, rows, pixels, ref whole, .. } = *self.row;
        // SAFETY: by the caller; the pixels are those of the row.
        unsafe {
            for x in (0..whole.start).chain(whole.end..pixels) {
                self.pixel(x);
            }
            if whole.is_empty() {
                return;
            }
            match (step.pool.window.stride[1], rows) {
                (1, 3) if WHOLE => self.shared::<1, 3>(),
                (1, _) => self.shared::<1, 0>(),
                (_, 3) if WHOLE => self.shared::<2, 3>(),
                _ => self.shared::<2, 0>(),
            }
        }
    }

    /// A pixel with any window.
    #[inline(always)]
    unsafe fn pixel(&self, x: usize) {
        let Row { step, src, src_pitch, rows, .. } = *self.row;
        let Pool { image, ref window, .. } = step.pool;
        let columns = inside(x, window.stride[1], window.kernel[1], window.padding.left, image[1]);
        let end = self.row.end(columns.len());
        // SAFETY: by the caller; the columns lie in the image, and there is one at least.
        unsafe {
            // Row by row, as they lie in memory.
            let first = src.wrapping_add(columns.start * src_pitch.pixel + self.c);
            let mut sum = self.load(first);
            for row in 0..rows {
                let first = first.wrapping_add(row * src_pitch.row);
                // That of the first row has been loaded.
                for column in usize::from(row == 0)..columns.len() {
                    sum = self.join(sum, self.load(first.wrapping_add(column * src_pitch.pixel)));
                }
            }
            self.store(x, sum, &end);
        }
    }

    /// The pixels that share columns of [`SHARING`], of windows of `ROWS` rows, or any number if
    /// that is 0. The stride is `STRIDE`, 1 or 2.
    #[inline(always)]
    unsafe fn shared<const STRIDE: usize, const ROWS: usize>(&self) {
        let Row { step, ref whole, .. } = *self.row;
        let end = self.row.end(SHARING);
        let mut at = whole.start * STRIDE - step.pool.window.padding.left;
        // SAFETY: by the caller; all columns of these windows lie in the image.
        unsafe {
            let mut first = self.column::<ROWS>(at);
            let mut second = first;
            if STRIDE == 1 {
                at += 1;
                second = self.column::<ROWS>(at);
            }
            for x in whole.clone() {
                if STRIDE == 2 {
                    at += 1;
                    second = self.column::<ROWS>(at);
                }
                at += 1;
                let third = self.column::<ROWS>(at);
                self.store(x, self.join(self.join(first, second), third), &end);
                (first, second) = if STRIDE == 1 { (second, third) } else { (third, third) };
            }
        }
    }

    /// A column of the image, of `ROWS` rows or as many as there are if that is 0.
    #[inline(always)]
    unsafe fn column<const ROWS: usize>(&self, column: usize) -> [J::Vector; V] {
        let Row { src, src_pitch, rows, .. } = *self.row;
        let at = src.wrapping_add(column * src_pitch.pixel + self.c);
        // SAFETY: by the caller.
        unsafe {
            let mut sum = self.load(at);
            for row in 1..if ROWS == 0 { rows } else { ROWS } {
                sum = self.join(sum, self.load(at.wrapping_add(row * src_pitch.row)));
            }
            sum
        }
    }

    #[inline(always)]
    fn join(&self, a: [J::Vector; V], b: [J::Vector; V]) -> [J::Vector; V] {
        let mut joined = a;
        joined.iter_mut().zip(b).for_each(|(a, b)| *a = J::join(self.row.step.isa, *a, b));
        joined
    }

    /// Channels of a vector: of whole ones the compiler knows how many.
    #[inline(always)]
    fn width(&self) -> usize {
        if WHOLE { J::LANES } else { self.row.channels.end - self.c }
    }

    /// The vectors of a pixel of the image whose first channel here is at `at`.
    #[inline(always)]
    unsafe fn load(&self, at: *const J::Element) -> [J::Vector; V] {
        let (isa, width) = (self.row.step.isa, self.width());
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
    unsafe fn store(&self, x: usize, vectors: [J::Vector; V], end: &End<I>) {
        let Row { step, dst, dst_pitch, dtype, .. } = *self.row;
        for (v, vector) in vectors.into_iter().enumerate() {
            let c = self.c + v * J::LANES;
            let end = End { bias: end.bias.wrapping_add(c), ..*end };
            let at = dst.wrapping_add((x * dst_pitch + c) * dtype.bytes());
            // SAFETY: by the caller; there is a bias for each channel, of whole vectors for bf16.
            unsafe { J::store(step.isa, at, vector, &end, self.width()) };
        }
    }
}
