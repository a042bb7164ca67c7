//! Naming schemes: what the tensors of a layer are called in a file, and how their axes are ordered.

use std::fmt::Debug;

use crate::network::model::ModelInfo;
use crate::network::spec::ConvSpec;
use crate::weights::error::WeightsError;
use crate::weights::tensor_file::{Listed, TensorFile};

/// The names of a file, or what is wrong with them.
pub(super) type Found = Result<Box<dyn LayerNames>, WeightsError>;

/// A naming scheme, as the table of them has it.
pub(super) struct Naming {
    /// Whether the names of a file are of this scheme.
    pub recognises: fn(&[Listed]) -> bool,
    /// The names of a file's tensors, for a network.
    pub read: fn(&dyn TensorFile, &[Listed], &ModelInfo) -> Found,
}

/// Which tensors of a file belong to which layer.
pub(super) trait LayerNames: Debug + Send + Sync {
    /// Order of the axes of all kernels.
    fn axes(&self) -> Axes;

    /// The pooling of the framework that the scheme is from.
    fn average_pooling(&self) -> AveragePooling;

    /// The tensors of one convolution and its BatchNorm.
    fn conv(&self, spec: &ConvSpec) -> ConvNames;

    /// The tensors of the dense layer; `None` if there is not one of them.
    fn dense(&self, file: &dyn TensorFile) -> Result<Option<DenseNames>, WeightsError>;
}

/// A tensor's name.
#[derive(Debug)]
pub(super) struct Name {
    /// As messages show it.
    pub shown: String,
    /// As the file has it; none where it has no such tensor.
    pub in_file: Option<String>,
}

impl Name {
    /// A name that is shown as it is in the file.
    pub fn plain(name: String) -> Self {
        Self { in_file: Some(name.clone()), shown: name }
    }
}

/// The tensors of a convolution and its BatchNorm.
#[derive(Debug)]
pub(super) struct ConvNames {
    pub kernel: Name,
    /// It need not be there.
    pub bias: Name,
    /// `None` where the scheme or the layer has no scale.
    pub gamma: Option<Name>,
    pub beta: Name,
    pub mean: Name,
    pub variance: Name,
}

/// The tensors of the dense layer.
#[derive(Debug)]
pub(super) struct DenseNames {
    pub kernel: Name,
    pub bias: Name,
}

/// In which order a file has the axes of its kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axes {
    /// Convolution HWIO, dense layer \[in, out\].
    OutputLast,
    /// Convolution OIHW, dense layer \[out, in\].
    OutputFirst,
}

/// What an average pool divides by at the border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AveragePooling {
    /// The inputs under the window: the border is excluded.
    Keras,
    /// The size of the window: the border is counted as zeros.
    Torchvision,
}
