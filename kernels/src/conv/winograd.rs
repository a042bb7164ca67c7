//! Winograd convolution: fewer multiplications by transforming tiles of the image.
//!
//! F(m x m, r x r) computes `m * m` outputs from `n * n` products, `n = m + r - 1`, where a direct sum
//! takes `m * m * r * r` (see [`super::transform`]). The engine is generic over the two one-dimensional
//! transforms; with the identity on one axis it is the one-dimensional algorithm of
//! [`super::separable`].
//!
//! ```text
//! for block of tiles, group of panels:       V and M stay in the worker's L2
//!   for tile in block:                       input transform, vectorised over channels
//!     V[0..n*n][tile] = Bt d B
//!   for point in 0..n*n:                     n*n products [tiles, c] x [c, k]
//!     M[point] = V[point] * U[point]
//!   for tile in block:                       output transform, bias and ReLU
//!     y = At M[..][tile] A
//! ```
//!
//! The transforms read the image with bounds instead of a halo, so that any source will do. Transformed
//! filters `U` are computed in f64 once. They are `n * n / (r * r)` times as large as the filters and
//! stream by for each block: large tiles of large filters on small maps are limited by that.

use std::ops::Range;

use crate::conv::direct::{conv_of, tile_sizes};
use crate::conv::transform::Transform;
use crate::cpu::{Cpu, Isa};
use crate::filter::{Filter, Folded};
use crate::gemm::panels::Panels;
use crate::gemm::product::Product;
use crate::gemm::tile::{load, load_first, store, store_first};
use crate::kernel::{Bound, Io, Kernel, Numerics, Prepared, Refusal, Tuning, validate};
use crate::problem::{Conv, Problem};
use crate::scratch::{Buffer, Scratch, ScratchReq, round_up};
use crate::tensor::{Dtype, Formats};

/// Square kernels of stride 1, for one instruction set.
#[derive(Debug)]
pub struct Winograd<I> {
    isa: I,
}

impl<I: Isa> Winograd<I> {
    /// For the table.
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Refusal> {
        Ok(Box::new(Self { isa: I::of(cpu)? }))
    }
}

/// Refuses strides, which the fast algorithms have no use for.
pub(super) fn require_unit_stride(conv: &Conv) -> Result<(), Refusal> {
    let [a, b] = conv.window.stride;
    if [a, b] == [1, 1] {
        return Ok(());
    }
    Err(Refusal::Shape { what: "stride", found: format!("{a}x{b}"), expected: "1x1" })
}

impl<I: Isa> Kernel for Winograd<I> {
    fn supports(&self, problem: &Problem) -> Result<(), Refusal> {
        let conv = conv_of(problem)?;
        require_unit_stride(conv)?;
        match conv.window.kernel {
            [3, 3] | [5, 5] => Ok(()),
            [r, s] => {
                Err(Refusal::Shape { what: "kernel", found: format!("{r}x{s}"), expected: "3x3 or 5x5" })
            }
        }
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = conv_of(problem) else { return Vec::new() };
        let outputs: &[usize] = if conv.window.kernel == [3, 3] { &[4, 2, 6] } else { &[4, 2] };
        tunings::<I>(conv, outputs)
    }

    fn numerics(&self, problem: &Problem, tuning: &Tuning) -> Numerics {
        let kernel = conv_of(problem).map_or([3, 3], |conv| conv.window.kernel);
        let growth = match (tuning.get("m"), kernel[0]) {
            (2, 3) => 1.2,
            (4, 3) => 4.0,
            (6, 3) => 15.0,
            (2, _) => 5.0,
            _ => 7.0,
        };
        Numerics { rounding: Dtype::F32, growth }
    }

    fn multiply_adds(&self, problem: &Problem, tuning: &Tuning) -> u64 {
        let Ok(conv) = conv_of(problem) else { return 0 };
        multiply_adds(conv, [tuning.get("m"); 2])
    }

    fn prepare(
        &self,
        problem: &Problem,
        tuning: &Tuning,
        formats: &Formats,
        filters: &[Filter],
    ) -> Result<Box<dyn Prepared>, Refusal> {
        validate(self, problem, tuning, formats, filters)?;
        let m = [tuning.get("m"); 2];
        Ok(Box::new(PreparedWinograd::new(self.isa, conv_of(problem)?, m, tuning, formats, filters)))
    }
}

/// Tiles of `m` outputs that cover the output of a convolution, down and across.
fn grid(conv: &Conv, m: [usize; 2]) -> [usize; 2] {
    let output = conv.output();
    [output[0].div_ceil(m[0]), output[1].div_ceil(m[1])]
}

/// Multiply-adds of the products; the transforms are left out.
pub(super) fn multiply_adds(conv: &Conv, m: [usize; 2]) -> u64 {
    let [rows, columns] = grid(conv, m);
    let products: usize = (0..2).map(|axis| m[axis] + conv.window.kernel[axis] - 1).product();
    (conv.batch * rows * columns * products * conv.channels * conv.filters()) as u64
}

/// Output tile, tile of the product, tiles in a block, and groups that panels are dealt in.
pub(super) fn tunings<I: Isa>(conv: &Conv, outputs: &[usize]) -> Vec<Tuning> {
    let widest = conv.segments.iter().map(|s| s.channels.div_ceil(I::F32_LANES)).max();
    let mut list = Vec::new();
    for &m in outputs {
        let m2 = conv.window.kernel.map(|r| if r == 1 { 1 } else { m });
        let [rows, columns] = grid(conv, m2);
        let tiles = conv.batch * rows * columns;
        for &[pixels, vectors] in tile_sizes::<I>().iter().filter(|size| matches!(size[1], 2 | 3)) {
            if vectors > 2 && Some(vectors) > widest {
                continue;
            }
            let mut blocks: Vec<usize> = [2, 4, 8].iter().map(|count| (count * pixels).min(tiles)).collect();
            blocks.dedup();
            for block in blocks {
                let groups: &[usize] =
                    if tiles.div_ceil(block) < 4 && widest > Some(vectors) { &[1, 4] } else { &[1] };
                list.extend(groups.iter().map(|&groups| {
                    Tuning::new([
                        ("m", m),
                        ("pixels", pixels),
                        ("vectors", vectors),
                        ("block", block),
                        ("groups", groups),
                    ])
                }));
            }
        }
    }
    list
}

/// A convolution with transformed filters.
pub(super) struct PreparedWinograd<I> {
    isa: I,
    bound: Bound,
    conv: Conv,
    /// Down and across.
    transforms: [Transform; 2],
    /// One matrix `[c, k]` a point.
    points: Vec<Panels>,
    pixels: usize,
    block: usize,
    groups: usize,
}

impl<I: Isa> PreparedWinograd<I> {
    pub(super) fn new(
        isa: I,
        conv: &Conv,
        m: [usize; 2],
        tuning: &Tuning,
        formats: &Formats,
        filters: &[Filter],
    ) -> Self {
        let dimensions = m.iter().filter(|&&m| m > 1).count();
        let transforms = [0, 1].map(|axis| Transform::new(m[axis], conv.window.kernel[axis], dimensions));
        let transformed: Vec<Vec<Folded>> =
            filters.iter().map(|filter| transform_filter(&transforms, &filter.folded())).collect();
        let mut by_segment: Vec<_> = transformed.into_iter().map(Vec::into_iter).collect();
        let points: Vec<Panels> = (0..transforms[0].n * transforms[1].n)
            .map(|_| {
                let point: Vec<Folded> =
                    by_segment.iter_mut().map(|points| points.next().expect("a filter a point")).collect();
                Panels::pack(&conv.segments, I::F32_LANES, tuning.get("vectors"), &point)
            })
            .collect();
        let groups = tuning.get("groups").min(points[0].list().len());
        Self {
            isa,
            bound: Bound::new(&Problem::Conv(conv.clone()), formats),
            conv: conv.clone(),
            transforms,
            points,
            pixels: tuning.get("pixels"),
            block: tuning.get("block"),
            groups,
        }
    }

    fn tiles(&self, n: usize) -> usize {
        let [rows, columns] = grid(&self.conv, self.transforms.each_ref().map(|t| t.m));
        n * rows * columns
    }

    fn blocks(&self, n: usize) -> usize {
        self.tiles(n).div_ceil(self.block)
    }

    /// Panels of a group.
    fn group(&self, group: usize) -> Range<usize> {
        let panels = self.points[0].list().len();
        panels * group / self.groups..panels * (group + 1) / self.groups
    }

    /// Elements from a row of V to the next: whole vectors, and rows that do not share cache sets.
    fn v_pitch(&self) -> usize {
        round_up(self.conv.channels) + round_up(1)
    }

    /// Elements from a row of M to the next.
    fn m_pitch(&self) -> usize {
        let columns = |group| {
            let list = &self.points[0].list()[self.group(group)];
            list.iter().map(|panel| panel.vectors * I::F32_LANES).sum::<usize>()
        };
        let widest = (0..self.groups).map(columns).max().expect("at least one group");
        round_up(widest) + round_up(1)
    }
}

/// `U = G g Gt` for each input and output channel: one `[c, k]` matrix a point.
#[allow(clippy::needless_range_loop, reason = "walks a column of rows")]
fn transform_filter(transforms: &[Transform; 2], filter: &Folded) -> Vec<Folded> {
    let [r, s, c, k] = filter.dims;
    let [down, across] = transforms;
    let point = |index: usize| {
        let (i, j) = (index / across.n, index % across.n);
        let mut sums = vec![0.0f64; c * k];
        for tap in 0..r * s {
            let g = down.filter_row(i)[tap / s] * across.filter_row(j)[tap % s];
            let weights = &filter.weights[tap * c * k..(tap + 1) * c * k];
            if g != 0.0 {
                sums.iter_mut().zip(weights).for_each(|(sum, &w)| *sum += g * w as f64);
            }
        }
        let weights = sums.into_iter().map(|u| u as f32).collect();
        Folded { dims: [1, 1, c, k], weights, bias: filter.bias.clone() }
    };
    (0..down.n * across.n).map(point).collect()
}

impl<I: Isa> Prepared for PreparedWinograd<I> {
    fn bound(&self) -> &Bound {
        &self.bound
    }

    fn packed(&self) -> Vec<&Buffer> {
        self.points.iter().flat_map(Panels::buffers).collect()
    }

    fn scratch(&self) -> ScratchReq {
        let row = self.v_pitch() + self.m_pitch();
        let zeros = round_up(self.conv.channels);
        ScratchReq { shared: 0, worker: self.points.len() * self.block * row + zeros }
    }

    fn units(&self, _: usize, n: usize) -> usize {
        self.groups * self.blocks(n)
    }

    #[allow(unsafe_code, reason = "transform code")]
    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, scratch: &mut Scratch) {
        self.isa.vectorize(Run { step: self, units, io, scratch: scratch.worker })
    }
}

struct Run<'a, I: Isa> {
    step: &'a PreparedWinograd<I>,
    units: Range<usize>,
    io: &'a Io<'a>,
    scratch: *mut f32,
}

impl<I: Isa> pulp::WithSimd for Run<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        macro_rules! arms {
            ($([$n1:literal $m1:literal $n2:literal $m2:literal])*) => {
                match self.step.transforms.each_ref().map(|t| (t.n, t.m)) {
                    $([($n1, $m1), ($n2, $m2)] => self.blocks::<$n1, $m1, $n2, $m2>(),)*
                    other => unreachable!("no transform {other:?}"),
                }
            };
        }
        arms! {
            [4 2 4 2] [6 4 6 4] [8 6 8 6] [6 2 6 2] [8 4 8 4]
            [1 1 4 2] [1 1 6 4] [1 1 8 6] [1 1 6 2] [1 1 8 4] [1 1 8 2] [1 1 10 4]
            [4 2 1 1] [6 4 1 1] [8 6 1 1] [6 2 1 1] [8 4 1 1] [8 2 1 1] [10 4 1 1]
        }
    }
}

impl<I: Isa> Run<'_, I> {
    #[inline(always)]
    #[allow(unsafe_code, reason = "transform code")]
    fn blocks<const N1: usize, const M1: usize, const N2: usize, const M2: usize>(self) {
        let step = self.step;
        let images = self.io.images();
        let (tiles, blocks) = (step.tiles(images), step.blocks(images));
        let zeros = round_up(step.conv.channels);
        // SAFETY: the worker's scratch begins with `zeros` elements; see `scratch`.
        unsafe { std::slice::from_raw_parts_mut(self.scratch, zeros) }.fill(0.0);
        let v = self.scratch.wrapping_add(zeros);
        let m = v.wrapping_add(step.points.len() * step.block * step.v_pitch());
        let mut transformed = None;
        for unit in self.units.clone() {
            let (block, group) = (unit / step.groups, unit % step.groups);
            let first = tiles * block / blocks;
            let count = tiles * (block + 1) / blocks - first;
            if transformed != Some(block) {
                for tile in 0..count {
                    // SAFETY: `count` tiles of at most `block` fit V.
                    unsafe {
                        self.input::<N1, M1, N2, M2>(first + tile, v.wrapping_add(tile * step.v_pitch()))
                    };
                }
                transformed = Some(block);
            }
            for (point, panels) in step.points.iter().enumerate() {
                let product = Product {
                    isa: step.isa,
                    rows: count,
                    depth: step.conv.channels,
                    a: v.wrapping_add(point * step.block * step.v_pitch()),
                    a_pitch: step.v_pitch(),
                    panels,
                    which: step.group(group),
                    dst: m.wrapping_add(point * step.block * step.m_pitch()),
                    dst_pitch: step.m_pitch(),
                    pixels: step.pixels,
                };
                // SAFETY: V holds `count` transformed rows a point, M has room for the group.
                unsafe { product.run() };
            }
            for tile in 0..count {
                // SAFETY: M holds the products of `count` tiles; their outputs are this unit's.
                unsafe {
                    self.output::<N1, M1, N2, M2>(first + tile, m.wrapping_add(tile * step.m_pitch()), group);
                }
            }
        }
    }

    /// Image, and first output row and column, of a tile.
    #[inline(always)]
    fn position(&self, tile: usize) -> (usize, usize, usize) {
        let m = self.step.transforms.each_ref().map(|t| t.m);
        let [rows, columns] = grid(&self.step.conv, m);
        let (n, rest) = (tile / (rows * columns), tile % (rows * columns));
        (n, rest / columns * m[0], rest % columns * m[1])
    }

    /// `V[..] = Bt d B` for one tile; `v` is its row in the matrix of the first point.
    #[inline(always)]
    #[allow(unsafe_code, reason = "transform code")]
    unsafe fn input<const N1: usize, const M1: usize, const N2: usize, const M2: usize>(
        &self,
        tile: usize,
        v: *mut f32,
    ) {
        let step = self.step;
        let isa = step.isa;
        let [down, across] = &step.transforms;
        let (n, y, x) = self.position(tile);
        let ([height, width], padding) = (step.conv.image, step.conv.window.padding);
        let mut pixels = [[self.scratch.cast_const(); N2]; N1];
        for (i, row) in pixels.iter_mut().enumerate() {
            let y = (y + i).wrapping_sub(padding.top);
            for (j, pixel) in row.iter_mut().enumerate() {
                let x = (x + j).wrapping_sub(padding.left);
                if y < height && x < width {
                    *pixel = self.io.src.pixel(n, y as isize, x as isize);
                }
            }
        }
        let zero = isa.splat_f32s(0.0);
        let stride = step.block * step.v_pitch();
        for c in (0..step.conv.channels).step_by(I::F32_LANES) {
            let left = step.conv.channels - c;
            let mut columns = [[zero; N2]; N1];
            for j in 0..N2 {
                // SAFETY: a pixel of the image, or the zeros at the start of the scratch, has
                // `left` more channels.
                let column =
                    std::array::from_fn(|i| unsafe { load_first(isa, pixels[i][j].wrapping_add(c), left) });
                let column = down.input::<I, N1>(isa, column);
                for i in 0..N1 {
                    columns[i][j] = column[i];
                }
            }
            for (i, row) in columns.into_iter().enumerate() {
                for (j, value) in across.input::<I, N2>(isa, row).into_iter().enumerate() {
                    // SAFETY: V has a row of whole vectors for each point of the tile.
                    unsafe { store::<I>(v.wrapping_add((i * N2 + j) * stride + c), value) };
                }
            }
        }
    }

    /// `At M[..] A`, bias and ReLU for one tile and one group of panels.
    #[inline(always)]
    #[allow(unsafe_code, reason = "transform code")]
    #[allow(clippy::needless_range_loop, reason = "walks a column of rows")]
    unsafe fn output<const N1: usize, const M1: usize, const N2: usize, const M2: usize>(
        &self,
        tile: usize,
        m: *const f32,
        group: usize,
    ) {
        let step = self.step;
        let isa = step.isa;
        let [down, across] = &step.transforms;
        let (n, y, x) = self.position(tile);
        let [height, width] = step.conv.output();
        let (rows, columns) = (M1.min(height - y), M2.min(width - x));
        let zero = isa.splat_f32s(0.0);
        let stride = step.block * step.m_pitch();
        let panels = &step.points[0];
        let list = &panels.list()[step.group(group)];
        let origin = list.first().map_or(0, |panel| panel.column());
        for panel in list {
            let epilogue = step.conv.segments[panel.segment].epilogue;
            let dst = self.io.dst(panel.segment);
            for vector in 0..panel.vectors {
                let k = vector * I::F32_LANES;
                let at = panel.column() - origin + k;
                let mut sums = [[zero; N2]; M1];
                for j in 0..N2 {
                    // SAFETY: M has a row of whole vectors for each point of the tile.
                    let column = std::array::from_fn(|i| unsafe {
                        load::<I>(m.wrapping_add((i * N2 + j) * stride + at))
                    });
                    let column = down.output::<I, N1, M1>(isa, column);
                    for i in 0..M1 {
                        sums[i][j] = column[i];
                    }
                }
                let bias = if epilogue.bias {
                    // SAFETY: a panel has a bias for each of its vectors.
                    unsafe { load::<I>(panels.bias(panel).add(k)) }
                } else {
                    zero
                };
                for (i, row) in sums.into_iter().enumerate() {
                    let row = across.output::<I, N2, M2>(isa, row);
                    if i >= rows {
                        break;
                    }
                    for (j, value) in row.into_iter().enumerate() {
                        if j >= columns {
                            break;
                        }
                        let mut value = isa.add_f32s(value, bias);
                        if epilogue.relu {
                            value = isa.max_f32s(value, zero);
                        }
                        let out = dst.pixel(n, y + i, x + j).wrapping_add(panel.first + k);
                        // SAFETY: an output pixel of this unit; `width` channels are the panel's.
                        unsafe { store_first(isa, out, value, panel.width - k) };
                    }
                }
            }
        }
    }
}
