//! InceptionV3: C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision"
//! (2015), in the form of Keras and torchvision, without the auxiliary classifier.
//!
//! Blocks have Keras's names, layers torchvision's; numbers are Keras's order of creation.

use kernels::PoolKind;

use crate::network::builder::{BlockInfo, Builder, Network};
use crate::network::model::{ModelInfo, NodeId, Tap, TopInfo};

pub const NETWORK: Network = Network {
    name: "inception_v3",
    // Keras and torchvision agree on it.
    info: ModelInfo {
        title: "InceptionV3",
        input: BLOCKS[0].input,
        least_side: 75,
        pixel_range: [-1.0, 1.0],
        bn_epsilon: 1e-3,
        average_pooling: None,
        preprocessing: None,
        top: Some(TOP),
    },
    blocks: &BLOCKS,
};

pub(super) const TOP: TopInfo = TopInfo {
    block: "top",
    joins: "mixed10",
    pool: "avg_pool",
    dense: "predictions",
    torch_dense: "fc",
    softmax: "softmax",
    features: 2048,
    classes: 1000,
    // Source and licence: imagenet_classes.LICENSE.txt.
    class_names: include_str!("imagenet_classes.txt"),
    class_names_of: "ImageNet",
    variants: &[
        (1001, "class 0 is the background, the others are ImageNet's classes from 1 on"),
        (
            1008,
            "they seem to be those of TensorFlow's network of 2015, by which FID is computed: it pools \
             otherwise, so that its features are others than these; --model inception_v3_fid computes it",
        ),
    ],
    // Those of pytorch-fid.
    taps: &[
        Tap { features: 64, layer: "stem.maxpool1" },
        Tap { features: 192, layer: "stem.maxpool2" },
        Tap { features: 768, layer: "mixed7.concat" },
    ],
};

/// A row of [`BLOCKS`].
pub(super) const fn block(
    name: &'static str,
    torch: &'static str,
    input: [usize; 3],
    first_conv: usize,
    build: fn(&mut Builder, NodeId) -> NodeId,
) -> BlockInfo {
    BlockInfo { name, input, first_conv, torch, build }
}

/// Name, torchvision's name, input, convolutions created before, layers.
pub(super) const BLOCKS: [BlockInfo; 12] = [
    block("stem", "", [299, 299, 3], 0, stem),
    block("mixed0", "Mixed_5b", [35, 35, 192], 5, |b, x| figure5(b, x, 32)),
    block("mixed1", "Mixed_5c", [35, 35, 256], 12, |b, x| figure5(b, x, 64)),
    block("mixed2", "Mixed_5d", [35, 35, 288], 19, |b, x| figure5(b, x, 64)),
    block("mixed3", "Mixed_6a", [35, 35, 288], 26, reduction_35),
    block("mixed4", "Mixed_6b", [17, 17, 768], 30, |b, x| figure6(b, x, 128)),
    block("mixed5", "Mixed_6c", [17, 17, 768], 40, |b, x| figure6(b, x, 160)),
    block("mixed6", "Mixed_6d", [17, 17, 768], 50, |b, x| figure6(b, x, 160)),
    block("mixed7", "Mixed_6e", [17, 17, 768], 60, |b, x| figure6(b, x, 192)),
    block("mixed8", "Mixed_7a", [17, 17, 768], 70, reduction_17),
    block("mixed9", "Mixed_7b", [8, 8, 1280], 76, |b, x| figure7(b, x, PoolKind::Average)),
    block("mixed10", "Mixed_7c", [8, 8, 2048], 85, |b, x| figure7(b, x, PoolKind::Average)),
];

/// 299x299x3 to 35x35x192.
fn stem(b: &mut Builder, x: NodeId) -> NodeId {
    let x = b.conv_valid(x, "Conv2d_1a_3x3", 32, 3, 2);
    let x = b.conv_valid(x, "Conv2d_2a_3x3", 32, 3, 1);
    let x = b.conv(x, "Conv2d_2b_3x3", 64, [3, 3]);
    let x = b.max_pool(x, "maxpool1");
    let x = b.conv_valid(x, "Conv2d_3b_1x1", 80, 1, 1);
    let x = b.conv_valid(x, "Conv2d_4a_3x3", 192, 3, 1);
    b.max_pool(x, "maxpool2")
}

/// Figure 5 of the paper, one 5x5 kept: 35x35.
fn figure5(b: &mut Builder, x: NodeId, pool_filters: usize) -> NodeId {
    let branch1x1 = b.conv(x, "branch1x1", 64, [1, 1]);

    let y = b.conv(x, "branch5x5_1", 48, [1, 1]);
    let branch5x5 = b.conv(y, "branch5x5_2", 64, [5, 5]);

    let y = b.conv(x, "branch3x3dbl_1", 64, [1, 1]);
    let y = b.conv(y, "branch3x3dbl_2", 96, [3, 3]);
    let branch3x3dbl = b.conv(y, "branch3x3dbl_3", 96, [3, 3]);

    let y = b.average_pool(x, "pool");
    let branch_pool = b.conv(y, "branch_pool", pool_filters, [1, 1]);
    b.concat("concat", vec![branch1x1, branch5x5, branch3x3dbl, branch_pool])
}

/// Grid reduction of figure 10: 35x35x288 to 17x17x768.
fn reduction_35(b: &mut Builder, x: NodeId) -> NodeId {
    let branch3x3 = b.conv_valid(x, "branch3x3", 384, 3, 2);

    let y = b.conv(x, "branch3x3dbl_1", 64, [1, 1]);
    let y = b.conv(y, "branch3x3dbl_2", 96, [3, 3]);
    let branch3x3dbl = b.conv_valid(y, "branch3x3dbl_3", 96, 3, 2);

    let branch_pool = b.max_pool(x, "pool");
    b.concat("concat", vec![branch3x3, branch3x3dbl, branch_pool])
}

/// Figure 6 with n = 7: 17x17x768.
fn figure6(b: &mut Builder, x: NodeId, narrow: usize) -> NodeId {
    let branch1x1 = b.conv(x, "branch1x1", 192, [1, 1]);

    let y = b.conv(x, "branch7x7_1", narrow, [1, 1]);
    let y = b.conv(y, "branch7x7_2", narrow, [1, 7]);
    let branch7x7 = b.conv(y, "branch7x7_3", 192, [7, 1]);

    let y = b.conv(x, "branch7x7dbl_1", narrow, [1, 1]);
    let y = b.conv(y, "branch7x7dbl_2", narrow, [7, 1]);
    let y = b.conv(y, "branch7x7dbl_3", narrow, [1, 7]);
    let y = b.conv(y, "branch7x7dbl_4", narrow, [7, 1]);
    let branch7x7dbl = b.conv(y, "branch7x7dbl_5", 192, [1, 7]);

    let y = b.average_pool(x, "pool");
    let branch_pool = b.conv(y, "branch_pool", 192, [1, 1]);
    b.concat("concat", vec![branch1x1, branch7x7, branch7x7dbl, branch_pool])
}

/// Grid reduction: 17x17x768 to 8x8x1280.
fn reduction_17(b: &mut Builder, x: NodeId) -> NodeId {
    let y = b.conv(x, "branch3x3_1", 192, [1, 1]);
    let branch3x3 = b.conv_valid(y, "branch3x3_2", 320, 3, 2);

    let y = b.conv(x, "branch7x7x3_1", 192, [1, 1]);
    let y = b.conv(y, "branch7x7x3_2", 192, [1, 7]);
    let y = b.conv(y, "branch7x7x3_3", 192, [7, 1]);
    let branch7x7x3 = b.conv_valid(y, "branch7x7x3_4", 192, 3, 2);

    let branch_pool = b.max_pool(x, "pool");
    b.concat("concat", vec![branch3x3, branch7x7x3, branch_pool])
}

/// Figure 7: 8x8, to 2048 channels; `pool` is what its last branch begins with.
pub(super) fn figure7(b: &mut Builder, x: NodeId, pool: PoolKind) -> NodeId {
    let branch1x1 = b.conv(x, "branch1x1", 320, [1, 1]);

    let y = b.conv(x, "branch3x3_1", 384, [1, 1]);
    let wide = b.conv(y, "branch3x3_2a", 384, [1, 3]);
    let high = b.conv(y, "branch3x3_2b", 384, [3, 1]);
    let branch3x3 = b.concat("branch3x3", vec![wide, high]);

    let y = b.conv(x, "branch3x3dbl_1", 448, [1, 1]);
    let y = b.conv(y, "branch3x3dbl_2", 384, [3, 3]);
    let wide = b.conv(y, "branch3x3dbl_3a", 384, [1, 3]);
    let high = b.conv(y, "branch3x3dbl_3b", 384, [3, 1]);
    let branch3x3dbl = b.concat("branch3x3dbl", vec![wide, high]);

    let y = b.same_pool(x, "pool", pool);
    let branch_pool = b.conv(y, "branch_pool", 192, [1, 1]);
    b.concat("concat", vec![branch1x1, branch3x3, branch3x3dbl, branch_pool])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use kernels::{Conv, PoolKind};

    use super::*;
    use crate::network::graph::Graph;
    use crate::network::model::Model;
    use crate::network::spec::{ConvSpec, Spec};

    fn without_classes() -> Model {
        NETWORK.model().with_classes(None)
    }

    #[test]
    fn counts_and_numbers_of_convs_are_those_of_keras() {
        let (model, spec) = (NETWORK.model(), Spec::new(&NETWORK.model()));
        // Weights, and beta, mean and variance of each BatchNorm.
        let parameters = |conv: &ConvSpec| {
            (conv.kernel[0] * conv.kernel[1] * conv.channels + 3 * conv.norms) * conv.filters
        };
        let convs: usize = spec.convs.iter().map(parameters).sum();
        let dense = (spec.features + 1) * model.nodes[model.output].shape[2];
        assert!(spec.convs.iter().map(|conv| conv.index).eq(0..94));
        assert_eq!((spec.convs.len(), convs, convs + dense), (94, 21_802_784, 23_851_784));
    }

    #[test]
    fn there_are_43_problems_and_5711_million_multiply_adds() {
        let graph = Graph::new(&without_classes(), 1, PoolKind::Average);
        let convs: Vec<Conv> = graph.convs().map(|(_, conv)| conv.clone()).collect();
        assert_eq!(convs.iter().collect::<HashSet<_>>().len(), 43);
        let total: u64 = convs.iter().map(Conv::multiply_adds).sum();
        assert_eq!((total as f64 / 1e5).round() / 10.0, 5711.2);
    }

    #[test]
    fn each_block_reads_what_the_one_before_it_passes_on() {
        let models = BLOCKS.map(|block| NETWORK.block(block.name).expect("a block"));
        let shapes = models.map(|model| model.nodes[model.output].shape);
        assert!(shapes.iter().zip(&BLOCKS[1..]).all(|(output, next)| *output == next.input), "{shapes:?}");
    }

    #[test]
    fn another_number_of_classes_changes_the_top_alone() {
        let [few, many] = [10, 1000].map(|classes| NETWORK.model().with_classes(Some(classes)));
        assert_eq!((&many, few.nodes.len()), (&NETWORK.model(), many.nodes.len()));
        assert_eq!(few.nodes[few.output].shape, [1, 1, 10]);
        assert_eq!(without_classes().with_classes(Some(10)), few);
        let block = NETWORK.block("mixed3").expect("a block");
        assert_eq!(block.clone().with_classes(Some(10)), block);
    }

    #[test]
    fn a_block_without_the_others_is_the_block_in_the_network() {
        let network = NETWORK.model();
        for block in BLOCKS.map(|block| block.name) {
            let isolated = NETWORK.block(block).expect("a block");
            let inside: Vec<_> = network.nodes.iter().filter(|n| n.block == block).collect();
            assert_eq!(isolated.nodes.len(), inside.len() + 1, "{block}");
            for (a, b) in isolated.nodes[1..].iter().zip(inside) {
                assert_eq!((&a.name, &a.op, a.shape), (&b.name, &b.op, b.shape), "{block}");
            }
        }
    }

    #[test]
    fn every_channel_count_but_the_images_is_a_multiple_of_16() {
        for node in &without_classes().nodes[1..] {
            assert_eq!(node.shape[2] % 16, 0, "{}", node.name);
        }
    }
}
