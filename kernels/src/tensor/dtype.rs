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
    /// Whole numbers from 0 to 255: values over a scale that each channel has, see
    /// [`crate::filter`]. Rounded to nearest, ties to even, and clamped.
    U8,
}

impl Dtype {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }

    /// Largest error of rounding numbers of at most a magnitude to it; of u8, those that it has.
    pub const fn rounding_error(self, largest: f64) -> f64 {
        match self {
            Self::F32 => f32::EPSILON as f64 / 2.0 * largest,
            Self::Bf16 => largest / 256.0,
            Self::U8 => 0.5,
        }
    }

    /// The nearest value in its range.
    pub fn clamped(self, value: f64) -> f64 {
        match self {
            Self::F32 | Self::Bf16 => value,
            Self::U8 => value.clamp(0.0, u8::MAX.into()),
        }
    }

    /// A value as it is when it has been stored.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 => bf16::from_f32(value).to_f32(),
            Self::U8 => u8::from_f32(value).into(),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::U8 => "u8",
        })
    }
}

mod sealed {
    /// Nobody else may implement [`super::Element`].
    pub trait Plain: pulp::bytemuck::Pod {}
    impl Plain for f32 {}
    impl Plain for half::bf16 {}
    impl Plain for u8 {}
}

/// A type that elements have in memory.
pub trait Element: sealed::Plain {
    /// Which it is.
    const DTYPE: Dtype;
    /// Rounds to nearest, ties to even; clamps what is too large or too small.
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

impl Element for u8 {
    const DTYPE: Dtype = Dtype::U8;

    /// NaN becomes 0.
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value.round_ties_even() as Self
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u8_is_the_nearest_with_ties_to_even_and_clamped() {
        let cases =
            [(0.5, 0), (1.5, 2), (2.5, 2), (254.5, 254), (255.4, 255), (1e9, 255), (-0.6, 0), (-1e9, 0)];
        for (value, expected) in cases {
            assert_eq!(u8::from_f32(value), expected, "{value}");
            assert_eq!(Dtype::U8.round(value), expected.into());
        }
        assert_eq!(u8::from_f32(f32::NAN), 0);
        assert_eq!([-3.0, 7.25, 300.0].map(|value| Dtype::U8.clamped(value)), [0.0, 7.25, 255.0]);
    }
}
