//! Pointers with shapes, through which kernels read and write.

#![allow(unsafe_code, reason = "views are pointers that the workers of a team share")]

use std::marker::PhantomData;
use std::ops::{Deref, Range};

use super::dtype::{Dtype, Element};
use super::format::Pitch;
use crate::shape::{Padding, Shape};

/// A read-only activation, or a range of its channels. Padded rows follow each other without a gap,
/// and so do padded images.
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

// SAFETY: a `View` only hands out a pointer; access through it is `unsafe` and relies on the
// contract of `Prepared::run`: nobody writes a step's source while the step runs, and units write
// disjoint pixels or channels, and each has one worker.
unsafe impl Send for View<'_> {}
// SAFETY: as above.
unsafe impl Sync for View<'_> {}

impl<'a> Deref for ViewMut<'a> {
    type Target = View<'a>;

    #[inline(always)]
    fn deref(&self) -> &View<'a> {
        &self.view
    }
}

impl<'a> View<'a> {
    /// Of memory with the interior at `ptr`: the caller has checked that it holds image and halo.
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
        debug_assert!(
            n < self.shape.n
                && (-(self.halo.top as isize)..(self.shape.h + self.halo.bottom) as isize).contains(&h)
                && (-(self.halo.left as isize)..(self.shape.w + self.halo.right) as isize).contains(&w),
            "image {n}, row {h}, column {w} of {} with halo {:?}",
            self.shape,
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

    /// Without a halo: all pixels of all images lie at one distance.
    #[inline(always)]
    pub fn is_flat(&self) -> bool {
        self.halo == Padding::default()
    }
}

impl ViewMut<'_> {
    /// Pointer to channel 0 of the pixel, as [`View::pixel`].
    #[inline(always)]
    pub fn pixel<T: Element>(&self, n: usize, h: usize, w: usize) -> *mut T {
        self.view.pixel::<T>(n, h as isize, w as isize).cast_mut()
    }

    /// The first byte of channel 0 of the pixel, whatever the type.
    #[inline(always)]
    pub fn byte(&self, n: usize, h: usize, w: usize) -> *mut u8 {
        self.view.byte(n, h as isize, w as isize).cast_mut()
    }

    /// The first `n` images.
    pub fn images(self, n: usize) -> Self {
        Self { view: self.view.images(n) }
    }

    /// The images from the `first` on.
    pub fn skip(self, first: usize) -> Self {
        Self { view: self.view.skip(first) }
    }

    /// Writes zeros into a worker's share of the halo.
    ///
    /// # Safety
    /// Meanwhile only the other workers, each with its share, may use the halo's channels.
    pub(crate) unsafe fn clear_halo(&self, worker: usize, workers: usize) {
        if self.is_flat() {
            return;
        }
        let View { shape, halo, .. } = self.view;
        let padded = halo.top + shape.h + halo.bottom;
        let (left, right) = (-(halo.left as isize), (shape.w + halo.right) as isize);
        let rows = shape.n * padded;
        for row in rows * worker / workers..rows * (worker + 1) / workers {
            let (n, h) = (row / padded, (row % padded) as isize - halo.top as isize);
            let is_inside = (0..shape.h as isize).contains(&h);
            let columns = if is_inside { [left..0, shape.w as isize..right] } else { [left..right, 0..0] };
            // SAFETY: by the caller. Zero is the same bits in every type.
            columns.into_iter().for_each(|columns| unsafe { self.fill(n, h, columns, 0) });
        }
    }

    /// Fills the interior with NaN, or 255 of u8, so that a pixel that a kernel forgets is seen.
    ///
    /// # Safety
    /// Nobody else may read or write the interior at the same time.
    pub(crate) unsafe fn poison(&self) {
        for n in 0..self.shape.n {
            for h in 0..self.shape.h as isize {
                // SAFETY: by the caller. All ones are a NaN in every type that has one.
                unsafe { self.fill(n, h, 0..self.shape.w as isize, 0xff) };
            }
        }
    }

    /// Sets all bytes of some pixels' channels.
    ///
    /// # Safety
    /// Nobody else may read or write them at the same time.
    unsafe fn fill(&self, n: usize, h: isize, columns: Range<isize>, value: u8) {
        let bytes = self.shape.c * self.dtype.bytes();
        for w in columns {
            let pixel = self.view.byte(n, h, w).cast_mut();
            // SAFETY: the pixel lies in the view or its halo; by the caller, nobody else uses it.
            unsafe { std::slice::from_raw_parts_mut(pixel, bytes) }.fill(value);
        }
    }
}
