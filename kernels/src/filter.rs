//! Weights of a convolution and the BatchNorms that follow it.

use std::ops::Range;

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
}

/// A [`Filter`] with its BatchNorms folded into weights and bias. Weights are scaled as they are read, so
/// that there is no second copy of them.
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
    /// Made from a [`Filter::hollow`]: there are no rows to read.
    pub fn is_hollow(&self) -> bool {
        self.weights.is_empty()
    }

    /// Rows of the matrix `[r * s * c, k]`.
    pub fn rows(&self) -> usize {
        let [r, s, c, _] = self.dims;
        r * s * c
    }

    /// The weights of some output channels in a row of the matrix `[r * s * c, k]`, each scaled in f64 and
    /// rounded once.
    #[inline(always)]
    pub fn row(&self, row: usize, channels: Range<usize>) -> impl Iterator<Item = f32> {
        let first = row * self.dims[3];
        let weights = &self.weights[first + channels.start..first + channels.end];
        weights.iter().zip(&self.scale[channels]).map(|(&weight, scale)| (weight as f64 * scale) as f32)
    }
}

impl Filter {
    /// Weights alone.
    ///
    /// # Panics
    /// If there are not as many weights as the dimensions say.
    pub fn new(dims: [usize; 4], weights: Vec<f32>) -> Self {
        assert_eq!(weights.len(), dims.iter().product(), "weights of {dims:?}");
        Self { dims, weights, bias: None, norms: Vec::new() }
    }

    /// A filter that has only its dimensions: what is prepared from it has memory for packed weights, but
    /// none in it.
    pub fn hollow(dims: [usize; 4]) -> Self {
        Self { dims, weights: Vec::new(), bias: None, norms: Vec::new() }
    }

    /// What follows the products, alone: bias and BatchNorms over no taps, `[0, 0, 0, k]`. A pool that ends
    /// what a convolution has left to it takes this, and adds the folded bias.
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

    /// The weights alone, with neither bias nor BatchNorms.
    pub fn unfolded(&self) -> Folded<'_> {
        let k = self.dims[3];
        Folded { dims: self.dims, bias: vec![0.0; k], weights: &self.weights, scale: vec![1.0; k] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
