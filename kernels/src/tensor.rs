//! Where tensors live: formats, pitches, and the views through which kernels read and write.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use crate::problem::Padding;
use crate::scratch::Buffer;

/// Extents of an activation: images, rows, columns, channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Images.
    pub n: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Shape {
    /// From images, `[rows, columns]` and channels.
    pub fn new(n: usize, [h, w]: [usize; 2], c: usize) -> Self {
        Self { n, h, w, c }
    }

    /// Product of the extents.
    pub fn elements(&self) -> usize {
        self.n * self.h * self.w * self.c
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "[{}, {}, {}, {}]", self.n, self.h, self.w, self.c)
    }
}

/// Type of an element in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
        })
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

    /// f32 with a halo.
    pub fn f32_with_halo(halo: Padding) -> Self {
        Self { dtype: Dtype::F32, halo }
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
    ptr: *const f32,
    /// Extents of the interior.
    pub shape: Shape,
    /// Distances.
    pub pitch: Pitch,
    /// Zeros around the interior that may be read.
    pub halo: Padding,
    memory: PhantomData<&'a [f32]>,
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
    /// Pointer to channel 0 of the pixel; negative and overhanging coordinates lie in the halo.
    #[inline(always)]
    pub fn pixel(&self, n: usize, h: isize, w: isize) -> *const f32 {
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
        let at =
            (n * self.pitch.image) as isize + h * self.pitch.row as isize + w * self.pitch.pixel as isize;
        self.ptr.wrapping_offset(at)
    }

    /// The first `n` images.
    pub fn images(self, n: usize) -> Self {
        assert!(n <= self.shape.n, "{n} images of {}", self.shape.n);
        Self { shape: Shape { n, ..self.shape }, ..self }
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
    pub fn pixel(&self, n: usize, h: usize, w: usize) -> *mut f32 {
        self.view.pixel(n, h as isize, w as isize).cast_mut()
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
        let clear = |n: usize, h: isize, columns: Range<isize>| {
            for w in columns {
                let pixel = self.view.pixel(n, h, w).cast_mut();
                // SAFETY: `pixel` checked by construction to lie in the memory of the view with
                // its halo; the caller keeps others away from it.
                unsafe { std::slice::from_raw_parts_mut(pixel, shape.c) }.fill(0.0);
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
        for n in 0..shape.n {
            for h in 0..shape.h {
                for w in 0..shape.w {
                    // SAFETY: inside the view; the caller keeps others away.
                    unsafe { std::slice::from_raw_parts_mut(self.pixel(n, h, w), shape.c) }.fill(f32::NAN);
                }
            }
        }
    }
}

/// Where an activation lies inside a [`Buffer`], and which of its channels are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Elements from the start of the buffer to the first element of the first halo row.
    pub offset: usize,
    /// Extents of the interior, of the channels meant.
    pub shape: Shape,
    /// Distances.
    pub pitch: Pitch,
    /// Zeros around the interior.
    pub halo: Padding,
    /// The first channel meant.
    pub first_channel: usize,
}

impl Placement {
    /// At `offset`, closely packed.
    pub fn packed(offset: usize, shape: Shape, halo: Padding) -> Self {
        let pitch = Pitch::packed(shape, halo, shape.c);
        Self { offset, shape, pitch, halo, first_channel: 0 }
    }

    /// A range of the channels.
    pub fn channels(self, range: Range<usize>) -> Self {
        assert!(range.end <= self.shape.c, "channels {range:?} of {}", self.shape.c);
        let shape = Shape { c: range.len(), ..self.shape };
        Self { shape, first_channel: self.first_channel + range.start, ..self }
    }

    /// Element of the buffer at which a row, counted over images, begins.
    fn row(&self, index: usize) -> usize {
        let Self { shape, pitch, halo, .. } = *self;
        let (n, h) = (index / shape.h, index % shape.h);
        self.offset + n * pitch.image + h * pitch.row + pitch.lead(halo) + self.first_channel
    }

    /// Elements of the buffer that the placement needs, from `offset` on.
    pub fn elements(&self) -> usize {
        self.shape.n * self.pitch.image
    }
}

impl Buffer {
    fn place(&self, p: &Placement) -> View<'_> {
        let last = p.offset + p.elements();
        assert!(last <= self.len(), "a placement ends at {last} of {}", self.len());
        assert!(p.first_channel + p.shape.c <= p.pitch.pixel, "channels overlap the next pixel");
        assert!(p.pitch.pixel * (p.shape.w + p.halo.left + p.halo.right) <= p.pitch.row);
        assert!(p.pitch.row * (p.shape.h + p.halo.top + p.halo.bottom) <= p.pitch.image);
        let start = p.offset + p.pitch.lead(p.halo) + p.first_channel;
        let ptr = self.as_ptr().wrapping_add(start);
        View { ptr, shape: p.shape, pitch: p.pitch, halo: p.halo, memory: PhantomData }
    }

    /// Writes the first `n` images, `[n, h, w, c]` values, and zeros around them.
    ///
    /// # Panics
    /// If there are not as many values as the shape says.
    pub fn write_images(&mut self, placement: &Placement, n: usize, values: &[f32]) {
        let end = placement.offset + n * placement.pitch.image;
        if placement.halo != Padding::default() {
            self.as_mut_slice()[placement.offset..end].fill(0.0);
        }
        self.write_interior(placement, n, values);
    }

    /// Writes `[n, h, w, c]` values of the first `n` images; halo and other channels stay as they are.
    ///
    /// # Panics
    /// If the values are not as many as that.
    pub fn write_interior(&mut self, placement: &Placement, n: usize, values: &[f32]) {
        let shape = Shape { n, ..placement.shape };
        assert_eq!(values.len(), shape.elements(), "values of {shape}");
        for (index, row) in values.chunks_exact(shape.w * shape.c).enumerate() {
            let at = placement.row(index);
            let to = &mut self.as_mut_slice()[at..];
            if placement.pitch.pixel == shape.c {
                to[..row.len()].copy_from_slice(row);
                continue;
            }
            for (to, pixel) in to.chunks_mut(placement.pitch.pixel).zip(row.chunks_exact(shape.c)) {
                to[..shape.c].copy_from_slice(pixel);
            }
        }
    }

    /// The first `n` images as `[n, h, w, c]` values.
    pub fn read_images(&self, placement: &Placement, n: usize) -> Vec<f32> {
        let shape = Shape { n, ..placement.shape };
        let mut values = Vec::with_capacity(shape.elements());
        for index in 0..n * shape.h {
            let row = &self.as_slice()[placement.row(index)..];
            for pixel in row.chunks(placement.pitch.pixel).take(shape.w) {
                values.extend_from_slice(&pixel[..shape.c]);
            }
        }
        values
    }

    /// To read.
    ///
    /// # Panics
    /// If the placement does not lie in the buffer.
    pub fn view(&self, placement: &Placement) -> View<'_> {
        self.place(placement)
    }

    /// To write, by the workers of one step.
    ///
    /// # Panics
    /// If the placement does not lie in the buffer.
    pub fn view_mut(&self, placement: &Placement) -> ViewMut<'_> {
        ViewMut { view: self.place(placement) }
    }
}

/// An activation that owns its memory: for tests, measurements and the edges of a run.
#[derive(Debug)]
pub struct Tensor {
    buffer: Buffer,
    placement: Placement,
}

impl Tensor {
    /// Zeros, closely packed.
    pub fn zeros(shape: Shape, halo: Padding) -> Self {
        Self::with_pixel_pitch(shape, halo, shape.c)
    }

    /// Zeros, with at least `pixel` elements from pixel to pixel.
    pub fn with_pixel_pitch(shape: Shape, halo: Padding, pixel: usize) -> Self {
        let pitch = Pitch::packed(shape, halo, pixel.max(shape.c));
        let placement = Placement { offset: 0, shape, pitch, halo, first_channel: 0 };
        Self { buffer: Buffer::zeroed(placement.elements()), placement }
    }

    /// From `[n, h, w, c]` values.
    ///
    /// # Panics
    /// If there are not as many values as the shape says.
    pub fn from_nhwc(shape: Shape, halo: Padding, values: &[f32]) -> Self {
        let mut tensor = Self::zeros(shape, halo);
        tensor.fill_nhwc(values);
        tensor
    }

    /// Overwrites the interior with `[n, h, w, c]` values.
    ///
    /// # Panics
    /// If there are not as many values as the shape says.
    pub fn fill_nhwc(&mut self, values: &[f32]) {
        let placement = self.placement;
        self.buffer.write_interior(&placement, placement.shape.n, values);
    }

    /// The interior as `[n, h, w, c]` values.
    pub fn to_nhwc(&self) -> Vec<f32> {
        self.buffer.read_images(&self.placement, self.placement.shape.n)
    }

    /// Where it lies in its buffer.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The memory behind it, halo and pads included.
    pub fn buffer(&mut self) -> &mut Buffer {
        &mut self.buffer
    }

    /// To read.
    pub fn view(&self) -> View<'_> {
        self.buffer.view(&self.placement)
    }

    /// To write.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        self.buffer.view_mut(&self.placement)
    }

    /// A range of the channels, to write.
    pub fn channels_mut(&mut self, range: Range<usize>) -> ViewMut<'_> {
        self.buffer.view_mut(&self.placement.channels(range))
    }
}
