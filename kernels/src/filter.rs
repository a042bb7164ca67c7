//! Weights of a convolution and the BatchNorms that follow it.

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

/// A [`Filter`] with its BatchNorms folded into weights and bias.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// Kernel height, kernel width, input channels, output channels.
    pub dims: [usize; 4],
    /// `r * s * c * k` values, output channels contiguous.
    pub weights: Vec<f32>,
    /// One value an output channel.
    pub bias: Vec<f32>,
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
    pub fn folded(&self) -> Folded {
        let k = self.dims[3];
        let (scale, shift): (Vec<f64>, Vec<f64>) = (0..k).map(|k| self.scale_shift(k)).unzip();
        let mut weights = self.weights.clone();
        if !self.norms.is_empty() {
            for row in weights.chunks_exact_mut(k) {
                row.iter_mut().zip(&scale).for_each(|(w, s)| *w = (*w as f64 * s) as f32);
            }
        }
        let bias = shift.iter().map(|b| *b as f32).collect();
        Folded { dims: self.dims, weights, bias }
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
        assert_eq!(folded.weights, [6.0, -2.0]);
        assert_eq!(folded.bias, [-5.0]);
        let rest = filter.without_weights();
        assert_eq!((rest.dims, rest.folded().bias), ([0, 0, 0, 1], vec![-5.0]));
    }
}
