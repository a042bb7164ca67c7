//! Weights packed into panels: the columns that one register tile takes, for all products summed.
//!
//! A panel holds `depth` rows of `vectors * LANES` output channels, contiguous. Panels never straddle
//! segments; the last one of a segment is narrower, and its last vector is padded with zeros.

use half::bf16;

use crate::filter::Folded;
use crate::problem::Segment;
use crate::scratch::{Buffer, round_up};

/// One panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panel {
    /// The segment that its channels belong to.
    pub segment: usize,
    /// Its first channel inside the segment.
    pub first: usize,
    /// Channels; less than `vectors * LANES` only at the end of a segment.
    pub width: usize,
    /// Vectors in a row.
    pub vectors: usize,
    /// Elements from the start of the packed weights.
    offset: usize,
    /// Elements from the start of the packed biases.
    bias: usize,
}

impl Panel {
    /// Its first column where the panels lie side by side, each padded to whole vectors.
    pub fn column(&self) -> usize {
        self.bias
    }
}

/// All panels of a problem.
#[derive(Debug)]
pub struct Panels {
    lanes: usize,
    depth: usize,
    list: Vec<Panel>,
    weights: Buffer,
    biases: Buffer,
}

/// Splits the channels of segments into panels of at most `vectors` vectors, as evenly as whole
/// vectors allow.
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
        let [r, s, c, _] = filters[0].dims;
        Self::pack_rows(segments, lanes, vectors, r * s * c, filters, |filter, panel, row, packed| {
            let from = row * filter.dims[3] + panel.first;
            packed.copy_from_slice(&filter.weights[from..from + panel.width]);
        })
    }

    /// As [`Self::pack`], in bf16: a row holds the pairs of two rows of the matrix, the first in the lower
    /// half of each element.
    ///
    /// # Panics
    /// If the matrix has an odd number of rows.
    pub fn pack_pairs(segments: &[Segment], lanes: usize, vectors: usize, filters: &[Folded]) -> Self {
        let [r, s, c, _] = filters[0].dims;
        assert!((r * s * c).is_multiple_of(2), "{} rows in pairs", r * s * c);
        let bits = |weight: f32| u32::from(bf16::from_f32(weight).to_bits());
        Self::pack_rows(segments, lanes, vectors, r * s * c / 2, filters, |filter, panel, pair, packed| {
            let row = |row: usize| &filter.weights[row * filter.dims[3] + panel.first..];
            for ((packed, &low), &high) in packed.iter_mut().zip(row(2 * pair)).zip(row(2 * pair + 1)) {
                *packed = f32::from_bits(bits(low) | bits(high) << 16);
            }
        })
    }

    /// Packs matrices of `depth` rows that are made of filters, with the filters' biases: `fill` writes the
    /// channels of a panel in one of the rows.
    pub fn pack_rows(
        segments: &[Segment],
        lanes: usize,
        vectors: usize,
        depth: usize,
        filters: &[Folded],
        mut fill: impl FnMut(&Folded, &Panel, usize, &mut [f32]),
    ) -> Self {
        let list = split(segments, lanes, vectors, depth);
        let last = list.last().expect("a problem has at least one segment");
        let mut weights = Buffer::zeroed(last.offset + round_up(depth * last.vectors * lanes));
        let mut biases = Buffer::zeroed(last.bias + last.vectors * lanes);
        for panel in &list {
            let filter = &filters[panel.segment];
            let pitch = panel.vectors * lanes;
            let packed = &mut weights.as_mut_slice()[panel.offset..][..depth * pitch];
            for (row, packed) in packed.chunks_exact_mut(pitch).enumerate() {
                fill(filter, panel, row, &mut packed[..panel.width]);
            }
            let source = &filter.bias[panel.first..panel.first + panel.width];
            biases.as_mut_slice()[panel.bias..][..panel.width].copy_from_slice(source);
        }
        Self { lanes, depth, list, weights, biases }
    }

    /// Panels, in the order of their channels.
    pub fn list(&self) -> &[Panel] {
        &self.list
    }

    /// The packed rows of a panel.
    #[inline(always)]
    pub fn weights(&self, panel: &Panel) -> *const f32 {
        self.weights.as_slice()[panel.offset..].as_ptr()
    }

    /// The packed rows of the panel that follows.
    #[inline(always)]
    pub fn following(&self, panel: &Panel) -> *const f32 {
        self.weights(panel).wrapping_add(self.depth * panel.vectors * self.lanes)
    }

    /// The biases of a panel, padded to whole vectors.
    #[inline(always)]
    pub fn bias(&self, panel: &Panel) -> *const f32 {
        self.biases.as_slice()[panel.bias..].as_ptr()
    }

    /// Columns of panels that lie side by side, each padded to whole vectors.
    pub fn columns(&self) -> usize {
        self.biases.len()
    }

    /// Weights and biases.
    pub fn buffers(&self) -> [&Buffer; 2] {
        [&self.weights, &self.biases]
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
