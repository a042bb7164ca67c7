//! Rows of register blocks: what a kernel calls.
//!
//! ```text
//! for row in rows:                          the points of a fast algorithm, or one row of an image
//!   for part in parts:                      of the sums
//!     for block in row: block x panel       see [`super::register_block`]
//! ```
//!
//! A row is cut into blocks of two sizes, which differ by one pixel. For each size the loops are
//! compiled once, as a function that all kernels share: that of the larger blocks calls that of the
//! smaller ones at the end of a row.

use std::ops::Range;

use crate::arch::opaque;
use crate::arch::prefetch::LINE;
use crate::cpu::Isa;
use crate::gemm::multiply::{Multiply, Single};
use crate::gemm::register_block::{Finish, Operands, Taps, block, max_pixels};

/// What to prefetch while blocks are computed.
#[derive(Clone, Copy, Debug)]
pub struct Prefetch {
    /// The panel that is read next: each block asks for its share, a line for each of its rows.
    pub panel: *const f32,
    /// Blocks that have asked already.
    pub done: usize,
    /// Once all of it is asked for, ask for the pixels of the next block.
    pub pixels: bool,
}

/// What the next block prefetches.
#[derive(Clone, Copy)]
struct Next {
    /// Of the part of the panel that a part of the sums reads.
    of: Prefetch,
    /// Elements of a block's share of it.
    share: usize,
    /// Elements of a row of the panel.
    width: usize,
}

impl Next {
    #[inline(always)]
    fn address(&mut self, default: *const f32, pixels: *const f32) -> *const f32 {
        let block = self.of.done;
        self.of.done += 1;
        if block * LINE < self.width {
            self.of.panel.wrapping_add(block * self.share)
        } else if self.of.pixels {
            pixels
        } else {
            default
        }
    }
}

/// Rows of blocks that are alike, for a panel each or the same one.
#[derive(Clone, Copy, Debug)]
pub struct Rows<T> {
    pub count: usize,
    /// From the operands of a row to those of the next: elements of `a`, of `b`, bytes of outputs,
    /// and scales.
    pub pitch: [usize; 4],
    /// Parts that each sum is divided in; 1 where there are several runs in a sum.
    pub parts: usize,
    pub taps: Taps,
    /// Those of the first row.
    pub operands: Operands<T>,
    /// What is prefetched during the first row.
    pub prefetch: Prefetch,
    pub finish: Finish,
}

impl<T: Copy> Rows<T> {
    /// What a part of the sums of a row is computed from, by groups of `group` rows of the panel,
    /// each `width` elements wide.
    #[inline(always)]
    fn part(&self, row: usize, part: usize, group: usize, width: usize) -> (Taps, Operands<T>, Finish, Next) {
        let Self { taps, operands, prefetch, .. } = self;
        let bound = |part| if self.parts == 1 { part * taps.len } else { part * taps.len / self.parts };
        let (begin, end) = (bound(part), bound(part + 1));
        let weights = row * self.pitch[1] + begin / group * width;
        let share = taps.rows * taps.columns * (end - begin) / group * LINE;
        let of = Prefetch { panel: prefetch.panel.wrapping_add(weights), ..*prefetch };
        let operands = Operands {
            a: operands.a.wrapping_add(row * self.pitch[0] + begin),
            b: operands.b.wrapping_add(weights),
            dst: operands.dst.wrapping_add(row * self.pitch[2]),
            ..*operands
        };
        let finish = Finish {
            scales: self.finish.scales.wrapping_add(row * self.pitch[3]),
            accumulate: self.finish.accumulate || part > 0,
            ..self.finish
        };
        (Taps { len: end - begin, ..*taps }, operands, finish, Next { of, share, width })
    }
}

/// Smaller blocks at the end of each row.
#[derive(Clone, Copy)]
struct Rest<I, T> {
    function: RunFn<I, T>,
    count: usize,
}

/// [`run`] for one size.
type RunFn<I, T> = unsafe fn(I, &Rows<T>, usize, Option<Rest<I, T>>);

/// `count` blocks of one size in each row, and the rest.
struct Run<'a, I: Isa, M: Multiply<I>, const MR: usize, const NR: usize> {
    isa: I,
    rows: &'a Rows<M::Source>,
    count: usize,
    rest: Option<Rest<I, M::Source>>,
}

impl<I: Isa, M: Multiply<I>, const MR: usize, const NR: usize> pulp::WithSimd for Run<'_, I, M, MR, NR> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { isa, rows, count, rest } = self;
        for row in 0..rows.count {
            for part in 0..rows.parts {
                let (taps, mut o, finish, mut next) = rows.part(row, part, M::GROUP, NR * I::F32_LANES);
                for _ in 0..count {
                    let following = o.a.wrapping_add(MR * o.a_pitch);
                    let prefetch = next.address(o.b, following.cast());
                    // Else the compiler keeps a pointer a pixel from block to block, more than
                    // there are registers.
                    let here = Operands { a: opaque(o.a.cast_mut()), dst: opaque(o.dst), ..o };
                    // SAFETY: promised to `run`, the only caller.
                    unsafe { block::<I, M, MR, NR>(isa, &taps, &here, &finish, prefetch) };
                    o.a = following;
                    o.dst = o.dst.wrapping_add(MR * o.dst_pitch);
                }
                if let Some(Rest { function, count }) = rest {
                    let row =
                        Rows { count: 1, parts: 1, taps, operands: o, prefetch: next.of, finish, ..*rows };
                    // SAFETY: promised to `run`, for these blocks too.
                    unsafe { function(isa, &row, count, None) };
                }
            }
        }
    }
}

/// Computes `count` blocks of each row, then the rest of the row, and stores them. For each size it
/// is one function, which all kernels share.
///
/// # Safety
/// As for [`block`], for each of them.
#[inline(never)]
unsafe fn run<I: Isa, M: Multiply<I>, const MR: usize, const NR: usize>(
    isa: I,
    rows: &Rows<M::Source>,
    count: usize,
    rest: Option<Rest<I, M::Source>>,
) {
    isa.vectorize(Run::<I, M, MR, NR> { isa, rows, count, rest });
}

/// The function for blocks of `pixels` by `vectors`.
///
/// # Panics
/// If that many do not fit the registers: `pixels` from 1 to [`max_pixels`], `vectors` from 1 to 4.
fn function<I: Isa, M: Multiply<I>>(pixels: usize, vectors: usize) -> RunFn<I, M::Source> {
    macro_rules! arms {
        ($($nr:literal: $($mr:literal)*;)*) => {
            match (vectors, pixels) {
                $($(($nr, $mr) if const { $mr <= max_pixels(I::REGISTER_COUNT, $nr) } => run::<I, M, $mr, $nr>,)*)*
                _ => panic!("no block of {pixels} pixels by {vectors} vectors"),
            }
        };
    }
    arms! {
        1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
        2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
        3: 1 2 3 4 5 6 7 8 9;
        4: 1 2 3 4 5 6;
    }
}

/// A row of pixels, cut into blocks of nearly equal size: a block with few pixels would read its
/// weights for little work.
#[derive(Clone, Copy)]
pub struct Cut<I: Isa, M: Multiply<I> = Single> {
    pub blocks: usize,
    /// Pixels of the larger blocks.
    pixels: usize,
    /// How many are large; those that follow have a pixel less.
    larger: usize,
    /// For the larger and for the smaller blocks.
    functions: [RunFn<I, M::Source>; 2],
}

impl<I: Isa, M: Multiply<I>> Cut<I, M> {
    /// Of `width` pixels into blocks of at most `pixels` by `vectors`.
    ///
    /// # Panics
    /// If that many do not fit the registers.
    #[inline(always)]
    pub fn new(width: usize, pixels: usize, vectors: usize) -> Self {
        let blocks = width.div_ceil(pixels);
        let pixels = width.div_ceil(blocks);
        Self {
            blocks,
            pixels,
            larger: width - blocks * (pixels - 1),
            functions: [function::<I, M>(pixels, vectors), function::<I, M>(pixels.max(2) - 1, vectors)],
        }
    }

    #[inline(always)]
    pub fn first(&self, block: usize) -> usize {
        block * (self.pixels - 1) + block.min(self.larger)
    }

    /// Computes the same blocks of each row and stores them.
    ///
    /// # Safety
    /// All taps of the blocks' pixels, in whole groups, may be read from `a`, and a row of
    /// `vectors` vectors for each group of them from `b`; `finish.width` channels of the blocks'
    /// pixels at `dst` may be written by this caller alone.
    #[inline(never)]
    pub unsafe fn run(&self, isa: I, blocks: Range<usize>, rows: &Rows<M::Source>) {
        debug_assert!(rows.parts == 1 || rows.taps.rows * rows.taps.columns == 1);
        let larger = self.larger.clamp(blocks.start, blocks.end) - blocks.start;
        let ([large, small], rest) = (self.functions, blocks.len() - larger);
        // SAFETY: by the caller.
        unsafe {
            if larger == 0 {
                small(isa, rows, rest, None);
            } else {
                let rest = (rest > 0).then_some(Rest { function: small, count: rest });
                large(isa, rows, larger, rest);
            }
        }
    }
}
