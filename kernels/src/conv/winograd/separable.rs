//! One-dimensional convolution: 1x3, 3x1, 1x5, 5x1, 1x7 and 7x1 as fast algorithms along their one axis.
//!
//! The kernel has extent along one axis only, so a tile is a line of pixels, F(m, r) is applied along it
//! and the other axis is left alone: `m` outputs from `m + r - 1` products in place of `m * r`. The
//! engine is that of [`super::engine`]. F(4, 7) needs 10 products for 28, F(6, 7) 12 for 42; on a
//! 17 pixels wide map, whose last tile is part waste, that is 2.4 and 3.3 times less.

use super::engine::PreparedTiles;
use super::tiling::Tiling;
use super::{numerics, require_stride, tunings};
use crate::cpu::{Cpu, Isa};
use crate::error::Unsupported;
use crate::filter::Filter;
use crate::kernel::{Kernel, Numerics, Prepared, Tuning, validate};
use crate::problem::Problem;
use crate::tensor::Formats;

/// Kernels with extent along one axis, for one instruction set.
#[derive(Debug)]
pub struct Separable<I> {
    isa: I,
}

impl<I: Isa> Separable<I> {
    /// For the table.
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        Ok(Box::new(Self { isa: I::new(cpu)? }))
    }
}

impl<I: Isa> Kernel for Separable<I> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        let conv = problem.as_conv()?;
        require_stride(conv, 1, "1x1")?;
        match conv.window.kernel {
            [1, 3 | 5 | 7] | [3 | 5 | 7, 1] => Ok(()),
            [r, s] => Err(Unsupported::Shape {
                what: "kernel",
                found: format!("{r}x{s}"),
                expected: "1x3, 1x5, 1x7, 3x1, 5x1 or 7x1",
            }),
        }
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = problem.as_conv() else { return Vec::new() };
        let [r, s] = conv.window.kernel;
        let outputs: &[usize] = match r.max(s) {
            3 => &[2, 3, 4, 6],
            5 => &[2, 4],
            _ => &[2, 3, 4, 5, 6],
        };
        tunings::<I>(conv, outputs)
    }

    fn formats(&self, _: &Problem, _: &Tuning) -> Vec<Formats> {
        Formats::ALL.into()
    }

    fn numerics(&self, problem: &Problem, tuning: &Tuning) -> Numerics {
        numerics(problem, tuning)
    }

    fn multiply_adds(&self, problem: &Problem, tuning: &Tuning) -> u64 {
        let Ok(conv) = problem.as_conv() else { return 0 };
        Tiling::new(conv, tuning.get("m")).multiply_adds()
    }

    fn prepare(
        &self,
        problem: &Problem,
        tuning: &Tuning,
        formats: &Formats,
        filters: &[Filter],
    ) -> Result<Box<dyn Prepared>, Unsupported> {
        validate(self, problem, tuning, formats, filters)?;
        let conv = problem.as_conv()?;
        let tiling = Tiling::new(conv, tuning.get("m"));
        Ok(Box::new(PreparedTiles::new(self.isa, tiling, tuning, formats, filters)))
    }
}
