//! How activations lie in memory.

use std::fmt;

use super::dtype::Dtype;
use crate::shape::Padding;

/// As a kernel's demand ([`crate::kernel::Kernel::formats`]) the halo of a source is a minimum; at
/// prepare it is exact. The halo of a destination is what its readers want. A kernel knows it from
/// the view when it runs, not from the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Pixels of zeros around each image.
    pub halo: Padding,
}

impl Format {
    /// f32 without a halo.
    pub const F32: Self = Self { dtype: Dtype::F32, halo: Padding { top: 0, bottom: 0, left: 0, right: 0 } };

    /// bf16 without a halo.
    pub const BF16: Self = Self { dtype: Dtype::Bf16, ..Self::F32 };

    /// u8 without a halo.
    pub const U8: Self = Self { dtype: Dtype::U8, ..Self::F32 };
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Padding { top, bottom, left, right } = self.halo;
        write!(f, "{}:nhwc", self.dtype)?;
        if self.halo != Padding::default() {
            write!(f, ":halo{top},{bottom},{left},{right}")?;
        }
        Ok(())
    }
}

/// Format of a kernel's source and of its destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Formats {
    /// What the kernel reads.
    pub src: Format,
    /// What it writes, in all segments; without a halo.
    pub dst: Format,
}

impl Formats {
    /// f32 on both sides, no halo wanted.
    pub const F32: Self = Self { src: Format::F32, dst: Format::F32 };

    /// All pairs of types, f32 on both sides first; no halo wanted.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self { src: Format::F32, dst: Format::BF16 },
        Self { src: Format::BF16, dst: Format::F32 },
        Self { src: Format::BF16, dst: Format::BF16 },
        Self { src: Format::F32, dst: Format::U8 },
        Self { src: Format::BF16, dst: Format::U8 },
        Self { src: Format::U8, dst: Format::F32 },
        Self { src: Format::U8, dst: Format::BF16 },
        Self { src: Format::U8, dst: Format::U8 },
    ];
}

/// Distances in elements from one image, row or pixel to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pitch {
    /// From an image to the next.
    pub image: usize,
    /// From a row to the next.
    pub row: usize,
    /// From a pixel to the next.
    pub pixel: usize,
}
