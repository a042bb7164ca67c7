//! What a network needs of weights: its convolutions, and what their inputs are.

/// Epsilon of every BatchNorm of InceptionV3, in Keras as in torchvision; no file states it.
pub const EPSILON: f32 = 1e-3;

/// The convolution whose weights are wanted, followed by one BatchNorm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvSpec {
    /// Place in Keras's order of creation, from 0. Keras files are read by it.
    pub index: usize,
    /// Name in this crate, such as `mixed0.branch1x1`.
    pub name: String,
    /// Name in torchvision, such as `Mixed_5b.branch1x1`. Safetensors files are read by it.
    pub torch: String,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Input channels.
    pub channels: usize,
    /// Output channels.
    pub filters: usize,
    /// What its input channels are, in order; nothing where that is not known.
    pub inputs: Vec<InputSpec>,
}

/// Input channels that follow each other and come from one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// The convolution whose outputs they are, after ReLU and pools; none for channels of an image.
    pub conv: Option<ConvSpec>,
    /// How many they are.
    pub channels: usize,
    /// Maximum pools between.
    pub maxima: usize,
}

/// What a network, or a part of one, needs of a file; the file may hold more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Every convolution.
    pub convs: Vec<ConvSpec>,
    /// Inputs of the dense layer; 0 if there is none, and then the file's is not looked at.
    pub features: usize,
}
