//! Synthetic weights and images: the same values on every machine, to the bit, from a counter.
//!
//! Value `i` of stream `t` is SplitMix64's output for the state
//! `seed + t * 0xD1B54A32D192ED03 + (i + 1) * 0x9E3779B97F4A7C15`, of which the upper 24 bits make
//! a number in (0, 1) that f32 and f64 both hold exactly. Convolution `j` in order of creation has
//! the streams from `8 j`: kernel (HWIO), beta, mean, variance, gamma (unused), and beta, mean and
//! variance of a second BatchNorm. Kernels are uniform in +-sqrt(6 / (r s c)), so that a ReLU
//! network keeps the size of its activations.

use kernels::{BatchNorm, Filter};

use crate::network::{ConvSpec, ModelInfo};
use crate::util::random::{uniform, unit};

/// The seed used where none is asked for; images always have it.
pub const SEED: u64 = 1;

const DENSE_STREAM: u64 = 1_000_000;
const IMAGE_STREAM: u64 = 2_000_000;
const LEAVES_STREAM: u64 = 3_000_000;

/// Steps after which the ramp of an image starts anew, whatever the size of the image.
const RAMP: usize = 299;

/// `n` images `[n, h, w, c]`, the first of which has number `first`, in (-1, 1): a diagonal ramp,
/// different in each channel, and noise of the same amplitude.
pub fn image(n: usize, h: usize, w: usize, c: usize, first: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(n * h * w * c);
    for stream in (first..first + n).map(|image| IMAGE_STREAM + image as u64) {
        for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
            for channel in 0..c {
                let noise = unit(SEED, stream, ((y * w + x) * c + channel) as u64);
                let (rise, run) = (channel % 3 + 1, 3 - channel % 3);
                let ramp = ((y * rise + x * run) % RAMP) as f64 / (RAMP - 1) as f64;
                values.push((noise - 0.5 + ramp - 0.5) as f32);
            }
        }
    }
    values
}

/// One image `[h, w, c]` in (-1, 1) with the statistics of photographs: discs of all sizes and
/// colours, each behind those before it (the dead leaves model; A. Lee, D. Mumford and J. Huang,
/// "Occlusion Models for Natural Images", 2001). The density of radii falls as their third power.
pub fn leaves(h: usize, w: usize, c: usize) -> Vec<f32> {
    const RADII: [f64; 2] = [2.0, 120.0];
    const DISCS: u64 = 12_000;
    let mut image = vec![0.0; h * w * c];
    let mut covered = vec![false; h * w];
    let [least, most] = RADII.map(|radius| radius.powi(-2));
    for disc in 0..DISCS {
        let value = |i: usize| unit(SEED, LEAVES_STREAM + disc, i as u64);
        let radius = (least - value(0) * (least - most)).powf(-0.5);
        // The centre may lie outside.
        let [y, x] = [(1, h), (2, w)].map(|(i, extent)| value(i) * (extent as f64 + 2.0 * radius) - radius);
        let span = |at: f64, extent: usize| {
            let [first, end] = [at - radius, at + radius + 1.0].map(|edge| edge.clamp(0.0, extent as f64));
            first as usize..end as usize
        };
        for (row, column) in span(y, h).flat_map(|row| span(x, w).map(move |column| (row, column))) {
            let distance = (row as f64 - y).powi(2) + (column as f64 - x).powi(2);
            if distance <= radius.powi(2) && !std::mem::replace(&mut covered[row * w + column], true) {
                let pixel = &mut image[(row * w + column) * c..][..c];
                (3..).zip(pixel).for_each(|(i, channel)| *channel = (2.0 * value(i) - 1.0) as f32);
            }
        }
    }
    image
}

/// One image `[h, w, c]` of two plain surfaces, dark above and bright below a slanting edge: errors
/// of alike pixels add up where those of unlike ones cancel.
pub fn plain(h: usize, w: usize, c: usize) -> Vec<f32> {
    let value = |y: usize, x: usize| if (10 * y * w + 3 * x * h) > 6 * h * w { 0.7 } else { -0.9 };
    (0..h * w * c).map(|i| value(i / c / w, i / c % w)).collect()
}

#[derive(Debug)]
pub(super) struct Synthetic {
    pub seed: u64,
    pub info: ModelInfo,
}

impl Synthetic {
    pub fn conv(&self, spec: &ConvSpec) -> Filter {
        let ([r, s], c, k) = (spec.kernel, spec.channels, spec.filters);
        let limit = (6.0 / (r * s * c) as f64).sqrt();
        let weights = uniform(self.seed, 8 * spec.index as u64, r * s * c * k, -limit, limit);
        let norms = (0..spec.norms).map(|number| self.norm(spec, number)).collect();
        Filter { norms, ..Filter::new([r, s, c, k], weights) }
    }

    /// One of the BatchNorms of a convolution, the first of which has number 0.
    pub fn norm(&self, spec: &ConvSpec, number: usize) -> BatchNorm {
        let (stream, k) = (8 * spec.index as u64 + 4 * number as u64, spec.filters);
        BatchNorm {
            gamma: None,
            beta: uniform(self.seed, stream + 1, k, -0.1, 0.1),
            mean: uniform(self.seed, stream + 2, k, -0.1, 0.1),
            variance: uniform(self.seed, stream + 3, k, 0.75, 1.25),
            epsilon: self.info.bn_epsilon,
        }
    }

    pub fn dense(&self, features: usize, classes: usize) -> Filter {
        let limit = (3.0 / features as f64).sqrt();
        let weights = uniform(self.seed, DENSE_STREAM, features * classes, -limit, limit);
        let bias = uniform(self.seed, DENSE_STREAM + 1, classes, -0.1, 0.1);
        Filter { bias: Some(bias), ..Filter::new([1, 1, features, classes], weights) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_python_twin() {
        assert_eq!([unit(1, 0, 0), unit(1, 8 * 93 + 3, 12_345), unit(1, 2_000_000, 268_202)], UNITS);
        assert_eq!(image(1, 299, 299, 3, 0)[1000..1003], IMAGE);
    }

    #[test]
    fn images_are_numbered_whatever_the_batch() {
        let both = image(2, 5, 7, 3, 4);
        assert_eq!(both[5 * 7 * 3..], image(1, 5, 7, 3, 5));
        assert!(both.iter().all(|v| v.abs() < 1.0));
    }

    #[test]
    fn a_fourth_channel_has_the_ramp_of_the_first() {
        let at = |channel: usize| image(1, 9, 9, 4, 0)[(8 * 9 + 7) * 4 + channel];
        let noise = |channel: u64| unit(SEED, IMAGE_STREAM, (8 * 9 + 7) * 4 + channel);
        assert!(((at(3) - at(0)) as f64 - (noise(3) - noise(0))).abs() < 1e-6);
    }

    const UNITS: [f64; 3] = [0.5665615499019623, 0.5406636893749237, 0.8170965611934662];
    const IMAGE: [f32; 3] = [-0.56358224, -0.64156383, -0.26833832];
}
