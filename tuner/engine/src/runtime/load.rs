//! A model and weights as a graph.

use kernels::PoolKind;

use crate::network::{AveragePooling, Graph, Model};
use crate::weights::Weights;

/// The graph of a model for a batch, with the average pooling of the model or else of the weights.
pub fn graph(model: &Model, weights: &Weights, batch: usize) -> Graph {
    let average = match model.info.average_pooling.unwrap_or(weights.average_pooling()) {
        AveragePooling::Keras => PoolKind::Average,
        AveragePooling::Torchvision => PoolKind::AverageCountingBorder,
    };
    Graph::new(model, batch, average)
}
