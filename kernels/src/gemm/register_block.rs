//! The register block: `MR` pixels by `NR` vectors of output channels, with sums in registers.
//!
//! ```text
//! for (r, s) in taps:
//!   for c in 0..len:
//!     b[0..NR] = load weights                     NR registers
//!     for i in 0..MR:
//!       x = broadcast a[i * pitch + c]            1 register
//!       acc[i][0..NR] += x * b[0..NR]             MR * NR registers
//! ```
//!
//! For bf16, a step is two channels, for u8 four ([`super::multiply`], [`super::integers`]).
//!
//! The pixels of a block lie at one distance from each other; a matrix product is the case of one
//! tap, whose pixels are the rows of a matrix. On 32 registers 14x2 and 9x3 leave 3 and 2 registers
//! over; on 16, 6x2 and 4x3 do.

use half::bf16;

use crate::arch::opaque;
use crate::arch::prefetch::{LINE, to_l2};
use crate::cpu::Isa;
use crate::gemm::multiply::Multiply;
use crate::tensor::{Dtype, Element};
use crate::vector::{from_whole, load, load_first, narrow_first, narrow_first_to, store};

/// Where the inputs of one output pixel lie.
#[derive(Clone, Copy, Debug)]
pub struct Taps {
    pub rows: usize,
    /// Elements from one to the next.
    pub row_pitch: usize,
    /// Runs in a kernel row: its columns, or 1 where they are contiguous.
    pub columns: usize,
    /// Elements from one to the next.
    pub column_pitch: usize,
    /// Contiguous elements of a run.
    pub len: usize,
}

impl Taps {
    /// One run: a row of a matrix.
    pub fn matrix(len: usize) -> Self {
        Self { rows: 1, row_pitch: 0, columns: 1, column_pitch: 0, len }
    }

    /// The taps of a convolution over `channels` channels; contiguous columns become one run.
    pub fn conv(kernel: [usize; 2], channels: usize, row_pitch: usize, pixel_pitch: usize) -> Self {
        let [rows, columns] = kernel;
        if pixel_pitch == channels {
            let len = columns * channels;
            Self { rows, row_pitch, columns: 1, column_pitch: 0, len }
        } else {
            Self { rows, row_pitch, columns, column_pitch: pixel_pitch, len: channels }
        }
    }
}

/// The epilogue of a block, and how it is stored.
#[derive(Clone, Copy, Debug)]
pub struct Finish {
    /// `vectors * LANES` factors of sums of whole numbers; of others nothing.
    pub scales: *const f32,
    /// `vectors * LANES` biases, or null for none.
    pub bias: *const f32,
    pub relu: bool,
    /// Add to the destination: in all but the first part of a sum in parts. In f32 only.
    pub accumulate: bool,
    pub dtype: Dtype,
    /// Channels to store; the rest of the last vector is dropped.
    pub width: usize,
}

impl Finish {
    /// No more than `width` elements of f32 to store or to add to.
    #[inline(always)]
    fn is_plain(&self, width: usize) -> bool {
        self.bias.is_null() && !self.relu && self.width == width && self.dtype == Dtype::F32
    }

    /// All vectors of `width` channels are whole and have a bias, and nothing is added to them.
    #[inline(always)]
    fn is_whole(&self, width: usize) -> bool {
        !self.bias.is_null() && !self.accumulate && self.width == width
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Operands<T> {
    /// Channel 0 of the first tap of the first pixel.
    pub a: *const T,
    /// Elements from a pixel to the next.
    pub a_pitch: usize,
    pub b: *const f32,
    /// The first output.
    pub dst: *mut u8,
    /// Bytes from an output pixel to the next.
    pub dst_pitch: usize,
}

/// Adds the products of one group of channels and moves on to the next.
///
/// # Safety
/// The group of `MR` pixels may be read from `a`, and a row of `NR` vectors from `b`.
#[inline(always)]
unsafe fn step<I: Isa, M: Multiply<I>, const MR: usize, const NR: usize>(
    isa: I,
    a: &mut *const M::Source,
    a_pitch: usize,
    b: &mut *const f32,
    next: &mut *const f32,
    acc: &mut [[I::f32s; NR]; MR],
) {
    to_l2(*next);
    for product in 0..M::PRODUCTS {
        // Else the compiler keeps what it has loaded, or loads for the next group as well, for
        // which there are no registers.
        *a = opaque(a.cast_mut());
        if product > 0 {
            *b = opaque(b.cast_mut());
        }
        // SAFETY: by the caller.
        let row: [I::f32s; NR] =
            std::array::from_fn(|j| unsafe { M::weights(isa, product, b.add(j * I::F32_LANES)) });
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: by the caller.
            let x = unsafe { M::pixel(isa, product, a.wrapping_add(i * a_pitch)) };
            for (acc, b) in acc.iter_mut().zip(row) {
                *acc = M::add(isa, x, b, *acc);
            }
        }
    }
    *a = a.wrapping_add(M::GROUP);
    *b = b.wrapping_add(NR * I::F32_LANES);
    *next = next.wrapping_add(LINE);
}

/// The sums of a block.
///
/// # Safety
/// All taps of `MR` pixels may be read from `a`, and `rows * columns * len / GROUP` rows of `NR`
/// vectors from `b`.
#[inline(always)]
unsafe fn sums<I: Isa, M: Multiply<I>, const MR: usize, const NR: usize>(
    isa: I,
    taps: &Taps,
    o: &Operands<M::Source>,
    mut next: *const f32,
) -> [[I::f32s; NR]; MR] {
    let mut acc = [[isa.splat_f32s(0.0); NR]; MR];
    let mut b = o.b;
    let groups = taps.len / M::GROUP;
    for r in 0..taps.rows {
        for s in 0..taps.columns {
            let mut a = o.a.wrapping_add(r * taps.row_pitch + s * taps.column_pitch);
            // Four at a time: the processor then foresees where a short sum ends.
            for _ in 0..groups / 4 {
                // SAFETY: by the caller.
                unsafe {
                    step::<I, M, MR, NR>(isa, &mut a, o.a_pitch, &mut b, &mut next, &mut acc);
                    step::<I, M, MR, NR>(isa, &mut a, o.a_pitch, &mut b, &mut next, &mut acc);
                    step::<I, M, MR, NR>(isa, &mut a, o.a_pitch, &mut b, &mut next, &mut acc);
                    step::<I, M, MR, NR>(isa, &mut a, o.a_pitch, &mut b, &mut next, &mut acc);
                }
            }
            for _ in 0..groups % 4 {
                // SAFETY: by the caller.
                unsafe { step::<I, M, MR, NR>(isa, &mut a, o.a_pitch, &mut b, &mut next, &mut acc) };
            }
        }
    }
    acc
}

/// Sums of vector `j`: those of whole numbers over their scales.
///
/// # Safety
/// Of whole numbers `finish` has scales.
#[inline(always)]
unsafe fn scaled<I: Isa, M: Multiply<I>>(isa: I, sums: I::f32s, finish: &Finish, j: usize) -> I::f32s {
    if !M::IS_WHOLE {
        return sums;
    }
    // SAFETY: by the caller.
    let scales = unsafe { load::<I>(finish.scales.add(j * I::F32_LANES)) };
    isa.mul_f32s(from_whole(isa, isa.transmute_u32s_f32s(sums)), scales)
}

/// Ends and stores a block whose vectors are whole, which have a bias, and to which nothing is
/// added.
///
/// # Safety
/// As for the block.
#[inline(always)]
unsafe fn store_whole<I: Isa, M: Multiply<I>, T: Element, const MR: usize, const NR: usize>(
    isa: I,
    acc: [[I::f32s; NR]; MR],
    o: &Operands<M::Source>,
    finish: &Finish,
) {
    let floor = isa.splat_f32s(if finish.relu { 0.0 } else { f32::NEG_INFINITY });
    for (i, acc) in acc.into_iter().enumerate() {
        let pixel = o.dst.wrapping_add(i * o.dst_pitch).cast::<T>();
        for (j, y) in acc.into_iter().enumerate() {
            let first = j * I::F32_LANES;
            // SAFETY: by the caller.
            unsafe {
                let bias = load::<I>(finish.bias.add(first));
                let y = isa.at_least(floor, isa.add_f32s(scaled::<I, M>(isa, y, finish, j), bias));
                narrow_first(isa, pixel.wrapping_add(first), y, I::F32_LANES);
            }
        }
    }
}

/// Computes a block and stores it; prefetches `next`, a line for each row of the panel.
///
/// # Safety
/// As for the sums; this caller alone may write `MR` pixels of `finish.width` channels at `o.dst`.
/// Of whole numbers `finish` has scales.
#[inline(always)]
pub unsafe fn block<I: Isa, M: Multiply<I>, const MR: usize, const NR: usize>(
    isa: I,
    taps: &Taps,
    o: &Operands<M::Source>,
    finish: &Finish,
    next: *const f32,
) {
    // SAFETY: by the caller.
    let acc = unsafe { sums::<I, M, MR, NR>(isa, taps, o, next) };
    if finish.is_plain(NR * I::F32_LANES) {
        for (i, acc) in acc.into_iter().enumerate() {
            for (j, y) in acc.into_iter().enumerate() {
                let dst = o.dst.wrapping_add(i * o.dst_pitch).cast::<f32>().wrapping_add(j * I::F32_LANES);
                // SAFETY: by the caller.
                unsafe {
                    let y = scaled::<I, M>(isa, y, finish, j);
                    store::<I>(dst, if finish.accumulate { isa.add_f32s(y, load::<I>(dst)) } else { y })
                };
            }
        }
        return;
    }
    if finish.is_whole(NR * I::F32_LANES) {
        // SAFETY: by the caller.
        unsafe {
            match finish.dtype {
                Dtype::F32 => store_whole::<I, M, f32, MR, NR>(isa, acc, o, finish),
                Dtype::Bf16 => store_whole::<I, M, bf16, MR, NR>(isa, acc, o, finish),
                Dtype::U8 => store_whole::<I, M, u8, MR, NR>(isa, acc, o, finish),
            }
        }
        return;
    }
    let zero = isa.splat_f32s(0.0);
    for (i, acc) in acc.into_iter().enumerate() {
        for (j, mut y) in acc.into_iter().enumerate() {
            let first = j * I::F32_LANES;
            let pixel = o.dst.wrapping_add(i * o.dst_pitch);
            let dst = pixel.cast::<f32>().wrapping_add(first);
            let width = finish.width - first;
            // SAFETY: by the caller; a bias pointer has `NR` vectors.
            unsafe {
                if M::IS_WHOLE {
                    y = isa.mul_f32s(
                        from_whole(isa, isa.transmute_u32s_f32s(y)),
                        load::<I>(finish.scales.add(first)),
                    );
                }
                if !finish.bias.is_null() {
                    y = isa.add_f32s(y, load::<I>(finish.bias.add(first)));
                }
                if finish.accumulate {
                    y = isa.add_f32s(y, load_first(isa, dst, width));
                }
                if finish.relu {
                    y = isa.at_least(zero, y);
                }
                let at = pixel.wrapping_add(first * finish.dtype.bytes());
                narrow_first_to(isa, finish.dtype, at, y, width);
            }
        }
    }
}

/// The largest number of pixels of a block with `vectors` vectors, by registers.
pub const fn max_pixels(registers: usize, vectors: usize) -> usize {
    let fit = (registers - vectors - 1) / vectors;
    if fit > 14 { 14 } else { fit }
}

/// `[pixels, vectors]` of the blocks that tunings offer.
pub fn sizes<I: Isa>() -> &'static [[usize; 2]] {
    if I::REGISTER_COUNT == 32 { &[[14, 2], [9, 3], [6, 4], [14, 1]] } else { &[[6, 2], [4, 3], [14, 1]] }
}
