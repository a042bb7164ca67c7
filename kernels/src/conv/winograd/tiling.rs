//! How the output of a convolution is cut into output tiles, and the transformed filters.

use super::transform::Transform;
use crate::conv::{Conv, Isa};
use crate::filter::Folded;
use crate::gemm::panels::{CHUNK, Panel, Panels, add, set_rounded};

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

pub(super) struct Tiling {
    pub(super) conv: Conv,
    /// Down and across, as all pairs here.
    pub(super) transforms: [Transform; 2],
    pub(super) grid: [usize; 2],
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

    /// The tile that follows in `images`, or the last one again.
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
    let (conv, lanes) = (&tiling.conv, I::F32_LANES);
    let depth = tiling.points() * conv.channels;
    Panels::pack_panels(&conv.segments, lanes, vectors, depth, filters, |panel, packed| {
        fill(isa, tiling, &filters[panel.segment], panel, packed);
    })
}

/// The transformed filters of a panel: a matrix `[c, width]` a point.
pub(super) fn fill<I: Isa>(isa: I, tiling: &Tiling, filter: &Folded, panel: &Panel, packed: &mut [f32]) {
    let Tiling { conv, transforms: [down, across], .. } = tiling;
    let matrix =
        |t: &Transform| -> Vec<f64> { (0..t.n * t.r).map(|at| t.filter(at / t.r, at % t.r)).collect() };
    let [down, across] = [matrix(down), matrix(across)];
    isa.vectorize(Pack { isa, conv, down: &down, across: &across, filter, panel, packed });
}

/// The transformed filters of a panel.
struct Pack<'a, I> {
    isa: I,
    conv: &'a Conv,
    /// `G` of the two axes, row-major.
    down: &'a [f64],
    across: &'a [f64],
    filter: &'a Folded<'a>,
    panel: &'a Panel,
    packed: &'a mut [f32],
}

impl<I: Isa> pulp::WithSimd for Pack<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        match self.conv.window.kernel {
            [3, 3] => self.transform::<3, 3>(),
            [5, 5] => self.transform::<5, 5>(),
            [1, 3] => self.transform::<1, 3>(),
            [1, 5] => self.transform::<1, 5>(),
            [1, 7] => self.transform::<1, 7>(),
            [3, 1] => self.transform::<3, 1>(),
            [5, 1] => self.transform::<5, 1>(),
            [7, 1] => self.transform::<7, 1>(),
            [r, s] => unreachable!("kernels of {r}x{s} are refused"),
        }
    }
}

impl<I: Isa> Pack<'_, I> {
    /// `(G g) Gt` of one input channel after the other.
    #[inline(always)]
    fn transform<const R: usize, const C: usize>(self) {
        let Self { isa, conv, down, across, filter, panel, packed } = self;
        let (down, across) = (down.as_chunks::<R>().0, across.as_chunks::<C>().0);
        let (channels, pitch) = (conv.channels, panel.vectors * I::F32_LANES);
        for channel in 0..channels {
            for (block, chunk) in panel.chunks().enumerate() {
                // By columns, so that a sum is over neighbours.
                let mut taps = [[[0.0; CHUNK]; R]; C];
                for (c, column) in taps.iter_mut().enumerate() {
                    for (r, tap) in column.iter_mut().enumerate() {
                        *tap = filter.scaled((r * C + c) * channels + channel, chunk.clone());
                    }
                }
                let mut row = channel * pitch;
                for down in down {
                    let mut rows = [[0.0; CHUNK]; C];
                    for (row, column) in rows.iter_mut().zip(&taps) {
                        *row = product(isa, down, column);
                    }
                    for across in across {
                        let packed = &mut packed[row..][..pitch][CHUNK * block..];
                        set_rounded(packed, &product(isa, across, &rows));
                        row += channels * pitch;
                    }
                }
            }
        }
    }
}

/// `sum coefficients[i] * values[i]`.
#[inline(always)]
fn product<I: Isa, const N: usize>(
    isa: I,
    coefficients: &[f64; N],
    values: &[[f64; CHUNK]; N],
) -> [f64; CHUNK] {
    let mut sum = [0.0; CHUNK];
    for (coefficient, values) in coefficients.iter().zip(values) {
        add(isa, &mut sum, *coefficient, values);
    }
    sum
}
