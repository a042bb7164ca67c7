//! A batch of matrix products with one packed panel: the middle of every bilinear algorithm.
//!
//! ```text
//! for point in 0..points:
//!   dst[point][rows, width] = a[point][rows, depth] * panel[point][depth, width]
//! ```

use crate::cpu::Isa;
use crate::gemm::multiply::Multiply;
use crate::gemm::register_block::{Finish, Operands, Taps};
use crate::gemm::rows::{Cut, Prefetch, Rows};
use crate::tensor::Dtype;

/// Products that a fast algorithm sums in registers before it adds them to the rest of a sum. Sums
/// make most of its error, since it magnifies them; shorter sums have smaller errors.
const PART: usize = 96;

pub struct Products<I: Isa, M: Multiply<I>> {
    pub isa: I,
    pub points: usize,
    /// Rows of each `a` and of each result.
    pub rows: usize,
    /// Columns of each `a`.
    pub depth: usize,
    /// The first left matrix.
    pub a: *const M::Source,
    /// Elements from one of its rows to the next, and from a matrix to the next.
    pub a_pitch: [usize; 2],
    /// The right matrices, one after the other.
    pub panel: *const f32,
    /// Of sums of whole numbers: the scales of the columns of each right matrix, one after the
    /// other.
    pub scales: *const f32,
    pub vectors: usize,
    /// The first result.
    pub dst: *mut f32,
    /// Elements from one of its rows to the next, and from a result to the next.
    pub dst_pitch: [usize; 2],
    /// Rows of a register block.
    pub pixels: usize,
}

impl<I: Isa, M: Multiply<I>> Products<I, M> {
    /// Computes the products.
    ///
    /// # Safety
    /// `rows` rows of `depth` elements, in whole groups, of each left matrix may be read, and a row
    /// of `vectors` vectors for each group of them of each right one; `rows` rows of `vectors`
    /// vectors of each result may be written by this caller alone; `pixels` fits the vectors.
    #[inline(always)]
    pub unsafe fn run(self) {
        let cut = Cut::<I, M>::new(self.rows, self.pixels, self.vectors);
        let (width, depth) = (self.vectors * I::F32_LANES, self.depth.next_multiple_of(M::GROUP));
        let matrix = depth / M::GROUP * width;
        let rows = Rows {
            count: self.points,
            pitch: [self.a_pitch[1], matrix, self.dst_pitch[1] * size_of::<f32>(), width],
            // Sums of whole numbers are exact.
            parts: if M::IS_WHOLE { 1 } else { depth.div_ceil(PART) },
            taps: Taps::matrix(depth),
            operands: Operands {
                a: self.a,
                a_pitch: self.a_pitch[0],
                b: self.panel,
                dst: self.dst.cast(),
                dst_pitch: self.dst_pitch[0] * size_of::<f32>(),
            },
            prefetch: Prefetch { panel: self.panel.wrapping_add(matrix), done: 0, pixels: false },
            finish: Finish {
                scales: self.scales,
                bias: std::ptr::null(),
                relu: false,
                accumulate: false,
                dtype: Dtype::F32,
                width,
            },
        };
        // SAFETY: by the caller.
        unsafe { cut.run(self.isa, 0..cut.blocks, &rows) };
    }
}

/// `dst = a * b` of row-major matrices: `[rows, columns, depth]`, and elements from row to row.
///
/// # Safety
/// The matrices may be read, and `dst` be written by this caller alone.
pub unsafe fn product<T: From<f32> + 'static>(
    [rows, columns, depth]: [usize; 3],
    dst: *mut T,
    dst_pitch: usize,
    a: *const T,
    a_pitch: usize,
    b: *const T,
) {
    let [dst_pitch, a_pitch, b_pitch] = [dst_pitch, a_pitch, columns].map(|pitch| pitch as isize);
    let (zero, one, no) = (T::from(0.0), T::from(1.0), false);
    let serial = ::gemm::Parallelism::None;
    // SAFETY: by the caller; the columns of each matrix are neighbours.
    unsafe {
        ::gemm::gemm(
            rows, columns, depth, dst, 1, dst_pitch, no, a, 1, a_pitch, b, 1, b_pitch, zero, one, no, no, no,
            serial,
        );
    }
}
