//! Sigmoid of each channel of a pixel: `1 / (1 + exp(-x))`, as `e / (1 + e)` with `e = exp(-|x|)`
//! below zero, so that no power overflows. What is infinite or NaN becomes NaN.

#![allow(unsafe_code, reason = "vector code")]

use crate::cpu::Isa;
use crate::pixel_function::{PixelFunction, PixelKernel};
use crate::problem::Problem;
use crate::vector::{exp, load_first, store_first};

pub type Sigmoid<I> = PixelKernel<I, Function>;

pub struct Function;

impl PixelFunction for Function {
    const KIND: &'static str = "sigmoid";

    fn takes(problem: &Problem) -> bool {
        matches!(problem, Problem::Sigmoid { .. })
    }

    #[inline(always)]
    unsafe fn compute<I: Isa>(isa: I, x: *const f32, y: *mut f32, channels: usize) {
        let [zero, one] = [0.0, 1.0].map(|value| isa.splat_f32s(value));
        for c in (0..channels).step_by(I::F32_LANES) {
            // SAFETY: `channels - c` elements are left in both.
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
