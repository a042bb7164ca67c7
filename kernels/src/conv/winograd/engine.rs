//! The engine of the fast algorithms: transform tiles of the image, multiply, transform back.
//!
//! ```text
//! for block of tiles:                        V stays in the worker's second-level cache
//!   for tile in block:                       input transform, vectorised over channels
//!     V[0..n*n][tile] = Bt d B
//!   for panel of output channels:            M stays in the first
//!     for point in 0..n*n:                   n*n products [tiles, c] x [c, panel]
//!       M[point] = V[point] * U[panel][point]
//!     for tile in block:                     output transform, bias and ReLU
//!       y = At M[..][tile] A
//! ```
//!
//! It is generic over the two one-dimensional transforms; with the identity on one axis it is a
//! one-dimensional algorithm. The image is read with bounds instead of a halo, so that any source will
//! do: a tile that hangs over an edge is patched with zeros, vector by vector. Transformed filters `U`
//! are computed in f64 once.
//!
//! Source and destinations may be bf16: a tile is then widened to a patch, or rounded from one, outside the
//! transforms, and all between is f32.
//!
//! Sums over channels make most of the error, since the output transform magnifies it; they are taken in
//! parts of at most [`PART`] products.

use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;

use super::bf16::{Lower, narrow_tile, widen_tile};
use super::tiling::{Place, Span, Tiling, pack};
use super::transform::Fixed;
use crate::arch::prefetch::{LINE, to_l1, to_l2};
use crate::cpu::Isa;
use crate::filter::{Filter, Folded};
use crate::gemm::panels::{Panel, Panels};
use crate::gemm::product::{PART, Products};
use crate::kernel::{Io, Prepared, Signature, Tuning};
use crate::memory::{Buffer, Scratch, ScratchReq, round_up};
use crate::problem::Problem;
use crate::tensor::{Dtype, Formats, ViewMut};
use crate::vector::{load, load_first, store, store_first};

/// A convolution with transformed filters.
pub(super) struct PreparedTiles<I> {
    isa: I,
    signature: Signature,
    tiling: Tiling,
    /// A panel holds its matrix `[c, width]` of each point in turn.
    panels: Panels,
    /// Elements of a row of M.
    m_pitch: usize,
    pixels: usize,
    block: usize,
    groups: usize,
}

impl<I: Isa> PreparedTiles<I> {
    pub(super) fn new(
        isa: I,
        tiling: Tiling,
        tuning: &Tuning,
        formats: &Formats,
        filters: &[Filter],
    ) -> Self {
        let folded: Vec<Folded> = filters.iter().map(Filter::folded).collect();
        let panels = pack(isa, &tiling, tuning.get("vectors"), &folded);
        let widths = panels.list().iter().map(|panel| panel.vectors * I::F32_LANES);
        Self {
            isa,
            m_pitch: round_up(widths.max().expect("at least one panel")),
            signature: Signature::new(&Problem::Conv(tiling.conv.clone()), formats),
            tiling,
            groups: tuning.get("groups").min(panels.list().len()),
            panels,
            pixels: tuning.get("pixels"),
            block: tuning.get("block"),
        }
    }

    /// Computes units with transforms of known sizes: a function of its own for each, or all would be one.
    #[inline(never)]
    fn transform<const N1: usize, const M1: usize, const N2: usize, const M2: usize, const U: usize>(
        &self,
        units: Range<usize>,
        io: &Io,
        v: *mut f32,
        swap: bool,
    ) {
        self.isa.vectorize(Run::<I, N1, M1, N2, M2, U> { step: self, units, io, v, swap })
    }

    fn blocks(&self, n: usize) -> usize {
        (n * self.tiling.tiles()).div_ceil(self.block)
    }

    /// Panels of a group.
    fn group(&self, group: usize) -> &[Panel] {
        let panels = self.panels.list();
        &panels[panels.len() * group / self.groups..panels.len() * (group + 1) / self.groups]
    }

    /// Elements from a row of V to the next: whole vectors, and rows that do not share cache sets.
    fn v_pitch(&self) -> usize {
        round_up(self.tiling.conv.channels) + round_up(1)
    }
}

impl<I: Isa> Prepared for PreparedTiles<I> {
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
        let row = self.v_pitch() + self.m_pitch;
        ScratchReq { shared: 0, worker: self.tiling.points() * self.block * row }
    }

    fn units(&self, _: usize, n: usize) -> usize {
        self.groups * self.blocks(n)
    }

    #[allow(unsafe_code, reason = "vector code")]
    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, scratch: &mut Scratch) {
        let ([down, across], v) = (&self.tiling.transforms, scratch.worker);
        macro_rules! arms {
            (square: $([$n:literal $m:literal $u:literal])* line: $([$ln:literal $lm:literal])*) => {
                match (down.n, across.n, down.m.max(across.m), down.stride.max(across.stride)) {
                    $(($n, $n, $m, $u) => self.transform::<$n, $m, $n, $m, $u>(units, io, v, false),)*
                    $(($ln, 1, $lm, 1) => self.transform::<$ln, $lm, 1, 1, 1>(units, io, v, false),)*
                    $((1, $ln, $lm, 1) => self.transform::<$ln, $lm, 1, 1, 1>(units, io, v, true),)*
                    other => unreachable!("no transform {other:?}"),
                }
            };
        }
        arms! {
            square: [4 2 1] [5 3 1] [6 4 1] [7 5 1] [8 6 1] [6 2 1] [7 3 1] [8 4 1] [9 5 1]
                [5 2 2] [7 3 2] [9 4 2]
            line: [4 2] [5 3] [6 4] [8 6] [6 2] [8 4] [8 2] [9 3] [10 4] [11 5] [12 6]
        }
    }
}

/// The units of a step whose axes of `N1` and `N2` are down and across, or the other way round where
/// `swap` is set.
struct Run<'a, I: Isa, const N1: usize, const M1: usize, const N2: usize, const M2: usize, const U: usize> {
    step: &'a PreparedTiles<I>,
    units: Range<usize>,
    io: &'a Io<'a>,
    /// The worker's scratch: V, then M.
    v: *mut f32,
    swap: bool,
}

impl<I: Isa, const N1: usize, const M1: usize, const N2: usize, const M2: usize, const U: usize>
    pulp::WithSimd for Run<'_, I, N1, M1, N2, M2, U>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.blocks();
    }
}

impl<I: Isa, const N1: usize, const M1: usize, const N2: usize, const M2: usize, const U: usize>
    Run<'_, I, N1, M1, N2, M2, U>
{
    /// Computes the units.
    #[inline(always)]
    #[allow(unsafe_code, reason = "vector code")]
    fn blocks(self) {
        let step = self.step;
        let images = self.io.images();
        let (tiles, blocks) = (images * step.tiling.tiles(), step.blocks(images));
        let m = self.v.wrapping_add(N1 * N2 * step.block * step.v_pitch());
        let mut transformed = None;
        for unit in self.units.clone() {
            let (block, group) = (unit / step.groups, unit % step.groups);
            let first = tiles * block / blocks;
            let count = tiles * (block + 1) / blocks - first;
            let start = step.tiling.place(first);
            if transformed != Some(block) {
                let mut place = start;
                for tile in 0..count {
                    let v = self.v.wrapping_add(tile * step.v_pitch());
                    let next = step.tiling.next(place, images);
                    // SAFETY: `count` tiles of at most `block` fit V.
                    unsafe { self.input([place, next], v) };
                    place = next;
                }
                transformed = Some(block);
            }
            for panel in step.group(group) {
                let products = Products {
                    isa: step.isa,
                    points: N1 * N2,
                    rows: count,
                    depth: step.tiling.conv.channels,
                    part: PART,
                    a: self.v,
                    a_pitch: [step.v_pitch(), step.block * step.v_pitch()],
                    panel: step.panels.weights(panel),
                    vectors: panel.vectors,
                    dst: m,
                    dst_pitch: [step.m_pitch, step.block * step.m_pitch],
                    pixels: step.pixels,
                };
                // SAFETY: V holds `count` transformed rows a point, M has room for a panel.
                unsafe { products.run() };
                let mut place = start;
                for tile in 0..count {
                    let m = m.wrapping_add(tile * step.m_pitch);
                    let next = step.tiling.next(place, images);
                    // SAFETY: M holds the products of `count` tiles; their outputs are this unit's.
                    unsafe { self.output([place, next], m, panel) };
                    place = next;
                }
            }
        }
    }

    /// The spans of a tile, in the order of the axes.
    #[inline(always)]
    fn spans(&self, place: Place) -> [Span; 2] {
        let [down, across] = self.step.tiling.spans(place);
        if self.swap { [across, down] } else { [down, across] }
    }

    /// `V[..] = Bt d B` for one tile; `v` is its row in the matrix of the first point.
    #[inline(always)]
    #[allow(unsafe_code, reason = "vector code")]
    unsafe fn input(&self, [place, next]: [Place; 2], v: *mut f32) {
        let step = self.step;
        let isa = step.isa;
        let [a, b] = self.spans(place);
        let (src, channels) = (&self.io.src, step.tiling.conv.channels);
        let mut pitch = [src.pitch.row, src.pitch.pixel];
        if self.swap {
            pitch.reverse();
        }
        // The first sample, from the first pixel of the image; samples outside are never read.
        let pixel = |place: Place, [a, b]: [Span; 2]| {
            let origin = a.origin * pitch[0] as isize + b.origin * pitch[1] as isize;
            src.byte(place.n, 0, 0).cast::<f32>().wrapping_offset(origin)
        };
        let first = pixel(place, [a, b]);
        let following = pixel(next, self.spans(next));
        let zero = isa.splat_f32s(0.0);
        let wide = src.dtype == Dtype::F32;
        let whole =
            wide && a.inside == [0, N1] && b.inside == [0, N2] && channels.is_multiple_of(I::F32_LANES);
        // Written before it is read: the patch where the tile is not whole, the columns always.
        let mut patch = MaybeUninit::<[[I::f32s; N2]; N1]>::uninit();
        let patch = patch.as_mut_ptr().cast::<I::f32s>();
        let mut columns = MaybeUninit::<[[I::f32s; N2]; N1]>::uninit();
        let columns = columns.as_mut_ptr().cast::<I::f32s>();
        if !whole {
            for at in 0..N1 * N2 {
                // SAFETY: inside the patch.
                unsafe { patch.add(at).write(zero) };
            }
        }
        let stride = step.block * step.v_pitch();
        for c in (0..channels).step_by(I::F32_LANES) {
            let mut d = first.wrapping_add(c);
            let mut following = following.wrapping_add(c);
            let [from, mut pitch] = [pitch; 2];
            if !wide {
                let pixels = [a.inside, b.inside].map(|[from, to]| from..to);
                let origin = a.origin * pitch[0] as isize + b.origin * pitch[1] as isize + c as isize;
                let first = src.pixel::<bf16>(place.n, 0, 0).wrapping_offset(origin);
                let tile = Lower { first: first.cast_mut(), pitch, pixels, width: channels - c };
                // SAFETY: pixels of the image, with `channels - c` more channels; the patch holds them.
                unsafe { widen_tile(isa, &tile, patch, N2) };
            } else if !whole {
                for i in a.inside[0]..a.inside[1] {
                    let mut at = d.wrapping_add(i * pitch[0] + b.inside[0] * pitch[1]);
                    for j in b.inside[0]..b.inside[1] {
                        // SAFETY: a pixel of the image, with `channels - c` more channels.
                        unsafe { patch.add(i * N2 + j).write(load_first(isa, at, channels - c)) };
                        at = at.wrapping_add(pitch[1]);
                    }
                }
            }
            if !whole {
                d = patch.cast_const().cast();
                pitch = [N2 * I::F32_LANES, I::F32_LANES];
            }
            for j in 0..N2 {
                if c.is_multiple_of(LINE) && wide {
                    near::<N1>(following, from[0], to_l2);
                    following = following.wrapping_add(from[1]);
                }
                // SAFETY: vectors of pixels inside the image, or of the patch.
                let column = unsafe { line::<I, N1>(d, pitch[0]) };
                d = d.wrapping_add(pitch[1]);
                for (i, value) in Fixed::<N1, M1, U>::input(isa, column).into_iter().enumerate() {
                    // SAFETY: inside the columns.
                    unsafe { columns.add(i * N2 + j).write(value) };
                }
            }
            let mut v = v.wrapping_add(c);
            for i in 0..N1 {
                // SAFETY: all columns have been written.
                let row = unsafe { columns.add(i * N2).cast::<[I::f32s; N2]>().read() };
                for (j, value) in Fixed::<N2, M2, U>::input(isa, row).into_iter().enumerate() {
                    // SAFETY: V has a row of whole vectors for each point of the tile.
                    unsafe { store::<I>(v.wrapping_add(j * stride), value) };
                }
                v = v.wrapping_add(N2 * stride);
            }
        }
    }

    /// `At M[..] A`, bias and ReLU for one tile and one panel; `m` is the tile's row in the matrix of the
    /// first point.
    #[inline(always)]
    #[allow(unsafe_code, reason = "vector code")]
    unsafe fn output(&self, [place, next]: [Place; 2], m: *const f32, panel: &Panel) {
        let step = self.step;
        let isa = step.isa;
        let [a, b] = self.spans(place);
        let zero = isa.splat_f32s(0.0);
        let stride = step.block * step.m_pitch;
        let epilogue = step.tiling.conv.segments[panel.segment].epilogue;
        let dst: ViewMut = self.io.dst(panel.segment);
        let mut pitch = [dst.pitch().row, dst.pitch().pixel];
        let [m1, m2] = [0, 1].map(|axis| step.tiling.transforms[axis].m);
        let wide = dst.dtype() == Dtype::F32;
        let pixel = |place: Place| dst.byte(place.n, place.row * m1, place.column * m2);
        let lower = pixel(place).cast::<bf16>().wrapping_add(panel.first);
        let mut patch = MaybeUninit::<[[I::f32s; M2]; M1]>::uninit();
        let patch = patch.as_mut_ptr().cast::<f32>();
        let first = if wide { pixel(place).cast::<f32>().wrapping_add(panel.first) } else { patch };
        let next = pixel(next).cast::<f32>().wrapping_add(panel.first);
        if self.swap {
            pitch.reverse();
        }
        let lower_pitch = pitch;
        if !wide {
            pitch = [M2 * I::F32_LANES, I::F32_LANES];
        }
        for vector in 0..panel.vectors {
            let k = vector * I::F32_LANES;
            let mut sums = MaybeUninit::<[[I::f32s; N2]; M1]>::uninit();
            let sums = sums.as_mut_ptr().cast::<I::f32s>();
            let mut at = m.wrapping_add(k);
            for j in 0..N2 {
                // SAFETY: M has a row of the panel's vectors for each point of the tile.
                let column = unsafe { line::<I, N1>(at, N2 * stride) };
                at = at.wrapping_add(stride);
                let column: [I::f32s; M1] = Fixed::<N1, M1, U>::output(isa, column);
                for (i, value) in column.into_iter().enumerate() {
                    // SAFETY: inside the sums.
                    unsafe { sums.add(i * N2 + j).write(value) };
                }
            }
            let bias = if epilogue.bias {
                // SAFETY: a panel has a bias for each of its vectors.
                unsafe { load::<I>(step.panels.bias(panel).add(k)) }
            } else {
                zero
            };
            let floor = isa.splat_f32s(if epilogue.relu { 0.0 } else { f32::NEG_INFINITY });
            let width = panel.width - k;
            let whole = !wide || b.outputs == M2 && width >= I::F32_LANES;
            let mut row = if wide { first.wrapping_add(k) } else { first };
            let mut following = next.wrapping_add(k);
            for i in 0..a.outputs {
                // SAFETY: all sums have been written.
                let values = unsafe { sums.add(i * N2).cast::<[I::f32s; N2]>().read() };
                let values: [I::f32s; M2] = Fixed::<N2, M2, U>::output(isa, values);
                let mut at = row;
                for (j, value) in values.into_iter().enumerate() {
                    let value = isa.max_f32s(floor, isa.add_f32s(value, bias));
                    if whole {
                        // SAFETY: a vector of an output pixel of this unit.
                        unsafe { store::<I>(at, value) };
                    } else if j < b.outputs {
                        // SAFETY: an output pixel of this unit; `width` channels are the panel's.
                        unsafe { store_first(isa, at, value, width) };
                    }
                    at = at.wrapping_add(pitch[1]);
                }
                row = row.wrapping_add(pitch[0]);
                if k.is_multiple_of(LINE) && wide {
                    near::<M2>(following, pitch[1], to_l1);
                    following = following.wrapping_add(pitch[0]);
                }
            }
            if !wide {
                let first = lower.wrapping_add(k);
                let tile = Lower { first, pitch: lower_pitch, pixels: [0..a.outputs, 0..b.outputs], width };
                // SAFETY: output pixels of this unit, of which `width` channels are the panel's; all have
                // been written to the patch.
                unsafe { narrow_tile(isa, &tile, patch.cast_const().cast(), M2) };
            }
        }
    }
}

/// `N` vectors, `pitch` elements apart.
///
/// # Safety
/// All may be read.
#[inline(always)]
#[allow(unsafe_code, reason = "vector code")]
unsafe fn line<I: Isa, const N: usize>(mut at: *const f32, pitch: usize) -> [I::f32s; N] {
    let mut vectors = MaybeUninit::<[I::f32s; N]>::uninit();
    for i in 0..N {
        // SAFETY: by the caller; inside the vectors.
        unsafe { vectors.as_mut_ptr().cast::<I::f32s>().add(i).write(load::<I>(at)) };
        at = at.wrapping_add(pitch);
    }
    // SAFETY: all have been written.
    unsafe { vectors.assume_init() }
}

/// Brings `N` pixels near, `pitch` elements apart.
#[inline(always)]
fn near<const N: usize>(mut at: *const f32, pitch: usize, prefetch: fn(*const f32)) {
    for _ in 0..N {
        prefetch(at);
        at = at.wrapping_add(pitch);
    }
}
