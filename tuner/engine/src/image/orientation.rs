//! Orientations of photographs, as EXIF numbers them.

use image::metadata::Orientation;

use crate::image::resize::Window;

/// Whether rows become columns.
pub fn swaps(orientation: Orientation) -> bool {
    orientation.to_exif() > 4
}

/// Whether stored rows are upside down, and stored columns from right to left.
///
/// An upright pixel (y, x) is the stored pixel at (y, x), or at (x, y) where rows become columns,
/// counted from the other end of each axis that is flipped.
fn flips(orientation: Orientation) -> [bool; 2] {
    use Orientation as O;
    match orientation {
        O::NoTransforms | O::Rotate90FlipH => [false, false],
        O::FlipHorizontal => [false, true],
        O::Rotate180 | O::Rotate270FlipH => [true, true],
        O::FlipVertical | O::Rotate90 => [true, false],
        O::Rotate270 => [false, true],
    }
}

fn swapped([a, b]: [usize; 2], swap: bool) -> [usize; 2] {
    if swap { [b, a] } else { [a, b] }
}

/// Height and width of the upright image.
pub fn upright_size(stored: [usize; 2], orientation: Orientation) -> [usize; 2] {
    swapped(stored, swaps(orientation))
}

/// The window of the stored image that becomes this window of the upright one. Filters are
/// symmetric, so the order of turning and resizing does not matter.
pub fn stored_window(upright: &Window, orientation: Orientation) -> Window {
    let swap = swaps(orientation);
    let [resized, start, size] =
        [upright.resized, upright.start, upright.size].map(|pair| swapped(pair, swap));
    let flips = flips(orientation);
    let from = |axis: usize| match flips[axis] {
        true => resized[axis] - start[axis] - size[axis],
        false => start[axis],
    };
    Window { resized, start: [from(0), from(1)], size }
}

/// Turns values `[height, width, 3]` of a stored image upright.
pub fn upright(values: Vec<f32>, stored: [usize; 2], orientation: Orientation) -> Vec<f32> {
    if orientation == Orientation::NoTransforms {
        return values;
    }
    let ([height, width], flips) = (upright_size(stored, orientation), flips(orientation));
    let from = |at: usize, axis: usize| if flips[axis] { stored[axis] - 1 - at } else { at };
    let pixel = |y: usize, x: usize| {
        let [row, column] = swapped([y, x], swaps(orientation));
        let at = (from(row, 0) * stored[1] + from(column, 1)) * 3;
        &values[at..at + 3]
    };
    (0..height * width).flat_map(|at| pixel(at / width, at % width)).copied().collect()
}
