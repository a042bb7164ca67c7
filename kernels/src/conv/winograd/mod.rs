//! Winograd convolution: fewer multiplications by transforming tiles of the image.
//!
//! An *output tile* is a block of `m x m` neighbouring outputs. F(m x m, r x r) computes it from `n
//! * n` products, `n = m + r - 1`, where a direct sum takes `m * m * r * r`; a 3x3 kernel of stride
//! 2 takes `n = 2m + 1` (see [`transform`]). Kernels with extent along one axis are in
//! [`separable`].
//!
//! ```text
//! for block of tiles:                        V stays in the worker's second-level cache
//!   for tile in block:                       input transform, vectorised over channels
//!     V[0..n*n][tile] = Bt d B
//!   for panel of output channels:            M stays in the first
//!     for point in 0..n*n:                   n*n products [tiles, c] x [c, panel]
//!       M[point] = V[point] * U[panel][point]
//!     for tile in block:                     output transform, bias and ReLU
//!       y = At M[..][tile] A
//! ```
//!
//! It wins on kernels of 3x3 and more with many channels. Transformed filters `U` are `n * n / (r *
//! r)` times as large as the filters and stream by for each block of tiles: large tiles of large
//! filters on small maps are limited by that. The smallest tile has the smallest error. So `m` is a
//! tuning.

mod bf16;
mod engine;
mod family;
pub mod separable;
mod tiling;
mod transform;

use crate::error::Unsupported;
use crate::problem::Window;
use family::{Geometry, TransformKernel, require_stride};

/// The kernel for square windows.
pub type Winograd<I> = TransformKernel<I, Square>;

/// 3x3 and 5x5.
#[derive(Debug)]
pub struct Square;

impl Geometry for Square {
    fn supports(window: &Window) -> Result<(), Unsupported> {
        match window.kernel {
            [3, 3] => require_stride(window, 2, "1x1 or 2x2"),
            [5, 5] => require_stride(window, 1, "1x1"),
            [r, s] => {
                Err(Unsupported::Shape { what: "kernel", found: format!("{r}x{s}"), expected: "3x3 or 5x5" })
            }
        }
    }

    fn outputs(window: &Window) -> &'static [usize] {
        match (window.kernel[0], window.stride[0]) {
            (3, 1) => &[2, 3, 4, 5, 6],
            (3, _) => &[2, 3, 4],
            _ => &[2, 3, 4, 5],
        }
    }
}
