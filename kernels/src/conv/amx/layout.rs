//! How much of the source is copied for the tiles.

use half::bf16;

use crate::arch::amx::DEPTH;
use crate::problem::Conv;

/// Output rows whose sources are kept: the tiles of a block may lie in two.
pub const LINES: usize = 2;

/// How many elements there are to copy.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Elements of a row that are read with weights.
    pub length: usize,
    /// Elements from a row to the next.
    pub row: usize,
    /// Rows of an output row.
    pub rows: usize,
}

impl Layout {
    /// For the output rows of a convolution.
    pub fn new(conv: &Conv) -> Self {
        let [rows, s] = conv.window.kernel;
        let length = ((conv.output()[1] - 1) * conv.window.stride[1] + s) * conv.channels;
        // The last step of the last pixel reads less than a step behind.
        Self { length, row: length.next_multiple_of(DEPTH) + DEPTH, rows }
    }

    /// Elements of scratch.
    pub fn elements(&self) -> usize {
        LINES * self.rows * self.row
    }

    /// Bytes from a row to the next.
    pub fn row_bytes(&self) -> usize {
        self.row * size_of::<bf16>()
    }
}
