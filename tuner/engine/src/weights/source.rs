//! Weights of a network: made up, or read from a file.
//!
//! [`Weights::open`] reads headers only and checks every tensor the network needs; values are read
//! layer by layer, by [`Weights::conv`] and [`Weights::dense`], so that no second copy of the
//! network is ever held. A file is recognised by its content, not by its name: HDF5 of Keras, or
//! safetensors of torchvision or timm.

use std::path::Path;

use kernels::Filter;

use crate::network::{ConvSpec, InputSpec, Model, Spec};
use crate::util::files::one_line;
use crate::weights::activation_means::after_relu;
use crate::weights::checked::CheckedFile;
use crate::weights::error::WeightsError;
use crate::weights::naming::AveragePooling;
use crate::weights::synthetic::Synthetic;

/// Checked weights, read when asked for.
#[derive(Debug)]
pub struct Weights {
    store: Store,
    description: String,
    features: usize,
    classes: Option<usize>,
}

#[derive(Debug)]
enum Store {
    File(CheckedFile),
    Synthetic(Synthetic),
}

impl Weights {
    /// Opens a file and checks presence, shape and type of all that a model needs: kernel and
    /// BatchNorm of every convolution, and the dense layer if the file has any tensor of it. Values
    /// are not read.
    ///
    /// # Errors
    /// The first thing that is wrong, see [`WeightsError`].
    pub fn open(path: impl AsRef<Path>, model: &Model) -> Result<Self, WeightsError> {
        Self::open_for(path.as_ref(), &Spec::new(model))
    }

    /// Weights that are made up from a seed, see [`crate::weights::synthetic`].
    pub fn synthetic(model: &Model, seed: u64) -> Self {
        Self::synthetic_for(&Spec::new(model), seed)
    }

    pub(super) fn open_for(path: &Path, spec: &Spec) -> Result<Self, WeightsError> {
        let file = CheckedFile::open(path, &spec.info)?;
        let classes = file.check(spec)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let (store, description) = (Store::File(file), one_line(&name));
        Ok(Self { store, description, features: spec.features, classes })
    }

    pub(super) fn synthetic_for(spec: &Spec, seed: u64) -> Self {
        let classes = spec.info.top.map(|top| top.classes).filter(|_| spec.features > 0);
        let store = Store::Synthetic(Synthetic { seed, info: spec.info });
        Self { store, description: format!("synthetic (seed {seed})"), features: spec.features, classes }
    }

    /// Outputs of the dense layer; `None` without such a layer or without features.
    pub fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// The pooling the weights were trained with.
    pub fn average_pooling(&self) -> AveragePooling {
        match &self.store {
            Store::File(file) => file.naming.average_pooling,
            Store::Synthetic(_) => AveragePooling::Keras,
        }
    }

    /// `synthetic (seed 1)`, or the file's name without its folder.
    pub fn description(&self) -> String {
        self.description.clone()
    }

    /// Kernel, bias if there is one, and BatchNorm of one convolution. Reads no other layer.
    ///
    /// # Errors
    /// If a value is not finite, a variance is negative, or the file has changed meanwhile.
    pub fn conv(&self, spec: &ConvSpec) -> Result<Filter, WeightsError> {
        match &self.store {
            Store::File(file) => file.conv(spec),
            Store::Synthetic(made_up) => Ok(made_up.conv(spec)),
        }
    }

    /// What each input channel of a convolution is on average, as far as BatchNorms tell
    /// (`activation_means.rs`), for [`Filter::expected`]. Reads the BatchNorms of earlier layers.
    pub fn expected_inputs(&self, spec: &ConvSpec) -> Result<Option<Vec<f32>>, WeightsError> {
        if spec.inputs.is_empty() {
            return Ok(None);
        }
        let mut inputs = Vec::with_capacity(spec.channels);
        for InputSpec { conv, channels, maxima } in &spec.inputs {
            let norm = match (conv, &self.store) {
                (None, _) => None,
                (Some(conv), Store::File(file)) => Some(file.norm(conv)?),
                (Some(conv), Store::Synthetic(made_up)) => Some(made_up.norm(conv)),
            };
            let mean = |channel| norm.as_ref().map_or(1.0, |norm| after_relu(norm, channel, *maxima));
            inputs.extend((0..*channels).map(mean));
        }
        Ok(Some(inputs))
    }

    /// The dense layer as a 1x1 convolution `[1, 1, features, classes]` with a bias, where
    /// [`Weights::classes`] is not `None`.
    pub fn dense(&self) -> Result<Option<Filter>, WeightsError> {
        let Some(classes) = self.classes else { return Ok(None) };
        match &self.store {
            Store::File(file) => file.dense(self.features),
            Store::Synthetic(made_up) => Ok(Some(made_up.dense(self.features, classes))),
        }
    }
}
