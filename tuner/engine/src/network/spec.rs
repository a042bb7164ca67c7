//! What a model needs of weights: its convolutions, their inputs, and facts that no file states.

use kernels::PoolKind;

use crate::network::model::{ConvLayer, Model, ModelInfo, Node, NodeId, Op};

/// The convolution whose weights are wanted, followed by one BatchNorm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvSpec {
    /// Place in Keras's order of creation, from 0. Keras's names are found by it.
    pub index: usize,
    /// Name in this crate, such as `mixed0.branch1x1`.
    pub name: String,
    /// Name in torchvision, such as `Mixed_5b.branch1x1`. torchvision's names are found by it.
    pub torch: String,
    pub kernel: [usize; 2],
    pub channels: usize,
    pub filters: usize,
    /// BatchNorms that follow it.
    pub norms: usize,
    /// What its input channels are, in order; nothing where that is not known.
    pub inputs: Vec<InputSpec>,
}

/// Input channels that follow each other and come from one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// The convolution whose outputs they are, after ReLU and pools; none for channels of an image.
    pub conv: Option<ConvSpec>,
    pub channels: usize,
    /// Maximum pools between.
    pub maxima: usize,
}

/// What a network, or a part of one, needs of weights; a file may hold more.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub convs: Vec<ConvSpec>,
    /// Inputs of the dense layer; 0 if there is none, and then the file's is not looked at.
    pub features: usize,
    pub info: ModelInfo,
}

impl Spec {
    /// All that a model needs. Its dense layer counts whether or not the model has classes.
    pub fn new(model: &Model) -> Self {
        let convs = model.convs().map(|(node, layer)| conv_spec(model, node, layer));
        let features = model.features.map_or(0, |id| model.nodes[id].shape[2]);
        Self { convs: convs.collect(), features, info: model.info }
    }
}

/// The convolution of a node, with what its inputs are.
pub(super) fn conv_spec(model: &Model, node: &Node, layer: &ConvLayer) -> ConvSpec {
    ConvSpec { inputs: inputs(model, node.inputs[0], 0), ..bare_spec(model, node, layer) }
}

/// The convolution of a node, without its inputs.
fn bare_spec(model: &Model, node: &Node, layer: &ConvLayer) -> ConvSpec {
    ConvSpec {
        index: layer.index,
        name: node.name.clone(),
        torch: layer.torch.clone(),
        kernel: layer.window.kernel,
        channels: model.nodes[node.inputs[0]].shape[2],
        filters: layer.filters,
        norms: layer.norms,
        inputs: Vec::new(),
    }
}

fn inputs(model: &Model, id: NodeId, maxima: usize) -> Vec<InputSpec> {
    let node = &model.nodes[id];
    let channels = node.shape[2];
    match &node.op {
        Op::Conv(layer) if layer.norms == 1 => {
            vec![InputSpec { conv: Some(bare_spec(model, node, layer)), channels, maxima }]
        }
        Op::Pool { kind, .. } => inputs(model, node.inputs[0], maxima + usize::from(*kind == PoolKind::Max)),
        Op::GlobalAverage => inputs(model, node.inputs[0], maxima),
        Op::Concat => node.inputs.iter().flat_map(|&input| inputs(model, input, maxima)).collect(),
        Op::GlobalMax => inputs(model, node.inputs[0], maxima + 1),
        Op::Input | Op::Conv(_) | Op::Dense { .. } | Op::Softmax | Op::Sigmoid => {
            vec![InputSpec { conv: None, channels, maxima }]
        }
    }
}
