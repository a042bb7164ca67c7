//! Pooling: maximum and mean over a window, global pooling included.
//!
//! ```text
//! for output pixel:
//!   for 4 vectors of channels:
//!     for tap inside the image: acc = max(acc, x), or acc + x
//!     y = relu(acc * 1 / count)
//! ```
//!
//! Taps outside the image are left out rather than read as zeros, so that no halo is needed.

use std::ops::Range;

use crate::cpu::{Cpu, Isa};
use crate::filter::Filter;
use crate::gemm::tile::{load, load_first, store, store_first};
use crate::kernel::{Bound, Io, Kernel, Prepared, Refusal, Tuning, validate};
use crate::problem::{Pool, PoolKind, Problem};
use crate::scratch::{Buffer, Scratch, ScratchReq};
use crate::tensor::Formats;

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
        if pool.epilogue.bias {
            let found = "bias".to_string();
            return Err(Refusal::Shape { what: "epilogue", found, expected: "none or ReLU" });
        }
        let (window, p) = (&pool.window, &pool.window.padding);
        if p.top.max(p.bottom) >= window.kernel[0] || p.left.max(p.right) >= window.kernel[1] {
            let found = format!("{p:?}");
            return Err(Refusal::Shape { what: "padding", found, expected: "less than the window" });
        }
        Ok(())
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
        let bound = Bound::new(problem, formats);
        Ok(Box::new(PreparedPool { isa: self.isa, bound, pool: pool.clone() }))
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
        Vec::new()
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
    #[allow(unsafe_code, reason = "tile code")]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { step, units, io } = self;
        let isa = step.isa;
        let Pool { image, channels, ref window, kind, epilogue, .. } = step.pool;
        let [oh, ow] = step.pool.output();
        let dst = io.dst(0);
        for unit in units {
            let (row, chunk) = (unit / step.chunks(), unit % step.chunks());
            let (n, y) = (row / oh, row % oh);
            let end = channels.min((chunk + 1) * CHUNK);
            let rows = inside(y, window.stride[0], window.kernel[0], window.padding.top, image[0]);
            for x in 0..ow {
                let columns = inside(x, window.stride[1], window.kernel[1], window.padding.left, image[1]);
                let count = match kind {
                    PoolKind::Max => 1,
                    PoolKind::Average => rows.len() * columns.len(),
                    PoolKind::AverageCountingBorder => window.kernel[0] * window.kernel[1],
                };
                let tap = Taps { io, n, rows: rows.clone(), columns };
                let finish = Finish {
                    scale: isa.splat_f32s(1.0 / count as f32),
                    relu: epilogue.relu,
                    out: dst.pixel(n, y, x),
                };
                let mut c = chunk * CHUNK;
                while c + VECTORS * I::F32_LANES <= end {
                    // SAFETY: whole vectors of channels of this unit.
                    unsafe { reduce::<I, VECTORS, true>(isa, kind, &tap, &finish, c, end) };
                    c += VECTORS * I::F32_LANES;
                }
                while c < end {
                    // SAFETY: the channels that are left of this unit.
                    unsafe { reduce::<I, 1, false>(isa, kind, &tap, &finish, c, end) };
                    c += I::F32_LANES;
                }
            }
        }
    }
}

/// The pixels under a window.
struct Taps<'a> {
    io: &'a Io<'a>,
    n: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

/// What becomes of a sum or maximum.
struct Finish<I: Isa> {
    scale: I::f32s,
    relu: bool,
    out: *mut f32,
}

/// Reduces `V` vectors of channels from `c` on; unless they are `WHOLE` they may end at `end`.
///
/// # Safety
/// The channels up to `end`, or `V` whole vectors, may be read from all taps and written at `out` by this
/// caller alone.
#[inline(always)]
#[allow(unsafe_code, reason = "tile code")]
unsafe fn reduce<I: Isa, const V: usize, const WHOLE: bool>(
    isa: I,
    kind: PoolKind,
    taps: &Taps,
    finish: &Finish<I>,
    c: usize,
    end: usize,
) {
    let zero = isa.splat_f32s(0.0);
    let start = if kind == PoolKind::Max { isa.splat_f32s(f32::NEG_INFINITY) } else { zero };
    let mut acc = [start; V];
    for h in taps.rows.clone() {
        let mut pixel = taps.io.src.pixel(taps.n, h as isize, taps.columns.start as isize).wrapping_add(c);
        for _ in taps.columns.clone() {
            for (v, acc) in acc.iter_mut().enumerate() {
                let at = pixel.wrapping_add(v * I::F32_LANES);
                // SAFETY: by the caller.
                let x = unsafe { if WHOLE { load::<I>(at) } else { load_first(isa, at, end - c) } };
                *acc = if kind == PoolKind::Max { isa.max_f32s(*acc, x) } else { isa.add_f32s(*acc, x) };
            }
            pixel = pixel.wrapping_add(taps.io.src.pitch.pixel);
        }
    }
    for (v, acc) in acc.into_iter().enumerate() {
        let mut y = if kind == PoolKind::Max { acc } else { isa.mul_f32s(acc, finish.scale) };
        if finish.relu {
            y = isa.max_f32s(y, zero);
        }
        let at = finish.out.wrapping_add(c + v * I::F32_LANES);
        // SAFETY: by the caller.
        unsafe { if WHOLE { store::<I>(at, y) } else { store_first(isa, at, y, end - c) } };
    }
}
