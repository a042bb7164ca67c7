//! Where activations lie in buffers, and how values get in and out.

use std::ops::Range;

use half::bf16;
use pulp::bytemuck::{cast_slice, cast_slice_mut};

use super::dtype::{Dtype, Element};
use super::format::{Format, Pitch};
use super::view::{View, ViewMut};
use crate::memory::Buffer;
use crate::shape::{Padding, Shape};

/// Where an activation lies inside a [`Buffer`], and which of its channels are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Elements of the buffer from its start to the first halo row.
    pub offset: usize,
    /// Type of the elements.
    pub dtype: Dtype,
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
    /// At `offset`, with at least `pixel` elements from pixel to pixel.
    pub fn with_pixel_pitch(offset: usize, dtype: Dtype, shape: Shape, halo: Padding, pixel: usize) -> Self {
        let row = pixel * (shape.w + halo.left + halo.right);
        let pitch = Pitch { image: row * (shape.h + halo.top + halo.bottom), row, pixel };
        Self { offset, dtype, shape, pitch, halo, first_channel: 0 }
    }

    /// A range of the channels.
    pub fn channels(self, range: Range<usize>) -> Self {
        assert!(range.end <= self.shape.c, "channels {range:?} of {}", self.shape.c);
        let shape = Shape { c: range.len(), ..self.shape };
        Self { shape, first_channel: self.first_channel + range.start, ..self }
    }

    /// Element at which a row, counted over images, begins.
    fn row(&self, index: usize) -> usize {
        let Self { shape, pitch, halo, .. } = *self;
        let (n, h) = (index / shape.h, index % shape.h);
        n * pitch.image + (halo.top + h) * pitch.row + halo.left * pitch.pixel + self.first_channel
    }

    /// Elements of the buffer that the placement needs, from `offset` on.
    pub fn elements(&self) -> usize {
        self.first(self.shape.n)
    }

    /// Elements of the buffer that the first `n` images take.
    fn first(&self, n: usize) -> usize {
        (n * self.pitch.image * self.dtype.bytes()).div_ceil(size_of::<f32>())
    }
}

impl Buffer {
    fn place(&self, p: &Placement) -> View<'_> {
        let last = p.offset + p.elements();
        assert!(last <= self.len(), "a placement ends at {last} of {}", self.len());
        assert!(p.first_channel + p.shape.c <= p.pitch.pixel, "channels overlap the next pixel");
        let packed = Placement::with_pixel_pitch(0, p.dtype, p.shape, p.halo, p.pitch.pixel);
        assert_eq!(p.pitch, packed.pitch, "rows or images with gaps");
        let ptr = self.as_ptr().wrapping_add(p.offset).cast::<u8>().wrapping_add(p.row(0) * p.dtype.bytes());
        View::new(ptr, p.dtype, p.shape, p.pitch, p.halo)
    }

    /// Writes the first `n` images, `[n, h, w, c]` values, and zeros around them.
    ///
    /// # Panics
    /// If there are not as many values as the shape says.
    pub fn write_images(&mut self, placement: &Placement, n: usize, values: &[f32]) {
        let end = placement.offset + placement.first(n);
        if placement.halo != Padding::default() {
            self.as_mut_slice()[placement.offset..end].fill(0.0);
        }
        self.write_interior(placement, n, values);
    }

    /// Writes `[n, h, w, c]` values of the first `n` images; halo and other channels stay.
    ///
    /// # Panics
    /// If the values are not as many as that.
    pub fn write_interior(&mut self, placement: &Placement, n: usize, values: &[f32]) {
        match placement.dtype {
            Dtype::F32 => self.write_elements::<f32>(placement, n, values),
            Dtype::Bf16 => self.write_elements::<bf16>(placement, n, values),
            Dtype::U8 => self.write_elements::<u8>(placement, n, values),
        }
    }

    fn write_elements<T: Element>(&mut self, placement: &Placement, n: usize, values: &[f32]) {
        let shape = Shape { n, ..placement.shape };
        assert_eq!(values.len(), shape.elements(), "values of {shape}");
        let memory = cast_slice_mut::<f32, T>(&mut self.as_mut_slice()[placement.offset..]);
        for (index, row) in values.chunks_exact(shape.w * shape.c).enumerate() {
            let to = &mut memory[placement.row(index)..];
            if placement.pitch.pixel == shape.c {
                to.iter_mut().zip(row).for_each(|(to, &value)| *to = T::from_f32(value));
                continue;
            }
            for (to, pixel) in to.chunks_mut(placement.pitch.pixel).zip(row.chunks_exact(shape.c)) {
                to.iter_mut().zip(pixel).for_each(|(to, &value)| *to = T::from_f32(value));
            }
        }
    }

    /// The first `n` images as `[n, h, w, c]` values.
    pub fn read_images(&self, placement: &Placement, n: usize) -> Vec<f32> {
        let Shape { h, w, .. } = placement.shape;
        let pixel = |at: usize| self.read_pixel(placement, [at / (h * w), at / w % h, at % w]);
        (0..n * h * w).flat_map(pixel).collect()
    }

    /// The channels of a pixel, by image, row and column.
    pub fn read_pixel(&self, placement: &Placement, [n, h, w]: [usize; 3]) -> Vec<f32> {
        let first = placement.row(n * placement.shape.h + h) + w * placement.pitch.pixel;
        let (memory, channels) = (&self.as_slice()[placement.offset..], first..first + placement.shape.c);
        match placement.dtype {
            Dtype::F32 => memory[channels].to_vec(),
            Dtype::Bf16 => cast_slice::<f32, bf16>(memory)[channels].iter().map(|x| x.to_f32()).collect(),
            Dtype::U8 => cast_slice::<f32, u8>(memory)[channels].iter().map(|&x| x.into()).collect(),
        }
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
    /// Zeros in a format, closely packed.
    pub fn new(shape: Shape, format: &Format) -> Self {
        let placement = Placement::with_pixel_pitch(0, format.dtype, shape, format.halo, shape.c);
        Self { buffer: Buffer::zeroed(placement.elements()), placement }
    }

    /// Overwrites the interior with `[n, h, w, c]` values.
    ///
    /// # Panics
    /// If there are not as many values as the shape says.
    pub fn fill_nhwc(&mut self, values: &[f32]) {
        self.buffer.write_interior(&self.placement, self.placement.shape.n, values);
    }

    /// All of its memory, halo included.
    pub fn as_slice(&self) -> &[f32] {
        self.buffer.as_slice()
    }

    /// The interior as `[n, h, w, c]` values.
    pub fn to_nhwc(&self) -> Vec<f32> {
        self.buffer.read_images(&self.placement, self.placement.shape.n)
    }

    /// To read.
    pub fn view(&self) -> View<'_> {
        self.buffer.view(&self.placement)
    }

    /// To write.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        self.buffer.view_mut(&self.placement)
    }
}
