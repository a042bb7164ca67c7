//! Finds the ranges of a network's activations from images.
//!
//! A range that is as wide as the largest output leaves large steps between all others; a narrower
//! one clamps the largest. What is best for a layer is estimated from a histogram of its outputs:
//! with 255 steps of `s` below the range `t`, values below it are off by `s^2 / 12` in the mean
//! square, those above by `(x - t)^2`, and those below half a step, which become 0, by `x^2`.
//!
//! A channel whose outputs are smaller than those of others has a narrower range: steps are smaller
//! then, but the weights of 8 bits that read it are too, and lose as much. In between is best: ranges
//! are `layer^(1 - a) * channel^a`, of the layer's range and the channel's largest output (G. Xiao
//! et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
//! Models", 2023).
//!
//! None of this knows what later layers make of the error, so that [`RangeRule`]s compete: the error
//! of the features decides.

use kernels::{Cpu, Problem};

use crate::network::{Calibration, Graph, Step, Weight, default_choices};
use crate::runtime::prepared::{PrepareError, PreparedNetwork};
use crate::runtime::threads::Threads;
use crate::weights::Weights;

/// How the range of a layer follows from its outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LayerRule {
    /// The largest output.
    Largest,
    /// The range with the least mean square error.
    LeastSquares,
    /// What so large a share of the positive outputs is not above.
    Quantile(f64),
}

/// How the range of a channel follows from those of the layer and of the channel itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangeRule {
    pub layer: LayerRule,
    /// The exponent of the channel's own range: 0 gives all channels the layer's.
    pub own: f64,
}

impl RangeRule {
    /// Those that compete.
    pub fn all() -> impl Iterator<Item = Self> {
        let layer = [LayerRule::LeastSquares, LayerRule::Quantile(0.9999), LayerRule::Largest];
        layer.into_iter().flat_map(|layer| [0.25, 0.5].map(|own| Self { layer, own }))
    }
}

impl std::fmt::Display for RangeRule {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.layer {
            LayerRule::Largest => f.write_str("largest")?,
            LayerRule::LeastSquares => f.write_str("least squares")?,
            LayerRule::Quantile(share) => write!(f, "quantile {share}")?,
        }
        write!(f, ", channels to the power of {}", self.own)
    }
}

/// How many positive values there are of each size: [`PER_OCTAVE`] bins between powers of two.
struct Histogram {
    counts: Vec<u64>,
    largest: f32,
}

/// Bins between two powers of two, a power of two itself: as wide as 3% of their values at most.
const PER_OCTAVE: u32 = 32;
/// How many times as large as the smallest range that is tried the largest output is.
const LEAST_SHARE: f64 = 1024.0;
/// The powers of two of the smallest and of the largest bin.
const OCTAVES: [i32; 2] = [-24, 40];

impl Histogram {
    const SHIFT: u32 = f32::MANTISSA_DIGITS - 1 - PER_OCTAVE.trailing_zeros();
    /// The number of the first bin, by the upper bits of its values.
    const FIRST: u32 = ((127 + OCTAVES[0]) as u32) * PER_OCTAVE;

    fn new() -> Self {
        Self { counts: vec![0; (OCTAVES[1] - OCTAVES[0]) as usize * PER_OCTAVE as usize], largest: 0.0 }
    }

    fn add(&mut self, values: &[f32]) {
        let last = self.counts.len() - 1;
        for &value in values.iter().filter(|value| **value > 0.0) {
            let bin = (value.to_bits() >> Self::SHIFT).saturating_sub(Self::FIRST) as usize;
            self.counts[bin.min(last)] += 1;
            self.largest = self.largest.max(value);
        }
    }

    /// All bins: the lower bound of each, and how many values it has.
    fn bins(&self) -> impl Iterator<Item = (f64, u64)> {
        let bound = |bin: usize| f32::from_bits((bin as u32 + Self::FIRST) << Self::SHIFT) as f64;
        self.counts.iter().enumerate().map(move |(bin, count)| (bound(bin), *count))
    }

    /// The range by a rule; none where no value is positive.
    fn range(&self, rule: LayerRule) -> Option<f32> {
        if self.largest == 0.0 {
            return None;
        }
        let upper = |lower: f64| (lower * (1.0 + 1.0 / f64::from(PER_OCTAVE))).min(self.largest as f64);
        let range = match rule {
            LayerRule::Largest => self.largest as f64,
            LayerRule::Quantile(share) => {
                let all: u64 = self.counts.iter().sum();
                let mut below = 0;
                let holds = |(_, count): &(f64, u64)| {
                    below += count;
                    below as f64 >= share * all as f64
                };
                self.bins().find(holds).map_or(self.largest as f64, |(lower, _)| upper(lower))
            }
            LayerRule::LeastSquares => {
                let error = |range: &f64| {
                    let step = range / f64::from(u8::MAX);
                    let of = |(lower, count): (f64, u64)| {
                        let middle = (lower + upper(lower)) / 2.0;
                        let over = middle - range;
                        let square = match middle < step / 2.0 {
                            _ if over > 0.0 => over * over,
                            true => middle * middle,
                            false => step * step / 12.0,
                        };
                        count as f64 * square
                    };
                    self.bins().filter(|(_, count)| *count > 0).map(of).sum::<f64>()
                };
                let (least, most) = (self.largest as f64 / LEAST_SHARE, self.largest as f64);
                let bounds = self.bins().map(|(lower, _)| lower).filter(|lower| *lower <= most);
                let ranges = bounds.map(upper).filter(|range| *range >= least);
                ranges.min_by(|a, b| error(a).total_cmp(&error(b))).unwrap_or(self.largest as f64)
            }
        };
        Some(range as f32)
    }
}

/// The outputs of a network's convolutions, as far as ranges need them.
pub struct Outputs {
    layers: Vec<Layer>,
}

/// The outputs of a convolution.
struct Layer {
    name: String,
    all: Histogram,
    /// The largest of each channel.
    largest: Vec<f32>,
}

impl Layer {
    fn new(name: String, channels: usize) -> Self {
        Self { name, all: Histogram::new(), largest: vec![0.0; channels] }
    }

    fn add(&mut self, values: &[f32]) {
        self.all.add(values);
        for pixel in values.chunks_exact(self.largest.len()) {
            self.largest.iter_mut().zip(pixel).for_each(|(largest, value)| *largest = largest.max(*value));
        }
    }

    /// The range of each channel, in three digits.
    fn ranges(&self, rule: RangeRule) -> Vec<f32> {
        let range = self.all.range(rule.layer).unwrap_or(1.0);
        let of_channel = |&largest: &f32| {
            // None above zero tells nothing.
            let own = if largest > 0.0 { largest.min(range) } else { range };
            let range = f64::from(range).powf(1.0 - rule.own) * f64::from(own).powf(rule.own);
            format!("{range:.2e}").parse().expect("a number")
        };
        self.largest.iter().map(of_channel).collect()
    }
}

impl Outputs {
    /// Runs images `[h, w, c]` through a plain graph in f32.
    pub fn of(
        plain: &Graph,
        weights: &Weights,
        cpu: &Cpu,
        threads: &Threads,
        images: &[Vec<f32>],
    ) -> Result<Self, PrepareError> {
        let choices = default_choices(plain, cpu);
        let mut network = PreparedNetwork::new(plain.clone(), &choices, None, weights, cpu, threads)?;
        let is_rectified = |step: &Step| match &step.problem {
            Problem::Conv(conv) => conv.segments.iter().all(|segment| segment.epilogue.relu),
            _ => false,
        };
        let of_step = |(index, step): (usize, &Step)| match (&step.weights[..], &step.dst[..]) {
            ([Weight::Conv(spec)], [slice]) if is_rectified(step) => {
                Some((spec.name.clone(), index + 1, slice.clone()))
            }
            _ => None,
        };
        let layers: Vec<_> = plain.steps.iter().enumerate().filter_map(of_step).collect();
        let slices: Vec<_> = layers.iter().map(|(_, done, slice)| (*done, slice)).collect();
        let mut found: Vec<Layer> =
            layers.iter().map(|(name, _, slice)| Layer::new(name.clone(), slice.channels.len())).collect();
        for image in images {
            let outputs = network.run_reading(threads, image, 1, &slices);
            found.iter_mut().zip(outputs).for_each(|(layer, values)| layer.add(&values));
        }
        Ok(Self { layers: found })
    }

    /// Ranges by a rule. A layer whose outputs are all zero has any.
    pub fn ranges(&self, rule: RangeRule) -> Calibration {
        let ranges = self.layers.iter().map(|layer| (layer.name.clone(), layer.ranges(rule)));
        Calibration { rule: rule.to_string(), ranges: ranges.collect(), ..Calibration::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::random::unit;

    #[test]
    fn ranges_cover_what_rules_say_and_outliers_are_clamped_where_that_is_less_of_an_error() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.range(LayerRule::Largest), None);
        let uniform: Vec<f32> = (0..100_000).map(|i| unit(3, 0, i) as f32).collect();
        histogram.add(&uniform);
        histogram.add(&[0.0, -3.0, f32::NAN]);
        let rules = [LayerRule::LeastSquares, LayerRule::Quantile(0.9999), LayerRule::Largest];
        for rule in rules {
            let range = histogram.range(rule).expect("a range");
            // A bin is 1/32 wide at most, and the best range clamps none of what is evenly spread.
            assert!((0.96..=1.0).contains(&range), "{rule:?}: {range}");
        }
        histogram.add(&[30.0]);
        let [least_squares, quantile, largest] = rules.map(|rule| histogram.range(rule).expect("a range"));
        assert_eq!(largest, 30.0);
        assert!((0.96..=1.04).contains(&quantile), "{quantile}");
        // n (t / 255)^2 / 12 + (30 - t)^2 is least where t = 30 / (1 + n / (12 * 255^2)).
        let best = 30.0 / (1.0 + 1e5 / (12.0 * 255.0 * 255.0));
        assert!((least_squares / best - 1.0).abs() < 0.05, "{least_squares} for {best}");
    }

    #[test]
    fn ranges_of_channels_lie_between_their_own_and_that_of_the_layer() {
        let mut layer = Layer::new("a layer".into(), 3);
        layer.add(&[4.0, 0.25, 0.0, 1.0, -8.0, 0.0]);
        let of = |own| layer.ranges(RangeRule { layer: LayerRule::Largest, own });
        // Nothing is known of the third.
        assert_eq!(of(0.0), [4.0, 4.0, 4.0]);
        assert_eq!(of(0.5), [4.0, 1.0, 4.0]);
        assert_eq!(of(1.0), [4.0, 0.25, 4.0]);
    }
}
