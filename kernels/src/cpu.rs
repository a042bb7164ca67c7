//! What the processor can do: tokens that prove an instruction set, cache sizes, and the tier to
//! which a user limits them.

pub use crate::arch::cpuid::Caches;
use crate::arch::lanes::Lanes;
use crate::error::Unsupported;
use crate::tier::Tier;

/// A set of vector instructions that this process may use; holding one is the proof.
pub trait Isa: Lanes {
    /// The tier it belongs to.
    const TIER: Tier;

    /// Whether [`Self::fma`] rounds once.
    const FUSES: bool = true;

    /// The proof, where the processor has the instructions.
    fn detect() -> Option<Self>;

    /// The proof, where the processor has the instructions and the user allows them.
    fn new(cpu: &Cpu) -> Result<Self, Unsupported> {
        cpu.token(Self::TIER, Self::detect())
    }

    /// `a * b + c`: fused where the tier has the instruction, else rounded twice.
    #[inline(always)]
    fn fma(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
        self.mul_add_f32s(a, b, c)
    }

    /// The larger of `x` and `floor`; NaN where `x` is NaN, so that ReLU does not hide it.
    #[inline(always)]
    fn at_least(self, floor: Self::f32s, x: Self::f32s) -> Self::f32s {
        // The second operand is the result where one is NaN.
        self.max_f32s(floor, x)
    }
}

/// The 128-bit vectors that every target has.
pub type Plain = pulp::Scalar128b;

impl Isa for Plain {
    const TIER: Tier = Tier::Plain;
    const FUSES: bool = false;

    fn detect() -> Option<Self> {
        Some(pulp::Scalar128b)
    }

    #[inline(always)]
    fn fma(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
        use pulp::Simd;
        self.add_f32s(self.mul_f32s(a, b), c)
    }

    #[inline(always)]
    fn at_least(self, floor: Self::f32s, x: Self::f32s) -> Self::f32s {
        use pulp::Simd;
        self.select_f32s(self.less_than_f32s(x, floor), floor, x)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    pub use crate::arch::amx::Amx;
    pub use crate::arch::bf16::Avx512Bf16;
    pub use crate::arch::vnni::{Avx512Vnni, AvxVnni};

    /// AVX2 and FMA.
    pub type Avx2 = pulp::x86::V3;
    /// AVX-512.
    pub type Avx512 = pulp::x86::V4;

    impl Isa for Avx2 {
        const TIER: Tier = Tier::Avx2;

        fn detect() -> Option<Self> {
            Self::try_new()
        }
    }

    impl Isa for Avx512 {
        const TIER: Tier = Tier::Avx512;

        fn detect() -> Option<Self> {
            Self::try_new()
        }
    }

    impl AvxVnni {
        /// The proof, where the processor has the instructions and the user allows them.
        pub fn new(cpu: &Cpu) -> Result<Self, Unsupported> {
            cpu.token(Tier::AvxVnni, Avx2::try_new().and_then(|_| Self::detect()))
        }
    }

    impl Avx512Vnni {
        /// The proof, where the processor has the instructions and the user allows them.
        pub fn new(cpu: &Cpu) -> Result<Self, Unsupported> {
            cpu.token(Tier::Avx512Vnni, Avx512::try_new().and_then(|_| Self::detect()))
        }
    }

    impl Avx512Bf16 {
        /// The proof, where the processor has the instructions and the user allows them.
        pub fn new(cpu: &Cpu) -> Result<Self, Unsupported> {
            cpu.token(Tier::Avx512Bf16, Avx512::try_new().and_then(|_| Self::detect()))
        }
    }

    impl Amx {
        /// The proof, where the processor has the instructions and system and user allow them.
        pub fn new(cpu: &Cpu) -> Result<Self, Unsupported> {
            let has_bf16 = Avx512::try_new().and_then(|_| Avx512Bf16::detect()).is_some();
            cpu.token(Tier::Amx, cpu.amx.filter(|_| has_bf16))
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Amx, Avx2, Avx512, Avx512Bf16, Avx512Vnni, AvxVnni};

/// The processor as kernels may use it.
#[derive(Clone, Debug)]
pub struct Cpu {
    limit: Option<Tier>,
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
        Self {
            limit: None,
            // Before there are threads, so that all have the permission.
            #[cfg(target_arch = "x86_64")]
            amx: Amx::detect(),
            caches: cpuid::caches(),
            name: cpuid::name(),
            signature: cpuid::signature(),
        }
    }

    /// Limited to what `tier` includes, and to what earlier limits include.
    pub fn limited_to(mut self, tier: Tier) -> Self {
        self.limit = Some(self.limit.map_or(tier, |limit| limit.common(tier)));
        self
    }

    /// For tests: with an AMX that was not detected.
    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    pub fn with_amx(mut self, amx: Amx) -> Self {
        self.amx = Some(amx);
        self
    }

    /// Refuses kernels that choose their instructions themselves, unless the limit allows all that
    /// the processor has.
    pub fn ensure_unlimited(&self) -> Result<(), Unsupported> {
        let needed = Self { limit: None, ..self.clone() }.tier();
        match self.limit {
            Some(limit) if !limit.includes(needed) => Err(Unsupported::IsaLimited { needed, limit }),
            _ => Ok(()),
        }
    }

    /// The last of [`Tier::ALL`] that the processor has and the limit allows.
    pub fn tier(&self) -> Tier {
        let has = |tier: &Tier| match tier {
            Tier::Plain => true,
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => Avx2::new(self).is_ok(),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => Avx512::new(self).is_ok(),
            #[cfg(target_arch = "x86_64")]
            Tier::AvxVnni => AvxVnni::new(self).is_ok(),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni => Avx512Vnni::new(self).is_ok(),
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Bf16 => Avx512Bf16::new(self).is_ok(),
            #[cfg(target_arch = "x86_64")]
            Tier::Amx => Amx::new(self).is_ok(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        };
        Tier::ALL.into_iter().rev().find(has).unwrap_or(Tier::Plain)
    }

    fn token<T>(&self, tier: Tier, found: Option<T>) -> Result<T, Unsupported> {
        match (found, self.limit) {
            (None, _) => Err(Unsupported::Isa(tier)),
            (Some(_), Some(limit)) if !limit.includes(tier) => {
                Err(Unsupported::IsaLimited { needed: tier, limit })
            }
            (Some(token), _) => Ok(token),
        }
    }
}
