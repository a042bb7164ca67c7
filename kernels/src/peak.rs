//! Multiply-adds a second that a core does at most.

use std::hint::black_box;
use std::time::Instant;

use crate::cpu::{Cpu, Isa, Plain};
use crate::tier::Tier;

/// Independent sums: enough to hide the latency of two units.
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

fn multiply_adds<I: Isa>(cpu: &Cpu, rounds: usize) -> Option<f64> {
    I::new(cpu).ok().map(|isa| isa.vectorize(Peak { isa, rounds }))
}

#[cfg(target_arch = "x86_64")]
mod groups {
    use std::marker::PhantomData;

    use super::*;
    use crate::arch::amx::{ROWS, SUMS as SUMS_OF_BLOCK, TileElement, TileRegisters};
    use crate::cpu::Amx;
    use crate::gemm::multiply::Multiply;

    struct Groups<I, M> {
        isa: I,
        rounds: usize,
        multiply: PhantomData<M>,
    }

    impl<I: Isa, M: Multiply<I>> pulp::WithSimd for Groups<I, M> {
        type Output = f64;

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) -> f64 {
            let Self { isa, rounds, .. } = self;
            // Two small numbers of bf16, and four of u8.
            let x = isa.splat_f32s(f32::from_bits(black_box(0x3d00_3d00)));
            let mut sums = [x; SUMS];
            let start = Instant::now();
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = M::add(isa, x, x, *sum);
                }
            }
            black_box(sums);
            (2 * M::GROUP * rounds * SUMS * I::F32_LANES) as f64 / start.elapsed().as_secs_f64()
        }
    }

    /// Products of pairs of bf16, or of fours of u8, that one instruction sums.
    pub fn products<I: Isa, M: Multiply<I>>(cpu: &Cpu, rounds: usize) -> Option<f64> {
        M::new(cpu).ok()?;
        let isa = I::new(cpu).ok()?;
        Some(isa.vectorize(Groups::<I, M> { isa, rounds, multiply: PhantomData }))
    }

    /// Two by two tiles whose operands stay where they are.
    pub fn tiles<T: TileElement>(cpu: &Cpu, microseconds: usize) -> Option<f64> {
        let tiles = TileRegisters::new(Amx::new(cpu).ok()?, ROWS);
        let rounds = (microseconds * 3000 / (4 * ROWS)).max(1);
        let start = Instant::now();
        tiles.products::<T>(rounds);
        Some((2 * rounds * SUMS_OF_BLOCK * T::DEPTH) as f64 / start.elapsed().as_secs_f64())
    }
}

/// Operations a second of the calling thread, by the instructions that a tier adds: of bf16 or of
/// u8 for the tiers that multiply these, else of f32. Tiles do those of bf16 here, and twice as many
/// of u8. It is measured for about `microseconds` on a
/// core of 3 GHz. None where the tier is not there or not allowed.
pub fn tier_peak(cpu: &Cpu, tier: Tier, microseconds: usize) -> Option<f64> {
    let rounds = microseconds * 3000 / (SUMS / 2);
    match tier {
        Tier::Plain => multiply_adds::<Plain>(cpu, rounds),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 => multiply_adds::<crate::cpu::Avx2>(cpu, rounds),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512 => multiply_adds::<crate::cpu::Avx512>(cpu, rounds),
        #[cfg(target_arch = "x86_64")]
        Tier::AvxVnni => groups::products::<crate::cpu::Avx2, crate::cpu::AvxVnni>(cpu, rounds),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512Vnni => groups::products::<crate::cpu::Avx512, crate::cpu::Avx512Vnni>(cpu, rounds),
        #[cfg(target_arch = "x86_64")]
        Tier::Avx512Bf16 => groups::products::<crate::cpu::Avx512, crate::cpu::Avx512Bf16>(cpu, rounds),
        #[cfg(target_arch = "x86_64")]
        Tier::Amx => groups::tiles::<half::bf16>(cpu, microseconds),
        #[cfg(not(target_arch = "x86_64"))]
        _ => None,
    }
}

/// Cycles from one product of a chain of 64-bit multiplications to the next, on all x86 cores since
/// 2008 (A. Fog, "Instruction tables").
const MULTIPLICATION: usize = 3;

/// Cycles a second of the calling thread's core, measured for about `microseconds` on a core of 3
/// GHz. Right where a 64-bit product takes 3 cycles.
pub fn clock(microseconds: usize) -> f64 {
    let products = microseconds * 3000 / MULTIPLICATION;
    let mut x = black_box(3_u64);
    let start = Instant::now();
    for _ in 0..products {
        x = x.wrapping_mul(x);
    }
    black_box(x);
    (products * MULTIPLICATION) as f64 / start.elapsed().as_secs_f64()
}

/// As [`tier_peak`], by the highest tier of f32 that is allowed.
pub fn fma_peak(cpu: &Cpu, microseconds: usize) -> f64 {
    let mut of_f32 = Tier::ALL.into_iter().rev().filter(|tier| tier.is_of_f32());
    of_f32.find_map(|tier| tier_peak(cpu, tier, microseconds)).unwrap_or(0.0)
}
