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
//! Sums over channels make most of the error, since the output transform magnifies it; they are taken in
//! parts of at most [`PART`] products.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::arch::prefetch::{LINE, to_l1, to_l2};
use crate::conv::transform::{Fixed, Transform};
use crate::cpu::Isa;
use crate::filter::{Filter, Folded};
use crate::gemm::panels::{Panel, Panels};
use crate::gemm::product::{PART, Products};
use crate::gemm::tile::{load, load_first, store, store_first};
use crate::kernel::{Bound, Io, Prepared, Tuning};
use crate::problem::{Conv, Problem};
use crate::scratch::{Buffer, Scratch, ScratchReq, round_up};
use crate::tensor::{Formats, ViewMut};

/// The transforms of a convolution, down and across, for `m` outputs along each axis where the kernel has
/// extent.
pub(super) fn transforms(conv: &Conv, m: usize) -> [Transform; 2] {
    [0, 1].map(|axis| match conv.window.kernel[axis] {
        1 => Transform::new(1, 1, 1),
        r => Transform::new(m, r, conv.window.stride[axis]),
    })
}

/// Tiles that cover the output of a convolution, down and across.
fn grid(conv: &Conv, transforms: &[Transform; 2]) -> [usize; 2] {
    let output = conv.output();
    [0, 1].map(|axis| output[axis].div_ceil(transforms[axis].m))
}

/// Tiles of one image.
pub(super) fn tiles(conv: &Conv, transforms: &[Transform; 2]) -> usize {
    grid(conv, transforms).into_iter().product()
}

/// Multiply-adds of the products; the transforms are left out.
pub(super) fn multiply_adds(conv: &Conv, transforms: &[Transform; 2]) -> u64 {
    let products: usize = transforms.iter().map(|t| t.n).product();
    (conv.batch * tiles(conv, transforms) * products * conv.channels * conv.filters()) as u64
}

/// A convolution with transformed filters.
pub(super) struct PreparedTiles<I> {
    isa: I,
    bound: Bound,
    conv: Conv,
    /// Down and across.
    transforms: [Transform; 2],
    /// A panel holds its matrix `[c, width]` of each point in turn.
    panels: Panels,
    /// Tiles of an image, and its output pixels, down and across.
    grid: [usize; 2],
    output: [usize; 2],
    /// Elements of a row of M.
    m_pitch: usize,
    pixels: usize,
    block: usize,
    groups: usize,
}

impl<I: Isa> PreparedTiles<I> {
    pub(super) fn new(
        isa: I,
        conv: &Conv,
        transforms: [Transform; 2],
        tuning: &Tuning,
        formats: &Formats,
        filters: &[Filter],
    ) -> Self {
        let folded: Vec<Folded> = filters.iter().map(Filter::folded).collect();
        let panels = pack(&transforms, conv, I::F32_LANES, tuning.get("vectors"), &folded);
        let widths = panels.list().iter().map(|panel| panel.vectors * I::F32_LANES);
        Self {
            isa,
            grid: grid(conv, &transforms),
            output: conv.output(),
            m_pitch: round_up(widths.max().expect("at least one panel")),
            bound: Bound::new(&Problem::Conv(conv.clone()), formats),
            conv: conv.clone(),
            transforms,
            groups: tuning.get("groups").min(panels.list().len()),
            panels,
            pixels: tuning.get("pixels"),
            block: tuning.get("block"),
        }
    }

    fn points(&self) -> usize {
        self.transforms.iter().map(|t| t.n).product()
    }

    fn tiles(&self, n: usize) -> usize {
        n * tiles(&self.conv, &self.transforms)
    }

    fn blocks(&self, n: usize) -> usize {
        self.tiles(n).div_ceil(self.block)
    }

    /// Panels of a group.
    fn group(&self, group: usize) -> &[Panel] {
        let panels = self.panels.list();
        &panels[panels.len() * group / self.groups..panels.len() * (group + 1) / self.groups]
    }

    /// Elements from a row of V to the next: whole vectors, and rows that do not share cache sets.
    fn v_pitch(&self) -> usize {
        round_up(self.conv.channels) + round_up(1)
    }
}

/// `U = G g Gt` for each input and output channel: one matrix `[c, k]` a point, in place of taps.
fn pack(
    [down, across]: &[Transform; 2],
    conv: &Conv,
    lanes: usize,
    vectors: usize,
    filters: &[Folded],
) -> Panels {
    let [r, s] = conv.window.kernel;
    let (c, points) = (conv.channels, down.n * across.n);
    let coefficients: Vec<f64> = (0..points * r * s)
        .map(|at| {
            let (point, tap) = (at / (r * s), at % (r * s));
            down.filter(point / across.n, tap / s) * across.filter(point % across.n, tap % s)
        })
        .collect();
    let mut sums = Vec::new();
    Panels::pack_rows(&conv.segments, lanes, vectors, points * c, filters, |filter, panel, row, packed| {
        let (point, channel) = (row / c, row % c);
        sums.clear();
        sums.resize(panel.width, 0.0);
        for (tap, &g) in coefficients[point * r * s..][..r * s].iter().enumerate() {
            if g != 0.0 {
                let weights = &filter.weights[(tap * c + channel) * filter.dims[3] + panel.first..];
                sums.iter_mut().zip(weights).for_each(|(sum, &w)| *sum += g * w as f64);
            }
        }
        packed.iter_mut().zip(&sums).for_each(|(u, &sum)| *u = sum as f32);
    })
}

impl<I: Isa> Prepared for PreparedTiles<I> {
    fn bound(&self) -> &Bound {
        &self.bound
    }

    fn packed(&self) -> Vec<&Buffer> {
        self.panels.buffers().into()
    }

    fn scratch(&self) -> ScratchReq {
        let row = self.v_pitch() + self.m_pitch;
        ScratchReq { shared: 0, worker: self.points() * self.block * row }
    }

    fn units(&self, _: usize, n: usize) -> usize {
        self.groups * self.blocks(n)
    }

    #[allow(unsafe_code, reason = "transform code")]
    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, scratch: &mut Scratch) {
        self.isa.vectorize(Run { step: self, units, io, v: scratch.worker })
    }
}

struct Run<'a, I: Isa> {
    step: &'a PreparedTiles<I>,
    units: Range<usize>,
    io: &'a Io<'a>,
    /// The worker's scratch: V, then M.
    v: *mut f32,
}

impl<I: Isa> pulp::WithSimd for Run<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let [down, across] = &self.step.transforms;
        macro_rules! arms {
            (square: $([$n:literal $m:literal $u:literal])* line: $([$ln:literal $lm:literal])*) => {
                match (down.n, across.n, down.m.max(across.m), down.stride.max(across.stride)) {
                    $(($n, $n, $m, $u) => self.blocks::<$n, $m, $n, $m, $u>(false),)*
                    $(($ln, 1, $lm, 1) => self.blocks::<$ln, $lm, 1, 1, 1>(false),)*
                    $((1, $ln, $lm, 1) => self.blocks::<$ln, $lm, 1, 1, 1>(true),)*
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

/// A tile's place: its image, and its row and column among the image's tiles.
#[derive(Clone, Copy)]
struct Place {
    n: usize,
    row: usize,
    column: usize,
}

impl Place {
    /// The tile that follows in `images`; the last is its own.
    #[inline(always)]
    fn next(self, [rows, columns]: [usize; 2], images: usize) -> Self {
        if self.column + 1 < columns {
            Self { column: self.column + 1, ..self }
        } else if self.row + 1 < rows {
            Self { column: 0, row: self.row + 1, ..self }
        } else if self.n + 1 < images {
            Self { column: 0, row: 0, n: self.n + 1 }
        } else {
            self
        }
    }
}

/// One axis of a tile: `samples` of the image from `origin` on, `outputs` of the output from `first` on.
#[derive(Clone, Copy)]
struct Span {
    /// First sample; negative in the padding.
    origin: isize,
    /// Samples that lie inside the image.
    inside: [usize; 2],
    /// Outputs that lie inside the output.
    outputs: usize,
}

impl<I: Isa> Run<'_, I> {
    /// Computes the units; the axes of `N1` and `N2` are down and across, or the other way round where
    /// `swap` is set.
    #[inline(always)]
    #[allow(unsafe_code, reason = "transform code")]
    fn blocks<const N1: usize, const M1: usize, const N2: usize, const M2: usize, const U: usize>(
        self,
        swap: bool,
    ) {
        let step = self.step;
        let images = self.io.images();
        let (tiles, blocks) = (step.tiles(images), step.blocks(images));
        let m = self.v.wrapping_add(N1 * N2 * step.block * step.v_pitch());
        let mut transformed = None;
        for unit in self.units.clone() {
            let (block, group) = (unit / step.groups, unit % step.groups);
            let first = tiles * block / blocks;
            let count = tiles * (block + 1) / blocks - first;
            let [rows, columns] = step.grid;
            let start =
                Place { n: first / (rows * columns), row: first / columns % rows, column: first % columns };
            if transformed != Some(block) {
                let mut place = start;
                for tile in 0..count {
                    let v = self.v.wrapping_add(tile * step.v_pitch());
                    let next = place.next(step.grid, images);
                    // SAFETY: `count` tiles of at most `block` fit V.
                    unsafe { self.input::<N1, M1, N2, M2, U>([place, next], swap, v) };
                    place = next;
                }
                transformed = Some(block);
            }
            for panel in step.group(group) {
                let products = Products {
                    isa: step.isa,
                    points: N1 * N2,
                    rows: count,
                    depth: step.conv.channels,
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
                    let next = place.next(step.grid, images);
                    // SAFETY: M holds the products of `count` tiles; their outputs are this unit's.
                    unsafe { self.output::<N1, M1, N2, M2, U>([place, next], swap, m, panel) };
                    place = next;
                }
            }
        }
    }

    /// The spans of a tile, in the order of the axes.
    #[inline(always)]
    fn spans(&self, place: Place, swap: bool) -> [Span; 2] {
        let Conv { image, window, .. } = &self.step.conv;
        let (output, padding) = (self.step.output, &window.padding);
        let span = |axis: usize, index: usize, before: usize| {
            let t = &self.step.transforms[axis];
            let first = index * t.m;
            let origin = (first * window.stride[axis]) as isize - before as isize;
            let clip = |at: isize| (at - origin).clamp(0, t.n as isize) as usize;
            let inside = [clip(0), clip(image[axis] as isize)];
            Span { origin, inside, outputs: t.m.min(output[axis] - first) }
        };
        let [down, across] = [span(0, place.row, padding.top), span(1, place.column, padding.left)];
        if swap { [across, down] } else { [down, across] }
    }

    /// `V[..] = Bt d B` for one tile; `v` is its row in the matrix of the first point.
    #[inline(always)]
    #[allow(unsafe_code, reason = "transform code")]
    unsafe fn input<const N1: usize, const M1: usize, const N2: usize, const M2: usize, const U: usize>(
        &self,
        [place, next]: [Place; 2],
        swap: bool,
        v: *mut f32,
    ) {
        let step = self.step;
        let isa = step.isa;
        let [a, b] = self.spans(place, swap);
        let (src, channels) = (&self.io.src, step.conv.channels);
        let mut pitch = [src.pitch.row, src.pitch.pixel];
        if swap {
            pitch.reverse();
        }
        // The first sample, from the first pixel of the image; samples outside are never read.
        let pixel = |place: Place, [a, b]: [Span; 2]| {
            let origin = a.origin * pitch[0] as isize + b.origin * pitch[1] as isize;
            src.pixel(place.n, 0, 0).wrapping_offset(origin)
        };
        let first = pixel(place, [a, b]);
        let following = pixel(next, self.spans(next, swap));
        let zero = isa.splat_f32s(0.0);
        let whole = a.inside == [0, N1] && b.inside == [0, N2] && channels.is_multiple_of(I::F32_LANES);
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
            if !whole {
                for i in a.inside[0]..a.inside[1] {
                    let mut at = d.wrapping_add(i * pitch[0] + b.inside[0] * pitch[1]);
                    for j in b.inside[0]..b.inside[1] {
                        // SAFETY: a pixel of the image, with `channels - c` more channels.
                        unsafe { patch.add(i * N2 + j).write(load_first(isa, at, channels - c)) };
                        at = at.wrapping_add(pitch[1]);
                    }
                }
                d = patch.cast_const().cast();
                pitch = [N2 * I::F32_LANES, I::F32_LANES];
            }
            for j in 0..N2 {
                if c.is_multiple_of(LINE) {
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
    #[allow(unsafe_code, reason = "transform code")]
    unsafe fn output<const N1: usize, const M1: usize, const N2: usize, const M2: usize, const U: usize>(
        &self,
        [place, next]: [Place; 2],
        swap: bool,
        m: *const f32,
        panel: &Panel,
    ) {
        let step = self.step;
        let isa = step.isa;
        let [a, b] = self.spans(place, swap);
        let zero = isa.splat_f32s(0.0);
        let stride = step.block * step.m_pitch;
        let epilogue = step.conv.segments[panel.segment].epilogue;
        let dst: ViewMut = self.io.dst(panel.segment);
        let mut pitch = [dst.pitch().row, dst.pitch().pixel];
        let [m1, m2] = [step.transforms[0].m, step.transforms[1].m];
        let pixel = |place: Place| dst.pixel(place.n, place.row * m1, place.column * m2);
        let first = pixel(place).wrapping_add(panel.first);
        let next = pixel(next).wrapping_add(panel.first);
        if swap {
            pitch.reverse();
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
            let whole = b.outputs == M2 && width >= I::F32_LANES;
            let mut row = first.wrapping_add(k);
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
                if k.is_multiple_of(LINE) {
                    near::<M2>(following, pitch[1], to_l1);
                    following = following.wrapping_add(pitch[0]);
                }
            }
        }
    }
}

/// `N` vectors, `pitch` elements apart.
///
/// # Safety
/// All may be read.
#[inline(always)]
#[allow(unsafe_code, reason = "transform code")]
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
