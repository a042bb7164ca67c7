//! Weights of a convolution and the BatchNorms that follow it.
//!
//! Rounding weights to bf16 one by one leaves an error in the mean of each output, which the next
//! layers carry on. Where all inputs are positive, as after a ReLU, the errors of many weights add
//! up. The mean can be kept without knowing any image, given the *expected* mean of each input
//! channel. [`Filter::rounded`] rounds each weight to one of its two neighbours, so that the sum of
//! `expected * error` stays small. It begins with the channels of the largest inputs, whose errors
//! those of small inputs then compensate.
//!
//! # Scales
//!
//! A tensor of u8 holds values over a *scale* that each channel has for itself. No kernel knows
//! these scales. What reads such a tensor is prepared from filters whose weights are multiplied by
//! the scales of their input channels, and what writes one from filters whose results are divided
//! by the scales of their output channels ([`Filter::rescaled`]). So a kernel multiplies the
//! numbers that are there and stores the nearest that its destination has.
//!
//! Weights of 8 bits have a scale for each output channel ([`Filter::quantized`]), which the kernel
//! multiplies its sums by. Where the mean of each input channel is known, what all errors of
//! rounding come to on average is taken out of the bias (M. Nagel et al., "Data-Free Quantization
//! Through Weight Equalization and Bias Correction", 2019).

use std::ops::Range;

use half::bf16;

/// Inference-time batch normalisation: `gamma * (x - mean) / sqrt(variance + epsilon) + beta`.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm {
    /// Scale; `None` is 1 (Keras's InceptionV3 has none).
    pub gamma: Option<Vec<f32>>,
    /// Shift.
    pub beta: Vec<f32>,
    /// Moving mean.
    pub mean: Vec<f32>,
    /// Moving variance.
    pub variance: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
}

impl BatchNorm {
    /// `x * scale + shift` for channel `k`, in f64.
    pub fn scale_shift(&self, k: usize) -> (f64, f64) {
        let gamma = self.gamma.as_ref().map_or(1.0, |g| g[k] as f64);
        let scale = gamma / (self.variance[k] as f64 + self.epsilon as f64).sqrt();
        (scale, self.beta[k] as f64 - self.mean[k] as f64 * scale)
    }
}

/// Weights `[r, s, c, k]`, an optional bias, and the BatchNorms that follow, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// Kernel height, kernel width, input channels, output channels.
    pub dims: [usize; 4],
    /// `r * s * c * k` values, output channels contiguous.
    pub weights: Vec<f32>,
    /// Added to the sum, before any BatchNorm.
    pub bias: Option<Vec<f32>>,
    /// Applied after the bias.
    pub norms: Vec<BatchNorm>,
    /// The expected mean of each input channel, where it is known. For bf16 only ratios matter.
    pub expected: Option<Vec<f32>>,
}

/// A [`Filter`] with its BatchNorms folded into weights and bias. Weights are scaled as they are
/// read, so that there is no second copy of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded<'a> {
    /// Kernel height, kernel width, input channels, output channels.
    pub dims: [usize; 4],
    /// One value an output channel.
    pub bias: Vec<f32>,
    weights: &'a [f32],
    scale: Vec<f64>,
}

impl Folded<'_> {
    /// Made from a [`Filter::dims_only`]: there are no rows to read.
    pub fn is_dims_only(&self) -> bool {
        self.weights.is_empty()
    }

    /// Rows of the matrix `[r * s * c, k]`.
    pub fn rows(&self) -> usize {
        let [r, s, c, _] = self.dims;
        r * s * c
    }

    /// Weights and scales of some output channels in a row.
    #[inline(always)]
    fn part(&self, row: usize, channels: Range<usize>) -> (&[f32], &[f64]) {
        (&self.weights[row * self.dims[3]..][channels.clone()], &self.scale[channels])
    }

    /// Weights of some output channels in a row of the matrix `[r * s * c, k]`, each scaled in f64
    /// and rounded once.
    #[inline(always)]
    pub fn row(&self, row: usize, channels: Range<usize>) -> impl Iterator<Item = f32> {
        let (weights, scale) = self.part(row, channels);
        weights.iter().zip(scale).map(|(&weight, scale)| (weight as f64 * scale) as f32)
    }

    /// As [`Self::row`], not rounded, of at most `N` channels; zeros after fewer.
    #[inline(always)]
    pub fn scaled<const N: usize>(&self, row: usize, channels: Range<usize>) -> [f64; N] {
        debug_assert!(channels.len() <= N, "{channels:?} are more than {N}");
        let (weights, scale) = self.part(row, channels);
        let (weights, scale) = (first_or_all::<_, N>(weights), first_or_all::<_, N>(scale));
        let mut scaled = [0.0; N];
        for ((scaled, weight), scale) in scaled.iter_mut().zip(&weights).zip(&scale) {
            *scaled = *weight as f64 * scale;
        }
        scaled
    }
}

/// A [`Filter`] with its BatchNorms folded and its weights then rounded to bf16.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded<'a> {
    /// Before they were rounded.
    pub folded: Folded<'a>,
    /// The matrix `[r * s * c, k]`, row-major; nothing if made from a [`Filter::dims_only`].
    pub weights: Vec<bf16>,
}

impl Rounded<'_> {
    /// The weights of some output channels in a row of the matrix.
    #[inline(always)]
    pub fn row(&self, row: usize, channels: Range<usize>) -> &[bf16] {
        &self.weights[row * self.folded.dims[3]..][channels]
    }
}

/// A [`Filter`] with its BatchNorms folded and its weights then rounded to 8 bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized<'a> {
    /// Before they were rounded, but for the bias, which makes up for the mean error.
    pub folded: Folded<'a>,
    /// The matrix `[r * s * c, k]`, row-major; nothing if made from a [`Filter::dims_only`].
    pub weights: Vec<i8>,
    /// What the weights of each output channel are to be multiplied by.
    pub scales: Vec<f32>,
}

impl Quantized<'_> {
    /// The weights of some output channels in a row of the matrix.
    #[inline(always)]
    pub fn row(&self, row: usize, channels: Range<usize>) -> &[i8] {
        &self.weights[row * self.folded.dims[3]..][channels]
    }
}

/// The first elements, or all of fewer and zeros after them.
#[inline(always)]
fn first_or_all<T: Copy + Default, const N: usize>(values: &[T]) -> [T; N] {
    values.first_chunk().copied().unwrap_or_else(|| {
        let mut all = [T::default(); N];
        all[..values.len()].copy_from_slice(values);
        all
    })
}

impl Filter {
    /// Without bias and BatchNorms.
    ///
    /// # Panics
    /// If there are not as many weights as the dimensions say.
    pub fn new(dims: [usize; 4], weights: Vec<f32>) -> Self {
        assert_eq!(weights.len(), dims.iter().product(), "weights of {dims:?}");
        Self { dims, weights, bias: None, norms: Vec::new(), expected: None }
    }

    /// Without weights: a kernel prepared from it has packed weights of the size that it needs, whose
    /// memory is [deferred](crate::Buffer::deferred) until they are filled in.
    pub fn dims_only(dims: [usize; 4]) -> Self {
        Self { dims, weights: Vec::new(), bias: None, norms: Vec::new(), expected: None }
    }

    /// Bias and BatchNorms without weights: over no taps, `[0, 0, 0, k]`. A pool takes it to add
    /// the folded bias of a convolution that goes before it.
    pub fn without_weights(&self) -> Self {
        Self { dims: [0, 0, 0, self.dims[3]], weights: Vec::new(), ..self.clone() }
    }

    /// `sum * scale + shift` of output channel `k` through bias and all BatchNorms, in f64.
    pub fn scale_shift(&self, k: usize) -> (f64, f64) {
        let bias = self.bias.as_ref().map_or(0.0, |b| b[k] as f64);
        self.norms.iter().fold((1.0, bias), |(scale, shift), norm| {
            let (s, b) = norm.scale_shift(k);
            (scale * s, shift * s + b)
        })
    }

    /// Folds the BatchNorms: `scale * (w . x) + shift = (scale * w) . x + shift`, computed in f64
    /// and rounded once.
    pub fn folded(&self) -> Folded<'_> {
        let (scale, shift): (Vec<f64>, Vec<f64>) = (0..self.dims[3]).map(|k| self.scale_shift(k)).unzip();
        let bias = shift.iter().map(|b| *b as f32).collect();
        Folded { dims: self.dims, bias, weights: &self.weights, scale }
    }

    /// As [`Self::folded`], with weights rounded to bf16: to the nearest, or where means of inputs
    /// are known, to neighbours whose errors cancel (see the module).
    pub fn rounded(&self) -> Rounded<'_> {
        let folded = self.folded();
        let mut weights = vec![bf16::ZERO; self.weights.len()];
        if !folded.is_dims_only() {
            let expected = self.expected.as_deref();
            let mut order: Vec<usize> = (0..self.dims[2]).collect();
            if let Some(expected) = expected {
                order.sort_by(|&a, &b| expected[b].total_cmp(&expected[a]));
            }
            let weights = &mut weights;
            pulp::Arch::new().dispatch(Round { folded: &folded, order, expected, weights });
        }
        Rounded { folded, weights }
    }

    /// As [`Self::folded`], with weights over a scale for each output channel, by which its largest
    /// weight is 127, rounded to nearest, ties to even.
    pub fn quantized(&self) -> Quantized<'_> {
        const MOST: f32 = i8::MAX as f32;
        let mut folded = self.folded();
        let [_, _, channels, k] = folded.dims;
        let rows = if folded.is_dims_only() { 0 } else { folded.rows() };
        let mut scales = vec![0.0f32; k];
        for row in 0..rows {
            let largest = scales.iter_mut().zip(folded.row(row, 0..k));
            largest.for_each(|(largest, weight)| *largest = largest.max(weight.abs()));
        }
        // A channel whose weights are all zero, or so small that their scale is, has any.
        scales.iter_mut().for_each(|scale| *scale = Some(*scale / MOST).filter(|s| *s > 0.0).unwrap_or(1.0));
        let mut weights = Vec::with_capacity(rows * k);
        let mut errors = vec![0.0f64; k];
        for row in 0..rows {
            let expected = self.expected.as_ref().map_or(0.0, |expected| expected[row % channels] as f64);
            for ((weight, &scale), error) in folded.row(row, 0..k).zip(&scales).zip(&mut errors) {
                let rounded = (weight / scale).round_ties_even().clamp(-MOST, MOST);
                *error += expected * (rounded as f64 * scale as f64 - weight as f64);
                weights.push(rounded as i8);
            }
        }
        folded.bias.iter_mut().zip(errors).for_each(|(bias, error)| *bias = (*bias as f64 - error) as f32);
        Quantized { folded, weights, scales }
    }

    /// For inputs over a scale of each input channel, and outputs over one of each output channel,
    /// where they are given (see the module).
    ///
    /// # Panics
    /// If there is not a scale for each channel.
    pub fn rescaled(mut self, inputs: Option<&[f32]>, outputs: Option<&[f32]>) -> Self {
        let [_, _, channels, k] = self.dims;
        if let Some(inputs) = inputs {
            assert_eq!(inputs.len(), channels, "a scale an input channel");
            for (row, weights) in self.weights.chunks_exact_mut(k).enumerate() {
                weights.iter_mut().for_each(|weight| *weight *= inputs[row % channels]);
            }
            let expected = self.expected.iter_mut().flatten().zip(inputs);
            expected.for_each(|(expected, scale)| *expected /= scale);
        }
        if let Some(outputs) = outputs {
            assert_eq!(outputs.len(), k, "a scale an output channel");
            self.norms.push(BatchNorm {
                gamma: Some(outputs.iter().map(|scale| 1.0 / scale).collect()),
                beta: vec![0.0; k],
                mean: vec![0.0; k],
                variance: vec![1.0; k],
                epsilon: 0.0,
            });
        }
        self
    }

    /// The first output channel whose bias or weights are not finite in f32 once BatchNorms are
    /// folded in. No weight is larger than `largest`.
    pub fn overflow(&self, largest: f32) -> Option<usize> {
        let k = self.dims[3];
        let is_finite = |value: f64| (value as f32).is_finite();
        (0..k).find(|&channel| {
            let (scale, shift) = self.scale_shift(channel);
            let mut weights = self.weights.iter().skip(channel).step_by(k);
            !is_finite(shift)
                || !is_finite(scale * largest as f64)
                    && !weights.all(|&weight| is_finite(scale * weight as f64))
        })
    }

    /// The weights, without bias and BatchNorms.
    pub fn unfolded(&self) -> Folded<'_> {
        let k = self.dims[3];
        Folded { dims: self.dims, bias: vec![0.0; k], weights: &self.weights, scale: vec![1.0; k] }
    }
}

/// Rounds the rows of a matrix `[taps * channels, k]`, channels in an order.
struct Round<'a> {
    folded: &'a Folded<'a>,
    order: Vec<usize>,
    expected: Option<&'a [f32]>,
    weights: &'a mut [bf16],
}

impl pulp::NullaryFnOnce for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { folded, order, expected, weights } = self;
        let [r, s, channels, k] = folded.dims;
        let mut sums = vec![0.0; k];
        for channel in order {
            for row in (0..r * s).map(|tap| tap * channels + channel) {
                let weights = weights[row * k..][..k].iter_mut().zip(folded.row(row, 0..k));
                match expected {
                    Some(expected) => weights.zip(&mut sums).for_each(|((rounded, weight), sum)| {
                        *rounded = round_evening(weight, expected[channel], sum);
                    }),
                    None => weights.for_each(|(rounded, weight)| *rounded = bf16::from_f32(weight)),
                }
            }
        }
    }
}

/// Rounds a weight to the one of its two neighbours in bf16 that leaves the smaller sum of
/// `expected * error`. A weight that is a bf16 stays as it is. Without branches, so that the
/// compiler uses vectors.
#[inline(always)]
fn round_evening(weight: f32, expected: f32, sum: &mut f32) -> bf16 {
    const UPPER: u32 = 0xffff_0000;
    let upper = weight.to_bits() & UPPER;
    let [inner, outer] = [upper, upper.wrapping_add(UPPER.wrapping_neg())].map(f32::from_bits);
    let [a, b] = [inner, outer].map(|rounded| *sum + expected * (rounded - weight));
    // The outer neighbour may be infinite.
    let is_outer = (b.abs() < a.abs()) & (inner != weight);
    *sum = if is_outer { b } else { a };
    let rounded = if is_outer { outer } else { inner };
    bf16::from_bits((rounded.to_bits() >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;

    #[test]
    fn rounded_weights_are_neighbours_whose_errors_cancel_for_expected_inputs() {
        let dims = [3, 3, 40, 5];
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.4
        };
        let weights: Vec<f32> = (0..dims.iter().product()).map(|_| random()).collect();
        let expected: Vec<f32> = (0..40).map(|_| random().abs()).collect();
        let nearest = Filter::new(dims, weights.clone());
        let evened = Filter { expected: Some(expected.clone()), ..nearest.clone() };
        // Of each output channel: the error of its sum of products with the expected inputs.
        let errors = |filter: &Filter| -> Vec<f64> {
            let rounded = filter.rounded().weights;
            (0..5)
                .map(|k| {
                    (0..9 * 40)
                        .map(|row| {
                            let (q, w) = (rounded[row * 5 + k].to_f64(), weights[row * 5 + k] as f64);
                            assert!((q - w).abs() <= 2.0 * Dtype::Bf16.rounding_error(w.abs()), "{w}: {q}");
                            expected[row % 40] as f64 * (q - w)
                        })
                        .sum()
                })
                .collect()
        };
        // What is left is at most the last step, of one of the smallest inputs.
        let smallest = expected.iter().fold(f32::INFINITY, |m, &e| m.min(e)) as f64;
        for error in errors(&evened) {
            assert!(error.abs() <= smallest * 2f64.powi(-8) + 1e-6, "{error:e}");
        }
        assert!(errors(&nearest).iter().any(|error| error.abs() > 1e-3));
    }

    #[test]
    fn weights_of_bf16_stay_as_they_are_and_those_without_neighbours_are_rounded() {
        let weights = vec![1.0, -0.5, 0.0, -0.0, 3.140625, f32::MAX, f32::MIN_POSITIVE];
        let filter = Filter { expected: Some(vec![1.0; 7]), ..Filter::new([1, 1, 7, 1], weights.clone()) };
        let [evened, nearest] =
            [filter.clone(), Filter { expected: None, ..filter }].map(|filter| filter.rounded().weights);
        for rounded in [&evened, &nearest] {
            let same = |at: usize| rounded[at].to_f32().to_bits() == weights[at].to_bits();
            assert!([0, 1, 2, 3, 4, 6].into_iter().all(same), "{rounded:?}");
        }
        assert_eq!([evened[5], nearest[5]], [bf16::MAX, bf16::INFINITY]);
    }

    #[test]
    fn weights_of_8_bits_are_the_nearest_and_their_mean_error_is_in_the_bias() {
        let weights = vec![1.0, 0.0, -0.3, 0.0, 0.124, 0.0];
        let expected = vec![2.0, 1.0, 4.0];
        let filter = Filter { expected: Some(expected), ..Filter::new([1, 1, 3, 2], weights.clone()) };
        let Quantized { folded, weights: quantized, scales } = filter.quantized();
        // 0.3 * 127 = 38.1, 0.124 * 127 = 15.748; a channel of zeros has any scale.
        assert_eq!(quantized, [127, 0, -38, 0, 16, 0]);
        assert_eq!(scales, [1.0 / 127.0, 1.0]);
        let error = 1.0 * (-38.0 / 127.0 + 0.3) + 4.0 * (16.0 / 127.0 - 0.124);
        assert!((folded.bias[0] as f64 + error).abs() < 1e-7, "{} for {}", folded.bias[0], -error);
        assert_eq!(folded.bias[1], 0.0);
        let hollow = Filter::dims_only([1, 1, 3, 2]);
        assert_eq!((hollow.quantized().weights.len(), hollow.quantized().scales), (0, vec![1.0; 2]));
    }

    #[test]
    fn rescaled_filters_take_inputs_and_give_outputs_over_scales() {
        let filter = Filter {
            bias: Some(vec![0.5, -1.0]),
            expected: Some(vec![3.0, 5.0]),
            ..Filter::new([1, 1, 2, 2], vec![1.0, 2.0, 3.0, 4.0])
        };
        let output = |filter: &Filter, input: [f32; 2], k: usize| {
            let folded = filter.folded();
            let row = |row| folded.row(row, k..k + 1).next().expect("a weight") * input[row];
            row(0) + row(1) + folded.bias[k]
        };
        let (inputs, outputs) = ([0.5, 0.25], [2.0, 8.0]);
        let scaled = filter.clone().rescaled(Some(&inputs), Some(&outputs));
        for (k, scale) in outputs.into_iter().enumerate() {
            let plain = output(&filter, [4.0, 2.0], k);
            assert_eq!(output(&scaled, [8.0, 8.0], k) * scale, plain);
        }
        assert_eq!(scaled.expected, Some(vec![6.0, 20.0]));
        assert_eq!(filter.clone().rescaled(None, None), filter);
    }

    #[test]
    fn two_norms_fold_into_one_scale_and_shift() {
        let norm = |beta, mean, variance| BatchNorm {
            gamma: Some(vec![2.0]),
            beta: vec![beta],
            mean: vec![mean],
            variance: vec![variance],
            epsilon: 0.0,
        };
        let filter = Filter {
            bias: Some(vec![0.5]),
            norms: vec![norm(1.0, 3.0, 4.0), norm(-1.0, 0.5, 1.0)],
            ..Filter::new([1, 1, 2, 1], vec![3.0, -1.0])
        };
        // y1 = 2 (x + 0.5 - 3) / 2 + 1 = x - 1.5; y2 = 2 (y1 - 0.5) - 1 = 2 x - 5
        let folded = filter.folded();
        let weights: Vec<f32> = (0..folded.rows()).flat_map(|row| folded.row(row, 0..1)).collect();
        assert_eq!(weights, [6.0, -2.0]);
        assert_eq!(folded.bias, [-5.0]);
        let rest = filter.without_weights();
        assert_eq!((rest.dims, rest.folded().bias), ([0, 0, 0, 1], vec![-5.0]));
    }
}
