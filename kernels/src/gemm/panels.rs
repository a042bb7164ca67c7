//! Weights packed into panels: the columns that one register block takes, for all products summed.
//!
//! A panel holds `depth` rows of `vectors * LANES` output channels, contiguous. Panels never
//! straddle segments; the last of a segment is narrower, its last vector padded with zeros.

use std::ops::Range;

use half::bf16;

use crate::cpu::Isa;
use crate::filter::{Folded, Quantized, Rounded};
use crate::memory::{Buffer, round_up};
use crate::problem::Segment;
use crate::tier::Tier;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panel {
    pub segment: usize,
    /// Its first channel inside the segment.
    pub first: usize,
    /// Channels; less than `vectors * LANES` only at the end of a segment.
    pub width: usize,
    pub vectors: usize,
    /// Elements from the start of the packed weights.
    offset: usize,
    /// Elements from the start of the packed biases.
    bias: usize,
}

impl Panel {
    /// Its channels inside the segment.
    pub fn channels(&self) -> Range<usize> {
        self.first..self.first + self.width
    }

    /// Its channels by [`CHUNK`], the last ones by fewer.
    #[inline(always)]
    pub fn chunks(&self) -> impl Iterator<Item = Range<usize>> {
        let channels = self.channels();
        channels.clone().step_by(CHUNK).map(move |first| first..channels.end.min(first + CHUNK))
    }
}

/// Output channels whose weights are computed together: a cache line of them.
pub const CHUNK: usize = 16;

/// `sums += factor * values`: fused where the tier has the instruction.
#[inline(always)]
pub fn add<I: Isa>(_: I, sums: &mut [f64; CHUNK], factor: f64, values: &[f64; CHUNK]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = match I::TIER {
            Tier::Plain => factor * value + *sum,
            _ => factor.mul_add(*value, *sum),
        };
    }
}

/// Sets the first [`CHUNK`] elements, or all of fewer, to sums, each rounded once.
#[inline(always)]
pub fn set_rounded(packed: &mut [f32], sums: &[f64; CHUNK]) {
    let mut rounded = [0.0; CHUNK];
    for (rounded, sum) in rounded.iter_mut().zip(sums) {
        *rounded = *sum as f32;
    }
    match packed.first_chunk_mut() {
        Some(packed) => *packed = rounded,
        None => packed.copy_from_slice(&rounded[..packed.len()]),
    }
}

/// Sets the lower (0) or upper (1) half of zeroed elements.
pub fn set_half(packed: &mut [f32], half: usize, weights: &[bf16]) {
    for (packed, weight) in packed.iter_mut().zip(weights) {
        *packed = f32::from_bits(packed.to_bits() | u32::from(weight.to_bits()) << (16 * half));
    }
}

/// Sets one of two or four parts, the lowest first, of zeroed elements.
pub fn set_part(packed: &mut [f32], [part, parts]: [usize; 2], weights: &[i8]) {
    let bits = 32 / parts;
    for (packed, &weight) in packed.iter_mut().zip(weights) {
        let weight = weight as u32 & (u32::MAX >> (32 - bits));
        *packed = f32::from_bits(packed.to_bits() | weight << (bits * part));
    }
}

pub struct Panels {
    lanes: usize,
    depth: usize,
    /// In the order of their channels.
    pub list: Vec<Panel>,
    /// Weights, biases and the scales of whole numbers.
    pub buffers: [Buffer; 3],
    /// Scales of a channel: one for each of the matrices that a panel holds.
    scales: usize,
}

/// Splits the channels of segments into panels of at most `vectors` vectors, as evenly as possible.
fn split(segments: &[Segment], lanes: usize, vectors: usize, depth: usize) -> Vec<Panel> {
    let (mut list, mut offset, mut bias) = (Vec::new(), 0, 0);
    for (segment, &Segment { channels, .. }) in segments.iter().enumerate() {
        let total = channels.div_ceil(lanes);
        let count = total.div_ceil(vectors);
        let mut first = 0;
        for index in 0..count {
            let vectors = total * (index + 1) / count - total * index / count;
            let width = (vectors * lanes).min(channels - first);
            list.push(Panel { segment, first, width, vectors, offset, bias });
            offset += round_up(depth * vectors * lanes);
            bias += vectors * lanes;
            first += width;
        }
    }
    list
}

impl Panels {
    /// Packs one matrix `[depth, channels]` a segment, row-major, with its biases.
    pub fn pack(segments: &[Segment], lanes: usize, vectors: usize, filters: &[Folded]) -> Self {
        let depth = filters[0].rows();
        Self::pack_panels(segments, lanes, vectors, depth, filters, |panel, packed| {
            for (row, packed) in packed.chunks_exact_mut(panel.vectors * lanes).enumerate() {
                let row = filters[panel.segment].row(row, panel.channels());
                packed.iter_mut().zip(row).for_each(|(packed, weight)| *packed = weight);
            }
        })
    }

    /// As [`Self::pack`], in bf16: a row holds the pairs of two rows of the matrix, the first in
    /// the lower half of each element; an odd number of rows has zeros behind it.
    pub fn pack_pairs(segments: &[Segment], lanes: usize, vectors: usize, filters: &[Rounded]) -> Self {
        let depth = filters[0].folded.rows();
        let folded = filters.iter().map(|filter| &filter.folded);
        Self::pack_panels(segments, lanes, vectors, depth.div_ceil(2), folded, |panel, packed| {
            let filter = &filters[panel.segment];
            for (pair, packed) in packed.chunks_exact_mut(panel.vectors * lanes).enumerate() {
                for row in 2 * pair..depth.min(2 * pair + 2) {
                    set_half(packed, row % 2, filter.row(row, panel.channels()));
                }
            }
        })
    }

    /// As [`Self::pack`], in whole numbers: a row holds groups of two or four rows of the matrix,
    /// the first in the lowest bits of each element, with zeros behind the last row.
    pub fn pack_groups(
        segments: &[Segment],
        lanes: usize,
        vectors: usize,
        group: usize,
        filters: &[Quantized],
    ) -> Self {
        let depth = filters[0].folded.rows();
        let folded = filters.iter().map(|filter| &filter.folded);
        let rows = depth.div_ceil(group);
        let mut panels = Self::pack_panels(segments, lanes, vectors, rows, folded, |panel, packed| {
            let filter = &filters[panel.segment];
            for (first, packed) in packed.chunks_exact_mut(panel.vectors * lanes).enumerate() {
                for row in group * first..depth.min(group * (first + 1)) {
                    set_part(packed, [row % group, group], filter.row(row, panel.channels()));
                }
            }
        });
        panels.set_scales_of(filters);
        panels
    }

    /// Adds the scales of a filter's weights.
    pub fn set_scales_of(&mut self, filters: &[Quantized]) {
        self.set_scales(1, |panel, scales| {
            scales[..panel.width].copy_from_slice(&filters[panel.segment].scales[panel.channels()]);
        });
    }

    /// Adds the scales of `matrices` that each panel holds: `fill` writes those of a panel, each as
    /// wide as the panel.
    pub fn set_scales(&mut self, matrices: usize, mut fill: impl FnMut(&Panel, &mut [f32])) {
        let mut scales = Buffer::zeroed(matrices * self.buffers[1].len());
        for panel in &self.list {
            fill(
                panel,
                &mut scales.as_mut_slice()[matrices * panel.bias..][..matrices * panel.vectors * self.lanes],
            );
        }
        (self.buffers[2], self.scales) = (scales, matrices);
    }

    /// Packs matrices of `depth` rows that are made of filters, with the filters' biases: `fill`
    /// writes all rows of a panel, one behind the other, which are zero.
    pub fn pack_panels<'f>(
        segments: &[Segment],
        lanes: usize,
        vectors: usize,
        depth: usize,
        filters: impl IntoIterator<Item = &'f Folded<'f>>,
        mut fill: impl FnMut(&Panel, &mut [f32]),
    ) -> Self {
        let filters: Vec<&Folded> = filters.into_iter().collect();
        let list = split(segments, lanes, vectors, depth);
        let last = list.last().expect("a problem has at least one segment");
        let len = last.offset + round_up(depth * last.vectors * lanes);
        let is_dims_only = filters.iter().all(|folded| folded.is_dims_only());
        let mut weights = if is_dims_only { Buffer::deferred(len) } else { Buffer::zeroed(len) };
        let mut biases = Buffer::zeroed(last.bias + last.vectors * lanes);
        for panel in &list {
            let folded = filters[panel.segment];
            if !folded.is_dims_only() {
                fill(panel, &mut weights.as_mut_slice()[panel.offset..][..depth * panel.vectors * lanes]);
            }
            biases.as_mut_slice()[panel.bias..][..panel.width]
                .copy_from_slice(&folded.bias[panel.channels()]);
        }
        Self { lanes, depth, list, buffers: [weights, biases, Buffer::zeroed(0)], scales: 0 }
    }

    /// Shares that so many blocks are dealt in, each with all panels in turn.
    pub fn shares(&self, blocks: usize) -> usize {
        /// Units that keep a team busy without being too small to be worth dealing.
        const UNITS: usize = 64;
        UNITS.div_ceil(self.list.len()).clamp(1, blocks)
    }

    /// Columns of the widest panel, padded to whole vectors.
    pub fn widest(&self) -> usize {
        let widths = self.list.iter().map(|panel| panel.vectors * self.lanes);
        widths.max().expect("a problem has at least one segment")
    }

    #[inline(always)]
    pub fn weights(&self, panel: &Panel) -> *const f32 {
        self.buffers[0].as_slice()[panel.offset..].as_ptr()
    }

    /// The packed rows of panels that follow each other.
    pub fn weights_of(&self, panels: Range<usize>) -> &[f32] {
        let Some(last) = self.list[panels.clone()].last() else { return &[] };
        let end = last.offset + self.depth * last.vectors * self.lanes;
        &self.buffers[0].as_slice()[self.list[panels.start].offset..end]
    }

    /// The packed rows of the panel that follows.
    #[inline(always)]
    pub fn following(&self, panel: &Panel) -> *const f32 {
        self.weights(panel).wrapping_add(self.depth * panel.vectors * self.lanes)
    }

    /// The scales of a panel's matrices, each padded to whole vectors; nothing where there are
    /// none.
    #[inline(always)]
    pub fn scales(&self, panel: &Panel) -> *const f32 {
        self.buffers[2].as_slice()[self.scales * panel.bias..].as_ptr()
    }

    /// The biases of a panel, padded to whole vectors.
    #[inline(always)]
    pub fn bias(&self, panel: &Panel) -> *const f32 {
        self.buffers[1].as_slice()[panel.bias..].as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Epilogue;

    #[test]
    fn panels_are_even_and_stay_inside_segments() {
        let segment = |channels| Segment { channels, epilogue: Epilogue::NONE };
        let list = split(&[segment(80), segment(17)], 16, 3, 10);
        let shape: Vec<_> = list.iter().map(|p| (p.segment, p.first, p.width, p.vectors)).collect();
        assert_eq!(shape, [(0, 0, 32, 2), (0, 32, 48, 3), (1, 0, 17, 2)]);
    }
}
