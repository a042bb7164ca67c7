//! Extents of activations, and the zeros around them.

use std::fmt;

/// Extents of an activation: images, rows, columns, channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Images.
    pub n: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Shape {
    /// From images, `[rows, columns]` and channels.
    pub fn new(n: usize, [h, w]: [usize; 2], c: usize) -> Self {
        Self { n, h, w, c }
    }

    /// Product of the extents.
    pub fn elements(&self) -> usize {
        self.n * self.h * self.w * self.c
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "[{}, {}, {}, {}]", self.n, self.h, self.w, self.c)
    }
}

/// Zeros around an image, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// The same padding on opposite sides.
    pub fn symmetric(rows: usize, columns: usize) -> Self {
        Self { top: rows, bottom: rows, left: columns, right: columns }
    }

    /// The least that holds both.
    pub fn with(self, other: Self) -> Self {
        Self {
            top: self.top.max(other.top),
            bottom: self.bottom.max(other.bottom),
            left: self.left.max(other.left),
            right: self.right.max(other.right),
        }
    }

    /// Keras's and TensorFlow's `same`: the output has `ceil(extent / stride)` pixels, and an odd
    /// amount of padding puts the extra pixel below and to the right.
    pub fn same(image: [usize; 2], kernel: [usize; 2], stride: [usize; 2]) -> Self {
        let [rows, columns] = [0, 1].map(|axis| {
            let outputs = image[axis].div_ceil(stride[axis]);
            let needed = (outputs - 1) * stride[axis] + kernel[axis];
            let total = needed.saturating_sub(image[axis]);
            (total / 2, total - total / 2)
        });
        Self { top: rows.0, bottom: rows.1, left: columns.0, right: columns.1 }
    }
}
