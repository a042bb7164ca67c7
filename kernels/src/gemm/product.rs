//! A batch of matrix products with one packed panel: the middle of every bilinear algorithm.
//!
//! ```text
//! for point in 0..points:
//!   dst[point][rows, width] = a[point][rows, depth] * panel[point][depth, width]
//! ```

use crate::arch::prefetch::LINE;
use crate::cpu::Isa;
use crate::gemm::tile::{Finish, Operands, Taps, dispatch};

/// Products that a fast algorithm sums in registers before it adds them to the rest of a sum: sums make
/// most of its error, since it magnifies them.
pub const PART: usize = 96;

/// The batch.
#[derive(Debug)]
pub struct Products<I> {
    /// Proof of the instruction set.
    pub isa: I,
    /// Products.
    pub points: usize,
    /// Rows of each `a` and of each result.
    pub rows: usize,
    /// Columns of each `a`.
    pub depth: usize,
    /// Terms that are summed before they are added to the rest; all, or fewer for a smaller error.
    pub part: usize,
    /// The first left matrix.
    pub a: *const f32,
    /// Elements from one of its rows to the next, and from a matrix to the next.
    pub a_pitch: [usize; 2],
    /// The right matrices, one after the other.
    pub panel: *const f32,
    /// Vectors in a row of the panel.
    pub vectors: usize,
    /// The first result.
    pub dst: *mut f32,
    /// Elements from one of its rows to the next, and from a result to the next.
    pub dst_pitch: [usize; 2],
    /// Rows of a register tile.
    pub pixels: usize,
}

impl<I: Isa> Products<I> {
    /// Computes the products.
    ///
    /// # Safety
    /// `rows` rows of `depth` elements of each left matrix may be read, and `depth` rows of `vectors`
    /// vectors of each right one; `rows` rows of `vectors` vectors of each result may be written by
    /// this caller alone; `pixels` fits the vectors.
    #[allow(unsafe_code, reason = "matrix code")]
    pub unsafe fn run(self) {
        self.isa.vectorize(self)
    }
}

impl<I: Isa> pulp::WithSimd for Products<I> {
    type Output = ();

    #[inline(always)]
    #[allow(unsafe_code, reason = "matrix code")]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let tiles = self.rows.div_ceil(self.pixels);
        // The first tiles take a row more.
        let (each, more) = (self.rows / tiles, self.rows % tiles);
        let width = self.vectors * I::F32_LANES;
        let parts = self.depth.div_ceil(self.part);
        let lines = width.div_ceil(LINE);
        let matrix = self.depth * width;
        for point in 0..self.points {
            let b = self.panel.wrapping_add(point * matrix);
            let a = self.a.wrapping_add(point * self.a_pitch[1]);
            let dst = self.dst.wrapping_add(point * self.dst_pitch[1]);
            for part in 0..parts {
                let (begin, stop) = (self.depth * part / parts, self.depth * (part + 1) / parts);
                let taps = Taps::matrix(stop - begin);
                let finish = Finish { bias: std::ptr::null(), relu: false, accumulate: part > 0, width };
                let b = b.wrapping_add(begin * width);
                let (mut a, mut dst) = (a.wrapping_add(begin), dst);
                for tile in 0..tiles {
                    let rows = each + usize::from(tile < more);
                    // What the next point will read, a line a row.
                    let ahead = if tile < lines { matrix + tile * (stop - begin) * LINE } else { 0 };
                    let operands = Operands {
                        a,
                        a_pitch: self.a_pitch[0],
                        b,
                        next: b.wrapping_add(ahead),
                        dst,
                        dst_pitch: self.dst_pitch[0],
                    };
                    // SAFETY: promised to `run`, the only caller.
                    unsafe { dispatch(self.isa, rows, self.vectors, &taps, &operands, &finish) };
                    a = a.wrapping_add(rows * self.a_pitch[0]);
                    dst = dst.wrapping_add(rows * self.dst_pitch[0]);
                }
            }
        }
    }
}
