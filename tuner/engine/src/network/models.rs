//! Models by name: the networks of the table, their blocks, and a single `conv2d_bn`.

use kernels::Conv;

use crate::network::builder::{Builder, Network};
use crate::network::model::{Model, ModelInfo};
use crate::network::{NETWORKS, inception_v3};

/// A single convolution's name.
const CONV2D_BN: &str = "conv2d_bn";

/// A name that is no model's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No such model.
    #[error("model `{found}` is unknown, expected {networks}, {CONV2D_BN} or a block: {blocks}")]
    Unknown { found: String, networks: String, blocks: String },
    /// `conv2d_bn` without a shape, or a shape without `conv2d_bn`.
    #[error("model `{model}`: {problem}")]
    Shape { model: String, problem: &'static str },
}

impl Model {
    /// InceptionV3 with 1000 classes; [`Model::with_classes`] gives it another number.
    pub fn inception_v3() -> Self {
        inception_v3::NETWORK.model()
    }

    /// One block of a network without the others, on its own input.
    pub fn block(name: &str) -> Option<Self> {
        NETWORKS.iter().find_map(|network| network.block(name))
    }

    /// One convolution with BatchNorm and ReLU, whatever the batch and the epilogue of `conv`.
    pub fn conv2d_bn(conv: &Conv) -> Self {
        let [h, w] = conv.image;
        let input = [h, w, conv.channels];
        let (title, pixel_range) = (CONV2D_BN, [-1.0, 1.0]);
        let info = ModelInfo { title, input, pixel_range, bn_epsilon: 1e-3, top: None };
        let mut b = Builder::new(CONV2D_BN, input, info);
        let output = b.single_conv(CONV2D_BN, conv.filters(), conv.window);
        b.finish(output, None)
    }

    /// The model of a `--model` and `--shape`; `classes` as for [`Model::with_classes`].
    pub fn by_name(name: &str, shape: Option<&Conv>, classes: Option<usize>) -> Result<Self, ModelError> {
        let mismatch = |problem| Err(ModelError::Shape { model: name.to_string(), problem });
        match (name, shape) {
            (CONV2D_BN, Some(conv)) => Ok(Self::conv2d_bn(conv)),
            (CONV2D_BN, None) => mismatch("--shape is missing, expected one like n1h17w17c768k192r1s7"),
            (_, Some(_)) => mismatch("takes no --shape, only conv2d_bn does"),
            (name, None) => match NETWORKS.iter().find(|network| network.name == name) {
                Some(network) => Ok(network.model().with_classes(classes)),
                None => Self::block(name).ok_or_else(|| {
                    let blocks = NETWORKS.iter().flat_map(|network| network.blocks).map(|block| block.name);
                    let blocks = blocks.collect::<Vec<_>>().join(" ");
                    ModelError::Unknown { found: name.to_string(), networks: network_names(), blocks }
                }),
            },
        }
    }
}

/// Whether a name is that of a whole network.
pub fn is_network(name: &str) -> bool {
    NETWORKS.iter().any(|network| network.name == name)
}

/// Names of all networks, for texts.
pub fn network_names() -> String {
    NETWORKS.map(|network| network.name).join(", ")
}

/// What `--model` accepts, for texts: `inception_v3, one block of it (stem, ..)`, and so on.
pub fn networks_and_blocks() -> String {
    let one = |network: &Network| match network.blocks {
        [first, second, .., last] => {
            format!("{}, one block of it ({}, {} .. {})", network.name, first.name, second.name, last.name)
        }
        _ => network.name.to_string(),
    };
    NETWORKS.map(one).join(", ")
}

/// The network that a command is for where none is named: the first of the table.
pub const DEFAULT: &str = NETWORKS[0].name;

/// What an array of preprocessed images is, for texts: `[N, 299, 299, 3] float32 in [-1, 1]`.
pub fn input_arrays() -> String {
    let one = |network: &Network| {
        let ModelInfo { input: [h, w, c], pixel_range: [black, white], .. } = network.info;
        format!("[N, {h}, {w}, {c}] float32 in [{black}, {white}]")
    };
    NETWORKS.map(one).join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_the_networks_and_blocks_of_the_table() {
        assert_eq!(networks_and_blocks(), "inception_v3, one block of it (stem, mixed0 .. mixed10)");
        assert_eq!((DEFAULT, &input_arrays()[..]), ("inception_v3", "[N, 299, 299, 3] float32 in [-1, 1]"));
        let error = Model::by_name("mixed11", None, None).expect_err("no such block").to_string();
        let expected = "model `mixed11` is unknown, expected inception_v3, conv2d_bn or a block: stem mixed0";
        assert!(error.starts_with(expected) && error.ends_with("mixed9 mixed10"), "{error}");
    }

    #[test]
    fn every_name_of_the_table_is_a_model_and_each_block_has_one_network() {
        for network in NETWORKS {
            assert_eq!(Model::by_name(network.name, None, None).expect("a model").name, network.name);
            for block in network.blocks {
                let has = |other: &&&Network| other.block(block.name).is_some();
                assert_eq!(NETWORKS.iter().filter(has).count(), 1, "{}", block.name);
            }
        }
    }
}
