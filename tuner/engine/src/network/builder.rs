//! Builds a model node by node, and a network from its description.

use kernels::{Padding, PoolKind, Window};

use crate::network::model::{ConvLayer, Model, ModelInfo, ModelShape, Node, NodeId, Op};

/// A network as data: its facts and its blocks.
#[derive(Debug)]
pub struct Network {
    /// What `--model` calls it.
    pub name: &'static str,
    pub info: ModelInfo,
    /// Its blocks in order. Each reads one tensor and passes one on.
    pub blocks: &'static [BlockInfo],
}

/// A row of a network's blocks; networks may share rows.
#[derive(Clone, Copy, Debug)]
pub struct BlockInfo {
    pub name: &'static str,
    /// Height, width and channels of its input.
    pub input: [usize; 3],
    /// How many convolutions Keras creates before it.
    pub first_conv: usize,
    /// What torchvision's names of its layers start with; nothing where they are not in a module.
    pub torch: &'static str,
    /// Adds its layers after a node, and gives the node of its output.
    pub build: fn(&mut Builder, NodeId) -> NodeId,
}

impl Network {
    /// The network with as many classes as its description states.
    pub fn model(&self) -> Model {
        self.model_of(self.info.input)
    }

    /// As [`Self::model`], for images of another height, width and number of channels. No side may
    /// be below [`ModelInfo::least_side`].
    pub fn model_of(&self, input: [usize; 3]) -> Model {
        let mut b = Builder::new(self.name, input, ModelInfo { input, ..self.info });
        b.model.shape = (input != self.info.input).then_some(ModelShape::Input(input));
        let last = self.blocks.iter().fold(0, |x, block| b.block(block, x));
        let Some(top) = self.info.top else { return b.finish(last, None) };
        b.name = top.block;
        let features = b.add(top.pool, Op::GlobalAverage, vec![last], [1, 1, b.channels(last)]);
        assert_eq!(b.channels(last), top.features, "features of {}", self.name);
        b.finish(features, Some(features)).with_classes(Some(top.classes))
    }

    /// One block without the others, on its own input; none where there is no such block.
    pub fn block(&self, name: &str) -> Option<Model> {
        let block = self.blocks.iter().find(|block| block.name == name)?;
        let mut b = Builder::new(name, block.input, self.info);
        let output = b.block(block, 0);
        Some(b.finish(output, None))
    }
}

#[derive(Debug)]
pub struct Builder {
    model: Model,
    /// The block that nodes are added to.
    name: &'static str,
    torch: &'static str,
    next_conv: usize,
}

impl Builder {
    /// A model with nothing but its input.
    pub fn new(name: &str, input: [usize; 3], info: ModelInfo) -> Self {
        let node = Node { name: "input".into(), block: "input", op: Op::Input, inputs: vec![], shape: input };
        let (name, nodes) = (name.to_string(), vec![node]);
        let model = Model { name, shape: None, info, nodes, features: None, output: 0 };
        Self { model, name: "input", torch: "", next_conv: 0 }
    }

    pub fn finish(self, output: NodeId, features: Option<NodeId>) -> Model {
        Model { output, features, ..self.model }
    }

    /// Adds a block after a node, and gives the node of its output.
    fn block(&mut self, block: &BlockInfo, x: NodeId) -> NodeId {
        self.name = block.name;
        self.torch = block.torch;
        self.next_conv = block.first_conv;
        (block.build)(self, x)
    }

    /// Adds a single convolution with so many BatchNorms, which is a block of the same name, in
    /// torchvision's names too.
    pub fn single_conv(
        &mut self,
        block: &'static str,
        filters: usize,
        window: Window,
        norms: usize,
    ) -> NodeId {
        self.name = block;
        self.conv_layer(0, "conv", ConvLayer { index: 0, torch: block.to_string(), window, filters, norms })
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
        let filters = layer.filters;
        self.add(name, Op::Conv(layer), vec![x], [oh, ow, filters])
    }

    fn conv_window(&mut self, x: NodeId, name: &str, filters: usize, window: Window) -> NodeId {
        let torch = if self.torch.is_empty() { name.to_string() } else { format!("{}.{name}", self.torch) };
        let layer = ConvLayer { index: self.next_conv, torch, window, filters, norms: 1 };
        self.next_conv += 1;
        self.conv_layer(x, name, layer)
    }

    /// `conv2d_bn` of stride 1 with `same` padding.
    pub fn conv(&mut self, x: NodeId, name: &str, filters: usize, kernel: [usize; 2]) -> NodeId {
        let [h, w, _] = self.model.nodes[x].shape;
        let padding = Padding::same([h, w], kernel, [1, 1]);
        self.conv_window(x, name, filters, Window { kernel, stride: [1, 1], padding })
    }

    /// `conv2d_bn` with `valid` padding.
    pub fn conv_valid(
        &mut self,
        x: NodeId,
        name: &str,
        filters: usize,
        kernel: usize,
        stride: usize,
    ) -> NodeId {
        self.conv_window(x, name, filters, Window::valid([kernel; 2], [stride; 2]))
    }

    pub fn pool(&mut self, x: NodeId, name: &str, kind: PoolKind, window: Window) -> NodeId {
        let [h, w, c] = self.model.nodes[x].shape;
        let [oh, ow] = window.output([h, w]);
        self.add(name, Op::Pool { window, kind }, vec![x], [oh, ow, c])
    }

    /// Maximum over 3x3, stride 2, `valid`.
    pub fn max_pool(&mut self, x: NodeId, name: &str) -> NodeId {
        self.pool(x, name, PoolKind::Max, Window::valid([3, 3], [2, 2]))
    }

    /// Mean over 3x3, stride 1, `same`.
    pub fn average_pool(&mut self, x: NodeId, name: &str) -> NodeId {
        self.same_pool(x, name, PoolKind::Average)
    }

    /// Maximum or mean over 3x3, stride 1, `same`.
    pub fn same_pool(&mut self, x: NodeId, name: &str, kind: PoolKind) -> NodeId {
        let window = Window { kernel: [3, 3], stride: [1, 1], padding: Padding::symmetric(1, 1) };
        self.pool(x, name, kind, window)
    }

    pub fn concat(&mut self, name: &str, inputs: Vec<NodeId>) -> NodeId {
        let [h, w, _] = self.model.nodes[inputs[0]].shape;
        let channels = inputs.iter().map(|&x| self.channels(x)).sum();
        self.add(name, Op::Concat, inputs, [h, w, channels])
    }
}
