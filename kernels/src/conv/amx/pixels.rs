//! Output pixels in tiles: up to 16 at one distance, in the source as in the destination.
//!
//! ```text
//! flat       pixels of an image follow each other in the source: tiles are cut from one line
//! lines      each row is cut into tiles of equal size, the last may overlap the one before
//! columns    whole tiles along the rows, and the columns that are left downwards
//! ```

use crate::arch::amx::ROWS;
use crate::conv::{Conv, View, ViewMut};

/// A line of pixels in tiles of one size, the last of which may overlap the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    length: usize,
    pixels: usize,
    tiles: usize,
}

impl Line {
    /// As few tiles as there can be, of equal size.
    fn even(length: usize) -> Self {
        let tiles = length.div_ceil(ROWS);
        Self { length, pixels: length.div_ceil(tiles), tiles }
    }

    /// Tiles of [`ROWS`] pixels; the line has at least as many.
    fn full(length: usize) -> Self {
        Self { length, pixels: ROWS, tiles: length.div_ceil(ROWS) }
    }

    /// The first pixel of a tile, and how many of its pixels the tile before has.
    fn tile(&self, tile: usize) -> [usize; 2] {
        let first = tile * self.pixels;
        let start = first.min(self.length - self.pixels);
        [start, first - start]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    image: [usize; 2],
    /// The line, and how many of them: rows, or whole images where they are flat.
    along: Line,
    lines: usize,
    /// Lines downwards for the columns that `along` leaves, and how many in an image.
    down: Option<(Line, usize)>,
    flat: bool,
}

/// Image, row and column of an output pixel.
pub type Place = [usize; 3];

/// Time of a product of tiles by their rows; the time of a row is 1. A part of it is the same for
/// any number of rows.
fn cost(rows: usize) -> usize {
    6 + rows
}

impl Cut {
    /// For `n` images of a source that is flat in each image, over all images, or not; `down`
    /// allows columns.
    pub fn new(conv: &Conv, n: usize, flat: Flat, down: bool) -> Self {
        let image = conv.output();
        let [oh, ow] = image;
        let whole = |lines: usize, length: usize| Self {
            image,
            along: if length < ROWS { Line::even(length) } else { Line::full(length) },
            lines,
            down: None,
            flat: true,
        };
        match flat {
            Flat::Images => return whole(1, n * oh * ow),
            Flat::Image => return whole(n, oh * ow),
            Flat::No => {}
        }
        let along = Line::even(ow);
        let lines = Self { image, along, lines: n * oh, down: None, flat: false };
        let rest = ow % ROWS;
        if !down || ow < ROWS || oh < ROWS || rest == 0 {
            return lines;
        }
        let (along, down) = (Line::full(ow - rest), Line::full(oh));
        let with_columns = oh * along.tiles + rest * down.tiles;
        if with_columns * cost(ROWS) < oh * lines.along.tiles * cost(lines.along.pixels) {
            return Self { along, down: Some((down, rest)), ..lines };
        }
        lines
    }

    pub fn pixels(&self) -> usize {
        self.along.pixels
    }

    fn along_tiles(&self) -> usize {
        self.lines * self.along.tiles
    }

    fn down_tiles(&self) -> usize {
        // Where there are columns, each row of an image is a line.
        self.down.map_or(0, |(line, columns)| self.lines / line.length * columns * line.tiles)
    }

    /// Blocks of two tiles of one direction; the last of each direction may have one tile.
    pub fn blocks(&self) -> usize {
        self.along_tiles().div_ceil(2) + self.down_tiles().div_ceil(2)
    }

    #[inline(always)]
    pub fn block(&self, block: usize) -> [Option<Tile>; 2] {
        let along = self.along_tiles();
        let (block, line, count, direction) = match block.checked_sub(along.div_ceil(2)) {
            None if self.flat => (block, self.along, along, Direction::Flat),
            None => (block, self.along, along, Direction::Along),
            Some(block) => {
                let line = self.down.map_or(self.along, |(line, _)| line);
                (block, line, self.down_tiles(), Direction::Down)
            }
        };
        [2 * block, 2 * block + 1].map(|tile| {
            (tile < count).then(|| {
                let [first, done] = line.tile(tile % line.tiles);
                Tile { direction, line: tile / line.tiles, first, done }
            })
        })
    }

    #[inline(always)]
    pub fn place(&self, tile: &Tile, pixel: usize) -> Place {
        let [oh, ow] = self.image;
        let at = tile.first + pixel;
        match tile.direction {
            Direction::Flat => {
                // A line is an image, or all of them.
                let all = tile.line * oh * ow + at;
                [all / (oh * ow), all / ow % oh, all % ow]
            }
            Direction::Along => [tile.line / oh, tile.line % oh, at],
            Direction::Down => {
                let columns = self.down.map_or(1, |(_, columns)| columns);
                [tile.line / columns, at, self.along.length + tile.line % columns]
            }
        }
    }

    /// Where the taps of a tile's first pixel begin, and the bytes from a pixel to the next.
    #[inline(always)]
    pub fn src(&self, tile: &Tile, conv: &Conv, src: &View) -> (*const u8, usize) {
        let [image, y, x] = self.place(tile, 0);
        let ([sh, sw], [top, left]) = (conv.window.stride, conv.first_tap(y, x));
        let pitch = if tile.direction == Direction::Down { sh * src.pitch.row } else { sw * src.pitch.pixel };
        (src.byte(image, top, left), pitch * src.dtype.bytes())
    }

    /// Where a tile's pixel is written, how many from it on lie at one distance, and that distance
    /// in bytes.
    #[inline(always)]
    pub fn dst(&self, tile: &Tile, pixel: usize, dst: &ViewMut) -> (*mut u8, usize, usize) {
        let [image, y, x] = self.place(tile, pixel);
        let left = self.pixels() - pixel;
        let (count, pitch) = match tile.direction {
            Direction::Flat if dst.is_flat() => (left, dst.pitch.pixel),
            Direction::Flat => (left.min(self.image[1] - x), dst.pitch.pixel),
            Direction::Along => (left, dst.pitch.pixel),
            Direction::Down => (left, dst.pitch.row),
        };
        (dst.byte(image, y, x), count, pitch * dst.dtype.bytes())
    }
}

/// Where neighbouring pixels of the output have neighbouring inputs from row to row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flat {
    /// Over all images.
    Images,
    /// In each image.
    Image,
    /// In a row only.
    No,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Flat,
    Along,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    direction: Direction,
    line: usize,
    first: usize,
    /// Pixels that the tile before stores.
    pub done: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_store_each_pixel_once() {
        for (flat, kernel) in [(Flat::Images, 1), (Flat::Image, 3), (Flat::No, 3)] {
            for (n, h, w) in (1..=3)
                .flat_map(|n| [1, 2, 8, 15, 16, 17, 35].map(|h| (n, h)))
                .flat_map(|(n, h)| [1, 7, 8, 9, 15, 16, 17, 18, 31, 33, 35, 71].map(|w| (n, h, w)))
            {
                let conv: Conv = format!("n{n}h{h}w{w}c32k8r{kernel}s1").parse().expect("a shape");
                let cut = Cut::new(&conv, n, flat, true);
                let mut stored = vec![0; n * h * w];
                for tile in (0..cut.blocks()).flat_map(|block| cut.block(block)).flatten() {
                    assert!(tile.done < cut.pixels(), "{conv:?}: {tile:?}");
                    for pixel in tile.done..cut.pixels() {
                        let [image, y, x] = cut.place(&tile, pixel);
                        stored[(image * h + y) * w + x] += 1;
                    }
                }
                assert!(stored.iter().all(|&times| times == 1), "{n} {h} {w} {flat:?}: {cut:?}");
            }
        }
    }

    #[test]
    fn the_columns_that_fill_no_tile_go_downwards() {
        let conv: Conv = "n1h17w17c32k8r1s7".parse().expect("a shape");
        let cut = Cut::new(&conv, 1, Flat::No, true);
        assert_eq!((cut.along_tiles(), cut.down_tiles(), cut.pixels()), (17, 2, ROWS));
    }
}
