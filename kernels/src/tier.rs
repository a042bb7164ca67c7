//! Instruction sets.

use std::fmt;
use std::str::FromStr;

/// An instruction set that kernels are written for.
///
/// Tiers form a tree, not a line: each builds on one other, and two that build on the same one need
/// not include each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// What the compiler's target guarantees: 128-bit vectors, no fused multiply-add.
    Plain,
    /// AVX2 and FMA: 256-bit vectors.
    Avx2,
    /// AVX2 with sums of products of 8 bits.
    AvxVnni,
    /// AVX-512 F, BW, CD, DQ, VL: 512-bit vectors.
    Avx512,
    /// AVX-512 with sums of products of 8 bits.
    Avx512Vnni,
    /// The same with products of pairs of bf16: all processors that have these have both.
    Avx512Bf16,
    /// AMX: tile registers of bf16 and of u8.
    Amx,
}

impl Tier {
    /// All tiers, each behind the one it builds on.
    pub const ALL: [Self; 7] =
        [Self::Plain, Self::Avx2, Self::AvxVnni, Self::Avx512, Self::Avx512Vnni, Self::Avx512Bf16, Self::Amx];

    /// The tier that this one adds instructions to.
    pub fn base(self) -> Option<Self> {
        match self {
            Self::Plain => None,
            Self::Avx2 => Some(Self::Plain),
            Self::AvxVnni | Self::Avx512 => Some(Self::Avx2),
            Self::Avx512Vnni => Some(Self::Avx512),
            Self::Avx512Bf16 => Some(Self::Avx512Vnni),
            Self::Amx => Some(Self::Avx512Bf16),
        }
    }

    /// Whether all instructions of `other` are also of this tier: a limit to this one allows it.
    pub fn includes(self, other: Self) -> bool {
        self == other || self.base().is_some_and(|base| base.includes(other))
    }

    /// The last tier that both include.
    pub fn common(self, other: Self) -> Self {
        match self.base() {
            Some(base) if !other.includes(self) => base.common(other),
            _ => self,
        }
    }

    /// Whether the instructions that it adds multiply f32, not bf16 or whole numbers.
    pub fn is_of_f32(self) -> bool {
        matches!(self, Self::Plain | Self::Avx2 | Self::Avx512)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        })
    }
}

impl FromStr for Tier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|tier| tier.to_string() == text);
        found.ok_or_else(|| {
            format!("found `{text}`, expected {}", Self::ALL.map(|tier| tier.to_string()).join(", "))
        })
    }
}
