//! Naming schemes: what a layer's tensors are called in a file, and the order of their axes.

use std::fmt::Debug;

use crate::network::{ConvSpec, ModelInfo};
use crate::weights::error::WeightsError;
use crate::weights::tensor_file::Tensors;

/// A naming scheme, as the table of them has it.
#[derive(Debug)]
pub(super) struct Naming {
    /// Order of the axes of all kernels.
    pub axes: Axes,
    /// The pooling of the framework that the scheme is from.
    pub average_pooling: AveragePooling,
    /// Whether the names of a file are of this scheme.
    pub recognises: fn(&Tensors) -> bool,
    /// The layers of a file, whose name messages show, for a network.
    pub read: fn(&str, &Tensors, &ModelInfo) -> Layers,
}

pub(super) type Layers = Result<Box<dyn LayerNames>, WeightsError>;

/// Which tensors of a file belong to which layer.
pub(super) trait LayerNames: Debug + Send + Sync {
    /// The tensors of one convolution and its BatchNorm. A bias need not be there.
    fn conv(&self, spec: &ConvSpec) -> ConvTensors<Name>;

    /// The tensors of the dense layer; `None` if there is not one of them.
    fn dense(&self, tensors: &Tensors) -> Result<Option<DenseTensors<Name>>, WeightsError>;
}

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
pub(super) struct ConvTensors<T> {
    pub kernel: T,
    pub bias: Option<T>,
    /// `None` where the scheme or the layer has no scale.
    pub gamma: Option<T>,
    pub beta: T,
    pub mean: T,
    pub variance: T,
}

pub(super) struct DenseTensors<T> {
    pub kernel: T,
    pub bias: T,
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
