//! Softmax over the channels of a pixel: `exp(x - max) / sum`. Where a channel is infinite or NaN,
//! all are NaN: that is no distribution.

#![allow(unsafe_code, reason = "vector code")]

use crate::cpu::Isa;
use crate::pixel_function::{PixelFunction, PixelKernel};
use crate::problem::Problem;
use crate::vector::{exp, load_first, store_first};

pub type Softmax<I> = PixelKernel<I, Function>;

pub struct Function;

impl PixelFunction for Function {
    const KIND: &'static str = "softmax";

    fn takes(problem: &Problem) -> bool {
        matches!(problem, Problem::Softmax { .. })
    }

    #[inline(always)]
    unsafe fn compute<I: Isa>(isa: I, x: *const f32, y: *mut f32, channels: usize) {
        let steps = || (0..channels).step_by(I::F32_LANES);
        // SAFETY: by the caller.
        let (x, out) =
            unsafe { (std::slice::from_raw_parts(x, channels), std::slice::from_raw_parts_mut(y, channels)) };
        let largest = x.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
        for c in steps() {
            // SAFETY: `channels - c` elements are left in both.
            unsafe {
                let power = load_first(isa, x.as_ptr().add(c), channels - c);
                let power = exp(isa, isa.sub_f32s(power, isa.splat_f32s(largest)));
                store_first(isa, out.as_mut_ptr().add(c), power, channels - c);
            }
        }
        // Maximum and power pass NaN over. Zero times what is not finite is NaN.
        let finite: f32 = x.iter().map(|v| v * 0.0).sum();
        // In f64 the sum is the same whatever the width of vectors.
        let sum: f64 = out.iter().map(|&power| f64::from(power)).sum();
        let scale = isa.splat_f32s((1.0 / sum) as f32 + finite);
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
