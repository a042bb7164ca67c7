//! A network as layers: nodes, what each computes, and the facts that no layer states.

use std::fmt;
use std::str::FromStr;

use kernels::{Conv, PoolKind, ShapeError, Window};

pub type NodeId = usize;

/// A convolution, the BatchNorms that follow it, and ReLU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvLayer {
    /// Number in Keras's order of creation, in the whole network.
    pub index: usize,
    /// torchvision's name, without `.conv` and `.bn`.
    pub torch: String,
    pub window: Window,
    /// Output channels.
    pub filters: usize,
    /// BatchNorms between the convolution and its ReLU.
    pub norms: usize,
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
    /// Maximum over the whole image.
    GlobalMax,
    /// A layer of the head: fully connected, with a bias.
    Dense {
        /// Its number in the head.
        layer: usize,
        relu: bool,
    },
    Softmax,
    Sigmoid,
}

/// What a layer of a head ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    None,
    Relu,
    Sigmoid,
    Softmax,
}

/// What a network has behind its last block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The features are maxima over the image in place of means.
    pub is_max_pooled: bool,
    /// Dense layers in order; none where the features are the output.
    pub layers: Vec<HeadLayer>,
}

/// A dense layer of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLayer {
    pub outputs: usize,
    pub activation: Activation,
}

impl Head {
    /// One dense layer with softmax.
    pub fn softmax(classes: usize) -> Self {
        let layer = HeadLayer { outputs: classes, activation: Activation::Softmax };
        Self { is_max_pooled: false, layers: vec![layer] }
    }

    /// Outputs of the last layer; none without layers.
    pub fn classes(&self) -> Option<usize> {
        self.layers.last().map(|layer| layer.outputs)
    }

    /// What the last layer ends with.
    pub fn activation(&self) -> Activation {
        self.layers.last().map_or(Activation::None, |layer| layer.activation)
    }
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

/// What an average pool divides by at the border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AveragePooling {
    /// The inputs under the window: the border is excluded.
    Keras,
    /// The size of the window: the border is counted as zeros.
    Torchvision,
}

/// Facts of a network that its layers do not state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelInfo {
    /// Its name in texts, like `InceptionV3`.
    pub title: &'static str,
    /// Height, width and channels of an image.
    pub input: [usize; 3],
    /// The shortest side of an image of which every layer has outputs.
    pub least_side: usize,
    /// The values that stand for black and for white.
    pub pixel_range: [f32; 2],
    /// Epsilon of every BatchNorm, where a weight file states none.
    pub bn_epsilon: f32,
    /// The average pools of the network, whatever its weights are called; none where they are those
    /// of the framework that the weights are from.
    pub average_pooling: Option<AveragePooling>,
    /// The preset of preprocessing that goes with the network; none where the weights' names say it.
    pub preprocessing: Option<&'static str>,
    /// The layers after the last block; none for a single convolution.
    pub top: Option<TopInfo>,
}

/// The layers after the last block: a global average, the features, and a dense layer with softmax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopInfo {
    /// The block that they are in. Its steps have the size that the weights state.
    pub block: &'static str,
    /// What Keras calls the layer that joins the branches of the last block.
    pub joins: &'static str,
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
    /// The names of so many classes, one a line; empty where they have none.
    pub class_names: &'static str,
    /// What those are the classes of, like `ImageNet`.
    pub class_names_of: &'static str,
    /// Numbers of classes that say that weights are of a variant of the network, and what to know
    /// of it.
    pub variants: &'static [(usize, &'static str)],
    /// Layers before the end whose means over the image are features too, each by how many.
    pub taps: &'static [Tap],
}

/// A layer whose means over the image are features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Its channels.
    pub features: usize,
    /// Its name, `block.layer`.
    pub layer: &'static str,
}

/// The most BatchNorms that follow a convolution.
pub const MAX_NORMS: usize = 2;

/// What the number of BatchNorms follows in a text, where there are more than one.
const NORMS: &str = "-bn";

/// What a model is made for, where it can be made for several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelShape {
    /// The shape of a `conv2d_bn`, of one image, and how many BatchNorms follow the convolution.
    Conv {
        /// Its batch and epilogue count for nothing.
        conv: Conv,
        /// From 1 to [`MAX_NORMS`].
        norms: usize,
    },
    /// Height, width and channels of an image of a network, where they are not its usual ones.
    Input([usize; 3]),
}

impl fmt::Display for ModelShape {
    /// As `--shape` takes it, with `-bn2` behind it for two BatchNorms; or `150x200`, or
    /// `150x200x1` where there are not 3 channels.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Conv { conv, norms: 1 } => write!(f, "{conv}"),
            Self::Conv { conv, norms } => write!(f, "{conv}{NORMS}{norms}"),
            Self::Input([h, w, 3]) => write!(f, "{h}x{w}"),
            Self::Input([h, w, c]) => write!(f, "{h}x{w}x{c}"),
        }
    }
}

impl FromStr for ModelShape {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let numbers: Option<Vec<usize>> = text.split('x').map(|number| number.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[h, w]) => Ok(Self::Input([h, w, 3])),
            Some(&[h, w, c]) => Ok(Self::Input([h, w, c])),
            _ => {
                let of =
                    |norms: usize| text.strip_suffix(&format!("{NORMS}{norms}")).map(|conv| (conv, norms));
                let (conv, norms) = (2..=MAX_NORMS).find_map(of).unwrap_or((text, 1));
                Ok(Self::Conv { conv: conv.parse()?, norms })
            }
        }
    }
}

/// A network: nodes in an order in which each comes after what it reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// What `--model` calls it.
    pub name: String,
    /// What it was made for; none for a network with its usual input, or a block.
    pub shape: Option<ModelShape>,
    pub info: ModelInfo,
    /// The first is the input.
    pub nodes: Vec<Node>,
    /// The pooled features, where the network has them.
    pub features: Option<NodeId>,
    /// The last output: probabilities, features or the block's output.
    pub output: NodeId,
}

impl Model {
    /// The same with a softmax over another number of classes; `None` leaves the head out. A model
    /// without features stays as it is.
    pub fn with_classes(self, classes: Option<usize>) -> Self {
        self.with_head(classes.map(Head::softmax).as_ref())
    }

    /// The same with another head; `None` leaves it out. A model without features stays as it is,
    /// and so does one that ends at a [`Tap`], since a head takes other features.
    pub fn with_head(mut self, head: Option<&Head>) -> Self {
        let (Some(features), Some(top)) = (self.features, self.info.top) else { return self };
        if self.is_cut() {
            return self;
        }
        self.nodes.truncate(features + 1);
        self.output = features;
        self.nodes[features].op = match head {
            Some(head) if head.is_max_pooled => Op::GlobalMax,
            _ => Op::GlobalAverage,
        };
        let layers = head.map_or(&[][..], |head| &head.layers);
        for (layer, HeadLayer { outputs, activation }) in layers.iter().enumerate() {
            let is_last = layer + 1 == layers.len();
            let name = if is_last { top.dense.to_owned() } else { format!("dense_{layer}") };
            let relu = *activation == Activation::Relu;
            self.add_to_head(top.block, &name, Op::Dense { layer, relu }, *outputs);
            match activation {
                Activation::None | Activation::Relu => {}
                Activation::Softmax => self.add_to_head(top.block, top.softmax, Op::Softmax, *outputs),
                Activation::Sigmoid => self.add_to_head(top.block, "sigmoid", Op::Sigmoid, *outputs),
            }
        }
        self
    }

    /// Whether it ends at a [`Tap`], before the network's last block does.
    pub fn is_cut(&self) -> bool {
        let features = self.features.map(|id| self.nodes[id].shape[2]);
        features.zip(self.info.top).is_some_and(|(features, top)| features != top.features)
    }

    /// Adds a layer behind the output.
    pub(super) fn add_to_head(&mut self, block: &'static str, layer: &str, op: Op, channels: usize) {
        let (name, inputs, shape) = (format!("{block}.{layer}"), vec![self.output], [1, 1, channels]);
        self.nodes.push(Node { name, block, op, inputs, shape });
        self.output = self.nodes.len() - 1;
    }

    /// [`Self::shape`] as a plan states it.
    pub fn shape_text(&self) -> Option<String> {
        self.shape.as_ref().map(ToString::to_string)
    }

    pub fn input(&self) -> [usize; 3] {
        self.nodes[0].shape
    }

    /// Whether its input is an image of the network, in colours or grey.
    pub fn takes_images(&self) -> bool {
        self.input() == self.info.input && matches!(self.input()[2], 1 | 3)
    }

    /// In order of creation.
    pub fn convs(&self) -> impl Iterator<Item = (&Node, &ConvLayer)> {
        self.nodes.iter().filter_map(|node| match &node.op {
            Op::Conv(layer) => Some((node, layer)),
            _ => None,
        })
    }

    /// What its outputs come from: of no head, nothing.
    pub fn activation(&self) -> Activation {
        match self.nodes[self.output].op {
            Op::Softmax => Activation::Softmax,
            Op::Sigmoid => Activation::Sigmoid,
            _ => Activation::None,
        }
    }

    /// Whether the network ends in classes.
    pub fn has_top(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.op, Op::Dense { .. }))
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_as_they_are_written() {
        for text in ["150x200", "75x75x1", "n1h17w17c768k192r1s7", "n1h9w9c8k8r3s3-bn2"] {
            assert_eq!(text.parse::<ModelShape>().map(|shape| shape.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("150x200x3".parse(), Ok(ModelShape::Input([150, 200, 3])));
        for text in ["", "150", "150x", "1x2x3x4", "-1x2", "n1h9w9c8k8r3s3-bn1", "n1h9w9c8k8r3s3-bn3"] {
            assert!(text.parse::<ModelShape>().is_err(), "{text}");
        }
    }
}
