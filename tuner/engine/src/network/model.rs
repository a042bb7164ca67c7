//! A network as layers: nodes, what each computes, and the facts that no layer states.

use std::fmt;

use kernels::{PoolKind, Window};

pub type NodeId = usize;

/// A convolution, BatchNorm and ReLU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvLayer {
    /// Number in Keras's order of creation, in the whole network.
    pub index: usize,
    /// torchvision's name, without `.conv` and `.bn`.
    pub torch: String,
    pub window: Window,
    /// Output channels.
    pub filters: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Input,
    Conv(ConvLayer),
    /// [`PoolKind::Average`] stands for the mean of whichever framework the weights are from.
    Pool {
        window: Window,
        kind: PoolKind,
    },
    /// Channels of all inputs, one after the other.
    Concat,
    /// Mean over the whole image.
    GlobalAverage,
    /// Fully connected, with a bias.
    Dense,
    Softmax,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `block.layer`.
    pub name: String,
    pub block: &'static str,
    pub op: Op,
    pub inputs: Vec<NodeId>,
    /// Height, width and channels of the output.
    pub shape: [usize; 3],
}

/// Facts of a network that its layers do not state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelInfo {
    /// Its name in texts, like `InceptionV3`.
    pub title: &'static str,
    /// Height, width and channels of an image.
    pub input: [usize; 3],
    /// The values that stand for black and for white.
    pub pixel_range: [f32; 2],
    /// Epsilon of every BatchNorm. No weight file states it.
    pub bn_epsilon: f32,
    /// The layers after the last block; none for a single convolution.
    pub top: Option<TopInfo>,
}

/// The layers after the last block: a global average, the features, and a dense layer with softmax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopInfo {
    /// The block that they are in. Its steps have the size that the weights state.
    pub block: &'static str,
    /// Name of the global average.
    pub pool: &'static str,
    /// Name of the dense layer, in Keras too.
    pub dense: &'static str,
    /// torchvision's name of the dense layer.
    pub torch_dense: &'static str,
    /// Name of the softmax.
    pub softmax: &'static str,
    /// How many features there are: channels after the last block.
    pub features: usize,
    /// Classes where no weight file states another number.
    pub classes: usize,
}

/// A network: nodes in an order in which each comes after what it reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// What `--model` calls it.
    pub name: String,
    pub info: ModelInfo,
    /// The first is the input.
    pub nodes: Vec<Node>,
    /// The pooled features, where the network has them.
    pub features: Option<NodeId>,
    /// The last output: probabilities, features or the block's output.
    pub output: NodeId,
}

impl Model {
    /// The same with another number of classes; `None` leaves the dense layer and the softmax out.
    /// A model without features stays as it is.
    pub fn with_classes(mut self, classes: Option<usize>) -> Self {
        let (Some(features), Some(top)) = (self.features, self.info.top) else { return self };
        self.nodes.truncate(features + 1);
        self.output = features;
        if let Some(classes) = classes {
            for (layer, op) in [(top.dense, Op::Dense), (top.softmax, Op::Softmax)] {
                let name = format!("{}.{layer}", top.block);
                let (inputs, shape) = (vec![self.output], [1, 1, classes]);
                self.nodes.push(Node { name, block: top.block, op, inputs, shape });
                self.output = self.nodes.len() - 1;
            }
        }
        self
    }

    pub fn input(&self) -> [usize; 3] {
        self.nodes[0].shape
    }

    /// Whether its input is an image of the network.
    pub fn takes_images(&self) -> bool {
        self.input() == self.info.input && self.input()[2] == 3
    }

    /// In order of creation.
    pub fn convs(&self) -> impl Iterator<Item = (&Node, &ConvLayer)> {
        self.nodes.iter().filter_map(|node| match &node.op {
            Op::Conv(layer) => Some((node, layer)),
            _ => None,
        })
    }

    /// Whether the network ends in classes.
    pub fn has_top(&self) -> bool {
        self.nodes.iter().any(|node| node.op == Op::Dense)
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.name)
    }
}
