//! Rows of the source copied for the tiles: without gaps, in the type that they multiply, zeros
//! behind the last.
//!
//! Tiles of few channels then need no copy a pixel: the inputs of a row of taps follow each other,
//! and so do those of the next pixel, a stride further on. What a step reads behind them is
//! multiplied by zeros. (Where an input is NaN, so are the outputs of the pixels that read it so.)

use std::arch::x86_64::__m512i;
use std::cell::Cell;

use half::bf16;

use super::element::TilePixel;
use super::pixels::Place;
use super::{LINES, Layout, PreparedAmx};
use crate::arch::amx::ROWS;
use crate::tensor::{Dtype, Element, View};
use crate::vector::widen_first;

/// The copies of a worker.
///
/// # Safety of its functions
/// All taps of the pixels may be read, and the scratch be written by this caller alone.
pub struct Rows<'a, T> {
    step: &'a PreparedAmx<T>,
    src: &'a View<'a>,
    to: *mut T,
    /// Image and row of the output rows whose sources are there.
    held: Cell<[Option<[usize; 2]>; LINES]>,
}

impl<'a, T: TilePixel> Rows<'a, T> {
    /// None yet, in scratch of [`LINES`] by [`Layout::rows`] by [`Layout::row`] elements.
    pub fn new(step: &'a PreparedAmx<T>, src: &'a View<'a>, to: *mut T) -> Self {
        Self { step, src, to, held: Cell::new([None; LINES]) }
    }

    /// Where the inputs of an output pixel begin, and the bytes to those of the next; copies its
    /// row's unless they are there.
    #[inline(always)]
    pub unsafe fn at(&self, [image, y, x]: Place) -> (*const u8, usize) {
        let (conv, layout) = (&self.step.conv, &self.step.rows);
        let pixel = conv.window.stride[1] * conv.channels;
        // Neighbouring rows have different places, of one image and of two.
        let slot = (image * conv.output()[0] + y) % LINES;
        let to = self.to.wrapping_add(slot * layout.rows * layout.row);
        let mut held = self.held.get();
        if held[slot] != Some([image, y]) {
            held[slot] = Some([image, y]);
            self.held.set(held);
            let [top, left] = conv.first_tap(y, 0);
            for row in 0..layout.rows {
                let from = self.src.byte(image, top + row as isize, left);
                // SAFETY: by the caller; the place has as many rows.
                unsafe { self.copy(from, to.wrapping_add(row * layout.row)) };
            }
        }
        (to.wrapping_add(x * pixel).cast_const().cast(), pixel * size_of::<T>())
    }

    /// Reads [`Layout::length`] elements of a row, and writes [`Layout::row`].
    #[inline(always)]
    unsafe fn copy(&self, from: *const u8, to: *mut T) {
        let (channels, Layout { length, .. }) = (self.step.conv.channels, self.step.rows);
        let pitch = self.src.pitch.pixel;
        let run = if pitch == channels { length } else { channels };
        for first in (0..length).step_by(run) {
            let from = from.wrapping_add(first / channels * pitch * self.src.dtype.bytes());
            let to = to.wrapping_add(first);
            // SAFETY: by the caller. A run may be followed by up to a vector of zeros, over which
            // the next one is written. A type that is not the tiles' is rounded to bf16: tiles of u8
            // have sources of u8.
            unsafe {
                match self.src.dtype {
                    same if same == T::DTYPE => to.copy_from_nonoverlapping(from.cast(), run),
                    Dtype::F32 => self.round::<f32>(from.cast(), to.cast(), run),
                    _ => self.round::<u8>(from, to.cast(), run),
                }
            }
        }
        // SAFETY: by the caller: the row is longer than what is copied.
        unsafe { to.add(length).write_bytes(0, self.step.rows.row - length) };
    }

    /// Rounds a run of elements to bf16, which are written in whole vectors.
    #[inline(always)]
    unsafe fn round<S: Element>(&self, from: *const S, to: *mut bf16, count: usize) {
        let (isa, bf16) = (self.step.isa, self.step.bf16);
        for first in (0..count).step_by(2 * ROWS) {
            let load = |first: usize| {
                // SAFETY: by the caller.
                unsafe { widen_first(isa, from.wrapping_add(first), count.saturating_sub(first)) }
            };
            let [low, high] = [load(first), load(first + ROWS)].map(pulp::cast);
            // SAFETY: as above; `bf16` proves that the instruction is there.
            unsafe { to.add(first).cast::<__m512i>().write_unaligned(bf16.narrow(low, high)) };
        }
    }
}
