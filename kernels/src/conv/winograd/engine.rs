//! The loops of all transforms: transform tiles of the image, multiply, transform back.
//!
//! They are generic over the two one-dimensional transforms; with the identity on one axis the
//! algorithm is one-dimensional. The image is read with bounds, not with a halo, so that any source
//! will do: where a tile hangs over an edge, a pixel of zeros is read. Transformed
//! filters `U` are computed in f64, once.
//!
//! Whatever the types of source and destinations, all between is f32. Samples of another type than
//! the one that a kernel is made for, and vectors that are not whole, go through a patch.
//!
//! Sums over channels make most of the error, since the output transform magnifies it. They are
//! taken in parts ([`Products`]).

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use half::bf16;

use super::convert::{Pixels, widen_tile};
use super::next_tile::NextTile;
use super::outputs::Outputs;
use super::tiling::{Place, Span, Tiling};
use super::transform::Fixed;
use super::transformed::Transformed;
use crate::arch::prefetch::{LINE, to_l1, to_l2};
use crate::conv::{Buffer, Dtype, Io, Isa, Prepared, Request, Scratch, Signature, round_up};
use crate::gemm::panels::{Panel, Panels};
use crate::gemm::product::Products;
use crate::tensor::Element;
use crate::vector::{load, widen};

pub(super) struct PreparedTransform<I, M> {
    isa: I,
    multiply: PhantomData<M>,
    signature: Signature,
    tiling: Tiling,
    /// A panel holds its matrix `[c, width]` of each point in turn.
    panels: Panels,
    /// What the samples of each point are multiplied by in V.
    scales: Vec<f32>,
    m_pitch: usize,
    /// Rows of a register block.
    pixels: usize,
    block: usize,
    /// Groups of panels: units of a block.
    groups: usize,
}

impl<I: Isa, M: Transformed<I>> PreparedTransform<I, M> {
    pub(super) fn new(isa: I, tiling: Tiling, request: &Request) -> Self {
        let (vectors, filters) = (request.tuning("vectors"), request.folded());
        let (panels, scales) = M::pack(isa, &tiling, vectors, &filters);
        Self {
            isa,
            multiply: PhantomData,
            scales,
            signature: request.signature(),
            tiling,
            m_pitch: round_up(panels.widest()),
            groups: request.tuning("groups").min(panels.list.len()),
            panels,
            pixels: request.tuning("pixels"),
            block: request.tuning("block"),
        }
    }

    /// Computes units with transforms of known sizes, one function each: inlined, all would be one.
    #[inline(never)]
    fn transform<const N1: usize, const M1: usize, const N2: usize, const M2: usize, const U: usize>(
        &self,
        units: Range<usize>,
        io: &Io,
        v: *mut M::Source,
        swap: bool,
    ) {
        self.isa.vectorize(Run::<I, M, N1, M1, N2, M2, U> { step: self, units, io, v, swap })
    }

    fn blocks(&self, n: usize) -> usize {
        (n * self.tiling.tiles()).div_ceil(self.block)
    }

    /// Elements from a row of V to the next: whole vectors, and rows that do not share cache sets.
    fn v_pitch(&self) -> usize {
        let line = LINE * size_of::<f32>() / size_of::<M::Source>();
        self.tiling.conv.channels.next_multiple_of(line) + line
    }

    /// Elements from the matrix of a point to that of the next, in V and in M.
    fn point_pitch(&self) -> [usize; 2] {
        [self.block * self.v_pitch(), self.block * self.m_pitch]
    }

    /// Elements of f32 that M takes.
    fn m_len(&self) -> usize {
        self.tiling.points() * self.point_pitch()[1]
    }

    /// Elements of f32 that V takes.
    fn v_len(&self) -> usize {
        self.tiling.points() * self.point_pitch()[0] * size_of::<M::Source>() / size_of::<f32>()
    }
}

impl<I: Isa, M: Transformed<I>> Prepared for PreparedTransform<I, M> {
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
        self.v_len() + self.m_len() + round_up(self.tiling.conv.channels)
    }

    fn units(&self, _: usize, n: usize) -> usize {
        self.groups * self.blocks(n)
    }

    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, scratch: &mut Scratch) {
        let ([down, across], v) = (&self.tiling.transforms, scratch.worker.cast());
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

/// The units of a step whose axes of `N1` and `N2` are down and across, or the other way round
/// where `swap` is set.
///
/// # Safety of its functions
/// What they read of the image, V, M, a patch, columns or sums has been written, and what they
/// write of these and of the outputs is this caller's alone: a vector at each place that their
/// arguments name.
struct Run<
    'a,
    I: Isa,
    M: Transformed<I>,
    const N1: usize,
    const M1: usize,
    const N2: usize,
    const M2: usize,
    const U: usize,
> {
    step: &'a PreparedTransform<I, M>,
    units: Range<usize>,
    io: &'a Io<'a>,
    /// The worker's scratch: V, then M, then a pixel of zeros.
    v: *mut M::Source,
    swap: bool,
}

impl<
    I: Isa,
    M: Transformed<I>,
    const N1: usize,
    const M1: usize,
    const N2: usize,
    const M2: usize,
    const U: usize,
> pulp::WithSimd for Run<'_, I, M, N1, M1, N2, M2, U>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let step = self.step;
        let images = self.io.images();
        let (tiles, blocks) = (images * step.tiling.tiles(), step.blocks(images));
        let mut transformed = None;
        // SAFETY: this worker's scratch.
        unsafe { self.m().add(step.m_len()).write_bytes(0, round_up(step.tiling.conv.channels)) };
        for unit in self.units.clone() {
            let (block, group, panels) = (unit / step.groups, unit % step.groups, &step.panels.list);
            let group = panels.len() * group / step.groups..panels.len() * (group + 1) / step.groups;
            let block_tiles = tiles * block / blocks..tiles * (block + 1) / blocks;
            // SAFETY: at most `step.block` tiles fit V and M; the outputs of tiles and panels are
            // this unit's.
            unsafe {
                if transformed != Some(block) {
                    for (row, places) in self.rows(block_tiles.clone()) {
                        self.input(places, self.v.wrapping_add(row * step.v_pitch()));
                    }
                    transformed = Some(block);
                }
                for panel in &panels[group] {
                    self.multiply(block_tiles.len(), panel);
                    for (row, places) in self.rows(block_tiles.clone()) {
                        self.output(places, self.m().wrapping_add(row * step.m_pitch), panel);
                    }
                }
            }
        }
    }
}

impl<
    I: Isa,
    M: Transformed<I>,
    const N1: usize,
    const M1: usize,
    const N2: usize,
    const M2: usize,
    const U: usize,
> Run<'_, I, M, N1, M1, N2, M2, U>
{
    #[inline(always)]
    fn m(&self) -> *mut f32 {
        self.v.cast::<f32>().wrapping_add(self.step.v_len())
    }

    /// Down and across, in the order of the axes.
    #[inline(always)]
    fn by_axis<T>(&self, [down, across]: [T; 2]) -> [T; 2] {
        if self.swap { [across, down] } else { [down, across] }
    }

    #[inline(always)]
    fn spans(&self, place: Place) -> [Span; 2] {
        self.by_axis(self.step.tiling.spans(place))
    }

    /// Rows of V and M of some tiles: their numbers, and the places of tile and next tile.
    #[inline(always)]
    fn rows(&self, tiles: Range<usize>) -> impl Iterator<Item = (usize, [Place; 2])> {
        let (tiling, images) = (&self.step.tiling, self.io.images());
        let mut next = tiling.place(tiles.start);
        (0..tiles.len()).map(move |row| {
            let place = next;
            next = tiling.next(place, images);
            (row, [place, next])
        })
    }

    /// M of some rows of V and a panel.
    #[inline(always)]
    unsafe fn multiply(&self, rows: usize, panel: &Panel) {
        let step = self.step;
        let [v_point, m_point] = step.point_pitch();
        let products = Products::<I, M> {
            isa: step.isa,
            points: N1 * N2,
            rows,
            depth: step.tiling.conv.channels,
            a: self.v,
            a_pitch: [step.v_pitch(), v_point],
            panel: step.panels.weights(panel),
            scales: step.panels.scales(panel),
            vectors: panel.vectors,
            dst: self.m(),
            dst_pitch: [step.m_pitch, m_point],
            pixels: step.pixels,
        };
        // SAFETY: by the caller.
        unsafe { products.run() };
    }

    /// `V[..] = Bt d B` for one tile; `v` is its row in the matrix of the first point.
    #[inline(always)]
    unsafe fn input(&self, [place, next]: [Place; 2], v: *mut M::Source) {
        let (src, channels, lanes) = (&self.io.src, self.step.tiling.conv.channels, I::F32_LANES);
        let bytes = src.dtype.bytes();
        let pitch = self.by_axis([src.pitch.row, src.pitch.pixel].map(|elements| elements * bytes));
        // Where the first sample would be; samples outside the image are never read.
        let first = |place: Place, [a, b]: [Span; 2]| {
            let origin = a.origin * pitch[0] as isize + b.origin * pitch[1] as isize;
            src.byte(place.n, 0, 0).wrapping_offset(origin)
        };
        let (spans, following) = (self.spans(place), first(next, self.spans(next)));
        let pixels = Pixels { first: first(place, spans), pitch, inside: spans.map(|s| s.inside) };
        let samples = self.samples(&pixels);
        // Written before it is read: the patch where vectors are not whole, the columns always.
        let mut patch = MaybeUninit::<[[I::f32s; N2]; N1]>::uninit();
        let patch = patch.as_mut_ptr().cast::<I::f32s>();
        let mut columns = MaybeUninit::<[[I::f32s; N2]; N1]>::uninit();
        let columns = columns.as_mut_ptr().cast::<I::f32s>();
        let is_native = src.dtype == M::Pixel::DTYPE;
        let whole = if is_native { channels / lanes * lanes } else { 0 };
        let mut patched = samples;
        if whole < channels {
            for (at, sample) in patched.as_flattened_mut().iter_mut().enumerate() {
                *sample = patch.cast::<M::Pixel>().wrapping_add(at * lanes);
                // SAFETY: inside the patch.
                unsafe { patch.add(at).write(self.step.isa.splat_f32s(0.0)) };
            }
        }
        for c in (0..channels).step_by(lanes) {
            let next = NextTile::new(following, pitch, c * bytes);
            // SAFETY: by the caller; vectors of pixels inside the image, of zeros, or of the patch; V
            // has a row of whole vectors for each point of the tile.
            unsafe {
                if c < whole {
                    self.input_columns(&samples, c, columns, next);
                } else {
                    self.gather(&pixels, c, patch);
                    self.input_columns(&patched, 0, columns, next);
                }
                self.input_rows(columns, v.wrapping_add(c));
            }
        }
    }

    /// Where each sample of a tile is: a pixel, or zeros where it lies outside the image.
    #[inline(always)]
    fn samples(&self, Pixels { first, pitch, inside: [a, b] }: &Pixels) -> [[*const M::Pixel; N2]; N1] {
        let zeros = self.m().wrapping_add(self.step.m_len()).cast_const().cast();
        let mut samples = [[zeros; N2]; N1];
        for (i, row) in samples.iter_mut().enumerate().take(a[1]).skip(a[0]) {
            for (j, sample) in row.iter_mut().enumerate().take(b[1]).skip(b[0]) {
                *sample = first.wrapping_add(i * pitch[0] + j * pitch[1]).cast();
            }
        }
        samples
    }

    /// Copies a vector, or what is left of one, of the pixels inside the image to their places in
    /// the patch, in the type that is transformed.
    #[inline(always)]
    unsafe fn gather(&self, pixels: &Pixels, c: usize, patch: *mut I::f32s) {
        let (isa, src) = (self.step.isa, &self.io.src);
        let width = self.step.tiling.conv.channels - c;
        if src.dtype == M::Pixel::DTYPE {
            for i in pixels.inside[0][0]..pixels.inside[0][1] {
                for j in pixels.inside[1][0]..pixels.inside[1][1] {
                    let pixel = pixels.at(i, j).cast::<M::Pixel>().wrapping_add(c);
                    // SAFETY: by the caller; less than a vector of each.
                    unsafe {
                        let to = patch.cast::<M::Pixel>().add((i * N2 + j) * I::F32_LANES);
                        to.copy_from_nonoverlapping(pixel, width);
                    }
                }
            }
        } else {
            // SAFETY: by the caller; only f32 is made of other types.
            unsafe { widen_tile::<I>(isa, src.dtype, pixels, [c, width], patch, N2) };
        }
    }

    /// `columns = Bt d` along the first axis, of a vector of each sample, `at` elements on.
    #[inline(always)]
    unsafe fn input_columns(
        &self,
        samples: &[[*const M::Pixel; N2]; N1],
        at: usize,
        columns: *mut I::f32s,
        mut next: NextTile,
    ) {
        let isa = self.step.isa;
        for j in 0..N2 {
            next.prefetch::<N1>([0, 1], to_l2);
            let mut column = MaybeUninit::<[I::f32s; N1]>::uninit();
            for (i, row) in samples.iter().enumerate() {
                // SAFETY: by the caller; inside the column.
                unsafe {
                    let vector = widen(isa, row[j].wrapping_add(at));
                    column.as_mut_ptr().cast::<I::f32s>().add(i).write(vector);
                }
            }
            // SAFETY: all have been written.
            let column = unsafe { column.assume_init() };
            for (i, value) in Fixed::<N1, M1, U>::input(isa, column).into_iter().enumerate() {
                // SAFETY: inside the columns.
                unsafe { columns.add(i * N2 + j).write(value) };
            }
        }
    }

    /// `V = columns B` along the second axis, from `v` in the first point on.
    #[inline(always)]
    unsafe fn input_rows(&self, columns: *const I::f32s, mut v: *mut M::Source) {
        let [point, _] = self.step.point_pitch();
        let scales = self.step.scales.as_ptr();
        for i in 0..N1 {
            // SAFETY: by the caller.
            let row = unsafe { columns.add(i * N2).cast::<[I::f32s; N2]>().read() };
            for (j, value) in Fixed::<N2, M2, U>::input(self.step.isa, row).into_iter().enumerate() {
                // SAFETY: by the caller.
                unsafe {
                    let scale = scales.wrapping_add(i * N2 + j);
                    M::store(self.step.isa, v.wrapping_add(j * point), value, scale);
                }
            }
            v = v.wrapping_add(N2 * point);
        }
    }

    /// `At M[..] A`, bias and ReLU for one tile and one panel; `m` is the tile's row in the matrix
    /// of the first point.
    #[inline(always)]
    unsafe fn output(&self, [place, next]: [Place; 2], m: *const f32, panel: &Panel) {
        let step = self.step;
        let dst = self.io.dst(panel.segment);
        let outputs = self.spans(place).map(|span| span.outputs);
        let bytes = dst.dtype.bytes();
        let pitch = self.by_axis([dst.pitch.row, dst.pitch.pixel].map(|elements| elements * bytes));
        let [down, across] = &step.tiling.transforms;
        let pixel = |place: Place| dst.byte(place.n, place.row * down.m, place.column * across.m);
        let (first, following) = (pixel(place), pixel(next));
        for vector in 0..panel.vectors {
            let k = vector * I::F32_LANES;
            let (channel, width) = ((panel.first + k) * bytes, panel.width - k);
            let mut sums = MaybeUninit::<[[I::f32s; N2]; M1]>::uninit();
            let sums = sums.as_mut_ptr().cast::<I::f32s>();
            let next = NextTile::new(following.wrapping_add(panel.first * bytes), pitch, k * bytes);
            let pixels = Outputs { first: first.wrapping_add(channel), pitch, inside: outputs, width };
            // SAFETY: by the caller; output pixels of this unit, of which `width` channels are the
            // panel's.
            unsafe {
                self.output_columns(m.wrapping_add(k), sums);
                self.output_rows(sums, self.bias(panel, k), panel.segment, &pixels, next);
            }
        }
    }

    /// The biases of a vector of a panel, or zeros.
    #[inline(always)]
    unsafe fn bias(&self, panel: &Panel, k: usize) -> I::f32s {
        if self.step.tiling.conv.segments[panel.segment].epilogue.bias {
            // SAFETY: a panel has a bias for each of its vectors.
            unsafe { load::<I>(self.step.panels.bias(panel).add(k)) }
        } else {
            self.step.isa.splat_f32s(0.0)
        }
    }

    /// `sums = At M` along the first axis, from `m` in the first point on.
    #[inline(always)]
    unsafe fn output_columns(&self, mut m: *const f32, sums: *mut I::f32s) {
        let [_, point] = self.step.point_pitch();
        for j in 0..N2 {
            // SAFETY: by the caller.
            let column = unsafe { line::<I, N1>(m, N2 * point) };
            m = m.wrapping_add(point);
            let column: [I::f32s; M1] = Fixed::<N1, M1, U>::output(self.step.isa, column);
            for (i, value) in column.into_iter().enumerate() {
                // SAFETY: inside the sums.
                unsafe { sums.add(i * N2 + j).write(value) };
            }
        }
    }

    /// `relu(sums A + bias)` along the second axis, of the pixels inside the output.
    #[inline(always)]
    unsafe fn output_rows(
        &self,
        sums: *const I::f32s,
        bias: I::f32s,
        segment: usize,
        outputs: &Outputs,
        mut next: NextTile,
    ) {
        let (isa, dtype) = (self.step.isa, self.io.dst(segment).dtype);
        let relu = self.step.tiling.conv.segments[segment].epilogue.relu;
        let floor = isa.splat_f32s(if relu { 0.0 } else { f32::NEG_INFINITY });
        for i in 0..outputs.inside[0] {
            // SAFETY: by the caller.
            let values = unsafe { sums.add(i * N2).cast::<[I::f32s; N2]>().read() };
            let values: [I::f32s; M2] = Fixed::<N2, M2, U>::output(isa, values);
            // SAFETY: by the caller.
            unsafe {
                match dtype {
                    Dtype::F32 => outputs.store::<I, f32, M2>(isa, i, values, [bias, floor]),
                    Dtype::Bf16 => outputs.store::<I, bf16, M2>(isa, i, values, [bias, floor]),
                    Dtype::U8 => outputs.store::<I, u8, M2>(isa, i, values, [bias, floor]),
                }
            }
            next.prefetch::<M2>([1, 0], to_l1);
        }
    }
}

/// `N` vectors, `pitch` elements apart.
///
/// # Safety
/// All may be read.
#[inline(always)]
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
