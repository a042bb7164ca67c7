//! The Kernel Inception Distance: M. Bińkowski et al., "Demystifying MMD GANs" (2018).
//!
//! ```text
//! k(x, y) = (x y / d + 1)³
//! MMD²    = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)      of x ≠ x' and y ≠ y'
//! ```
//!
//! The distance is the mean of MMD² over random subsets of both sets. It has no bias, and is slightly
//! below 0 for some sets that are alike. The subsets are those of torch-fidelity: numpy's
//! `RandomState(seed).choice` without replacement, of real and fake images in turn.

use faer::{Mat, MatRef};
use rand_mt::Mt;

use crate::fid::error::FidError;

/// Which subsets are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelDistanceOptions {
    /// How many.
    pub subsets: usize,
    /// Images of each; all images of a set that has fewer.
    pub size: usize,
    /// Of the random numbers.
    pub seed: u32,
}

impl Default for KernelDistanceOptions {
    /// As torch-fidelity: 100 subsets of 1000 images.
    fn default() -> Self {
        Self { subsets: 100, size: 1000, seed: 2020 }
    }
}

/// MMD² over all subsets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelDistance {
    /// The distance.
    pub mean: f64,
    /// Standard deviation between subsets.
    pub deviation: f64,
    /// Images of a subset.
    pub size: usize,
}

/// The Kernel Inception Distance of two sets of images by their features `[n, dims]`.
///
/// # Errors
/// If values are not those of whole images, or there are fewer than 2 images in a set.
pub fn kernel_distance(
    real: &[f32],
    fake: &[f32],
    dims: usize,
    options: &KernelDistanceOptions,
) -> Result<KernelDistance, FidError> {
    let count = |features: &[f32]| match features.len().checked_rem(dims) {
        Some(0) => Ok(features.len() / dims),
        _ => Err(FidError::Rows { found: features.len(), dims }),
    };
    let counts = [count(real)?, count(fake)?];
    let size = options.size.min(counts[0]).min(counts[1]);
    if size < 2 {
        return Err(FidError::TooFew { found: size as u64 });
    }
    // Subsets that are all images differ in their order alone.
    let subsets = if counts == [size; 2] { 1 } else { options.subsets.max(1) };
    let mut random = Mt::new(options.seed);
    let mut rows = |features: &[f32], count: usize| {
        let chosen = choose(&mut random, count, size);
        Mat::from_fn(dims, size, |feature, image| f64::from(features[chosen[image] * dims + feature]))
    };
    let values: Vec<f64> = (0..subsets)
        .map(|_| {
            let (x, y) = (rows(real, counts[0]), rows(fake, counts[1]));
            squared_discrepancy(x.as_ref(), y.as_ref())
        })
        .collect();
    let mean = values.iter().sum::<f64>() / subsets as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / subsets as f64;
    Ok(KernelDistance { mean, deviation: variance.sqrt(), size })
}

/// MMD² of features `[dims, m]`, the unbiased estimate.
fn squared_discrepancy(x: MatRef<f64>, y: MatRef<f64>) -> f64 {
    let (dims, m) = (x.nrows() as f64, x.ncols() as f64);
    let kernel = |product: &f64| (product / dims + 1.0).powi(3);
    let all = |a: MatRef<f64>, b: MatRef<f64>| -> f64 {
        let products = a.transpose() * b;
        products.col_iter().flat_map(|column| column.iter()).map(kernel).sum()
    };
    let own = |a: MatRef<f64>| -> f64 {
        a.col_iter().map(|image| kernel(&image.iter().map(|value| value * value).sum())).sum()
    };
    let within = all(x, x) - own(x) + all(y, y) - own(y);
    within / (m * (m - 1.0)) - 2.0 * all(x, y) / (m * m)
}

/// The first of a permutation of so many numbers, as numpy's legacy `permutation` makes it.
fn choose(random: &mut Mt, count: usize, size: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        let mask = u32::MAX >> (last as u32).leading_zeros();
        let other = loop {
            let number = (random.next_u32() & mask) as usize;
            if number <= last {
                break number;
            }
        };
        order.swap(last, other);
    }
    order.truncate(size);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_are_those_of_numpy() {
        let mut random = Mt::new(2020);
        // numpy: r = RandomState(2020); r.choice(10, 4, replace=False); r.choice(300, 3, replace=False)
        assert_eq!(choose(&mut random, 10, 4), [2, 4, 9, 1]);
        assert_eq!(choose(&mut random, 300, 3), [60, 141, 295]);
    }

    #[test]
    fn a_distance_is_that_of_the_definition() {
        let (dims, count) = (3, 7);
        let features = |start: usize| -> Vec<f32> {
            (0..dims * count).map(|at| ((at * 7 + start) % 11) as f32 / 4.0).collect()
        };
        let (real, fake) = (features(1), features(5));
        let kernel = |a: &[f32], b: &[f32]| -> f64 {
            let product: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum();
            (product / dims as f64 + 1.0).powi(3)
        };
        let (mut within, mut between) = (0.0, 0.0);
        for i in 0..count {
            for j in 0..count {
                let row = |features: &'_ [f32], at: usize| features[at * dims..][..dims].to_vec();
                between += kernel(&row(&real, i), &row(&fake, j));
                for set in [&real, &fake] {
                    within += if i == j { 0.0 } else { kernel(&row(set, i), &row(set, j)) };
                }
            }
        }
        let n = count as f64;
        let expected = within / (n * (n - 1.0)) - 2.0 * between / (n * n);
        let found =
            kernel_distance(&real, &fake, dims, &KernelDistanceOptions::default()).expect("a distance");
        assert!((found.mean - expected).abs() < 1e-12 * within, "{found:?} {expected}");
        assert_eq!((found.deviation, found.size), (0.0, count));
        let options = KernelDistanceOptions { subsets: 5, size: 3, seed: 1 };
        assert!(kernel_distance(&real, &fake, dims, &options).expect("a distance").deviation > 0.0);
        assert!(kernel_distance(&real[..dims], &fake, dims, &options).is_err());
        assert!(kernel_distance(&real[1..], &fake, dims, &options).is_err());
    }
}
