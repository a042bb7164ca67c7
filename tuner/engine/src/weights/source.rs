//! Weights of a network: made up, or read from a file.
//!
//! [`Weights::open`] reads headers only and checks every tensor the network needs; values are read
//! layer by layer, by [`Weights::conv`] and [`Weights::dense`], so that no second copy of the
//! network is ever held. A file is recognised by its content, not by its name: HDF5 and `.keras` of
//! Keras, safetensors, `.pt` of PyTorch.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use kernels::Filter;

use crate::network::{AveragePooling, ConvSpec, Head, InputSpec, Model, Spec};
use crate::util::files::one_line;
use crate::util::read_at::Section;
use crate::weights::activation_means::after_relu;
use crate::weights::checked::CheckedFile;
use crate::weights::error::WeightsError;
use crate::weights::head::HeadOptions;
use crate::weights::synthetic::Synthetic;

/// Checked weights, read when asked for.
#[derive(Debug)]
pub struct Weights {
    store: Store,
    description: String,
    features: usize,
    head: Option<Head>,
    /// What tells them from others, once it is known.
    pub(crate) fingerprint: OnceLock<String>,
}

#[derive(Debug)]
enum Store {
    File(CheckedFile),
    Synthetic(Synthetic),
}

impl Weights {
    /// Opens a file and checks presence, shape and type of all that a model needs: kernel and
    /// BatchNorm of every convolution, and the layers of the head. Values are not read.
    ///
    /// # Errors
    /// The first thing that is wrong, see [`WeightsError`].
    pub fn open(path: impl AsRef<Path>, model: &Model) -> Result<Self, WeightsError> {
        Self::open_with(path, model, &HeadOptions::default())
    }

    /// As [`Self::open`], of the head what is wanted.
    pub fn open_with(
        path: impl AsRef<Path>,
        model: &Model,
        options: &HeadOptions,
    ) -> Result<Self, WeightsError> {
        Self::open_for(path.as_ref(), &Spec::new(model), options)
    }

    /// Weights that are made up from a seed, see [`crate::weights::synthetic`].
    pub fn synthetic(model: &Model, seed: u64) -> Self {
        Self::synthetic_for(&Spec::new(model), seed)
    }

    pub(super) fn open_for(path: &Path, spec: &Spec, options: &HeadOptions) -> Result<Self, WeightsError> {
        let file = CheckedFile::open(path, spec, options)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let (head, description) = (file.head.head(), one_line(&name));
        let fingerprint = OnceLock::new();
        Ok(Self { store: Store::File(file), description, features: spec.features, head, fingerprint })
    }

    pub(super) fn synthetic_for(spec: &Spec, seed: u64) -> Self {
        let top = spec.info.top.filter(|_| spec.features > 0);
        let store = Store::Synthetic(Synthetic { seed, info: spec.info });
        let (description, head) =
            (format!("synthetic (seed {seed})"), top.map(|top| Head::softmax(top.classes)));
        let fingerprint = OnceLock::from(description.clone());
        Self { store, description, features: spec.features, head, fingerprint }
    }

    /// The layers behind the features; `None` without such layers or without features.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// The files that the weights are read from; none of those that are made up.
    pub(crate) fn sections(&self) -> &[Section] {
        match &self.store {
            Store::File(file) => &file.sections,
            Store::Synthetic(_) => &[],
        }
    }

    /// Channels of an image of the network.
    pub fn channels(&self) -> usize {
        match &self.store {
            Store::File(file) => file.channels,
            Store::Synthetic(made_up) => made_up.info.input[2],
        }
    }

    /// Height and width of an image, where a file states what the network was trained on.
    pub fn image_size(&self) -> Option<[usize; 2]> {
        let Store::File(file) = &self.store else { return None };
        file.size
    }

    /// A model with the head of these weights, and a whole network with as many channels of an
    /// image.
    pub fn fit(&self, model: &Model) -> Model {
        let [h, w, c] = model.input();
        let with_channels = match model.features {
            Some(_) if c != self.channels() => model.with_input([h, w, self.channels()]).ok(),
            _ => None,
        };
        with_channels.unwrap_or_else(|| model.clone()).with_head(self.head())
    }

    /// The files that an index of weights names.
    pub fn files(&self) -> &[PathBuf] {
        match &self.store {
            Store::File(file) => &file.files,
            Store::Synthetic(_) => &[],
        }
    }

    /// Outputs of the head's last layer.
    pub fn classes(&self) -> Option<usize> {
        self.head.as_ref().and_then(Head::classes)
    }

    /// What was assumed of the head, where the file does not state its activations: its layers.
    pub fn assumed_head(&self) -> Option<String> {
        let Store::File(file) = &self.store else { return None };
        file.head.is_assumed.then(|| file.head.describe())
    }

    /// What to know of a file, a line each: of a variant of the network that its number of classes
    /// points to, of names that were passed over, and last what was assumed of its head.
    pub fn notes(&self) -> Vec<String> {
        let Store::File(file) = &self.store else { return Vec::new() };
        let name = &self.description;
        let notes = [
            file.variant.map(|variant| format!("{name}: by their number of classes, {variant}")),
            file.note.as_ref().map(|note| format!("{name}: {note}")),
            self.assumed_head().map(|head| {
                format!("{name} does not state the activations of its classifier; assumed: {head}")
            }),
        ];
        notes.into_iter().flatten().collect()
    }

    /// Whether they are made up.
    pub fn is_synthetic(&self) -> bool {
        matches!(self.store, Store::Synthetic(_))
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

    /// Kernel, bias if there is one, and BatchNorms of one convolution. Reads no other layer.
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
                (Some(conv), Store::Synthetic(made_up)) => Some(made_up.norm(conv, 0)),
            };
            let mean = |channel| norm.as_ref().map_or(1.0, |norm| after_relu(norm, channel, *maxima));
            inputs.extend((0..*channels).map(mean));
        }
        Ok(Some(inputs))
    }

    /// A dense layer of the head, by its number, as a 1x1 convolution `[1, 1, in, out]` with a
    /// bias.
    ///
    /// # Errors
    /// As [`Self::conv`].
    ///
    /// # Panics
    /// If [`Self::head`] has no such layer.
    pub fn dense(&self, layer: usize) -> Result<Filter, WeightsError> {
        match &self.store {
            Store::File(file) => file.dense(layer),
            Store::Synthetic(made_up) => Ok(made_up.dense(self.features, self.classes().unwrap_or(0))),
        }
    }
}
