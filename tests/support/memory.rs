//! The memory around a case: placements among guards, and what lies there, of any type.

use half::bf16;
use kernels::{Buffer, Dtype, Format, Padding, Placement, Shape};

use crate::{Case, Layout};

/// Unlike any value of a result.
pub const SENTINEL: f32 = -1.234_567_9e30;
/// No number, and its halves are none in bf16; large numbers in u8.
const NAN: f32 = f32::from_bits(0x7fc0_7fc0);
/// Elements before the first and after the last placement of a buffer.
pub const GUARD: usize = 21;
/// Channels between two ranges of a wide tensor.
const GAP: usize = 3;

/// Where tensors of these shapes lie, with so many elements around each, and the elements of the buffer
/// that holds them.
pub fn place(
    shapes: &[Shape],
    dtype: Dtype,
    halo: Padding,
    layout: Layout,
    guard: usize,
) -> (Vec<Placement>, usize) {
    let packed = |end, shape: Shape, halo| Placement::with_pixel_pitch(end, dtype, shape, halo, shape.c);
    let mut end = guard;
    let placements = match layout {
        Layout::Packed => {
            let Padding { top, bottom, left, right } = halo;
            let turned = Padding { top: left, bottom: top, left: right, right: bottom };
            let place = |(&shape, halo)| {
                let placement = packed(end, shape, halo);
                end += placement.elements() + guard;
                placement
            };
            shapes.iter().zip([halo, Padding::default(), turned].into_iter().cycle()).map(place).collect()
        }
        Layout::Slices => {
            let channels = shapes.iter().map(|s| s.c + GAP).sum::<usize>() + GAP;
            let whole = packed(end, Shape { c: channels, ..shapes[0] }, halo);
            end += whole.elements() + guard;
            let mut first = 0;
            let slice = |shape: &Shape| {
                first += GAP;
                let range = first..first + shape.c;
                first = range.end;
                whole.channels(range)
            };
            shapes.iter().map(slice).collect()
        }
    };
    (placements, end)
}

/// Memory as bytes.
pub fn bytes(buffer: &Buffer) -> &[u8] {
    bytemuck::cast_slice(buffer.as_slice())
}

/// The value of a type that begins at a byte.
pub fn get(bytes: &[u8], dtype: Dtype, at: usize) -> f32 {
    match (dtype, &bytes[at..at + dtype.bytes()]) {
        (Dtype::F32, &[a, b, c, d]) => f32::from_ne_bytes([a, b, c, d]),
        (Dtype::Bf16, &[a, b]) => bf16::from_ne_bytes([a, b]).to_f32(),
        (Dtype::U8, &[a]) => a.into(),
        (dtype, bytes) => unreachable!("{dtype} has not {} bytes", bytes.len()),
    }
}

/// The value must be one of the type.
fn set(bytes: &mut [u8], dtype: Dtype, at: usize, value: f32) {
    let bytes = &mut bytes[at..at + dtype.bytes()];
    match dtype {
        Dtype::F32 => bytes.copy_from_slice(&value.to_ne_bytes()),
        Dtype::Bf16 => bytes.copy_from_slice(&bf16::from_f32(value).to_ne_bytes()),
        Dtype::U8 => bytes[0] = value as u8,
    }
}

/// Calls `visit(start, pixel)` for all pixels of the first images with their halo: the byte at
/// which the channels start in the buffer, and the pixel, counted through all images.
pub fn each_pixel(p: &Placement, images: usize, mut visit: impl FnMut(usize, Option<usize>)) {
    let Placement { shape, pitch, halo, .. } = *p;
    for n in 0..images {
        for row in 0..halo.top + shape.h + halo.bottom {
            for column in 0..halo.left + shape.w + halo.right {
                let at = n * pitch.image + row * pitch.row + column * pitch.pixel + p.first_channel;
                let (y, x) = (row.wrapping_sub(halo.top), column.wrapping_sub(halo.left));
                let inside = y < shape.h && x < shape.w;
                let pixel = inside.then(|| (n * shape.h + y) * shape.w + x);
                visit(size_of::<f32>() * p.offset + at * p.dtype.bytes(), pixel);
            }
        }
    }
}

/// A source among so many NaN, with zeros in its halo.
pub fn source(case: &Case, format: Format, values: &[f32], guard: usize) -> (Buffer, Placement) {
    let shape = case.problem.src();
    let (placements, len) = place(&[shape], format.dtype, format.halo, case.layout, guard);
    let mut buffer = Buffer::zeroed(len);
    buffer.as_mut_slice().fill(NAN);
    let bytes = bytemuck::cast_slice_mut(buffer.as_mut_slice());
    each_pixel(&placements[0], case.images, |at, pixel| {
        for c in 0..shape.c {
            let value = pixel.map_or(0.0, |i| values[i * shape.c + c]);
            set(bytes, format.dtype, at + c * format.dtype.bytes(), value);
        }
    });
    (buffer, placements[0])
}
