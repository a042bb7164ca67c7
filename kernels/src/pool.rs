//! Pooling: maximum and mean over a window, global pooling included.
//!
//! ```text
//! for tile of output pixels in a row:
//!   for vector of channels:
//!     for column of the tile's windows:
//!       for row: column = max(column, x), or column + x
//!     for pixel: y = relu((its columns) * 1 / count + bias)
//! ```
//!
//! Windows of neighbouring pixels overlap: at stride 1, four pixels of a window 3 wide read 6 columns in
//! place of 12. Taps outside the image are left out rather than read as zeros, so that no halo is needed;
//! pixels that have such, and those of other windows, are tiles of their own.
//!
//! Elements of other types are widened as they are loaded, summed in f32, and rounded as they are stored.

use std::ops::Range;

use half::bf16;

use crate::cpu::{Cpu, Isa};
use crate::filter::Filter;
use crate::kernel::{Bound, Io, Kernel, Prepared, Refusal, Tuning, validate};
use crate::problem::{Pool, PoolKind, Problem};
use crate::scratch::{Buffer, Scratch, ScratchReq};
use crate::tensor::{Dtype, Element, Format, Formats, Pitch};
use crate::vector::{load_first, narrow_first, widen, widen_first};

/// The kernel, for one instruction set.
#[derive(Debug)]
pub struct Pooling<I> {
    isa: I,
}

impl<I: Isa> Pooling<I> {
    /// For the table.
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Refusal> {
        Ok(Box::new(Self { isa: I::of(cpu)? }))
    }
}

impl<I: Isa> Kernel for Pooling<I> {
    fn supports(&self, problem: &Problem) -> Result<(), Refusal> {
        let Problem::Pool(pool) = problem else { return Err(Refusal::Kind { takes: "pools" }) };
        let (window, p) = (&pool.window, &pool.window.padding);
        if p.top.max(p.bottom) >= window.kernel[0] || p.left.max(p.right) >= window.kernel[1] {
            let found = format!("{p:?}");
            return Err(Refusal::Shape { what: "padding", found, expected: "less than the window" });
        }
        Ok(())
    }

    fn formats(&self, _: &Problem, _: &Tuning) -> Vec<Formats> {
        [Format::F32, Format::BF16].map(|format| Formats { src: format, dst: format }).into()
    }

    fn prepare(
        &self,
        problem: &Problem,
        tuning: &Tuning,
        formats: &Formats,
        filters: &[Filter],
    ) -> Result<Box<dyn Prepared>, Refusal> {
        validate(self, problem, tuning, formats, filters)?;
        let Problem::Pool(pool) = problem else { return Err(Refusal::Kind { takes: "pools" }) };
        let mut bias = Buffer::zeroed(pool.channels);
        if let [filter] = filters {
            bias.as_mut_slice().copy_from_slice(&filter.folded().bias);
        }
        let bound = Bound::new(problem, formats);
        Ok(Box::new(PreparedPool { isa: self.isa, bound, pool: pool.clone(), bias }))
    }
}

/// Channels of a unit: pools of few rows still split well.
const CHUNK: usize = 512;
/// Vectors that are accumulated side by side.
const VECTORS: usize = 4;

struct PreparedPool<I> {
    isa: I,
    bound: Bound,
    pool: Pool,
    /// One value a channel; zeros where the pool has no bias.
    bias: Buffer,
}

impl<I: Isa> PreparedPool<I> {
    fn chunks(&self) -> usize {
        self.pool.channels.div_ceil(CHUNK)
    }
}

impl<I: Isa> Prepared for PreparedPool<I> {
    fn bound(&self) -> &Bound {
        &self.bound
    }

    fn packed(&self) -> Vec<&Buffer> {
        vec![&self.bias]
    }

    fn packed_mut(&mut self) -> Vec<&mut Buffer> {
        vec![&mut self.bias]
    }

    fn scratch(&self) -> ScratchReq {
        ScratchReq::default()
    }

    /// Some channels of an output row.
    fn units(&self, _: usize, n: usize) -> usize {
        n * self.pool.output()[0] * self.chunks()
    }

    #[allow(unsafe_code, reason = "tile code")]
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
            (PoolKind::Max, Dtype::F32) => self.units::<f32, true>(),
            (PoolKind::Max, Dtype::Bf16) => self.units::<bf16, true>(),
            (_, Dtype::F32) => self.units::<f32, false>(),
            (_, Dtype::Bf16) => self.units::<bf16, false>(),
        }
    }
}

/// Pixels of a tile.
const TILE: usize = 4;

impl<I: Isa> Run<'_, I> {
    #[inline(always)]
    #[allow(unsafe_code, reason = "tile code")]
    fn units<T: Element, const MAX: bool>(self) {
        let Self { step, units, io } = self;
        let Pool { image, channels, ref window, kind, .. } = step.pool;
        let [oh, ow] = step.pool.output();
        let [r, s] = window.kernel;
        for unit in units {
            let (row, chunk) = (unit / step.chunks(), unit % step.chunks());
            let (n, y) = (row / oh, row % oh);
            let rows = inside(y, window.stride[0], r, window.padding.top, image[0]);
            let columns = |x| inside(x, window.stride[1], s, window.padding.left, image[1]);
            let mut x = 0;
            while x < ow {
                let first = columns(x);
                let is_whole = |x: usize| columns(x).len() == s;
                let is_tile = s == 3
                    && window.stride[1] == 1
                    && x + TILE <= ow
                    && is_whole(x)
                    && is_whole(x + TILE - 1);
                let count = match kind {
                    PoolKind::Max => 1,
                    PoolKind::Average => rows.len() * first.len(),
                    PoolKind::AverageCountingBorder => r * s,
                };
                let tile = Tile::<I, T, MAX> {
                    step,
                    src: io.src.at(n, rows.start as isize, first.start as isize),
                    src_pitch: io.src.pitch,
                    rows: rows.len(),
                    columns: first.len(),
                    dst: io.dst(0).at(n, y, x),
                    dst_pitch: io.dst(0).pitch().pixel,
                    scale: step.isa.splat_f32s(1.0 / count as f32),
                    channels: chunk * CHUNK..channels.min((chunk + 1) * CHUNK),
                };
                // SAFETY: the taps of the pixels lie in the image, and their channels are this unit's.
                unsafe { if is_tile { tile.many() } else { tile.one() } };
                x += if is_tile { TILE } else { 1 };
            }
        }
    }
}

/// One or [`TILE`] pixels of an output row; of maxima if `MAX`.
struct Tile<'a, I: Isa, T, const MAX: bool> {
    step: &'a PreparedPool<I>,
    /// Channel 0 of the first tap.
    src: *const T,
    src_pitch: Pitch,
    /// Rows of the windows.
    rows: usize,
    /// Columns of each window.
    columns: usize,
    /// Channel 0 of the first pixel.
    dst: *mut T,
    dst_pitch: usize,
    /// What sums are multiplied with.
    scale: I::f32s,
    channels: Range<usize>,
}

impl<I: Isa, T: Element, const MAX: bool> Tile<'_, I, T, MAX> {
    /// One pixel with any window.
    ///
    /// # Safety
    /// The channels of all taps may be read, and those of the pixel written by this caller alone.
    #[inline(always)]
    #[allow(unsafe_code, reason = "tile code")]
    unsafe fn one(&self) {
        let mut c = self.channels.start;
        while c + VECTORS * I::F32_LANES <= self.channels.end {
            // SAFETY: by the caller; whole vectors.
            unsafe { self.window::<VECTORS, true>(c) };
            c += VECTORS * I::F32_LANES;
        }
        while c < self.channels.end {
            // SAFETY: by the caller.
            unsafe { self.window::<1, false>(c) };
            c += I::F32_LANES;
        }
    }

    /// [`TILE`] pixels of windows 3 wide at stride 1.
    ///
    /// # Safety
    /// The channels of all taps may be read, and those of the pixels written by this caller alone.
    #[inline(always)]
    #[allow(unsafe_code, reason = "tile code")]
    unsafe fn many(&self) {
        let mut c = self.channels.start;
        while c + I::F32_LANES <= self.channels.end {
            // SAFETY: by the caller; a whole vector.
            unsafe { self.windows::<true>(c) };
            c += I::F32_LANES;
        }
        if c < self.channels.end {
            // SAFETY: by the caller.
            unsafe { self.windows::<false>(c) };
        }
    }

    /// # Safety
    /// As for [`Self::one`]; `WHOLE` vectors.
    #[inline(always)]
    #[allow(unsafe_code, reason = "tile code")]
    unsafe fn window<const V: usize, const WHOLE: bool>(&self, c: usize) {
        let mut acc = [self.identity(); V];
        for row in 0..self.rows {
            let mut pixel = self.src.wrapping_add(row * self.src_pitch.row + c);
            for _ in 0..self.columns {
                for (v, acc) in acc.iter_mut().enumerate() {
                    // SAFETY: by the caller.
                    let x = unsafe { self.load::<WHOLE>(pixel.wrapping_add(v * I::F32_LANES), c) };
                    *acc = self.join(*acc, x);
                }
                pixel = pixel.wrapping_add(self.src_pitch.pixel);
            }
        }
        for (v, acc) in acc.into_iter().enumerate() {
            let c = c + v * I::F32_LANES;
            // SAFETY: by the caller.
            unsafe { self.store::<WHOLE>(self.dst.wrapping_add(c), acc, c) };
        }
    }

    /// # Safety
    /// As for [`Self::many`]; a `WHOLE` vector.
    #[inline(always)]
    #[allow(unsafe_code, reason = "tile code")]
    unsafe fn windows<const WHOLE: bool>(&self, c: usize) {
        let mut columns = [self.identity(); TILE + 2];
        for row in 0..self.rows {
            let from = self.src.wrapping_add(row * self.src_pitch.row + c);
            for (i, column) in columns.iter_mut().enumerate() {
                // SAFETY: by the caller.
                let x = unsafe { self.load::<WHOLE>(from.wrapping_add(i * self.src_pitch.pixel), c) };
                *column = self.join(*column, x);
            }
        }
        for pixel in 0..TILE {
            let [a, b, d] = [0, 1, 2].map(|i| columns[pixel + i]);
            let to = self.dst.wrapping_add(pixel * self.dst_pitch + c);
            // SAFETY: by the caller.
            unsafe { self.store::<WHOLE>(to, self.join(self.join(a, b), d), c) };
        }
    }

    /// What changes nothing when it is joined.
    #[inline(always)]
    fn identity(&self) -> I::f32s {
        self.step.isa.splat_f32s(if MAX { f32::NEG_INFINITY } else { 0.0 })
    }

    /// Sum or maximum of two.
    #[inline(always)]
    fn join(&self, a: I::f32s, b: I::f32s) -> I::f32s {
        if MAX { self.step.isa.max_f32s(a, b) } else { self.step.isa.add_f32s(a, b) }
    }

    /// # Safety
    /// A vector may be read, or if it is not `WHOLE` the channels that are left from `c` on.
    #[inline(always)]
    #[allow(unsafe_code, reason = "tile code")]
    unsafe fn load<const WHOLE: bool>(&self, at: *const T, c: usize) -> I::f32s {
        // SAFETY: by the caller.
        unsafe {
            if WHOLE { widen::<I, T>(at) } else { widen_first(self.step.isa, at, self.channels.end - c) }
        }
    }

    /// Ends a sum or maximum.
    ///
    /// # Safety
    /// A vector may be written, or if it is not `WHOLE` the channels that are left from `c` on.
    #[inline(always)]
    #[allow(unsafe_code, reason = "tile code")]
    unsafe fn store<const WHOLE: bool>(&self, at: *mut T, value: I::f32s, c: usize) {
        let isa = self.step.isa;
        let bias = self.step.bias.as_ptr().wrapping_add(c);
        let width = if WHOLE { I::F32_LANES } else { self.channels.end - c };
        // SAFETY: a bias for each channel; the rest by the caller.
        unsafe {
            let mut y = isa.fma(value, self.scale, load_first(isa, bias, width));
            if self.step.pool.epilogue.relu {
                y = isa.max_f32s(y, isa.splat_f32s(0.0));
            }
            narrow_first(isa, at, y, width);
        }
    }
}
