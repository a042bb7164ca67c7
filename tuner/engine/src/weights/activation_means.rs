//! What a channel is on average, as far as its BatchNorm tells.
//!
//! A BatchNorm leaves values of mean `beta` and standard deviation `|gamma|`. If they are
//! distributed normally, ReLU leaves the mean `beta * P(beta / gamma) + |gamma| * p(beta / gamma)`,
//! where `p` and `P` are the density and the distribution function of the normal distribution (the
//! mean of a rectified normal variable; N. Johnson, S. Kotz and N. Balakrishnan, "Continuous
//! Univariate Distributions", 1994, 10.1 for the truncated one). Means of pools are the same;
//! maxima of neighbours are larger, about half as much again for windows of 3x3.

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

use kernels::BatchNorm;

/// How much larger the mean of maxima is.
const MAXIMUM: f64 = 1.5;

/// The mean of a channel after ReLU and so many maximum pools.
pub fn after_relu(norm: &BatchNorm, channel: usize, maxima: usize) -> f32 {
    let deviation = norm.gamma.as_ref().map_or(1.0, |gamma| gamma[channel].abs() as f64);
    let mean = rectified(norm.beta[channel] as f64, deviation);
    (mean * MAXIMUM.powi(maxima as i32)) as f32
}

/// The mean of the positive part of a normal variable.
fn rectified(mean: f64, deviation: f64) -> f64 {
    if deviation == 0.0 {
        return mean.max(0.0);
    }
    let z = mean / deviation;
    let density = (-z * z / 2.0).exp() / TAU.sqrt();
    mean * libm::erfc(-z * FRAC_1_SQRT_2) / 2.0 + deviation * density
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectified_means_are_those_of_the_sum() {
        for (mean, deviation) in [(0.0, 1.0), (0.5, 1.0), (-2.0, 1.0), (1.5, 0.3), (-0.2, 2.0), (3.0, 0.0)] {
            // Midpoints of quantiles would need the inverse; a sum over 8 deviations will do.
            let step = 1e-4;
            let sum: f64 = (-80_000..80_000)
                .map(|i| (i as f64 + 0.5) * step)
                .map(|z| (mean + deviation * z).max(0.0) * (-z * z / 2.0).exp())
                .sum();
            let (found, expected) = (rectified(mean, deviation), sum * step / TAU.sqrt());
            // The sum is off by up to 1e-8.
            assert!((found - expected).abs() <= 1e-8, "{mean} {deviation}: {found} {expected}");
        }
    }

    #[test]
    fn scale_and_maxima_make_a_channel_larger() {
        let [beta, mean, variance] = [0.0, 9.0, 4.0].map(|value| vec![value; 2]);
        let plain = BatchNorm { gamma: None, beta, mean, variance, epsilon: 0.0 };
        let scaled = BatchNorm { gamma: Some(vec![1.0, -2.0]), ..plain.clone() };
        let (plain, large) = (after_relu(&plain, 1, 0), after_relu(&scaled, 1, 2));
        assert!((plain - 0.398_942_3).abs() < 1e-6 && (large / plain - 2.0 * 2.25).abs() < 1e-5);
    }
}
