//! What can be wrong with a file of weights.

use std::path::Path;

use crate::util::files::one_line;

/// Why weights could not be read. One line each: the file, the tensor, what was found and what was
/// expected.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The operating system refused.
    #[error("{file}: cannot read the weights: {source}")]
    Read {
        /// The file.
        file: String,
        /// Its reason.
        source: std::io::Error,
    },
    /// No container that is known.
    #[error("{file}: found {found}, expected {expected}")]
    Unknown {
        /// The file.
        file: String,
        /// What its first bytes say.
        found: String,
        /// The containers that are known.
        expected: String,
    },
    /// The file breaks the rules of its own format.
    #[error("{file}: damaged {format} file: {reason}")]
    Damaged {
        /// The file.
        file: String,
        /// The container's name.
        format: &'static str,
        /// Which rule.
        reason: String,
    },
    /// The format is in order, but the layers are not those of the network.
    #[error("{file}: found {found}, expected {expected}")]
    Layers {
        /// The file.
        file: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// A tensor is not there.
    #[error("{file}: tensor {tensor} is missing, expected f32 {expected} for {layer}")]
    Missing {
        /// The file.
        file: String,
        /// Its name in the file.
        tensor: String,
        /// The layer it belongs to.
        layer: String,
        /// Its shape.
        expected: String,
    },
    /// A tensor has another shape.
    #[error("{file}: tensor {tensor} has shape {found:?}, expected {expected} for {layer}")]
    Shape {
        /// The file.
        file: String,
        /// Its name in the file.
        tensor: String,
        /// The layer it belongs to.
        layer: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape of the network.
        expected: String,
    },
    /// A tensor is not float32.
    #[error("{file}: tensor {tensor} has type {found}, expected f32")]
    Type {
        /// The file.
        file: String,
        /// Its name in the file.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// A value no network can have.
    #[error("{file}: tensor {tensor} holds {found} at {at:?}, expected {expected}")]
    Value {
        /// The file.
        file: String,
        /// Its name in the file.
        tensor: String,
        /// Coordinate of the first such value, in the file's order of axes.
        at: Vec<usize>,
        /// The value.
        found: f32,
        /// What it should be.
        expected: &'static str,
    },
}

impl WeightsError {
    pub(super) fn damaged(file: &str, format: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Damaged { file: file.to_owned(), format, reason: one_line(&reason.to_string()) }
    }
}

/// A path as error messages show it.
pub(super) fn file_name(path: &Path) -> String {
    one_line(&path.to_string_lossy())
}
