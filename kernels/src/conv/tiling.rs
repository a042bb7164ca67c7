//! How the output of a convolution is cut into tiles that are transformed, and filters with them.

use crate::conv::transform::Transform;
use crate::filter::Folded;
use crate::gemm::panels::Panels;
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
        let conv = &self.conv;
        (conv.batch * self.tiles() * self.points() * conv.channels * conv.filters()) as u64
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
pub(super) fn pack(tiling: &Tiling, lanes: usize, vectors: usize, filters: &[Folded]) -> Panels {
    let Tiling { conv, transforms: [down, across], .. } = tiling;
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
