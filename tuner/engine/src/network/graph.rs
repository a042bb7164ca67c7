//! A model as steps on tensors: BatchNorm folded, concat turned into channel ranges.
//!
//! A step reads one tensor and writes ranges of channels of others. A concat is not a step: the
//! steps before it write into its tensor.

use std::ops::Range;

use kernels::{Conv, Epilogue, Pool, PoolKind, Problem, Segment, Shape, Window};

use crate::network::model::{Model, Node, NodeId, Op};
use crate::network::spec::{ConvSpec, conv_spec};

pub type TensorId = usize;

/// The images.
pub const IMAGES: TensorId = 0;

/// Channels of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub tensor: TensorId,
    pub channels: Range<usize>,
}

/// The weights of a filter that a step takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weight {
    Conv(ConvSpec),
    /// The bias and BatchNorms of a convolution of the model. Its kernel is in another step.
    Bias(ConvSpec),
    /// A dense layer of the head, by its number.
    Dense(usize),
}

impl Weight {
    /// BatchNorms of a convolution.
    pub fn norms(&self) -> usize {
        match self {
            Self::Conv(conv) | Self::Bias(conv) => conv.norms,
            Self::Dense(_) => 0,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub layers: Vec<String>,
    /// The block of the first.
    pub block: &'static str,
    /// Its size is that of the weights: it is in the model's top.
    pub is_top: bool,
    pub problem: Problem,
    pub src: Slice,
    /// Where it writes, one a segment.
    pub dst: Vec<Slice>,
    /// The weights, one a filter that the problem takes.
    pub weights: Vec<Weight>,
}

impl Step {
    pub fn writes(&self, tensor: TensorId) -> bool {
        self.dst.iter().any(|dst| dst.tensor == tensor)
    }
}

/// Where a batch is split. The activations of a few images stay in the caches during the first
/// steps, which those of the whole batch would overflow. Later steps read each of their many
/// weights once for all images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// The first steps: all of them compute some images before they begin with the next ones.
    pub steps: usize,
    pub images: usize,
    /// Each worker takes images of its own through these steps. Otherwise all share each step.
    pub per_worker: bool,
}

/// Steps in an order in which each comes after what it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    pub batch: usize,
    /// Where the batch is split. The problems of the first steps are then those of fewer images.
    pub split: Option<Split>,
    /// Shapes of all tensors; the first is the input.
    pub tensors: Vec<Shape>,
    pub steps: Vec<Step>,
    /// Where the output of each node of the model is; none for a node that a block variant removes.
    pub nodes: Vec<Option<Slice>>,
    pub features: Option<Slice>,
    pub output: Slice,
    /// Name of the block whose steps have the size of the weights.
    pub top: Option<&'static str>,
}

impl Graph {
    /// Lowers a model for a batch; `average` is the mean that [`PoolKind::Average`] pools take.
    pub fn new(model: &Model, batch: usize, average: PoolKind) -> Self {
        let (tensors, nodes) = place(model, batch);
        let top = model.info.top.map(|top| top.block);
        let mut steps = Vec::new();
        for (id, node) in model.nodes.iter().enumerate() {
            let Some(&input) = node.inputs.first() else { continue };
            let [h, w, channels] = model.nodes[input].shape;
            let image = [h, w];
            let pool = |window, kind| {
                Problem::Pool(Pool { batch, image, channels, window, kind, epilogue: Epilogue::NONE })
            };
            let conv = |window, filters, epilogue| {
                let segments = vec![Segment { channels: filters, epilogue }];
                Problem::Conv(Conv { batch, image, channels, window, segments })
            };
            let (problem, weights) = match &node.op {
                Op::Input | Op::Concat => continue,
                Op::Conv(layer) => {
                    let problem = conv(layer.window, layer.filters, Epilogue::BIAS_RELU);
                    (problem, vec![Weight::Conv(conv_spec(model, node, layer))])
                }
                Op::Pool { window, kind } => {
                    let kind = if *kind == PoolKind::Average { average } else { *kind };
                    (pool(*window, kind), vec![])
                }
                Op::GlobalAverage => (pool(Window::valid(image, [1, 1]), PoolKind::Average), vec![]),
                Op::GlobalMax => (pool(Window::valid(image, [1, 1]), PoolKind::Max), vec![]),
                Op::Dense { layer, relu } => {
                    let epilogue = Epilogue { bias: true, relu: *relu };
                    let problem = conv(Window::valid([1, 1], [1, 1]), node.shape[2], epilogue);
                    (problem, vec![Weight::Dense(*layer)])
                }
                Op::Softmax => (Problem::Softmax { batch, channels }, vec![]),
                Op::Sigmoid => (Problem::Sigmoid { batch, channels }, vec![]),
            };
            steps.push(Step {
                layers: vec![node.name.clone()],
                block: node.block,
                is_top: Some(node.block) == top,
                problem,
                src: nodes[input].clone(),
                dst: vec![nodes[id].clone()],
                weights,
            });
        }
        let features = model.features.map(|id| nodes[id].clone());
        let output = nodes[model.output].clone();
        let nodes = nodes.into_iter().map(Some).collect();
        Self { batch, split: None, tensors, steps, nodes, features, output, top }
    }

    /// Convolutions without a network around them: each is a step of its own tensors, which are of
    /// as many images as its problem is. No weights belong to them.
    pub fn separate(convs: Vec<Conv>) -> Self {
        let (mut tensors, mut steps) = (Vec::new(), Vec::new());
        for conv in convs {
            let layers = vec![conv.to_string()];
            let problem = Problem::Conv(conv);
            let mut slice = |shape: Shape| {
                tensors.push(shape);
                Slice { tensor: tensors.len() - 1, channels: 0..shape.c }
            };
            let src = slice(problem.src());
            let dst = problem.dst().into_iter().map(slice).collect();
            steps.push(Step { layers, block: "list", is_top: false, problem, src, dst, weights: vec![] });
        }
        let output = Slice { tensor: 0, channels: 0..0 };
        Self { batch: 1, split: None, tensors, steps, nodes: vec![], features: None, output, top: None }
    }

    /// The same graph with the batch split before a block: the steps before it compute some images
    /// at a time. If there is no such block, all steps do. A batch of at most so many is not split.
    ///
    /// # Panics
    /// If it is split already, or for no images.
    pub fn split_before(&self, block: &str, images: usize) -> Self {
        assert!(self.split.is_none() && images > 0, "{images} images of {:?}", self.split);
        let count = self.block_steps(block).start;
        let mut graph = self.clone();
        if images >= self.batch || count == 0 {
            return graph;
        }
        graph.split = Some(Split { steps: count, images, per_worker: false });
        let (first, rest) = graph.steps.split_at_mut(count);
        first.iter_mut().for_each(|step| step.problem = step.problem.with_batch(images));
        // Of all images there are the input, what is kept, and what the other steps read.
        let kept = graph.features.iter().chain([&graph.output]).map(|slice| slice.tensor);
        let read = rest.iter().map(|step| step.src.tensor);
        let written = rest.iter().flat_map(|step| &step.dst).map(|dst| dst.tensor);
        let whole: Vec<TensorId> = kept.chain(read).chain(written).chain([0]).collect();
        for step in first.iter() {
            for dst in step.dst.iter().filter(|dst| !whole.contains(&dst.tensor)) {
                graph.tensors[dst.tensor].n = images;
            }
        }
        graph
    }

    /// The same graph, in which each worker takes images of its own before the split.
    pub fn per_worker(mut self) -> Self {
        self.split.iter_mut().for_each(|split| split.per_worker = true);
        self
    }

    /// Whether each worker takes images of its own through a step.
    pub fn is_per_worker(&self, step: usize) -> bool {
        self.split.is_some_and(|split| split.per_worker && step < split.steps)
    }

    /// Whether each worker has such a tensor for itself, with its images before the split.
    pub fn is_tensor_per_worker(&self, tensor: TensorId) -> bool {
        self.split.is_some_and(|split| split.per_worker) && self.tensors[tensor].n < self.batch
    }

    /// Whether a layer, by its name, is in the block whose size is that of the weights.
    pub fn is_in_top(&self, layer: &str) -> bool {
        self.top.is_some() && layer.split_once('.').map(|(block, _)| block) == self.top
    }

    /// The steps of a block, which are next to each other; an empty range at the end if none.
    pub fn block_steps(&self, block: &str) -> Range<usize> {
        let is_of = |step: &&Step| step.block == block;
        let first = self.steps.iter().take_while(|step| !is_of(step)).count();
        first..first + self.steps[first..].iter().take_while(is_of).count()
    }

    pub fn blocks(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self.steps.iter().map(|step| step.block).collect();
        names.dedup();
        names
    }

    /// How many times a step runs for a full batch.
    pub fn repeats(&self, step: usize) -> usize {
        match self.split {
            Some(split) if step < split.steps => self.batch.div_ceil(split.images),
            _ => 1,
        }
    }

    pub fn convs(&self) -> impl Iterator<Item = (&Step, &Conv)> {
        self.steps.iter().filter_map(|step| match &step.problem {
            Problem::Conv(conv) => Some((step, conv)),
            _ => None,
        })
    }

    /// Distinct problems in order of their first step, each with the steps that have it.
    pub fn problems(&self) -> Vec<(Problem, Vec<usize>)> {
        by_problem(self.steps.iter().enumerate().map(|(index, step)| (&step.problem, index)))
    }
}

/// Distinct problems in order, each with the distinct items that have it.
pub(super) fn by_problem<'a, T: PartialEq>(
    items: impl Iterator<Item = (&'a Problem, T)>,
) -> Vec<(Problem, Vec<T>)> {
    let mut list: Vec<(Problem, Vec<T>)> = Vec::new();
    for (problem, item) in items {
        match list.iter_mut().find(|(other, _)| other == problem) {
            Some((_, items)) if items.contains(&item) => {}
            Some((_, items)) => items.push(item),
            None => list.push((problem.clone(), vec![item])),
        }
    }
    list
}

/// A tensor for each node that no concat contains, and every node's place in one of them.
fn place(model: &Model, batch: usize) -> (Vec<Shape>, Vec<Slice>) {
    // The node whose tensor each node is in, and its first channel there.
    let mut places: Vec<(NodeId, usize)> = (0..model.nodes.len()).map(|id| (id, 0)).collect();
    // A concat comes after its inputs, so that its place is known before theirs.
    for (id, node) in model.nodes.iter().enumerate().rev().filter(|(_, node)| node.op == Op::Concat) {
        let (root, mut first) = places[id];
        for &input in &node.inputs {
            assert_eq!(places[input].0, input, "{} is in two concats", model.nodes[input].name);
            places[input] = (root, first);
            first += model.nodes[input].shape[2];
        }
    }
    let roots: Vec<NodeId> = (0..model.nodes.len()).filter(|&id| places[id].0 == id).collect();
    let tensor = |&root: &NodeId| {
        let [h, w, c] = model.nodes[root].shape;
        Shape::new(batch, [h, w], c)
    };
    let slice = |(node, (root, first)): (&Node, (NodeId, usize))| {
        let tensor = roots.binary_search(&root).expect("it has a tensor");
        Slice { tensor, channels: first..first + node.shape[2] }
    };
    (roots.iter().map(tensor).collect(), model.nodes.iter().zip(places).map(slice).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concat_is_no_step_and_its_parts_tile_it() {
        let model = Model::block("mixed10").expect("a block");
        let graph = Graph::new(&model, 2, PoolKind::Average);
        let output = &graph.output;
        let parts = graph.steps.iter().flat_map(|step| &step.dst).filter(|dst| dst.tensor == output.tensor);
        let mut parts: Vec<Range<usize>> = parts.map(|dst| dst.channels.clone()).collect();
        parts.sort_by_key(|r| r.start);
        assert_eq!(parts, [0..320, 320..704, 704..1088, 1088..1472, 1472..1856, 1856..2048]);
        assert_eq!(graph.tensors[output.tensor], Shape::new(2, [8, 8], 2048));
    }
}
