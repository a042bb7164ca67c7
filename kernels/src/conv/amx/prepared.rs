//! What a prepared kernel keeps, and how its scratch and its units are divided.

use std::ops::Range;

use half::bf16;

use super::pixels::{Cut, Flat};
use super::steps::{Step, is_narrow, runs_over_taps};
use crate::arch::amx::{Amx, DEPTH, SUMS, TILE};
use crate::conv::{Conv, Dtype, Signature, View, round_up};
use crate::cpu::{Avx512, Avx512Bf16};
use crate::gemm::panels::Panels;

/// Blocks that are summed in turn where a sum is computed in parts.
pub const GROUP: usize = 10;

/// Elements from the sums of a block to the next: a tile without meaning lies between
/// ([`crate::arch::amx::Block::sums`]).
pub const SUMS_PITCH: usize = SUMS + TILE;

pub struct PreparedAmx {
    pub amx: Amx,
    pub isa: Avx512,
    pub bf16: Avx512Bf16,
    pub signature: Signature,
    pub conv: Conv,
    pub steps: Vec<Step>,
    pub panels: Panels,
    /// For a source that is copied.
    pub rows: Layout,
    /// Steps of a part of the sums.
    pub part: usize,
    pub image_stays: bool,
    /// Which of pixels and weights are streamed ([`crate::arch::amx::Block::streamed`]).
    pub streamed: [bool; 2],
    pub flat: Flat,
}

/// Whether a source of a type is copied whatever its pitches.
pub fn is_copied(conv: &Conv, dtype: Dtype) -> bool {
    is_narrow(conv) || dtype == Dtype::F32
}

/// Where the parts of a worker's scratch begin and end, in elements from its start: offsets of
/// steps, sums, rows.
pub struct Parts {
    pub sums: usize,
    pub rows: usize,
    pub end: usize,
}

impl PreparedAmx {
    pub fn shares(&self, n: usize) -> usize {
        self.panels.shares(Cut::new(&self.conv, n, self.flat, true).blocks())
    }

    pub fn in_parts(&self) -> bool {
        self.part < self.steps.len()
    }

    pub fn copies(&self, src: &View) -> bool {
        is_copied(&self.conv, src.dtype)
            || runs_over_taps(&self.conv) && src.pitch.pixel != self.conv.channels
    }

    pub fn parts(&self) -> Parts {
        let offsets = self.steps.len() * size_of::<usize>() / size_of::<f32>();
        let blocks = if self.in_parts() { GROUP } else { 1 };
        let may_copy = is_copied(&self.conv, self.signature.formats.src.dtype) || runs_over_taps(&self.conv);
        let sums = round_up(offsets);
        let rows = sums + blocks * SUMS_PITCH;
        // An element of f32 is two of bf16.
        Parts { sums, rows, end: rows + if may_copy { round_up(self.rows.elements() / 2) } else { 0 } }
    }

    /// Units that a worker computes, unless another worker takes some of them, and the panels of
    /// those units.
    pub fn worker_share(&self, worker: usize, workers: usize, shares: usize) -> [Range<usize>; 2] {
        let panels = self.panels.list.len();
        let units = panels * shares;
        let mine = units * worker / workers..units * (worker + 1) / workers;
        let panels = match self.image_stays {
            true => 0..panels,
            false => mine.start / shares..mine.end.div_ceil(shares),
        };
        [mine, panels]
    }
}

/// Output rows whose sources are kept: the tiles of a block may lie in two.
pub const LINES: usize = 2;

/// How much of the source is copied for the tiles.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Elements of a row that are read with weights.
    pub length: usize,
    pub row: usize,
    /// Rows of an output row.
    pub rows: usize,
}

impl Layout {
    pub fn new(conv: &Conv) -> Self {
        let [rows, s] = conv.window.kernel;
        let length = ((conv.output()[1] - 1) * conv.window.stride[1] + s) * conv.channels;
        // The last step of the last pixel reads less than a step behind.
        Self { length, row: length.next_multiple_of(DEPTH) + DEPTH, rows }
    }

    pub fn elements(&self) -> usize {
        LINES * self.rows * self.row
    }

    pub fn row_bytes(&self) -> usize {
        self.row * size_of::<bf16>()
    }
}
