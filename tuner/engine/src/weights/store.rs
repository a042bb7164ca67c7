//! Where the weights of layers come from: made up, or a checked file.

use std::fmt::Debug;

use kernels::filter::{BatchNorm, Filter};

use crate::network::spec::ConvSpec;
use crate::weights::error::WeightsError;
use crate::weights::naming::AveragePooling;

/// Weights by layer, read when asked for.
pub(super) trait Store: Debug + Send + Sync {
    /// The pooling that the weights were trained with.
    fn average_pooling(&self) -> AveragePooling;

    /// One convolution, kernel as HWIO.
    fn conv(&self, spec: &ConvSpec) -> Result<Filter, WeightsError>;

    /// The BatchNorm of one convolution.
    fn norm(&self, spec: &ConvSpec) -> Result<BatchNorm, WeightsError>;

    /// The dense layer, if there is one, as a 1x1 convolution.
    fn dense(&self, features: usize) -> Result<Option<Filter>, WeightsError>;
}
