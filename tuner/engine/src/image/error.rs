//! Why an image could not be read or preprocessed.

use crate::util::files::InputError;

/// Why an image could not be read. One line each: the file, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The system refused to read, or the file is of another format or damaged.
    #[error(transparent)]
    Input(#[from] InputError),
    /// More pixels than are accepted, or none.
    #[error("{file}: found an image of {width}x{height} pixels, expected 1 to {limit} pixels in all")]
    Pixels {
        /// The file.
        file: String,
        /// Its width in pixels.
        width: usize,
        /// Its height in pixels.
        height: usize,
        /// The most pixels that are accepted.
        limit: usize,
    },
    /// Pixels in memory of which there is another number than their size states.
    #[error(
        "{name}: found {found} samples of {channels} channels, expected those of {height}x{width} pixels of 1 to 4"
    )]
    Samples {
        /// What the image is called.
        name: String,
        /// How many samples there are.
        found: usize,
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// Samples of a pixel.
        channels: usize,
    },
    /// What the preprocessing gives is not what the model takes.
    #[error("{file}: {source}")]
    Geometry {
        /// The file.
        file: String,
        /// Found and expected size.
        source: GeometryError,
    },
    /// The preprocessing is that of colours, and the model takes grey images.
    #[error(
        "{file}: found means or standard deviations of three colours, expected one for the model's one channel"
    )]
    Colours {
        /// The file.
        file: String,
    },
    /// The model does not take images: it is a part of a network.
    #[error("{file}: {model} takes {expected:?}, not images")]
    Model {
        /// The file.
        file: String,
        /// The model.
        model: String,
        /// Height, width and channels of its input.
        expected: [usize; 3],
    },
}

/// A preprocessing that does not give the size that the model takes. Sizes are height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// The crop is larger than the resized image.
    #[error("the crop is {}x{}, expected at most the resized image's {}x{}", crop[0], crop[1], resized[0], resized[1])]
    Crop {
        /// Size of the crop.
        crop: [usize; 2],
        /// Size of the resized image.
        resized: [usize; 2],
    },
    /// The result has another size than the model's input.
    #[error("the preprocessed image is {}x{}, expected the model's {}x{}", found[0], found[1], expected[0], expected[1])]
    Size {
        /// Size of the result.
        found: [usize; 2],
        /// Size of the model's input.
        expected: [usize; 2],
    },
}
