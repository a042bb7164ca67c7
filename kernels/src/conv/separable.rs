//! One-dimensional convolution: 1x3, 3x1, 1x5, 5x1, 1x7 and 7x1 as fast algorithms along their one axis.
//!
//! The kernel has extent along one axis only, so a tile is a line of pixels, F(m, r) is applied along it
//! and the other axis is left alone: `m` outputs from `m + r - 1` products in place of `m * r`. The
//! engine is that of [`super::winograd`]. F(4, 7) needs 10 products for 28; on a 17 pixels wide map,
//! whose fifth tile is mostly waste, that is still 2.4 times less.

use crate::conv::direct::conv_of;
use crate::conv::winograd::{PreparedWinograd, multiply_adds, require_unit_stride, tunings};
use crate::cpu::{Cpu, Isa};
use crate::filter::Filter;
use crate::kernel::{Kernel, Numerics, Prepared, Refusal, Tuning, validate};
use crate::problem::{Conv, Problem};
use crate::tensor::{Dtype, Formats};

/// Kernels with extent along one axis, for one instruction set.
#[derive(Debug)]
pub struct Separable<I> {
    isa: I,
}

impl<I: Isa> Separable<I> {
    /// For the table.
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Refusal> {
        Ok(Box::new(Self { isa: I::of(cpu)? }))
    }
}

/// Outputs of a tile along each axis.
fn outputs(conv: &Conv, m: usize) -> [usize; 2] {
    conv.window.kernel.map(|r| if r == 1 { 1 } else { m })
}

impl<I: Isa> Kernel for Separable<I> {
    fn supports(&self, problem: &Problem) -> Result<(), Refusal> {
        let conv = conv_of(problem)?;
        require_unit_stride(conv)?;
        match conv.window.kernel {
            [1, 3 | 5 | 7] | [3 | 5 | 7, 1] => Ok(()),
            [r, s] => Err(Refusal::Shape {
                what: "kernel",
                found: format!("{r}x{s}"),
                expected: "1x3, 1x5, 1x7, 3x1, 5x1 or 7x1",
            }),
        }
    }

    fn tunings(&self, problem: &Problem) -> Vec<Tuning> {
        let Ok(conv) = conv_of(problem) else { return Vec::new() };
        let [r, s] = conv.window.kernel;
        tunings::<I>(conv, if r.max(s) == 3 { &[4, 2, 6] } else { &[4, 2] })
    }

    fn numerics(&self, problem: &Problem, tuning: &Tuning) -> Numerics {
        let [r, s] = conv_of(problem).map_or([1, 3], |conv| conv.window.kernel);
        let growth = match (tuning.get("m"), r.max(s)) {
            (2, 3) => 1.2,
            (4, 3) | (2, 5) => 3.1,
            (6, 3) | (4, 5) => 5.0,
            (2, _) => 3.9,
            _ => 9.4,
        };
        Numerics { rounding: Dtype::F32, growth }
    }

    fn multiply_adds(&self, problem: &Problem, tuning: &Tuning) -> u64 {
        let Ok(conv) = conv_of(problem) else { return 0 };
        multiply_adds(conv, outputs(conv, tuning.get("m")))
    }

    fn prepare(
        &self,
        problem: &Problem,
        tuning: &Tuning,
        formats: &Formats,
        filters: &[Filter],
    ) -> Result<Box<dyn Prepared>, Refusal> {
        validate(self, problem, tuning, formats, filters)?;
        let conv = conv_of(problem)?;
        let m = outputs(conv, tuning.get("m"));
        Ok(Box::new(PreparedWinograd::new(self.isa, conv, m, tuning, formats, filters)))
    }
}
