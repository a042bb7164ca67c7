//! Resizing: a separable filter, from rows of 8 or 16 bits to f32.
//!
//! The output is made in tiles of some columns. A tile goes over the output's rows:
//!
//! ```text
//! for each row of the output
//!     sums  = the filtered rows of the image, of the columns that the tile is made of
//!     pixel = the filtered columns of the sums, for each column of the tile
//! ```
//!
//! Next to the decoded image and the output, memory holds one row of sums and the weights of a
//! tile, whatever the proportions of the image. An image of fewer rows than the output has its
//! columns filtered first, which is less work, and leaves less than the output.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use pulp::Arch;

use crate::image::filter::{Axis, Interpolation, Taps};
use crate::image::pixels::{PixelView, SampleView};

/// The part of the resized image that is wanted. Pairs are height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The size that the whole image is resized to.
    pub resized: [usize; 2],
    /// The first row and column of the part.
    pub start: [usize; 2],
    /// The size of the part.
    pub size: [usize; 2],
}

/// A tile is made of about this many columns of the image, so that its sums stay in the caches.
pub(super) const TILE_COLUMNS: usize = 2048;

/// Rows of the image that are added up at once, so that sums are read and written less often.
const ROWS_AT_ONCE: usize = 4;

/// Columns that are added up before they are added to the rest: rounding errors stay small.
const TAPS_AT_ONCE: usize = 64;

/// The part of the resized image, `[height, width, 3]`, in the levels of the image: from 0 to its
/// white.
pub fn resize<'a>(
    pixels: impl Into<PixelView<'a>>,
    window: &Window,
    interpolation: Interpolation,
) -> Vec<f32> {
    let pixels = pixels.into();
    let mut values = match pixels.samples {
        SampleView::U8(samples) => in_order(&pixels, samples, window, interpolation),
        SampleView::U16(samples) => in_order(&pixels, samples, window, interpolation),
        SampleView::F32(samples) => in_order(&pixels, samples, window, interpolation),
    };
    // Cubic curves overshoot.
    let white = pixels.white();
    values.iter_mut().for_each(|value| *value = value.clamp(0.0, white));
    values
}

/// Filters rows first, or columns where the image has fewer rows than the output.
fn in_order<T: Copy + Into<f32> + Sync>(
    pixels: &PixelView,
    samples: &[T],
    window: &Window,
    interpolation: Interpolation,
) -> Vec<f32> {
    let [height, width] = [pixels.height, pixels.width];
    let axis = |input, output| Axis { input, output, interpolation };
    let columns = axis(width, window.resized[1]);
    let rows = axis(height, window.resized[0]);
    let whole = Resize { samples, channels: pixels.channels, rgb: pixels.rgb(), rows, columns, window };
    if height >= window.size[0] {
        return whole.all();
    }
    let [start, size] = [window.start, window.size];
    let every_row = Window { resized: [height, size[1]], start: [0, start[1]], size: [height, size[1]] };
    let narrow = Resize { rows: axis(height, height), window: &every_row, ..whole }.all();
    let (columns, window) = (axis(size[1], size[1]), Window { start: [start[0], 0], ..*window });
    Resize { samples: &narrow, channels: 3, rgb: [0, 1, 2], rows, columns, window: &window }.all()
}

/// Samples from which on two threads share an image: of a photograph of 24 megapixels, resizing is
/// a fifth of the time.
const LARGE: usize = 16 << 20;
pub(super) const THREADS: usize = 2;

struct Resize<'a, T> {
    samples: &'a [T],
    channels: usize,
    rgb: [usize; 3],
    rows: Axis,
    columns: Axis,
    window: &'a Window,
}

impl<T: Copy + Into<f32> + Sync> Resize<'_, T> {
    fn all(&self) -> Vec<f32> {
        let [height, width] = self.window.size;
        let mut output = vec![0.0; height * width * 3];
        if self.samples.len() < LARGE {
            self.rows_from(0, &mut output);
            return output;
        }
        self.in_parts(height.div_ceil(THREADS), &mut output);
        output
    }

    /// The output in parts of so many rows, on several threads.
    fn in_parts(&self, rows: usize, output: &mut [f32]) {
        let parts = Mutex::new(output.chunks_mut(rows * self.window.size[1] * 3).enumerate());
        let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
        let compute = || {
            while let Some((part, lines)) = next() {
                self.rows_from(part * rows, lines);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..THREADS {
                // Where the system starts none, this thread computes all parts.
                let _ = std::thread::Builder::new().spawn_scoped(scope, compute);
            }
            compute();
        });
    }

    /// Some rows of the output.
    fn rows_from(&self, first: usize, output: &mut [f32]) {
        let (arch, mut scratch) = (Arch::new(), Scratch::default());
        for tile in self.tiles() {
            arch.dispatch(|| self.tile(tile, first, &mut scratch, output));
        }
    }

    /// The output's columns in tiles.
    fn tiles(&self) -> Vec<Range<usize>> {
        let span = |column: usize| self.columns.span(self.window.start[1] + column);
        let (mut tiles, mut start, width) = (Vec::new(), 0, self.window.size[1]);
        for end in 1..=width {
            if end == width || span(end)[1] - span(start)[0] > TILE_COLUMNS {
                tiles.push(start..end);
                start = end;
            }
        }
        tiles
    }

    #[inline(always)]
    fn tile(&self, tile: Range<usize>, first: usize, scratch: &mut Scratch, output: &mut [f32]) {
        let Scratch { row, columns, sums } = scratch;
        let [top, left] = self.window.start;
        columns.resize_with(tile.len(), Taps::default);
        for (taps, column) in columns.iter_mut().zip(tile.clone()) {
            self.columns.taps(left + column, taps);
        }
        let inputs = columns[0].first..self.columns.span(left + tile.end - 1)[1];
        for (y, line) in output.chunks_exact_mut(self.window.size[1] * 3).enumerate() {
            self.rows.taps(top + first + y, row);
            self.add_rows(row, &inputs, sums);
            for (taps, pixel) in columns.iter().zip(line[tile.start * 3..tile.end * 3].chunks_exact_mut(3)) {
                let rgb = self.pixel(taps, &sums[(taps.first - inputs.start) * self.channels..]);
                pixel.copy_from_slice(&rgb);
            }
        }
    }

    /// The filtered rows, of some columns.
    #[inline(always)]
    fn add_rows(&self, taps: &Taps, columns: &Range<usize>, sums: &mut Vec<f32>) {
        let (width, count) = (self.columns.input, columns.len() * self.channels);
        sums.clear();
        sums.resize(count, 0.0);
        let row = |tap: usize| {
            let start = ((taps.first + tap) * width + columns.start) * self.channels;
            &self.samples[start..][..count]
        };
        let whole = taps.weights.len() / ROWS_AT_ONCE * ROWS_AT_ONCE;
        for tap in (0..whole).step_by(ROWS_AT_ONCE) {
            let [a, b, c, d] = [row(tap), row(tap + 1), row(tap + 2), row(tap + 3)];
            let [u, v, w, x] = [0, 1, 2, 3].map(|at| taps.weights[tap + at]);
            for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                let (a, b, c, d) = ((*a).into(), (*b).into(), (*c).into(), (*d).into());
                *sum += (u * a + v * b) + (w * c + x * d);
            }
        }
        for tap in whole..taps.weights.len() {
            let weight = taps.weights[tap];
            sums.iter_mut().zip(row(tap)).for_each(|(sum, sample)| *sum += weight * (*sample).into());
        }
    }

    /// The filtered columns of a pixel.
    #[inline(always)]
    fn pixel(&self, taps: &Taps, sums: &[f32]) -> [f32; 3] {
        let mut rgb = [0.0; 3];
        let parts = taps.weights.chunks(TAPS_AT_ONCE).zip(sums.chunks(TAPS_AT_ONCE * self.channels));
        for (weights, pixels) in parts {
            let mut part = [0.0; 3];
            for (weight, pixel) in weights.iter().zip(pixels.chunks_exact(self.channels)) {
                for (level, channel) in part.iter_mut().zip(self.rgb) {
                    *level += weight * pixel[channel];
                }
            }
            rgb.iter_mut().zip(part).for_each(|(level, part)| *level += part);
        }
        rgb
    }
}

/// Memory that one tile leaves to the next.
#[derive(Default)]
struct Scratch {
    row: Taps,
    columns: Vec<Taps>,
    sums: Vec<f32>,
}
