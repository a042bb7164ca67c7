//! Types of elements.

use std::fmt;

use half::bf16;

/// Type of an element in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// The upper half of an IEEE binary32: 8 significant bits. Rounded to nearest, ties to even.
    Bf16,
}

impl Dtype {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// Largest relative error of rounding to it.
    pub const fn unit_roundoff(self) -> f64 {
        match self {
            Self::F32 => f32::EPSILON as f64 / 2.0,
            Self::Bf16 => 1.0 / 256.0,
        }
    }

    /// A value as it is when it has been stored.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

mod sealed {
    /// Nobody else may implement [`super::Element`].
    pub trait Plain: pulp::bytemuck::Pod {}
    impl Plain for f32 {}
    impl Plain for half::bf16 {}
}

/// A type that elements have in memory.
pub trait Element: sealed::Plain {
    /// Which it is.
    const DTYPE: Dtype;
    /// Rounds to nearest, ties to even.
    fn from_f32(value: f32) -> Self;
    /// Exact.
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}
