//! Pointers with shapes, through which kernels read and write.

#![allow(unsafe_code, reason = "views are pointers that the workers of a team share")]

use std::marker::PhantomData;
use std::ops::Range;

use super::dtype::{Dtype, Element};
use super::format::Pitch;
use crate::shape::{Padding, Shape};

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
    pub(super) view: View<'a>,
}
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

impl<'a> View<'a> {
    /// Of memory in which the interior begins at `ptr`: the caller has checked that it holds image
    /// and halo.
    pub(super) fn new(ptr: *const u8, dtype: Dtype, shape: Shape, pitch: Pitch, halo: Padding) -> Self {
        Self { ptr, dtype, shape, pitch, halo, memory: PhantomData }
    }

    /// Pointer to channel 0 of the pixel; negative and overhanging coordinates lie in the halo.
    #[inline(always)]
    pub fn pixel<T: Element>(&self, n: usize, h: isize, w: isize) -> *const T {
        debug_assert!(self.dtype == T::DTYPE, "{} read as {}", self.dtype, T::DTYPE);
        self.ptr.cast::<T>().wrapping_offset(self.element(n, h, w))
    }

    /// The first byte of channel 0 of the pixel, as [`Self::pixel`].
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

    /// Pointer to channel 0 of the pixel, as [`View::pixel`].
    #[inline(always)]
    pub fn pixel<T: Element>(&self, n: usize, h: usize, w: usize) -> *mut T {
        self.view.pixel::<T>(n, h as isize, w as isize).cast_mut()
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
                // its halo; by the caller, nobody else uses it.
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
    pub unsafe fn poison(&self) {
        let shape = self.view.shape;
        // All ones are a NaN in every type.
        let bytes = shape.c * self.view.dtype.bytes();
        for n in 0..shape.n {
            for h in 0..shape.h {
                for w in 0..shape.w {
                    let pixel = self.view.byte(n, h as isize, w as isize).cast_mut();
                    // SAFETY: inside the view; by the caller, nobody else uses it.
                    unsafe { std::slice::from_raw_parts_mut(pixel, bytes) }.fill(0xff);
                }
            }
        }
    }
}
