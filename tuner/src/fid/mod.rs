//! The Fréchet Inception Distance of two sets of images, from the features of a network.
//!
//! ```
//! use tuner::fid::{FidStatistics, frechet_distance};
//!
//! # fn main() -> Result<(), tuner::fid::FidError> {
//! // Three images of two features each, and three others.
//! let mut real = FidStatistics::new(2);
//! real.add(&[0.0, 1.0, 2.0, 3.0])?;
//! real.add(&[1.0, 0.0])?;
//! let mut fake = FidStatistics::new(2);
//! fake.add(&[1.0, 1.0, 3.0, 3.0, 2.0, 0.0])?;
//! // The covariances are equal, and the means are 1 apart.
//! assert!((frechet_distance(&real, &fake)? - 1.0).abs() < 1e-12);
//! # Ok(())
//! # }
//! ```
//!
//! - [`FidStatistics`] takes features a few rows at a time; of many images only the mean and the
//!   covariance are in memory. Those of several machines are united by [`FidStatistics::merge`].
//! - [`frechet_distance`] is the distance of two of them.
//! - [`kernel_distance`] is the Kernel Inception Distance, which needs the features themselves.
//! - [`FidStatistics::read`] and [`FidStatistics::write`] exchange them as `.npz` files with
//!   pytorch-fid, clean-fid and others.
//!
//! The guide is [`crate::docs::fid`].

mod distance;
mod error;
mod kid;
mod moments;
mod normal;
mod npz;
mod statistics;
#[cfg(test)]
mod tests;

pub use distance::frechet_distance;
pub use error::FidError;
pub use kid::{KernelDistance, KernelDistanceOptions, kernel_distance};
pub use npz::MAX_DIMS;
pub use statistics::{FidState, FidStatistics};
