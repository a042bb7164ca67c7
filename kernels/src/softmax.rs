//! Softmax over the channels of a pixel: `exp(x - max) / sum`. Where a channel is infinite or NaN,
//! all are NaN: that is no distribution.

#![allow(unsafe_code, reason = "vector code")]

use std::ops::Range;

use crate::cpu::{Cpu, Isa};
use crate::error::Unsupported;
use crate::kernel::{Io, Kernel, Prepared, Request, Signature};
use crate::memory::Scratch;
use crate::problem::Problem;
use crate::tensor::{View, ViewMut};
use crate::vector::{exp, load_first, store_first};

pub struct Softmax<I> {
    isa: I,
}

impl<I: Isa> Softmax<I> {
    pub fn make(cpu: &Cpu) -> Result<Box<dyn Kernel>, Unsupported> {
        Ok(Box::new(Self { isa: I::new(cpu)? }))
    }
}

impl<I: Isa> Kernel for Softmax<I> {
    fn supports(&self, problem: &Problem) -> Result<(), Unsupported> {
        match problem {
            Problem::Softmax { .. } => Ok(()),
            _ => Err(Unsupported::Kind("softmax")),
        }
    }

    fn prepare_checked(&self, request: &Request) -> Result<Box<dyn Prepared>, Unsupported> {
        Ok(Box::new(PreparedSoftmax { isa: self.isa, signature: request.signature() }))
    }
}

struct PreparedSoftmax<I> {
    isa: I,
    signature: Signature,
}

impl<I: Isa> Prepared for PreparedSoftmax<I> {
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
        let steps = || (0..channels).step_by(I::F32_LANES);
        for n in images {
            let (x, y) = (src.pixel::<f32>(n, 0, 0), dst.pixel::<f32>(n, 0, 0));
            // SAFETY: the channels of a pixel of the source; of the destination, this unit's.
            let (x, out) = unsafe {
                (std::slice::from_raw_parts(x, channels), std::slice::from_raw_parts_mut(y, channels))
            };
            let largest = x.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
            let mut sum = isa.splat_f32s(0.0);
            for c in steps() {
                // SAFETY: `channels - c` elements are left in both.
                unsafe {
                    let power = load_first(isa, x.as_ptr().add(c), channels - c);
                    let power = exp(isa, isa.sub_f32s(power, isa.splat_f32s(largest)));
                    store_first(isa, out.as_mut_ptr().add(c), power, channels - c);
                    sum = isa.add_f32s(sum, load_first(isa, out.as_ptr().add(c), channels - c));
                }
            }
            // Maximum and power pass NaN over. Zero times what is not finite is NaN.
            let finite: f32 = x.iter().map(|v| v * 0.0).sum();
            let scale = isa.splat_f32s(1.0 / isa.reduce_sum_f32s(sum) + finite);
            for c in steps() {
                // SAFETY: as above.
                unsafe {
                    let at = out.as_mut_ptr().add(c);
                    let power = load_first(isa, at, channels - c);
                    store_first(isa, at, isa.mul_f32s(power, scale), channels - c);
                }
            }
        }
    }
}
