//! The sum of a convolution in steps of 32 products of bf16 or 64 of u8, and its weights packed by
//! them.

use std::ops::Range;

use super::element::TilePixel;
use crate::arch::amx::{ROWS, TILE};
use crate::filter::Folded;
use crate::gemm::panels::{Panel, Panels, set_half, set_part};
use crate::kernel::Request;
use crate::problem::Conv;
use crate::tensor::Dtype;

/// The products of a step: those of `DEPTH` neighbouring elements of a source's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The tap that they are counted from.
    pub tap: [usize; 2],
    /// The first element read, counted from the tap's first channel.
    pub element: usize,
    /// The first row of the filter, counted through taps and channels.
    pub row: usize,
    /// Elements before the first and after the last that are multiplied by zero.
    pub idle: [usize; 2],
}

/// Whether the inputs of a tap are fewer than those of a step.
pub fn is_narrow<T: TilePixel>(conv: &Conv) -> bool {
    conv.channels < T::DEPTH
}

/// Whether steps run over all taps of a row at once: then no other channels may lie between.
pub fn runs_over_taps<T: TilePixel>(conv: &Conv) -> bool {
    !conv.channels.is_multiple_of(T::DEPTH) && conv.window.kernel[1] > 1
}

/// The steps of a sum: a step's channels through all taps, then the next ones, so that taps that
/// share pixels come one after the other. Where the channels are no multiple, a row of taps is one run,
/// whose last step overlaps the one before, or reads on where there is none.
pub fn steps<T: TilePixel>(conv: &Conv) -> Vec<Step> {
    let [r, s] = conv.window.kernel;
    let channels = conv.channels;
    if channels.is_multiple_of(T::DEPTH) {
        let of = |element: usize| {
            (0..r * s).map(move |tap| Step {
                tap: [tap / s, tap % s],
                element,
                row: tap * channels + element,
                idle: [0; 2],
            })
        };
        return (0..channels).step_by(T::DEPTH).flat_map(of).collect();
    }
    let run = s * channels;
    let of = |row: usize| {
        (0..run).step_by(T::DEPTH).map(move |first| {
            let element = first.min(run.saturating_sub(T::DEPTH));
            let idle = [first - element, (element + T::DEPTH).saturating_sub(run)];
            Step { tap: [row, 0], element, row: row * run + element, idle }
        })
    };
    (0..r).flat_map(of).collect()
}

/// The weights of all steps: for each a tile of groups of rows for every vector of the panel.
pub fn pack<T: TilePixel>(conv: &Conv, steps: &[Step], request: &Request) -> Panels {
    if T::DTYPE == Dtype::U8 {
        let filters = request.quantized();
        let folded = filters.iter().map(|filter| &filter.folded);
        let mut panels = pack_tiles::<T>(conv, steps, folded, |panel, part, row, channels, packed| {
            set_part(packed, [part, T::GROUP], filters[panel.segment].row(row, channels));
        });
        panels.set_scales_of(&filters);
        return panels;
    }
    let filters = request.rounded();
    let folded = filters.iter().map(|filter| &filter.folded);
    pack_tiles::<T>(conv, steps, folded, |panel, part, row, channels, packed| {
        set_half(packed, part, filters[panel.segment].row(row, channels));
    })
}

/// Packs tiles by a function that sets one part of the elements of a row: the part, the row of the
/// filter, the output channels, and the elements.
fn pack_tiles<'f, T: TilePixel>(
    conv: &Conv,
    steps: &[Step],
    filters: impl IntoIterator<Item = &'f Folded<'f>>,
    mut set: impl FnMut(&Panel, usize, usize, Range<usize>, &mut [f32]),
) -> Panels {
    let rows = steps.len() * T::DEPTH / T::GROUP;
    Panels::pack_panels(&conv.segments, ROWS, 2, rows, filters, |panel, packed| {
        for (step, packed) in steps.iter().zip(packed.chunks_exact_mut(panel.vectors * TILE)) {
            let [before, after] = step.idle;
            for (vector, tile) in packed.chunks_exact_mut(TILE).enumerate() {
                let first = vector * ROWS;
                let last = panel.width.min(first + ROWS);
                let channels = panel.first + first..panel.first + last;
                for element in before..T::DEPTH - after {
                    let packed = &mut tile[element / T::GROUP * ROWS..][..ROWS];
                    set(panel, element % T::GROUP, step.row + element, channels.clone(), packed);
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn steps_take_each_product_once() {
        each_product_once::<bf16>();
        each_product_once::<u8>();
    }

    fn each_product_once<T: TilePixel>() {
        for text in [
            "n1h5w5c48k8r3s3",
            "n1h5w5c80k8r1s1",
            "n1h5w5c3k8r3s3",
            "n1h5w5c31k8r1s7",
            "n1h5w5c7k8r3s5",
            "n1h5w5c20k8r7s1",
            "n1h5w5c33k8r3s1",
            "n1h5w5c64k8r1s3",
            "n1h5w5c96k8r3s3",
        ] {
            let conv: Conv = text.parse().expect("a shape");
            let mut times = vec![0; conv.depth()];
            for step in steps::<T>(&conv) {
                let [before, after] = step.idle;
                (before..T::DEPTH - after).for_each(|element| times[step.row + element] += 1);
                let run = if runs_over_taps::<T>(&conv) { conv.window.kernel[1] } else { 1 };
                let end = step.element + T::DEPTH;
                assert!(is_narrow::<T>(&conv) || end <= run * conv.channels, "{text}: {step:?}");
            }
            assert!(times.iter().all(|&times| times == 1), "{text}");
        }
    }
}
