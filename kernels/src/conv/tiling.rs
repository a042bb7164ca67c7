//! How the output of a convolution is cut into tiles that are transformed, and filters with them.

use crate::conv::transform::Transform;
use crate::cpu::Isa;
use crate::filter::Folded;
use crate::gemm::panels::{Panel, Panels};
use crate::problem::Conv;

/// A tile's place: its image, and its row and column among the image's tiles.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) n: usize,
    pub(super) row: usize,
    pub(super) column: usize,
}

/// One axis of a tile.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// First sample; negative in the padding.
    pub(super) origin: isize,
    /// Samples that lie inside the image.
    pub(super) inside: [usize; 2],
    /// Outputs that lie inside the output.
    pub(super) outputs: usize,
}

/// The tiles of an image.
#[derive(Debug)]
pub(super) struct Tiling {
    pub(super) conv: Conv,
    /// Down and across, as all pairs here.
    pub(super) transforms: [Transform; 2],
    /// Tiles.
    pub(super) grid: [usize; 2],
    /// Output pixels.
    output: [usize; 2],
}

impl Tiling {
    /// Of `m` outputs along each axis where the kernel has extent.
    pub(super) fn new(conv: &Conv, m: usize) -> Self {
        let transforms = [0, 1].map(|axis| match conv.window.kernel[axis] {
            1 => Transform::new(1, 1, 1),
            r => Transform::new(m, r, conv.window.stride[axis]),
        });
        let output = conv.output();
        let grid = [0, 1].map(|axis| output[axis].div_ceil(transforms[axis].m));
        Self { conv: conv.clone(), transforms, grid, output }
    }

    /// Tiles of one image.
    pub(super) fn tiles(&self) -> usize {
        self.grid.into_iter().product()
    }

    /// Products of a tile, a channel and a filter.
    pub(super) fn points(&self) -> usize {
        self.transforms.iter().map(|t| t.n).product()
    }

    /// Multiply-adds of the products; the transforms are left out.
    pub(super) fn multiply_adds(&self) -> u64 {
        (self.conv.batch * self.tiles()) as u64 * self.weights()
    }

    /// Transformed weights.
    pub(super) fn weights(&self) -> u64 {
        (self.points() * self.conv.channels * self.conv.filters()) as u64
    }

    /// How much larger than that of a direct sum the error is.
    pub(super) fn growth(&self) -> f64 {
        self.transforms.iter().map(Transform::growth).product()
    }

    /// A tile by its number among those of all images.
    #[inline(always)]
    pub(super) fn place(&self, tile: usize) -> Place {
        let [rows, columns] = self.grid;
        Place { n: tile / (rows * columns), row: tile / columns % rows, column: tile % columns }
    }

    /// The tile that follows in `images`; the last is its own.
    #[inline(always)]
    pub(super) fn next(&self, place: Place, images: usize) -> Place {
        let [rows, columns] = self.grid;
        if place.column + 1 < columns {
            Place { column: place.column + 1, ..place }
        } else if place.row + 1 < rows {
            Place { column: 0, row: place.row + 1, ..place }
        } else if place.n + 1 < images {
            Place { column: 0, row: 0, n: place.n + 1 }
        } else {
            place
        }
    }

    /// The spans of a tile.
    #[inline(always)]
    pub(super) fn spans(&self, place: Place) -> [Span; 2] {
        let Conv { image, window, .. } = &self.conv;
        let span = |axis: usize, index: usize, before: usize| {
            let t = &self.transforms[axis];
            let first = index * t.m;
            let origin = (first * window.stride[axis]) as isize - before as isize;
            let clip = |at: isize| (at - origin).clamp(0, t.n as isize) as usize;
            let inside = [clip(0), clip(image[axis] as isize)];
            Span { origin, inside, outputs: t.m.min(self.output[axis] - first) }
        };
        [span(0, place.row, window.padding.top), span(1, place.column, window.padding.left)]
    }
}

/// `U = G g Gt` for each input and output channel: one matrix `[c, k]` a point, in place of taps.
pub(super) fn pack<I: Isa>(isa: I, tiling: &Tiling, vectors: usize, filters: &[Folded]) -> Panels {
    let Tiling { conv, transforms: [down, across], .. } = tiling;
    let depth = down.n * across.n * conv.channels;
    let matrix =
        |t: &Transform| -> Vec<f64> { (0..t.n * t.r).map(|at| t.filter(at / t.r, at % t.r)).collect() };
    let [down, across] = [matrix(down), matrix(across)];
    let lanes = I::F32_LANES;
    Panels::pack_panels(&conv.segments, lanes, vectors, depth, filters, |filter, panel, packed| {
        let pitch = panel.vectors * lanes;
        isa.vectorize(Pack { conv, down: &down, across: &across, filter, panel, pitch, packed });
    })
}

/// Output channels that are transformed side by side.
const SIDE: usize = 8;

/// The transformed filters of a panel.
struct Pack<'a> {
    conv: &'a Conv,
    /// `G` of the two axes, row-major.
    down: &'a [f64],
    across: &'a [f64],
    filter: &'a Folded<'a>,
    panel: &'a Panel,
    /// Elements of a packed row.
    pitch: usize,
    packed: &'a mut [f32],
}

impl pulp::WithSimd for Pack<'_> {
    type Output = ();

    /// `(G g) Gt` of one input channel after the other.
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { conv, down, across, filter, panel, pitch, packed } = self;
        let ([r, s], channels) = (conv.window.kernel, conv.channels);
        let [n1, n2] = [down.len() / r, across.len() / s];
        let blocks = panel.width.div_ceil(SIDE);
        // Of each block, so that a sum is over neighbours: taps by columns, and `G g` by rows.
        let mut taps = vec![[0.0; SIDE]; blocks * s * r];
        let mut rows = vec![[0.0; SIDE]; blocks * n1 * s];
        for channel in 0..channels {
            for tap in 0..r * s {
                let at = tap % s * r + tap / s;
                for (block, taps) in taps.chunks_exact_mut(r * s).enumerate() {
                    let first = panel.first + block * SIDE;
                    let some = first..panel.channels().end.min(first + SIDE);
                    let row = filter.row(tap * channels + channel, some);
                    taps[at].iter_mut().zip(row).for_each(|(tap, weight)| *tap = weight as f64);
                }
            }
            for (taps, rows) in taps.chunks_exact(r * s).zip(rows.chunks_exact_mut(n1 * s)) {
                for (down, rows) in down.chunks_exact(r).zip(rows.chunks_exact_mut(s)) {
                    let columns = taps.chunks_exact(r);
                    rows.iter_mut().zip(columns).for_each(|(sum, column)| *sum = product(down, column));
                }
            }
            for i in 0..n1 {
                for (j, across) in across.chunks_exact(s).enumerate() {
                    let row = ((i * n2 + j) * channels + channel) * pitch;
                    let packed = packed[row..][..panel.width].chunks_mut(SIDE);
                    for (packed, rows) in packed.zip(rows.chunks_exact(n1 * s)) {
                        let sum = product(across, &rows[i * s..][..s]);
                        packed.iter_mut().zip(sum).for_each(|(packed, sum)| *packed = sum as f32);
                    }
                }
            }
        }
    }
}

/// `sum coefficients[i] * values[i]`.
#[inline(always)]
fn product(coefficients: &[f64], values: &[[f64; SIDE]]) -> [f64; SIDE] {
    let mut sum = [0.0; SIDE];
    for (coefficient, values) in coefficients.iter().zip(values) {
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += coefficient * value);
    }
    sum
}
