//! What can be wrong with a file of weights.

use crate::util::files::one_line;
use crate::weights::tensor_file::ReadError;

/// Why weights could not be read, in one line: the file, the tensor, what was found and expected.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("{file}: cannot read the weights: {source}")]
    Read { file: String, source: std::io::Error },
    /// The file breaks a rule of its own format.
    #[error("{file}: damaged {format} file: {reason}")]
    Damaged { file: String, format: &'static str, reason: String },
    /// The file keeps to its format, in a way that this program does not read.
    #[error("{file}: {format} file that is not supported: {reason}")]
    Unsupported { file: String, format: &'static str, reason: String },
    /// The file is of no known container, or its layers are not those of the network.
    #[error("{file}: found {found}, expected {expected}")]
    Content { file: String, found: String, expected: String },
    #[error("{file}: tensor {tensor} is missing, expected {expected} for {layer}")]
    Missing { file: String, tensor: String, layer: String, expected: String },
    #[error("{file}: tensor {tensor} has shape {found:?}, expected {expected} for {layer}")]
    Shape { file: String, tensor: String, layer: String, found: Vec<usize>, expected: String },
    #[error("{file}: tensor {tensor} has type {found}, expected f32, f16, bf16 or f64")]
    Type { file: String, tensor: String, found: String },
    /// The file has more between features and classes than is known.
    #[error(
        "{file}: found {found} in the classifier, expected dense layers, BatchNorms and ReLU, sigmoid or softmax; \
         --features gives the features before it"
    )]
    Head { file: String, found: String },
    /// A kernel is beyond f32 once its BatchNorm is folded into it.
    #[error(
        "{file}: tensor {tensor}: weights or bias of output channel {channel} overflow f32 with the BatchNorm"
    )]
    Overflow { file: String, tensor: String, channel: usize },
    /// A value no network can have: the first, at a coordinate in the file's order of axes.
    #[error("{file}: tensor {tensor} holds {found} at {at:?}, expected {expected}")]
    Value { file: String, tensor: String, at: Vec<usize>, found: f32, expected: &'static str },
}

impl WeightsError {
    /// With the file and the name of its container.
    pub(super) fn of(error: ReadError, file: &str, format: &'static str) -> Self {
        let file = file.to_owned();
        match error {
            ReadError::Io(source) => Self::Read { file, source },
            ReadError::Damaged(reason) => Self::Damaged { file, format, reason: one_line(&reason) },
            ReadError::Unsupported(reason) => Self::Unsupported { file, format, reason: one_line(&reason) },
            ReadError::Content { found, expected } => Self::Content { file, found, expected },
        }
    }
}
