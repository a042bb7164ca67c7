//! TensorFlow's Inception of 2015 (`inception-2015-12-05`), by which the Fréchet Inception Distance is
//! computed, as pytorch-fid and torch-fidelity build it.
//!
//! It is InceptionV3 but for these:
//!
//! - its average pools leave the border out, though its weights have torchvision's names;
//! - the pool of its last block is a maximum;
//! - it has 1008 classes, of which no list of names is published.

use kernels::PoolKind;

use crate::network::builder::{BlockInfo, Network};
use crate::network::inception_v3::{self, block, figure7};
use crate::network::model::{AveragePooling, ModelInfo, TopInfo};

pub const NETWORK: Network = Network {
    name: "inception_v3_fid",
    info: ModelInfo {
        title: "TensorFlow's Inception of 2015",
        average_pooling: Some(AveragePooling::Keras),
        preprocessing: Some("fid"),
        top: Some(TopInfo {
            classes: 1008,
            class_names: "",
            variants: &[(
                1000,
                "they seem to be ImageNet's, of a network that is not the one by which FID is computed; \
                 --model inception_v3 computes it",
            )],
            ..inception_v3::TOP
        }),
        ..inception_v3::NETWORK.info
    },
    blocks: &BLOCKS,
};

/// The last block has another name than InceptionV3's, since it computes something else.
const BLOCKS: [BlockInfo; 12] = {
    let mut blocks = inception_v3::BLOCKS;
    let last = inception_v3::BLOCKS[11];
    blocks[11] =
        block("mixed10_max", last.torch, last.input, last.first_conv, |b, x| figure7(b, x, PoolKind::Max));
    blocks
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::model::{Model, Op};

    /// The layers without their blocks, and what each computes.
    fn layers(model: &Model) -> Vec<(&str, &Op, [usize; 3])> {
        let layer = |name: &'_ str| name.rfind('.').map_or(0, |at| at + 1);
        model.nodes.iter().map(|node| (&node.name[layer(&node.name)..], &node.op, node.shape)).collect()
    }

    #[test]
    fn it_is_inception_v3_but_for_one_pool_and_its_classes() {
        let [fid, usual] = [NETWORK.model(), inception_v3::NETWORK.model().with_classes(Some(1008))];
        let differ: Vec<_> =
            layers(&fid).into_iter().zip(layers(&usual)).filter(|(fid, usual)| fid != usual).collect();
        let [(fid, usual)] = differ[..] else { panic!("{differ:?}") };
        let kind = |op: &Op| match op {
            Op::Pool { kind, window } => (*kind, window.kernel, window.stride),
            op => panic!("{op:?}"),
        };
        assert_eq!((fid.0, usual.0), ("pool", "pool"));
        assert_eq!(kind(fid.1), (PoolKind::Max, [3, 3], [1, 1]));
        assert_eq!(kind(usual.1), (PoolKind::Average, [3, 3], [1, 1]));
    }
}
