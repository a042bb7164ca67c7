//! Models by name: the networks of the table, their blocks, and a single `conv2d_bn`.

use kernels::Conv;

use crate::network::builder::{Builder, Network};
use crate::network::model::{Model, ModelInfo, ModelShape, Op};
use crate::network::{NETWORKS, inception_v3, inception_v3_fid};
use crate::util::names;

/// A single convolution's name.
const CONV2D_BN: &str = "conv2d_bn";

/// A name that is no model's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No such model.
    #[error("model `{found}` is unknown, expected {expected}")]
    Unknown { found: String, expected: String },
    /// `conv2d_bn` without a shape, or a shape without `conv2d_bn`.
    #[error("model `{model}`: {problem}")]
    Shape { model: String, problem: &'static str },
    /// An image that the network can't have.
    #[error(
        "model `{model}`: found images of {input:?}, expected sides from {least} to {MAX_SIDE} and 1 to \
         {MAX_CHANNELS} channels"
    )]
    Input {
        /// The network.
        model: String,
        /// Height, width and channels.
        input: [usize; 3],
        /// The shortest side that it can have.
        least: usize,
    },
    /// Features that no layer of it has.
    #[error("model `{model}`: found {found} features, expected {expected}")]
    Dims {
        /// The network.
        model: String,
        /// How many were asked for.
        found: usize,
        /// How many there can be.
        expected: String,
    },
}

/// The longest side of an image of a network.
pub const MAX_SIDE: usize = 4096;

/// The most channels of an image of a network.
pub const MAX_CHANNELS: usize = 16;

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
        Self::conv_with_norms(conv, 1)
    }

    /// The same with so many BatchNorms.
    fn conv_with_norms(conv: &Conv, norms: usize) -> Self {
        let [h, w] = conv.image;
        let input = [h, w, conv.channels];
        let (title, pixel_range) = (CONV2D_BN, [-1.0, 1.0]);
        let info = ModelInfo {
            title,
            input,
            least_side: 1,
            pixel_range,
            bn_epsilon: 1e-3,
            average_pooling: None,
            preprocessing: None,
            top: None,
        };
        let mut b = Builder::new(CONV2D_BN, input, info);
        let output = b.single_conv(CONV2D_BN, conv.filters(), conv.window, norms);
        let shape = Some(ModelShape::Conv { conv: Conv { batch: 1, ..conv.clone() }, norms });
        Self { shape, ..b.finish(output, None) }
    }

    /// The network for images of another height, width and number of channels, with its usual head.
    ///
    /// # Errors
    /// If this is no whole network, or one of them is out of bounds.
    pub fn with_input(&self, input: [usize; 3]) -> Result<Self, ModelError> {
        let Some(network) = NETWORKS.iter().find(|network| network.name == self.name) else {
            let problem = "has an input of its own, only a whole network can have another";
            return Err(ModelError::Shape { model: self.name.clone(), problem });
        };
        let ([h, w, c], least) = (input, network.info.least_side);
        let is_side = |side: usize| (least..=MAX_SIDE).contains(&side);
        if !(is_side(h) && is_side(w) && (1..=MAX_CHANNELS).contains(&c)) {
            return Err(ModelError::Input { model: self.name.clone(), input, least });
        }
        Ok(network.model_of(input))
    }

    /// The network up to the layer that has so many features, and their means over the image: no
    /// layer after it, and no head.
    ///
    /// # Errors
    /// If no layer of the model has so many features.
    pub fn with_dims(mut self, dims: usize) -> Result<Self, ModelError> {
        let usual = self.features.zip(self.info.top).filter(|_| !self.is_cut());
        let taps = usual.map_or(&[][..], |(_, top)| top.taps);
        if usual.is_some_and(|(_, top)| top.features == dims) {
            return Ok(self.with_head(None));
        }
        let tap = taps.iter().find(|tap| tap.features == dims);
        let node = tap.and_then(|tap| self.nodes.iter().position(|node| node.name == tap.layer));
        let Some((node, (_, top))) = node.zip(usual) else {
            let all = taps.iter().map(|tap| tap.features).chain(usual.map(|(_, top)| top.features));
            let list: Vec<String> = all.map(|features| features.to_string()).collect();
            let expected =
                if list.is_empty() { "none: it has no features".to_owned() } else { list.join(", ") };
            return Err(ModelError::Dims { model: self.name, found: dims, expected });
        };
        self.nodes.truncate(node + 1);
        self.output = node;
        self.add_to_head(top.block, top.pool, Op::GlobalAverage, dims);
        self.features = Some(self.output);
        Ok(self)
    }

    /// The model of a name and of what it is made for; `classes` as for [`Model::with_classes`].
    ///
    /// # Errors
    /// If there is no such model, or it can't be made for that.
    pub fn by_name(
        name: &str,
        shape: Option<&ModelShape>,
        classes: Option<usize>,
    ) -> Result<Self, ModelError> {
        let mismatch = |problem| Err(ModelError::Shape { model: name.to_string(), problem });
        match (name, shape) {
            (CONV2D_BN, Some(ModelShape::Conv { conv, norms })) => Ok(Self::conv_with_norms(conv, *norms)),
            (CONV2D_BN, _) => mismatch("--shape is missing, expected one like n1h17w17c768k192r1s7"),
            (_, Some(ModelShape::Conv { .. })) => mismatch("takes no --shape, only conv2d_bn does"),
            (name, Some(ModelShape::Input(input))) => {
                Ok(Self::by_name(name, None, None)?.with_input(*input)?.with_classes(classes))
            }
            (name, None) => match NETWORKS.iter().find(|network| network.name == name) {
                Some(network) => Ok(network.model().with_classes(classes)),
                None => Self::block(name).ok_or_else(|| {
                    let blocks: Vec<&str> = NETWORKS.iter().flat_map(|network| own_blocks(network)).collect();
                    let all = NETWORKS.iter().map(|network| network.name).chain([CONV2D_BN]);
                    let expected = match names::nearest(name, all.chain(blocks.iter().copied())) {
                        Some(name) => format!("{name}, which is the nearest"),
                        None => format!("{}, {CONV2D_BN} or a block: {}", network_names(), blocks.join(" ")),
                    };
                    ModelError::Unknown { found: name.to_string(), expected }
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

/// The blocks of a network that no network before it in the table has: `--model` accepts each name
/// once.
fn own_blocks(network: &Network) -> Vec<&'static str> {
    let earlier = NETWORKS.iter().take_while(|other| other.name != network.name);
    let earlier: Vec<&str> = earlier.flat_map(|other| other.blocks).map(|block| block.name).collect();
    network.blocks.iter().map(|block| block.name).filter(|name| !earlier.contains(name)).collect()
}

/// What `--model` accepts, for texts: `inception_v3, one block of it (stem, ..)`, and so on.
pub fn networks_and_blocks() -> String {
    let one = |network: &Network| match own_blocks(network)[..] {
        [first, second, .., last] => {
            format!("{}, one block of it ({first}, {second} .. {last})", network.name)
        }
        [block] => format!("{}, its block {block}", network.name),
        _ => network.name.to_string(),
    };
    NETWORKS.map(one).join(", ")
}

/// The network that a command is for where none is named: the first of the table.
pub const DEFAULT: &str = NETWORKS[0].name;

/// The network by which the Fréchet Inception Distance is computed.
pub const FID: &str = inception_v3_fid::NETWORK.name;

/// What an array of preprocessed images is, for texts of the command line.
pub fn input_arrays() -> String {
    let one = |network: &Network| {
        let ModelInfo { input: [h, w, c], pixel_range: [black, white], .. } = network.info;
        format!("[N, {h}, {w}, {c}] (or --size) float32 in [{black}, {white}]")
    };
    let mut texts: Vec<String> = NETWORKS.map(one).to_vec();
    texts.dedup();
    texts.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_the_networks_and_blocks_of_the_table() {
        assert_eq!(
            networks_and_blocks(),
            "inception_v3, one block of it (stem, mixed0 .. mixed10), inception_v3_fid, its block mixed10_max"
        );
        assert_eq!(
            (DEFAULT, &input_arrays()[..]),
            ("inception_v3", "[N, 299, 299, 3] (or --size) float32 in [-1, 1]")
        );
        let error = Model::by_name("inceptionv3", None, None).expect_err("no such name").to_string();
        assert_eq!(error, "model `inceptionv3` is unknown, expected inception_v3, which is the nearest");
        let error = Model::by_name("resnet", None, None).expect_err("no such model").to_string();
        let expected = "model `resnet` is unknown, expected inception_v3, inception_v3_fid, conv2d_bn or a block: stem mixed0";
        assert!(error.starts_with(expected) && error.ends_with("mixed9 mixed10 mixed10_max"), "{error}");
    }

    #[test]
    fn a_network_takes_images_from_the_least_side_on() {
        for network in NETWORKS {
            let (model, least) = (network.model(), network.info.least_side);
            assert_eq!(model.shape, None);
            let small = model.with_input([least, least + 1, 5]).expect("the least side");
            assert_eq!((small.input(), small.has_top()), ([least, least + 1, 5], true));
            assert!(small.nodes.iter().all(|node| node.shape.iter().all(|extent| *extent > 0)));
            assert_eq!(
                small.shape.as_ref().map(ToString::to_string),
                Some(format!("{least}x{}x5", least + 1))
            );
            let classes = network.info.top.map(|top| top.classes);
            assert_eq!(Model::by_name(network.name, small.shape.as_ref(), classes), Ok(small));
            for input in [[least - 1, 299, 3], [299, MAX_SIDE + 1, 3], [299, 299, 0], [299, 299, 17]] {
                let message = model.with_input(input).expect_err("out of bounds").to_string();
                assert!(message.contains("expected sides from"), "{message}");
            }
        }
        let message = Model::block("mixed0").expect("a block").with_input([99, 99, 3]).expect_err("a block");
        assert!(message.to_string().starts_with("model `mixed0`: has an input of its own"), "{message}");
    }

    #[test]
    fn every_name_of_the_table_is_a_model_and_blocks_of_one_name_are_the_same() {
        for network in NETWORKS {
            assert_eq!(Model::by_name(network.name, None, None).expect("a model").name, network.name);
            let names = network.info.top.map(|top| (top.class_names.lines().count(), top.classes));
            assert!(names.is_none_or(|(names, classes)| names == 0 || names == classes), "{names:?}");
            for block in network.blocks {
                let nodes = network.block(block.name).map(|model| model.nodes);
                assert_eq!(Model::block(block.name).map(|model| model.nodes), nodes, "{}", block.name);
            }
        }
    }

    #[test]
    fn a_network_is_cut_behind_the_layer_that_has_the_features() {
        for network in NETWORKS {
            let whole = network.model();
            for (dims, last) in [
                (64, "stem.maxpool1"),
                (192, "stem.maxpool2"),
                (768, "mixed7.concat"),
                (2048, &whole.nodes[whole.features.expect("features") - 1].name[..]),
            ] {
                let cut = whole.clone().with_dims(dims).expect("a tap");
                let [.., before, mean] = &cut.nodes[..] else { panic!("nodes") };
                assert_eq!(
                    (&before.name[..], &mean.op, mean.shape),
                    (last, &Op::GlobalAverage, [1, 1, dims])
                );
                assert_eq!((cut.features, cut.output), (Some(cut.nodes.len() - 1), cut.nodes.len() - 1));
                assert_eq!((cut.is_cut(), cut.has_top()), (dims != 2048, false));
                assert_eq!(cut.clone().with_classes(Some(9)).has_top(), dims == 2048);
            }
            let error = whole.with_dims(100).expect_err("no such layer").to_string();
            assert!(error.ends_with("found 100 features, expected 64, 192, 768, 2048"), "{error}");
        }
        let error = Model::block("mixed0").expect("a block").with_dims(64).expect_err("a block").to_string();
        assert_eq!(error, "model `mixed0`: found 64 features, expected none: it has no features");
    }
}
