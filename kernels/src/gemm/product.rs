//! Matrix product with packed weights: `dst[rows, columns] = a[rows, depth] * panels`.

use std::ops::Range;

use crate::cpu::Isa;
use crate::gemm::panels::Panels;
use crate::gemm::tile::{Finish, Operands, Taps, dispatch};

/// A product of a row-major matrix with some panels.
#[derive(Debug)]
pub struct Product<'a, I> {
    /// Proof of the instruction set.
    pub isa: I,
    /// Rows of `a` and of the result.
    pub rows: usize,
    /// Columns of `a`.
    pub depth: usize,
    /// The left matrix.
    pub a: *const f32,
    /// Elements from one of its rows to the next.
    pub a_pitch: usize,
    /// The right matrix.
    pub panels: &'a Panels,
    /// Which panels to compute.
    pub which: Range<usize>,
    /// Column 0 of the first panel of the result; panels are padded to whole vectors.
    pub dst: *mut f32,
    /// Elements from a row of the result to the next.
    pub dst_pitch: usize,
    /// Rows of a register tile.
    pub pixels: usize,
}

impl<I: Isa> Product<'_, I> {
    /// Computes the product.
    ///
    /// # Safety
    /// `rows` rows of `depth` elements at `a` may be read, and `rows` rows of all the panels' columns
    /// at `dst` may be written by this caller alone; `pixels` fits the panels' vectors.
    #[allow(unsafe_code, reason = "matrix code")]
    pub unsafe fn run(self) {
        self.isa.vectorize(self)
    }
}

impl<I: Isa> pulp::WithSimd for Product<'_, I> {
    type Output = ();

    #[inline(always)]
    #[allow(unsafe_code, reason = "matrix code")]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let taps = Taps::matrix(self.depth);
        let tiles = self.rows.div_ceil(self.pixels);
        let list = &self.panels.list()[self.which];
        let origin = list.first().map_or(0, |panel| panel.column());
        for panel in list {
            let column = panel.column() - origin;
            let width = panel.vectors * I::F32_LANES;
            let finish = Finish { bias: std::ptr::null(), relu: false, accumulate: false, width };
            for tile in 0..tiles {
                let (first, end) = (self.rows * tile / tiles, self.rows * (tile + 1) / tiles);
                let operands = Operands {
                    a: self.a.wrapping_add(first * self.a_pitch),
                    a_pitch: self.a_pitch,
                    b: self.panels.weights(panel),
                    next: self.panels.ahead(panel, tile),
                    dst: self.dst.wrapping_add(first * self.dst_pitch + column),
                    dst_pitch: self.dst_pitch,
                };
                // SAFETY: promised to `Product::run`, the only caller.
                unsafe { dispatch(self.isa, end - first, panel.vectors, &taps, &operands, &finish) };
            }
        }
    }
}
