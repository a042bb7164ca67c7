//! Block variants: other forms of a block that compute the same result by fewer or cheaper steps.
//!
//! ```text
//! fuse_siblings      y_i = conv1x1_i(x)              ->  (y_1, y_2, ..) = conv1x1(x), one segment each
//! conv_before_pool   relu(conv1x1(mean(x)) + bias)   ->  relu(mean(conv1x1(x)) + bias)
//! ```
//!
//! Fused siblings read their source once. A convolution may go before the mean because a mean and a
//! pointwise convolution are both linear and work on different axes. Bias and ReLU stay last, and
//! the mean is over fewer channels. The convolution then reads the block's input, so that it may be
//! fused with its siblings.
//!
//! Nothing here says which variant is best: the planner measures them all.

use std::fmt;

use kernels::{Conv, Epilogue, MAX_SEGMENTS, Pool, PoolKind, Problem, Segment};

use crate::network::graph::{Graph, Slice, Step, Weight, by_problem};

/// How a block differs from the model's own form of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlockVariant {
    /// Pointwise convolutions that read the same tensor are one convolution with a segment each.
    pub fuse_siblings: bool,
    /// A pointwise convolution runs before the mean that it follows in the model.
    pub conv_before_pool: bool,
}

impl BlockVariant {
    /// The block as the model states it.
    pub const PLAIN: Self = Self { fuse_siblings: false, conv_before_pool: false };

    /// All variants, the plain one first.
    pub const ALL: [Self; 4] = [
        Self::PLAIN,
        Self { fuse_siblings: true, conv_before_pool: false },
        Self { fuse_siblings: false, conv_before_pool: true },
        Self { fuse_siblings: true, conv_before_pool: true },
    ];

    /// The variant of a name; plans of the first schema had shorter ones.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = match name {
            "siblings" => "fuse_siblings",
            "swap" => "conv_before_pool",
            "siblings+swap" => "fuse_siblings+conv_before_pool",
            name => name,
        };
        Self::ALL.into_iter().find(|variant| variant.to_string() == name)
    }
}

impl fmt::Display for BlockVariant {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match (self.fuse_siblings, self.conv_before_pool) {
            (false, false) => "plain",
            (true, false) => "fuse_siblings",
            (false, true) => "conv_before_pool",
            (true, true) => "fuse_siblings+conv_before_pool",
        })
    }
}

/// A block that has other variants than the plain one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub name: &'static str,
    /// Its variants, the plain one first, each with the steps that are not in all variants.
    pub forms: Vec<(BlockVariant, Vec<Step>)>,
}

impl Block {
    /// All such blocks of a plain graph, in order.
    pub fn all(graph: &Graph) -> Vec<Self> {
        let blocks = graph.blocks().into_iter().map(|name| Self::new(graph, name));
        blocks.filter(|block| block.forms.len() > 1).collect()
    }

    /// The variant that differs most from the plain one.
    pub fn most(&self) -> BlockVariant {
        self.forms.last().map_or(BlockVariant::PLAIN, |(variant, _)| *variant)
    }

    fn new(graph: &Graph, name: &'static str) -> Self {
        let steps = |graph: Graph| graph.steps.into_iter().filter(|step| step.block == name).collect();
        let mut forms: Vec<(BlockVariant, Vec<Step>)> = BlockVariant::ALL
            .into_iter()
            .filter_map(|variant| Some((variant, steps(with_variant(graph, name, variant)?))))
            .collect();
        let (first, others) = forms.split_first().expect("the plain variant");
        let in_all = |step: &&Step| others.iter().all(|(_, steps)| steps.contains(step));
        let common: Vec<Step> = first.1.iter().filter(in_all).cloned().collect();
        forms.iter_mut().for_each(|(_, steps)| steps.retain(|step| !common.contains(step)));
        Self { name, forms }
    }
}

/// The distinct problems of a plain graph and of all variants of its blocks, each with its steps.
pub fn problems(graph: &Graph) -> Vec<(Problem, Vec<Step>)> {
    let blocks = Block::all(graph);
    let of_forms = blocks.iter().flat_map(|block| &block.forms).flat_map(|(_, steps)| steps);
    by_problem(graph.steps.iter().chain(of_forms).map(|step| (&step.problem, step.clone())))
}

/// A graph in which one block has a variant; none where the block has no such variant.
pub fn with_variant(graph: &Graph, block: &str, variant: BlockVariant) -> Option<Graph> {
    let mut graph = graph.clone();
    let applies = (!variant.conv_before_pool || conv_before_pool(&mut graph, block))
        && (!variant.fuse_siblings || fuse_siblings(&mut graph, block));
    applies.then_some(graph)
}

/// The convolution of a step that takes each pixel by itself.
fn pointwise(step: &Step) -> Option<&Conv> {
    match &step.problem {
        Problem::Conv(conv) if conv.is_pointwise() => Some(conv),
        _ => None,
    }
}

/// Joins the pointwise convolutions of a block that read one tensor; false if there are none.
fn fuse_siblings(graph: &mut Graph, block: &str) -> bool {
    let mut steps: Vec<Step> = Vec::with_capacity(graph.steps.len());
    for step in &graph.steps {
        let is_sibling = |first: &&mut Step| {
            first.src == step.src
                && first.block == block
                && pointwise(first).is_some_and(|conv| conv.segments.len() < MAX_SEGMENTS)
        };
        let conv = pointwise(step).filter(|_| step.block == block);
        match conv.zip(steps.iter_mut().find(is_sibling)) {
            Some((conv, first)) => {
                let Problem::Conv(joined) = &mut first.problem else { unreachable!("it is pointwise") };
                joined.segments.extend(&conv.segments);
                first.layers.extend_from_slice(&step.layers);
                first.dst.extend_from_slice(&step.dst);
                first.weights.extend_from_slice(&step.weights);
            }
            None => steps.push(step.clone()),
        }
    }
    let joined = steps.len() < graph.steps.len();
    if let Some(split) = &mut graph.split {
        let first = &graph.steps[..split.steps];
        let is_first = |step: &&Step| first.iter().any(|first| first.layers[0] == step.layers[0]);
        split.steps = steps.iter().filter(is_first).count();
    }
    graph.steps = steps;
    joined
}

/// Moves each pointwise convolution of a block that is the only reader of a mean before it; false
/// if there are none. Such a mean keeps the size of the image, so that the convolution has no more
/// to do.
fn conv_before_pool(graph: &mut Graph, block: &str) -> bool {
    let mut swapped = false;
    for at in 0..graph.steps.len() {
        if graph.steps[at].block == block
            && let Some((reader, [conv, pool])) = swapped_pair(graph, at)
        {
            let between = &conv.dst[0];
            let whole = graph.steps[at].dst[0].clone();
            graph.tensors[between.tensor].c = between.channels.end;
            graph.nodes.iter_mut().filter(|node| node.as_ref() == Some(&whole)).for_each(|node| *node = None);
            graph.steps[at] = conv;
            graph.steps[reader] = pool;
            swapped = true;
        }
    }
    swapped
}

/// For the mean at a place: where its reader is, and the two steps in the other order.
fn swapped_pair(graph: &Graph, at: usize) -> Option<(usize, [Step; 2])> {
    let mean = &graph.steps[at];
    let Problem::Pool(pool) = &mean.problem else { return None };
    let tensor = mean.dst[0].tensor;
    let is_inner = graph.features.iter().chain([&graph.output]).all(|kept| kept.tensor != tensor);
    let whole = mean.dst[0].channels == (0..graph.tensors[tensor].c);
    let linear = pool.kind != PoolKind::Max && pool.epilogue == Epilogue::NONE;
    let mut readers = graph.steps.iter().enumerate().filter(|(_, step)| step.src.tensor == tensor);
    let (reader, step) = readers.next()?;
    let conv = pointwise(step)?;
    let ([segment], [Weight::Conv(spec)]) = (&conv.segments[..], &step.weights[..]) else { return None };
    if !(linear && is_inner && whole && pool.output() == pool.image && readers.next().is_none()) {
        return None;
    }
    let Segment { channels, epilogue } = *segment;
    let between = Slice { tensor, channels: 0..channels };
    let sums = Conv { segments: vec![Segment { channels, epilogue: Epilogue::NONE }], ..conv.clone() };
    let ended = Pool { channels, epilogue, ..pool.clone() };
    let (problem, dst) = (Problem::Conv(sums), vec![between.clone()]);
    let conv = Step { problem, src: mean.src.clone(), dst, ..step.clone() };
    let weights = if epilogue.bias { vec![Weight::Bias(spec.clone())] } else { Vec::new() };
    let (problem, dst) = (Problem::Pool(ended), step.dst.clone());
    let pool = Step { problem, src: between, dst, weights, ..mean.clone() };
    Some((reader, [conv, pool]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::inception_v3::NETWORK;
    use crate::network::model::Model;

    fn plain() -> Graph {
        Graph::new(&Model::inception_v3().with_classes(Some(10)), 1, PoolKind::Average)
    }

    #[test]
    fn blocks_with_siblings_or_a_mean_have_other_forms() {
        let blocks = Block::all(&plain());
        let found: Vec<&str> = blocks.iter().map(|block| block.name).collect();
        let mut expected: Vec<&str> = NETWORK.blocks.iter().map(|block| block.name).collect();
        expected.retain(|name| !["stem", "mixed3"].contains(name));
        assert_eq!(found, expected);
        for block in &blocks {
            let expected: &[&str] = match block.name {
                "mixed8" => &["plain", "fuse_siblings"],
                _ => &["plain", "fuse_siblings", "conv_before_pool", "fuse_siblings+conv_before_pool"],
            };
            let names: Vec<String> = block.forms.iter().map(|(variant, _)| variant.to_string()).collect();
            assert_eq!(names, expected, "{}", block.name);
        }
    }

    #[test]
    fn forms_differ_in_the_steps_that_are_rewritten() {
        let blocks = Block::all(&plain());
        let problems = |rewrite: usize| -> Vec<String> {
            blocks[0].forms[rewrite].1.iter().map(|step| step.problem.to_string()).collect()
        };
        let [a, b, c] = ["n1h35w35c192k64r1s1", "n1h35w35c192k48r1s1", "n1h35w35c192k32r1s1"];
        assert_eq!(problems(0), [a, b, a, "average:n1h35w35c192r3s3", c]);
        assert_eq!(problems(1), ["n1h35w35c192k64+48+64r1s1", "average:n1h35w35c192r3s3", c]);
        let pool = "average:n1h35w35c32r3s3:bias_relu";
        assert_eq!(problems(2), [a, b, a, "n1h35w35c192k32r1s1:sum", pool]);
        let all = "n1h35w35c192k64+48+64+32r1s1:bias_relu+bias_relu+bias_relu+sum";
        assert_eq!(problems(3), [all, pool]);
        let layers: Vec<String> = blocks[0].forms[3].1.iter().map(|step| step.layers.join(" ")).collect();
        let siblings = "mixed0.branch1x1 mixed0.branch5x5_1 mixed0.branch3x3dbl_1 mixed0.branch_pool";
        assert_eq!(layers, [siblings, "mixed0.pool"]);
    }

    #[test]
    fn every_form_reads_what_was_written_and_writes_all_that_is_read() {
        for rewrite in BlockVariant::ALL {
            let mut graph = plain();
            for block in NETWORK.blocks {
                graph = with_variant(&graph, block.name, rewrite).unwrap_or(graph);
            }
            let mut channels = vec![0; graph.tensors.len()];
            channels[0] = 3;
            for step in &graph.steps {
                let Slice { tensor, channels: read } = &step.src;
                assert_eq!(channels[*tensor], graph.tensors[*tensor].c, "{:?} by {rewrite}", step.layers);
                assert!(read.end <= channels[*tensor], "{:?} by {rewrite}", step.layers);
                assert_eq!(step.problem.src(), kernels::Shape { c: read.len(), ..graph.tensors[*tensor] });
                for (dst, shape) in step.dst.iter().zip(step.problem.dst()) {
                    assert_eq!(dst.channels.len(), shape.c);
                    channels[dst.tensor] += shape.c;
                }
            }
        }
    }

    #[test]
    fn a_problem_of_several_forms_is_listed_once() {
        let list = problems(&plain());
        for (index, (problem, steps)) in list.iter().enumerate() {
            assert!(list[..index].iter().all(|(other, _)| other != problem), "{problem}");
            assert!(!steps.is_empty() && steps.iter().all(|step| step.problem == *problem));
        }
        let is = |text: &str| list.iter().find(|(p, _)| p.to_string() == text).map(|(_, steps)| steps.len());
        assert_eq!(is("average:n1h17w17c192r3s3:bias_relu"), Some(4));
        assert_eq!(is("n1h17w17c768k192r1s1"), Some(12));
    }

    #[test]
    fn names_of_forms_are_read_back() {
        for rewrite in BlockVariant::ALL {
            assert_eq!(BlockVariant::from_name(&rewrite.to_string()), Some(rewrite));
        }
        assert_eq!(BlockVariant::from_name("siblings+swap"), Some(BlockVariant::ALL[3]));
        assert_eq!(BlockVariant::from_name("swap+siblings"), None);
    }
}
