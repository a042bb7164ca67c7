//! The tensors of layers, by what files call them or by what they are.

#[derive(Clone, Debug)]
pub(super) struct Name {
    /// As messages show it.
    pub shown: String,
    /// As the file has it; none where it has no such tensor.
    pub in_file: Option<String>,
}

impl Name {
    /// A name that is shown as it is in the file.
    pub fn plain(name: String) -> Self {
        Self { in_file: Some(name.clone()), shown: name }
    }
}

/// The tensors of a convolution and of the BatchNorms that follow it.
pub(super) struct ConvTensors<T> {
    pub kernel: T,
    pub bias: Option<T>,
    pub norms: Vec<NormTensors<T>>,
}

/// The tensors of a BatchNorm. In a head, what is not there is 1 or 0.
#[derive(Clone, Debug)]
pub(super) struct NormTensors<T> {
    /// `None` where the scheme or the layer has no scale.
    pub gamma: Option<T>,
    pub beta: Option<T>,
    pub mean: T,
    pub variance: T,
    /// What is added to the variance; `None` for the network's own.
    pub epsilon: Option<f32>,
}
