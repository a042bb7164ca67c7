//! The Fréchet distance of two normal distributions of features.
//!
//! ```text
//! d² = |μ₁ - μ₂|² + tr Σ₁ + tr Σ₂ - 2 tr (Σ₁ Σ₂)^½
//! ```
//!
//! Source: D. C. Dowson and B. V. Landau, "The Fréchet Distance between Multivariate Normal
//! Distributions" (1982). FID is d²: M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule
//! Converge to a Local Nash Equilibrium" (2017).
//!
//! The eigenvalues of Σ₁ Σ₂ are those of A₁ᵀ Σ₂ A₁ for any A₁ with Σ₁ = A₁ A₁ᵀ. With Σ₂ = A₂ A₂ᵀ
//! this is G Gᵀ, G = A₁ᵀ A₂, so that their roots are the singular values of G. No root of an
//! eigenvalue is taken, which would lose half of the digits of the small ones.
//!
//! A is a pivoted Cholesky factor with as many columns as the covariance has rank: of n images
//! n - 1 at most, so that few images are a small problem. Pivots below d ε times the largest variance
//! are noise and left out. What is left out, R, changes the distance by at most
//! 2 (tr R tr Σ₂)^½. Where R is more than noise, pivots are negative: Σ is no covariance.

use std::borrow::Borrow;

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt_pivoting::factor;
use faer::{Mat, MatRef, Par};

use crate::fid::error::FidError;
use crate::fid::normal::Normal;
use crate::fid::statistics::FidStatistics;

/// The Fréchet distance of two sets of images, as statistics of their features: FID where the
/// features are the 2048 of TensorFlow's Inception of 2015. It is at least 0, and 0 for equal
/// statistics.
///
/// # Errors
/// If they are of other features, or one is of fewer than 2 images.
pub fn frechet_distance(a: &FidStatistics, b: &FidStatistics) -> Result<f64, FidError> {
    if a.dims() != b.dims() {
        return Err(FidError::Dims { found: b.dims(), expected: a.dims() });
    }
    let (a, b) = (a.normal()?, b.normal()?);
    let (a, b): (&Normal, &Normal) = (a.borrow(), b.borrow());
    if (&a.mean, &a.covariance) == (&b.mean, &b.covariance) {
        return Ok(0.0);
    }
    let of_means: f64 = a.mean.iter().zip(&b.mean).map(|(a, b)| (a - b).powi(2)).sum();
    let traces: f64 = a.variances().chain(b.variances()).sum();
    Ok((of_means + traces - 2.0 * trace_of_root(a, b)?).max(0.0))
}

/// tr (Σ₁ Σ₂)^½
fn trace_of_root(a: &Normal, b: &Normal) -> Result<f64, FidError> {
    let (a, b) = (root(a)?, root(b)?);
    if a.ncols().min(b.ncols()) == 0 {
        return Ok(0.0);
    }
    let product = a.transpose() * &b;
    let values = product.singular_values().map_err(|_| FidError::NotConverged)?;
    Ok(values.iter().sum())
}

/// The most that is left out of a covariance, in parts of its trace: what rounding to f32, as some files
/// have it, can leave in thousands of features.
const LEFT_OUT: f64 = 1e-4;

/// A matrix A `[d, rank]` with A Aᵀ the covariance.
fn root(normal: &Normal) -> Result<Mat<f64>, FidError> {
    let dims = normal.dims();
    if normal.variances().all(|variance| variance <= 0.0) {
        return Ok(Mat::zeros(dims, 0));
    }
    let mut factor = MatRef::from_column_major_slice(&normal.covariance, dims, dims).to_owned();
    let (mut order, mut inverse) = (vec![0usize; dims], vec![0usize; dims]);
    let mut memory =
        MemBuffer::new(factor::cholesky_in_place_scratch::<usize, f64>(dims, Par::Seq, Default::default()));
    let (info, _) = factor::cholesky_in_place(
        factor.as_mut(),
        &mut order,
        &mut inverse,
        Par::Seq,
        MemStack::new(&mut memory),
        Default::default(),
    )
    .map_err(|_| FidError::NotConverged)?;
    let mut root = Mat::zeros(dims, info.rank.min(normal.most_rank()));
    for column in 0..root.ncols() {
        for row in column..dims {
            root[(order[row], column)] = factor[(row, column)];
        }
    }
    let trace: f64 = normal.variances().sum();
    match (trace - root.squared_norm_l2()).abs() > LEFT_OUT * trace {
        true => Err(FidError::Indefinite),
        false => Ok(root),
    }
}
