//! One-dimensional convolution: 1x3, 3x1, 1x5, 5x1, 1x7 and 7x1 as fast algorithms along their one
//! axis.
//!
//! The kernel has extent along one axis only, so an output tile is a line of pixels: F(m, r) is
//! applied along the line and the identity along the other axis. It takes `m + r - 1` products in
//! place of `m * r`: F(4, 7) needs 10 products for 28, F(6, 7) 12 for 42. Where the map is no
//! multiple of `m` wide, the last tile of a line is part waste.

use super::family::{Geometry, TransformKernel, require_stride};
use crate::error::Unsupported;
use crate::problem::Window;

/// The kernel for windows along one axis.
pub type Separable<I> = TransformKernel<I, Line>;

/// 3, 5 or 7 pixels along one axis.
#[derive(Debug)]
pub struct Line;

impl Geometry for Line {
    fn supports(window: &Window) -> Result<(), Unsupported> {
        require_stride(window, 1, "1x1")?;
        match window.kernel {
            [1, 3 | 5 | 7] | [3 | 5 | 7, 1] => Ok(()),
            [r, s] => Err(Unsupported::Shape {
                what: "kernel",
                found: format!("{r}x{s}"),
                expected: "1x3, 1x5, 1x7, 3x1, 5x1 or 7x1",
            }),
        }
    }

    fn outputs(window: &Window) -> &'static [usize] {
        match window.kernel.into_iter().max() {
            Some(3) => &[2, 3, 4, 6],
            Some(5) => &[2, 4],
            _ => &[2, 3, 4, 5, 6],
        }
    }
}
