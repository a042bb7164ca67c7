//! Sigmoid of each channel of a pixel: `1 / (1 + exp(-x))`, as `e / (1 + e)` with `e = exp(-|x|)`
//! below zero, so that no power overflows. What is infinite or NaN becomes NaN.

#![allow(unsafe_code, reason = "vector code")]

use std::ops::Range;

use crate::cpu::{Cpu, Isa};
use crate::error::Unsupported;
use crate::kernel::{Io, Kernel, Prepared, Request, Signature};
use crate::memory::Scratch;
use crate::problem::Problem;
use crate::tensor::{View, ViewMut};
use crate::vector::{exp, load_first, store_first};

pub struct Sigmoid<I> {
    isa: I,
}

impl<I: Isa> Sigmoid<I> {
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        Ok(Box::new(Self { isa: I::new(cpu)? }))
    }
}

impl<I: Isa> Kernel for Sigmoid<I> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        match problem {
            Problem::Sigmoid { .. } => Ok(()),
            _ => Err(Unsupported::Kind("sigmoid")),
        }
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        Ok(Box::new(PreparedSigmoid { isa: self.isa, signature: request.signature() }))
    }
}

struct PreparedSigmoid<I> {
    isa: I,
    signature: Signature,
}

impl<I: Isa> Prepared for PreparedSigmoid<I> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// An image.
    fn units(&self, _: usize, n: usize) -> usize {
        n
    }

    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, _: &mut Scratch) {
        self.isa.vectorize(Run { isa: self.isa, src: io.src, dst: io.dst(0), images: units })
    }
}

struct Run<'a, I> {
    isa: I,
    src: View<'a>,
    dst: ViewMut<'a>,
    images: Range<usize>,
}

impl<I: Isa> pulp::WithSimd for Run<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { isa, src, dst, images } = self;
        let channels = src.shape.c;
        let [zero, one] = [0.0, 1.0].map(|value| isa.splat_f32s(value));
        for n in images {
            let (x, y) = (src.pixel::<f32>(n, 0, 0), dst.pixel::<f32>(n, 0, 0));
            for c in (0..channels).step_by(I::F32_LANES) {
                // SAFETY: `channels - c` elements are left of a pixel of the source, and of this
                // unit's of the destination.
                unsafe {
                    let x = load_first(isa, x.wrapping_add(c), channels - c);
                    let power = exp(isa, isa.min_f32s(x, isa.neg_f32s(x)));
                    let numerator = isa.select_f32s(isa.less_than_f32s(x, zero), power, one);
                    let value = isa.div_f32s(numerator, isa.add_f32s(one, power));
                    // Comparisons and power pass NaN over. Zero times what is not finite is NaN.
                    let value = isa.add_f32s(value, isa.mul_f32s(x, zero));
                    store_first(isa, y.wrapping_add(c), value, channels - c);
                }
            }
        }
    }
}
