//! Where tensors live: formats, pitches, and the views through which kernels read and write.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use half::bf16;

use crate::shape::{Padding, Shape};

mod placement;

pub use placement::{Placement, Tensor};

/// Type of an element in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// The upper half of an IEEE binary32: 8 significant bits. Values are rounded to nearest, ties to even.
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
            Self::Bf16 => bf16::of(value).value(),
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
    /// Types of which every pattern of bits is a value.
    pub trait Plain: Copy + 'static {}
    impl Plain for f32 {}
    impl Plain for half::bf16 {}
}

/// A type that elements have in memory.
pub trait Element: sealed::Plain {
    /// Which it is.
    const DTYPE: Dtype;
    /// The nearest, ties to even.
    fn of(value: f32) -> Self;
    /// Its value.
    fn value(self) -> f32;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;

    #[inline(always)]
    fn of(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;

    #[inline(always)]
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }

    #[inline(always)]
    fn value(self) -> f32 {
        self.to_f32()
    }
}

/// How an activation lies in memory: NHWC, channels contiguous, with zeros around each image.
///
/// As a kernel's demand ([`crate::kernel::Kernel::formats`]) the halo of a source is a minimum; at prepare
/// it is exact. Destinations are written with whatever halo their readers want, each with its own: it is
/// known from their views when the kernel runs, and their format says nothing of it.
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

    /// f32 with a halo.
    pub fn f32_with_halo(halo: Padding) -> Self {
        Self::with_halo(Dtype::F32, halo)
    }

    /// A type with a halo.
    pub fn with_halo(dtype: Dtype, halo: Padding) -> Self {
        Self { dtype, halo }
    }
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
    pub const ALL: [Self; 4] = [
        Self::F32,
        Self { src: Format::F32, dst: Format::BF16 },
        Self { src: Format::BF16, dst: Format::F32 },
        Self { src: Format::BF16, dst: Format::BF16 },
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

impl Pitch {
    /// The closest packing of `shape` with `halo` and at least `pixel` elements from pixel to pixel.
    pub fn packed(shape: Shape, halo: Padding, pixel: usize) -> Self {
        let row = pixel * (shape.w + halo.left + halo.right);
        Self { image: row * (shape.h + halo.top + halo.bottom), row, pixel }
    }

    /// Elements from the start of the first image's interior, halo above and to the left of it.
    fn lead(&self, halo: Padding) -> usize {
        halo.top * self.row + halo.left * self.pixel
    }
}

/// A read-only activation, or a range of its channels.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    ptr: *const u8,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Extents of the interior.
    pub shape: Shape,
    /// Distances.
    pub pitch: Pitch,
    /// Zeros around the interior that may be read.
    pub halo: Padding,
    memory: PhantomData<&'a [u8]>,
}

/// A writable activation, or a range of its channels; the workers of a team share it.
#[derive(Clone, Copy, Debug)]
pub struct ViewMut<'a> {
    view: View<'a>,
}

#[allow(unsafe_code, reason = "views are pointers that the workers of a team share")]
mod shared {
    use super::{View, ViewMut};
    // SAFETY: a `View` only hands out a pointer; reading through it is `unsafe` and relies on the
    // contract of `Prepared::run`, by which nobody writes a step's source while the step runs.
    unsafe impl Send for View<'_> {}
    // SAFETY: as above.
    unsafe impl Sync for View<'_> {}
    // SAFETY: writing through a `ViewMut` is `unsafe` and relies on the contract of
    // `Prepared::run`: units write disjoint pixels or channels, and each has one worker.
    unsafe impl Send for ViewMut<'_> {}
    // SAFETY: as above.
    unsafe impl Sync for ViewMut<'_> {}
}

impl<'a> View<'a> {
    /// Pointer to channel 0 of the pixel of an f32 activation, as [`Self::at`].
    #[inline(always)]
    pub fn pixel(&self, n: usize, h: isize, w: isize) -> *const f32 {
        self.at(n, h, w)
    }

    /// Pointer to channel 0 of the pixel; negative and overhanging coordinates lie in the halo.
    #[inline(always)]
    pub fn at<T: Element>(&self, n: usize, h: isize, w: isize) -> *const T {
        debug_assert!(self.dtype == T::DTYPE, "{} read as {}", self.dtype, T::DTYPE);
        self.ptr.cast::<T>().wrapping_offset(self.element(n, h, w))
    }

    /// The first byte of channel 0 of the pixel, as [`Self::at`].
    #[inline(always)]
    pub fn byte(&self, n: usize, h: isize, w: isize) -> *const u8 {
        self.ptr.wrapping_offset(self.element(n, h, w) * self.dtype.bytes() as isize)
    }

    /// Elements from the first pixel of the first image to another.
    #[inline(always)]
    fn element(&self, n: usize, h: isize, w: isize) -> isize {
        debug_assert!(n < self.shape.n, "image {n} of {}", self.shape.n);
        debug_assert!(
            h >= -(self.halo.top as isize) && h < (self.shape.h + self.halo.bottom) as isize,
            "row {h} of {} with halo {:?}",
            self.shape.h,
            self.halo
        );
        debug_assert!(
            w >= -(self.halo.left as isize) && w < (self.shape.w + self.halo.right) as isize,
            "column {w} of {} with halo {:?}",
            self.shape.w,
            self.halo
        );
        (n * self.pitch.image) as isize + h * self.pitch.row as isize + w * self.pitch.pixel as isize
    }

    /// The first `n` images.
    pub fn images(self, n: usize) -> Self {
        assert!(n <= self.shape.n, "{n} images of {}", self.shape.n);
        Self { shape: Shape { n, ..self.shape }, ..self }
    }

    /// The images from the `first` on.
    pub fn skip(self, first: usize) -> Self {
        assert!(first <= self.shape.n, "images from {first} on of {}", self.shape.n);
        let bytes = first * self.pitch.image * self.dtype.bytes();
        let shape = Shape { n: self.shape.n - first, ..self.shape };
        Self { ptr: self.ptr.wrapping_add(bytes), shape, ..self }
    }

    /// Padded rows follow each other without a gap, and so do padded images: without a halo all
    /// pixels of all images lie at one distance.
    pub fn is_regular(&self) -> bool {
        let Self { shape, pitch, halo, .. } = self;
        pitch.row == pitch.pixel * (shape.w + halo.left + halo.right)
            && pitch.image == pitch.row * (shape.h + halo.top + halo.bottom)
    }
}

impl<'a> ViewMut<'a> {
    /// Extents of the interior.
    #[inline(always)]
    pub fn shape(&self) -> Shape {
        self.view.shape
    }

    /// Distances.
    #[inline(always)]
    pub fn pitch(&self) -> Pitch {
        self.view.pitch
    }

    /// Pointer to channel 0 of the pixel of an f32 activation, as [`View::pixel`].
    #[inline(always)]
    pub fn pixel(&self, n: usize, h: usize, w: usize) -> *mut f32 {
        self.at(n, h, w)
    }

    /// Pointer to channel 0 of the pixel, as [`View::at`].
    #[inline(always)]
    pub fn at<T: Element>(&self, n: usize, h: usize, w: usize) -> *mut T {
        self.view.at::<T>(n, h as isize, w as isize).cast_mut()
    }

    /// Type of the elements.
    #[inline(always)]
    pub fn dtype(&self) -> Dtype {
        self.view.dtype
    }

    /// The first byte of channel 0 of the pixel, whatever the type.
    #[inline(always)]
    pub fn byte(&self, n: usize, h: usize, w: usize) -> *mut u8 {
        self.view.byte(n, h as isize, w as isize).cast_mut()
    }

    /// Without a halo: all pixels of all images lie at one distance.
    #[inline(always)]
    pub fn is_flat(&self) -> bool {
        self.view.halo == Padding::default()
    }

    /// The same activation, to read.
    pub fn as_view(&self) -> View<'a> {
        self.view
    }

    /// The first `n` images.
    pub fn images(self, n: usize) -> Self {
        Self { view: self.view.images(n) }
    }

    /// The images from the `first` on.
    pub fn skip(self, first: usize) -> Self {
        Self { view: self.view.skip(first) }
    }

    /// Writes zeros into the halo of the rows `rows` of the padded images, of which there are
    /// `n * (top + h + bottom)`.
    ///
    /// # Safety
    /// Nobody else may read or write those halo pixels' channels at the same time.
    #[allow(unsafe_code, reason = "the disjoint writer of views")]
    pub unsafe fn clear_halo(&self, rows: Range<usize>) {
        let Self { view: View { shape, halo, pitch, .. } } = *self;
        if halo == Padding::default() {
            return;
        }
        let padded = halo.top + shape.h + halo.bottom;
        // Zero is the same bits in every type.
        let bytes = shape.c * self.view.dtype.bytes();
        let clear = |n: usize, h: isize, columns: Range<isize>| {
            for w in columns {
                let pixel = self.view.byte(n, h, w).cast_mut();
                // SAFETY: `pixel` checked by construction to lie in the memory of the view with
                // its halo; the caller keeps others away from it.
                unsafe { std::slice::from_raw_parts_mut(pixel, bytes) }.fill(0);
            }
        };
        debug_assert!(pitch.pixel >= shape.c);
        for row in rows {
            let (n, h) = (row / padded, (row % padded) as isize - halo.top as isize);
            let (left, right) = (-(halo.left as isize), (shape.w + halo.right) as isize);
            if h < 0 || h >= shape.h as isize {
                clear(n, h, left..right);
            } else {
                clear(n, h, left..0);
                clear(n, h, shape.w as isize..right);
            }
        }
    }

    /// Rows of the padded images, the domain of [`Self::clear_halo`].
    pub fn padded_rows(&self) -> usize {
        let halo = self.view.halo;
        self.view.shape.n * (halo.top + self.view.shape.h + halo.bottom)
    }

    /// Fills the interior with NaN, so that a pixel that a kernel forgets is seen.
    ///
    /// # Safety
    /// Nobody else may read or write the interior at the same time.
    #[allow(unsafe_code, reason = "the disjoint writer of views")]
    pub unsafe fn poison(&self) {
        let shape = self.view.shape;
        // All ones are a NaN in every type.
        let bytes = shape.c * self.view.dtype.bytes();
        for n in 0..shape.n {
            for h in 0..shape.h {
                for w in 0..shape.w {
                    let pixel = self.view.byte(n, h as isize, w as isize).cast_mut();
                    // SAFETY: inside the view; the caller keeps others away.
                    unsafe { std::slice::from_raw_parts_mut(pixel, bytes) }.fill(0xff);
                }
            }
        }
    }
}
