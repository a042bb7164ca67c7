//! What the processor can do: tokens that prove an instruction set, cache sizes, and the tier to
//! which a user limits them.

use std::fmt;
use std::str::FromStr;

pub use crate::arch::cpuid::Caches;
use crate::kernel::Refusal;

/// Instruction sets, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// What the compiler's target guarantees: 128-bit vectors, no fused multiply-add.
    Plain,
    /// AVX2 and FMA: 256-bit vectors.
    Avx2,
    /// AVX-512 F, BW, CD, DQ, VL: 512-bit vectors.
    Avx512,
    /// AVX-512 with products of pairs of bf16.
    Avx512Bf16,
    /// Tiles of bf16, beside all of that.
    Amx,
}

impl Tier {
    /// All tiers.
    pub const ALL: [Self; 5] = [Self::Plain, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// Whether what it adds multiplies f32; the tiers above multiply bf16.
    pub fn is_of_f32(self) -> bool {
        self <= Self::Avx512
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        })
    }
}

impl FromStr for Tier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|tier| tier.to_string() == text)
            .ok_or_else(|| format!("found `{text}`, expected plain, avx2, avx512, avx512bf16 or amx"))
    }
}

/// A set of vector instructions that this process may use; holding one is the proof.
pub trait Isa: pulp::Simd {
    /// The tier it belongs to.
    const TIER: Tier;
    /// Vector registers.
    const REGISTERS: usize;

    /// The proof, where the processor has the instructions and the user allows them.
    fn of(cpu: &Cpu) -> Result<Self, Refusal>;

    /// `a * b + c`: fused where the tier has the instruction, else rounded twice.
    fn fma(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s;
}

/// The 128-bit vectors that every target has.
pub type Plain = pulp::Scalar128b;

impl Isa for Plain {
    const TIER: Tier = Tier::Plain;
    const REGISTERS: usize = 16;

    fn of(_: &Cpu) -> Result<Self, Refusal> {
        Ok(pulp::Scalar128b)
    }

    #[inline(always)]
    fn fma(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
        use pulp::Simd;
        self.add_f32s(self.mul_f32s(a, b), c)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use pulp::Simd;

    /// AVX2 and FMA.
    pub type Avx2 = pulp::x86::V3;
    /// AVX-512.
    pub type Avx512 = pulp::x86::V4;

    impl Isa for Avx2 {
        const TIER: Tier = Tier::Avx2;
        const REGISTERS: usize = 16;

        fn of(cpu: &Cpu) -> Result<Self, Refusal> {
            cpu.token(Self::TIER, Self::try_new())
        }

        #[inline(always)]
        fn fma(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
            self.mul_add_f32s(a, b, c)
        }
    }

    impl Isa for Avx512 {
        const TIER: Tier = Tier::Avx512;
        const REGISTERS: usize = 32;

        fn of(cpu: &Cpu) -> Result<Self, Refusal> {
            cpu.token(Self::TIER, Self::try_new())
        }

        #[inline(always)]
        fn fma(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
            self.mul_add_f32s(a, b, c)
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
pub use crate::arch::{amx::Amx, bf16::Avx512Bf16};

#[cfg(target_arch = "x86_64")]
impl Avx512Bf16 {
    fn try_new() -> Option<Self> {
        Avx512::try_new().and_then(|_| Self::new())
    }

    /// The proof, where the processor has the instructions and the user allows them.
    pub fn of(cpu: &Cpu) -> Result<Self, Refusal> {
        cpu.token(Tier::Avx512Bf16, Self::try_new())
    }
}

#[cfg(target_arch = "x86_64")]
impl Amx {
    /// The proof, where the processor has the instructions and system and user allow them.
    pub fn of(cpu: &Cpu) -> Result<Self, Refusal> {
        cpu.token(Tier::Amx, cpu.amx.filter(|_| Avx512Bf16::try_new().is_some()))
    }
}

/// The processor as kernels may use it.
#[derive(Clone, Debug)]
pub struct Cpu {
    limit: Tier,
    #[cfg(target_arch = "x86_64")]
    amx: Option<Amx>,
    /// Data caches of a core.
    pub caches: Caches,
    /// Brand string.
    pub name: String,
    /// Family, model, stepping.
    pub signature: [u32; 3],
}

impl Cpu {
    /// Asks the processor.
    pub fn detect() -> Self {
        use crate::arch::cpuid;
        let known = cpuid::caches();
        let or = |size, default| if size == 0 { default } else { size };
        let caches =
            Caches { l1d: or(known.l1d, 32 << 10), l2: or(known.l2, 512 << 10), l3: or(known.l3, 8 << 20) };
        Self {
            limit: Tier::Amx,
            // Before there are threads, so that all have the permission.
            #[cfg(target_arch = "x86_64")]
            amx: Amx::new(),
            caches,
            name: cpuid::name(),
            signature: cpuid::signature(),
        }
    }

    /// Pretends to have nothing above `tier`.
    pub fn limited_to(mut self, tier: Tier) -> Self {
        self.limit = self.limit.min(tier);
        self
    }

    /// For tests: with tiles that it was not found to have.
    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    pub fn with_tiles(mut self, amx: Amx) -> Self {
        self.amx = Some(amx);
        self
    }

    /// The highest tier that is allowed.
    pub fn limit(&self) -> Tier {
        self.limit
    }

    /// Without a limit.
    pub fn unlimited(mut self) -> Self {
        self.limit = Tier::Amx;
        self
    }

    /// The highest tier that the processor has and the limit allows.
    pub fn tier(&self) -> Tier {
        let has = |tier: &Tier| match tier {
            Tier::Plain => true,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => Avx2::of(self).is_ok(),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => Avx512::of(self).is_ok(),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Bf16 => Avx512Bf16::of(self).is_ok(),
            #[cfg(target_arch = "x86_64")]
            Tier::Amx => Amx::of(self).is_ok(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        };
        Tier::ALL.into_iter().rev().find(has).unwrap_or(Tier::Plain)
    }

    #[cfg(target_arch = "x86_64")]
    fn token<T>(&self, tier: Tier, found: Option<T>) -> Result<T, Refusal> {
        match found {
            None => Err(Refusal::Isa { needed: tier }),
            Some(_) if tier > self.limit => Err(Refusal::IsaLimited { needed: tier, limit: self.limit }),
            Some(token) => Ok(token),
        }
    }
}
