//! What can be wrong with statistics of features.

use engine::InputError;

/// Why statistics can't be made, or have no distance.
#[derive(Debug, thiserror::Error)]
pub enum FidError {
    /// The values are not those of whole images.
    #[error("found {found} values, expected a multiple of {dims}: the features of images")]
    Rows {
        /// How many values there are.
        found: usize,
        /// Features of an image.
        dims: usize,
    },
    /// A feature is infinite or not a number.
    #[error("found {found} as feature {feature} of image {image}, expected finite numbers")]
    NotFinite {
        /// The value.
        found: f32,
        /// The image, of those that were added at once.
        image: usize,
        /// The feature.
        feature: usize,
    },
    /// A state that no statistics have.
    #[error("found a state of {found}, expected the mean and the products of features, all finite")]
    State {
        /// What it has.
        found: String,
    },
    /// Too few images for a covariance.
    #[error("found {found} images, expected at least 2, which have a covariance")]
    TooFew {
        /// How many there are.
        found: u64,
    },
    /// A matrix that is the covariance of nothing.
    #[error("found a covariance with negative eigenvalues, expected none")]
    Indefinite,
    /// Statistics of other features.
    #[error("found statistics of {found} features, expected {expected} as the others have")]
    Dims {
        /// Features of one.
        found: usize,
        /// Features of the other.
        expected: usize,
    },
    /// Statistics from a file of another program, to which nothing can be added.
    #[error("found statistics that do not state their number of images, expected those of this program")]
    NoCount,
    /// The singular values are not found, which no finite covariance is known to cause.
    #[error("the singular values of the covariances do not converge")]
    NotConverged,
    /// A file that can't be read or written.
    #[error(transparent)]
    File(#[from] InputError),
}
