//! The sum of a convolution in steps of 32 products, and its weights packed by them.

use crate::arch::amx::{DEPTH, ROWS, TILE};
use crate::filter::Rounded;
use crate::gemm::panels::{Panels, set_half};
use crate::problem::Conv;

/// The products of a step: those of [`DEPTH`] neighbouring elements of a source's row.
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
pub fn is_narrow(conv: &Conv) -> bool {
    conv.channels < DEPTH
}

/// Whether steps run over all taps of a row at once: then no other channels may lie between.
pub fn runs_over_taps(conv: &Conv) -> bool {
    !conv.channels.is_multiple_of(DEPTH) && conv.window.kernel[1] > 1
}

/// The steps of a sum: 32 channels through all taps, then the next 32, so that taps that share
/// pixels come one after the other. Where the channels are no multiple, a row of taps is one run,
/// whose last step overlaps the one before, or reads on where there is none.
pub fn steps(conv: &Conv) -> Vec<Step> {
    let [r, s] = conv.window.kernel;
    let channels = conv.channels;
    if channels.is_multiple_of(DEPTH) {
        let of = |element: usize| {
            (0..r * s).map(move |tap| Step {
                tap: [tap / s, tap % s],
                element,
                row: tap * channels + element,
                idle: [0; 2],
            })
        };
        return (0..channels).step_by(DEPTH).flat_map(of).collect();
    }
    let run = s * channels;
    let of = |row: usize| {
        (0..run).step_by(DEPTH).map(move |first| {
            let element = first.min(run.saturating_sub(DEPTH));
            let idle = [first - element, (element + DEPTH).saturating_sub(run)];
            Step { tap: [row, 0], element, row: row * run + element, idle }
        })
    };
    (0..r).flat_map(of).collect()
}

/// The weights of all steps: for each a tile of pairs of rows for every vector of the panel.
pub fn pack(conv: &Conv, steps: &[Step], filters: &[Rounded]) -> Panels {
    let pairs = DEPTH / 2;
    let folded = filters.iter().map(|filter| &filter.folded);
    Panels::pack_panels(&conv.segments, ROWS, 2, steps.len() * pairs, folded, |panel, packed| {
        let filter = &filters[panel.segment];
        for (step, packed) in steps.iter().zip(packed.chunks_exact_mut(panel.vectors * TILE)) {
            let [before, after] = step.idle;
            for (vector, tile) in packed.chunks_exact_mut(TILE).enumerate() {
                let first = vector * ROWS;
                let last = panel.width.min(first + ROWS);
                let channels = panel.first + first..panel.first + last;
                for element in before..DEPTH - after {
                    let packed = &mut tile[element / 2 * ROWS..][..ROWS];
                    set_half(packed, element % 2, filter.row(step.row + element, channels.clone()));
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_take_each_product_once() {
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
            for step in steps(&conv) {
                let [before, after] = step.idle;
                (before..DEPTH - after).for_each(|element| times[step.row + element] += 1);
                let run = if runs_over_taps(&conv) { conv.window.kernel[1] } else { 1 };
                assert!(is_narrow(&conv) || step.element + DEPTH <= run * conv.channels, "{text}: {step:?}");
            }
            assert!(times.iter().all(|&times| times == 1), "{text}");
        }
    }
}
