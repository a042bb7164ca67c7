//! The fused multiply-adds that a core does in a second: what every kernel's rate is a share of.

use std::hint::black_box;
use std::time::Instant;

use crate::cpu::{Cpu, Isa, Plain, Tier};

/// Independent sums: more than the latency of two units hides.
const SUMS: usize = 12;

struct Peak<I> {
    isa: I,
    rounds: usize,
}

impl<I: Isa> pulp::WithSimd for Peak<I> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> f64 {
        let Self { isa, rounds } = self;
        let x = isa.splat_f32s(black_box(0.5));
        let y = isa.splat_f32s(black_box(0.25));
        let mut sums = [x; SUMS];
        let start = Instant::now();
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = isa.fma(*sum, x, y);
            }
        }
        black_box(sums);
        (2 * rounds * SUMS * I::F32_LANES) as f64 / start.elapsed().as_secs_f64()
    }
}

fn of<I: Isa>(isa: I, rounds: usize) -> f64 {
    isa.vectorize(Peak { isa, rounds })
}

/// Floating-point operations a second of the calling thread, by the instructions of a tier, measured for about
/// `microseconds` on a core of 3 GHz; none where the tier is not there or not allowed.
pub fn tier_peak(cpu: &Cpu, tier: Tier, microseconds: usize) -> Option<f64> {
    let rounds = microseconds * 3000 / (SUMS / 2);
    match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => crate::cpu::Avx512::of(cpu).map(|isa| of(isa, rounds)),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => crate::cpu::Avx2::of(cpu).map(|isa| of(isa, rounds)),
        #[cfg(not(target_arch = "x86_64"))]
        Tier::Avx512 | Tier::Avx2 => return None,
        Tier::Plain => Plain::of(cpu).map(|isa| of(isa, rounds)),
    }
    .ok()
}

/// As [`tier_peak`], by the highest tier that is allowed.
pub fn fma_peak(cpu: &Cpu, microseconds: usize) -> f64 {
    tier_peak(cpu, cpu.tier(), microseconds).unwrap_or(0.0)
}
