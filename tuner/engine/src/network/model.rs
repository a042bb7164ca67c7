//! Networks as data: InceptionV3, each of its blocks alone, and a single `conv2d_bn`.
//!
//! InceptionV3 is that of C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision"
//! (2015), in the form of Keras and torchvision, without the auxiliary classifier. Blocks have Keras's
//! names, layers torchvision's; convolutions are numbered in Keras's order of creation.

use std::fmt;

use kernels::Padding;
use kernels::problem::{Conv, PoolKind, Window};

/// Index of a node in its model.
pub type NodeId = usize;

/// A convolution, the BatchNorms that follow it, and ReLU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvLayer {
    /// Number in Keras's order of creation, in the whole network.
    pub index: usize,
    /// torchvision's name, without `.conv` and `.bn`.
    pub torch: String,
    /// Kernel, stride and padding.
    pub window: Window,
    /// Output channels.
    pub filters: usize,
    /// BatchNorms between the convolution and its ReLU.
    pub norms: usize,
}

/// What a node computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The model's input.
    Input,
    /// Convolution, BatchNorms, ReLU.
    Conv(ConvLayer),
    /// A pool over a window. [`PoolKind::Average`] stands for the mean of whichever framework the
    /// weights are from.
    Pool {
        /// Kernel, stride and padding.
        window: Window,
        /// Maximum or mean.
        kind: PoolKind,
    },
    /// Channels of all inputs, one after the other.
    Concat,
    /// Mean over the whole image.
    GlobalAverage,
    /// Fully connected, with a bias.
    Dense,
    /// Probabilities.
    Softmax,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `block.layer`.
    pub name: String,
    /// The block it belongs to.
    pub block: &'static str,
    /// What it computes.
    pub op: Op,
    /// What it reads.
    pub inputs: Vec<NodeId>,
    /// Height, width and channels of its output.
    pub shape: [usize; 3],
}

/// A network: nodes in an order in which each comes after what it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// What `--model` calls it.
    pub name: String,
    /// All nodes; the first is the input.
    pub nodes: Vec<Node>,
    /// The pooled features, where the network has them.
    pub features: Option<NodeId>,
    /// The last output: probabilities, features or the block's output.
    pub output: NodeId,
}

/// A name that is no model's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No such model.
    #[error("model `{found}` is unknown, expected inception_v3, conv2d_bn or a block: {blocks}")]
    Unknown {
        /// The name.
        found: String,
        /// All blocks.
        blocks: String,
    },
    /// `conv2d_bn` without a shape, or a shape without `conv2d_bn`.
    #[error("model `{model}`: {problem}")]
    Shape {
        /// The name.
        model: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Blocks in order, with height, width and channels of their inputs.
pub const BLOCKS: [(&str, [usize; 3]); 12] = [
    ("stem", [299, 299, 3]),
    ("mixed0", [35, 35, 192]),
    ("mixed1", [35, 35, 256]),
    ("mixed2", [35, 35, 288]),
    ("mixed3", [35, 35, 288]),
    ("mixed4", [17, 17, 768]),
    ("mixed5", [17, 17, 768]),
    ("mixed6", [17, 17, 768]),
    ("mixed7", [17, 17, 768]),
    ("mixed8", [17, 17, 768]),
    ("mixed9", [8, 8, 1280]),
    ("mixed10", [8, 8, 2048]),
];

/// Convolutions created before each block.
const FIRST_CONV: [usize; 12] = [0, 5, 12, 19, 26, 30, 40, 50, 60, 70, 76, 85];

/// torchvision's names of the blocks after the stem.
const TORCH_BLOCKS: [&str; 11] = [
    "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e",
    "Mixed_7a", "Mixed_7b", "Mixed_7c",
];

impl Model {
    /// InceptionV3 for 299x299 images. `classes` is the size of the top, `None` leaves it out.
    pub fn inception_v3(classes: Option<usize>) -> Self {
        let mut b = Builder::new("inception_v3", BLOCKS[0].1);
        let mut x = 0;
        for number in 0..BLOCKS.len() {
            x = b.block(number, x);
        }
        b.name = "top";
        let features = b.add("avg_pool", Op::GlobalAverage, vec![x], [1, 1, b.channels(x)]);
        let mut output = features;
        if let Some(classes) = classes {
            let dense = b.add("predictions", Op::Dense, vec![features], [1, 1, classes]);
            output = b.add("softmax", Op::Softmax, vec![dense], [1, 1, classes]);
        }
        Self { features: Some(features), output, ..b.model }
    }

    /// One block alone, on an input of its own.
    pub fn block(name: &str) -> Option<Self> {
        let number = BLOCKS.iter().position(|(block, _)| *block == name)?;
        let mut b = Builder::new(name, BLOCKS[number].1);
        let output = b.block(number, 0);
        Some(Self { output, ..b.model })
    }

    /// One convolution with `norms` BatchNorms and ReLU; the batch and the epilogue of `conv` are not
    /// looked at.
    pub fn conv2d_bn(conv: &Conv, norms: usize) -> Self {
        let [h, w] = conv.image;
        let mut b = Builder::new("conv2d_bn", [h, w, conv.channels]);
        b.name = "conv2d_bn";
        let layer = ConvLayer {
            index: 0,
            torch: "conv2d_bn".to_string(),
            window: conv.window,
            filters: conv.filters(),
            norms,
        };
        let output = b.conv_layer(0, "conv", layer);
        Self { output, ..b.model }
    }

    /// The model of a `--model` and `--shape`.
    pub fn by_name(name: &str, shape: Option<&Conv>, classes: Option<usize>) -> Result<Self, ModelError> {
        let mismatch = |problem| Err(ModelError::Shape { model: name.to_string(), problem });
        match (name, shape) {
            ("conv2d_bn", Some(conv)) => Ok(Self::conv2d_bn(conv, 1)),
            ("conv2d_bn", None) => mismatch("--shape is missing, expected one like n1h17w17c768k192r1s7"),
            (_, Some(_)) => mismatch("takes no --shape, only conv2d_bn does"),
            ("inception_v3", None) => Ok(Self::inception_v3(classes)),
            (block, None) => Self::block(block).ok_or_else(|| ModelError::Unknown {
                found: block.to_string(),
                blocks: BLOCKS.map(|(name, _)| name).join(" "),
            }),
        }
    }

    /// Height, width and channels of the input.
    pub fn input(&self) -> [usize; 3] {
        self.nodes[0].shape
    }

    /// Convolutions in order of creation.
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

    /// Parameters as Keras counts them: weights, biases, and beta, mean and variance of each BatchNorm.
    pub fn parameters(&self) -> usize {
        let count = |node: &Node| match &node.op {
            Op::Conv(layer) => {
                let [r, s] = layer.window.kernel;
                let channels = self.nodes[node.inputs[0]].shape[2];
                (r * s * channels + 3 * layer.norms) * layer.filters
            }
            Op::Dense => (self.nodes[node.inputs[0]].shape[2] + 1) * node.shape[2],
            _ => 0,
        };
        self.nodes.iter().map(count).sum()
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Builds a model node by node.
struct Builder {
    model: Model,
    /// The block that nodes are added to.
    name: &'static str,
    torch: &'static str,
    next_conv: usize,
}

impl Builder {
    fn new(name: &str, input: [usize; 3]) -> Self {
        let node = Node { name: "input".into(), block: "input", op: Op::Input, inputs: vec![], shape: input };
        let model = Model { name: name.to_string(), nodes: vec![node], features: None, output: 0 };
        Self { model, name: "input", torch: "", next_conv: 0 }
    }

    fn add(&mut self, layer: &str, op: Op, inputs: Vec<NodeId>, shape: [usize; 3]) -> NodeId {
        let name = format!("{}.{layer}", self.name);
        self.model.nodes.push(Node { name, block: self.name, op, inputs, shape });
        self.model.nodes.len() - 1
    }

    fn channels(&self, x: NodeId) -> usize {
        self.model.nodes[x].shape[2]
    }

    fn conv_layer(&mut self, x: NodeId, name: &str, layer: ConvLayer) -> NodeId {
        let [h, w, _] = self.model.nodes[x].shape;
        let [oh, ow] = layer.window.output([h, w]);
        let shape = [oh, ow, layer.filters];
        self.next_conv = layer.index + 1;
        self.add(name, Op::Conv(layer), vec![x], shape)
    }

    fn conv_window(&mut self, x: NodeId, name: &str, filters: usize, window: Window) -> NodeId {
        let torch = if self.torch.is_empty() { name.to_string() } else { format!("{}.{name}", self.torch) };
        let layer = ConvLayer { index: self.next_conv, torch, window, filters, norms: 1 };
        self.conv_layer(x, name, layer)
    }

    /// `conv2d_bn` of stride 1 with `same` padding.
    fn conv(&mut self, x: NodeId, name: &str, filters: usize, kernel: [usize; 2]) -> NodeId {
        let [h, w, _] = self.model.nodes[x].shape;
        let padding = Padding::same([h, w], kernel, [1, 1]);
        self.conv_window(x, name, filters, Window { kernel, stride: [1, 1], padding })
    }

    /// `conv2d_bn` with `valid` padding.
    fn conv_valid(&mut self, x: NodeId, name: &str, filters: usize, kernel: usize, stride: usize) -> NodeId {
        self.conv_window(x, name, filters, Window::valid([kernel; 2], [stride; 2]))
    }

    fn pool(&mut self, x: NodeId, name: &str, kind: PoolKind, window: Window) -> NodeId {
        let [h, w, c] = self.model.nodes[x].shape;
        let [oh, ow] = window.output([h, w]);
        self.add(name, Op::Pool { window, kind }, vec![x], [oh, ow, c])
    }

    /// Maximum over 3x3, stride 2, `valid`.
    fn max_pool(&mut self, x: NodeId, name: &str) -> NodeId {
        self.pool(x, name, PoolKind::Max, Window::valid([3, 3], [2, 2]))
    }

    /// Mean over 3x3, stride 1, `same`.
    fn average_pool(&mut self, x: NodeId, name: &str) -> NodeId {
        let window = Window { kernel: [3, 3], stride: [1, 1], padding: Padding::symmetric(1, 1) };
        self.pool(x, name, PoolKind::Average, window)
    }

    fn concat(&mut self, name: &str, inputs: Vec<NodeId>) -> NodeId {
        let [h, w, _] = self.model.nodes[inputs[0]].shape;
        let channels = inputs.iter().map(|&x| self.channels(x)).sum();
        self.add(name, Op::Concat, inputs, [h, w, channels])
    }

    /// Adds block `number` of [`BLOCKS`].
    fn block(&mut self, number: usize, x: NodeId) -> NodeId {
        self.name = BLOCKS[number].0;
        self.torch = if number == 0 { "" } else { TORCH_BLOCKS[number - 1] };
        self.next_conv = FIRST_CONV[number];
        match number {
            0 => self.stem(x),
            1 => self.figure5(x, 32),
            2 | 3 => self.figure5(x, 64),
            4 => self.reduction_35(x),
            5 => self.figure6(x, 128),
            6 | 7 => self.figure6(x, 160),
            8 => self.figure6(x, 192),
            9 => self.reduction_17(x),
            _ => self.figure7(x),
        }
    }

    /// 299x299x3 to 35x35x192.
    fn stem(&mut self, x: NodeId) -> NodeId {
        let x = self.conv_valid(x, "Conv2d_1a_3x3", 32, 3, 2);
        let x = self.conv_valid(x, "Conv2d_2a_3x3", 32, 3, 1);
        let x = self.conv(x, "Conv2d_2b_3x3", 64, [3, 3]);
        let x = self.max_pool(x, "maxpool1");
        let x = self.conv_valid(x, "Conv2d_3b_1x1", 80, 1, 1);
        let x = self.conv_valid(x, "Conv2d_4a_3x3", 192, 3, 1);
        self.max_pool(x, "maxpool2")
    }

    /// Figure 5 of the paper, one 5x5 kept: 35x35.
    fn figure5(&mut self, x: NodeId, pool_filters: usize) -> NodeId {
        let branch1x1 = self.conv(x, "branch1x1", 64, [1, 1]);

        let y = self.conv(x, "branch5x5_1", 48, [1, 1]);
        let branch5x5 = self.conv(y, "branch5x5_2", 64, [5, 5]);

        let y = self.conv(x, "branch3x3dbl_1", 64, [1, 1]);
        let y = self.conv(y, "branch3x3dbl_2", 96, [3, 3]);
        let branch3x3dbl = self.conv(y, "branch3x3dbl_3", 96, [3, 3]);

        let y = self.average_pool(x, "pool");
        let branch_pool = self.conv(y, "branch_pool", pool_filters, [1, 1]);
        self.concat("concat", vec![branch1x1, branch5x5, branch3x3dbl, branch_pool])
    }

    /// Grid reduction of figure 10: 35x35x288 to 17x17x768.
    fn reduction_35(&mut self, x: NodeId) -> NodeId {
        let branch3x3 = self.conv_valid(x, "branch3x3", 384, 3, 2);

        let y = self.conv(x, "branch3x3dbl_1", 64, [1, 1]);
        let y = self.conv(y, "branch3x3dbl_2", 96, [3, 3]);
        let branch3x3dbl = self.conv_valid(y, "branch3x3dbl_3", 96, 3, 2);

        let branch_pool = self.max_pool(x, "pool");
        self.concat("concat", vec![branch3x3, branch3x3dbl, branch_pool])
    }

    /// Figure 6 with n = 7: 17x17x768.
    fn figure6(&mut self, x: NodeId, narrow: usize) -> NodeId {
        let branch1x1 = self.conv(x, "branch1x1", 192, [1, 1]);

        let y = self.conv(x, "branch7x7_1", narrow, [1, 1]);
        let y = self.conv(y, "branch7x7_2", narrow, [1, 7]);
        let branch7x7 = self.conv(y, "branch7x7_3", 192, [7, 1]);

        let y = self.conv(x, "branch7x7dbl_1", narrow, [1, 1]);
        let y = self.conv(y, "branch7x7dbl_2", narrow, [7, 1]);
        let y = self.conv(y, "branch7x7dbl_3", narrow, [1, 7]);
        let y = self.conv(y, "branch7x7dbl_4", narrow, [7, 1]);
        let branch7x7dbl = self.conv(y, "branch7x7dbl_5", 192, [1, 7]);

        let y = self.average_pool(x, "pool");
        let branch_pool = self.conv(y, "branch_pool", 192, [1, 1]);
        self.concat("concat", vec![branch1x1, branch7x7, branch7x7dbl, branch_pool])
    }

    /// Grid reduction: 17x17x768 to 8x8x1280.
    fn reduction_17(&mut self, x: NodeId) -> NodeId {
        let y = self.conv(x, "branch3x3_1", 192, [1, 1]);
        let branch3x3 = self.conv_valid(y, "branch3x3_2", 320, 3, 2);

        let y = self.conv(x, "branch7x7x3_1", 192, [1, 1]);
        let y = self.conv(y, "branch7x7x3_2", 192, [1, 7]);
        let y = self.conv(y, "branch7x7x3_3", 192, [7, 1]);
        let branch7x7x3 = self.conv_valid(y, "branch7x7x3_4", 192, 3, 2);

        let branch_pool = self.max_pool(x, "pool");
        self.concat("concat", vec![branch3x3, branch7x7x3, branch_pool])
    }

    /// Figure 7: 8x8, to 2048 channels.
    fn figure7(&mut self, x: NodeId) -> NodeId {
        let branch1x1 = self.conv(x, "branch1x1", 320, [1, 1]);

        let y = self.conv(x, "branch3x3_1", 384, [1, 1]);
        let a = self.conv(y, "branch3x3_2a", 384, [1, 3]);
        let b = self.conv(y, "branch3x3_2b", 384, [3, 1]);
        let branch3x3 = self.concat("branch3x3", vec![a, b]);

        let y = self.conv(x, "branch3x3dbl_1", 448, [1, 1]);
        let y = self.conv(y, "branch3x3dbl_2", 384, [3, 3]);
        let a = self.conv(y, "branch3x3dbl_3a", 384, [1, 3]);
        let b = self.conv(y, "branch3x3dbl_3b", 384, [3, 1]);
        let branch3x3dbl = self.concat("branch3x3dbl", vec![a, b]);

        let y = self.average_pool(x, "pool");
        let branch_pool = self.conv(y, "branch_pool", 192, [1, 1]);
        self.concat("concat", vec![branch1x1, branch3x3, branch3x3dbl, branch_pool])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::network::graph::Graph;

    fn network() -> Model {
        Model::inception_v3(Some(1000))
    }

    #[test]
    fn counts_are_those_of_keras() {
        assert_eq!(network().convs().count(), 94);
        assert_eq!(network().parameters(), 23_851_784);
        assert_eq!(Model::inception_v3(None).parameters(), 21_802_784);
    }

    #[test]
    fn there_are_43_problems_and_5711_million_multiply_adds() {
        let graph = Graph::new(&Model::inception_v3(None), 1, PoolKind::Average);
        let convs: Vec<Conv> = graph.convs().map(|(_, conv)| conv.clone()).collect();
        assert_eq!(convs.iter().collect::<HashSet<_>>().len(), 43);
        let total: u64 = convs.iter().map(Conv::multiply_adds).sum();
        assert_eq!((total as f64 / 1e5).round() / 10.0, 5711.2);
    }

    #[test]
    fn convs_are_numbered_in_order_of_creation() {
        let model = network();
        assert!(model.convs().map(|(_, layer)| layer.index).eq(0..94));
    }

    #[test]
    fn a_block_alone_is_the_block_in_the_network() {
        let network = network();
        for (block, _) in BLOCKS {
            let alone = Model::block(block).expect("a block");
            let inside: Vec<_> = network.nodes.iter().filter(|n| n.block == block).collect();
            assert_eq!(alone.nodes.len(), inside.len() + 1, "{block}");
            for (a, b) in alone.nodes[1..].iter().zip(inside) {
                assert_eq!((&a.name, &a.op, a.shape), (&b.name, &b.op, b.shape), "{block}");
            }
        }
    }

    #[test]
    fn every_channel_count_but_the_images_is_a_multiple_of_16() {
        for node in &Model::inception_v3(None).nodes[1..] {
            assert_eq!(node.shape[2] % 16, 0, "{}", node.name);
        }
    }
}
