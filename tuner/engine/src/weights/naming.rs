//! Naming schemes: what a layer's tensors are called in a file, and the order of their axes.

use std::fmt::Debug;

use serde_json::Value;

use crate::network::{AveragePooling, ConvSpec, ModelInfo};
use crate::weights::error::WeightsError;
use crate::weights::head::HeadParts;
use crate::weights::names::{ConvTensors, Name};
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
    /// The layers of a file for a network.
    pub read: fn(&File) -> Layers,
}

/// What a scheme reads the layers of.
pub(super) struct File<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    pub tensors: &'a Tensors,
    pub model_config: Option<&'a Value>,
    pub info: &'a ModelInfo,
    /// The convolutions of the whole network, of which the file may be wanted for a part.
    pub convs: &'a [ConvSpec],
}

pub(super) type Layers = Result<Box<dyn LayerNames>, WeightsError>;

/// Which tensors of a file belong to which layer.
pub(super) trait LayerNames: Debug + Send + Sync {
    /// The tensors of one convolution and its BatchNorm. A bias need not be there.
    fn conv(&self, spec: &ConvSpec) -> ConvTensors<Name>;

    /// What follows the last block, by the file that this was read from.
    fn head(&self, file: &File) -> HeadParts;
}

/// In which order a file has the axes of its kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axes {
    /// Convolution HWIO, dense layer \[in, out\].
    OutputLast,
    /// Convolution OIHW, dense layer \[out, in\].
    OutputFirst,
}
