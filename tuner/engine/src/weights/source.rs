//! Weights of a network: made up, or read from a file.
//!
//! [`Weights::open`] reads headers only and checks every tensor the network needs; values are read
//! layer by layer, by [`Weights::conv`] and [`Weights::dense`], so that no second copy of the
//! network is ever held. A file is recognised by its content, not by its name:
//!
//! | content | usual names | kernels | average pooling |
//! |---|---|---|---|
//! | HDF5 | Keras: `.h5` and `.weights.h5` | HWIO | Keras |
//! | safetensors | torchvision, timm | OIHW | torchvision |

use std::fs::File;
use std::io::Read;
use std::path::Path;

use kernels::filter::Filter;

use crate::network::model::{Model, ModelInfo};
use crate::network::spec::{ConvSpec, InputSpec, Spec};
use crate::util::files::one_line;
use crate::weights::checked::CheckedFile;
use crate::weights::error::{WeightsError, file_name};
use crate::weights::naming::AveragePooling;
use crate::weights::store::Store;
use crate::weights::synthetic::Synthetic;
use crate::weights::tensor_file::{MAGIC, TensorFile};
use crate::weights::{CONTAINERS, NAMING_SCHEMES, activation_means};

/// Checked weights, read when asked for.
#[derive(Debug)]
pub struct Weights {
    store: Box<dyn Store>,
    description: String,
    features: usize,
    classes: Option<usize>,
}

impl Weights {
    /// Opens a file and checks presence, shape and type of all that a model needs: kernel and
    /// BatchNorm of every convolution, and the dense layer if the file has any tensor of it.
    /// Values are not read.
    ///
    /// # Errors
    /// The first thing that is wrong, see [`WeightsError`].
    pub fn open(path: impl AsRef<Path>, model: &Model) -> Result<Self, WeightsError> {
        Self::open_for(path.as_ref(), &Spec::new(model))
    }

    /// Weights that are made up, see [`crate::weights::synthetic`]. Different seeds give different weights.
    pub fn synthetic(model: &Model, seed: u64) -> Self {
        Self::synthetic_for(&Spec::new(model), seed)
    }

    pub(super) fn open_for(path: &Path, spec: &Spec) -> Result<Self, WeightsError> {
        let store = open_file(path, &spec.info)?;
        let classes = store.check(spec)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        Ok(Self { store: Box::new(store), description: one_line(&name), features: spec.features, classes })
    }

    pub(super) fn synthetic_for(spec: &Spec, seed: u64) -> Self {
        let store = Synthetic { seed, info: spec.info };
        let (features, classes) = (spec.features, store.classes().filter(|_| spec.features > 0));
        Self { store: Box::new(store), description: format!("synthetic (seed {seed})"), features, classes }
    }

    /// Outputs of the dense layer; `None` if the weights have no such layer or the model has no features.
    pub fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// The pooling the weights were trained with.
    pub fn average_pooling(&self) -> AveragePooling {
        self.store.average_pooling()
    }

    /// `synthetic (seed 1)`, or the file's name without its folder.
    pub fn description(&self) -> String {
        self.description.clone()
    }

    /// Kernel, bias if there is one, and BatchNorm of one convolution. Reads no other layer.
    ///
    /// # Errors
    /// If a value is not finite or a variance is negative, or the file has changed since it was
    /// opened.
    pub fn conv(&self, spec: &ConvSpec) -> Result<Filter, WeightsError> {
        self.store.conv(spec)
    }

    /// What each input channel of a convolution is on average, as far as BatchNorms tell (`activation_means.rs`), for
    /// [`Filter::expected`]. Reads the BatchNorms of the layers before it.
    ///
    /// # Errors
    /// As [`Weights::conv`].
    pub fn expected_inputs(&self, spec: &ConvSpec) -> Result<Option<Vec<f32>>, WeightsError> {
        if spec.inputs.is_empty() {
            return Ok(None);
        }
        let mut inputs = Vec::with_capacity(spec.channels);
        for InputSpec { conv, channels, maxima } in &spec.inputs {
            let Some(conv) = conv else {
                inputs.extend(std::iter::repeat_n(1.0, *channels));
                continue;
            };
            let norm = self.store.norm(conv)?;
            inputs
                .extend((0..*channels).map(|channel| activation_means::after_relu(&norm, channel, *maxima)));
        }
        Ok(Some(inputs))
    }

    /// The dense layer as a 1x1 convolution `[1, 1, features, classes]` with a bias, where
    /// [`Weights::classes`] is not `None`.
    ///
    /// # Errors
    /// As [`Weights::conv`].
    pub fn dense(&self) -> Result<Option<Filter>, WeightsError> {
        match self.classes {
            Some(_) => self.store.dense(self.features),
            None => Ok(None),
        }
    }
}

/// Opens a file by its container, and reads its names by their scheme.
fn open_file(path: &Path, info: &ModelInfo) -> Result<CheckedFile, WeightsError> {
    let read = |source| WeightsError::Read { file: file_name(path), source };
    let file = File::open(path).map_err(read)?;
    let mut magic = Vec::new();
    (&file).take(MAGIC).read_to_end(&mut magic).map_err(read)?;
    let known = CONTAINERS.iter().find(|(container, _)| (container.recognises)(&magic));
    let (container, usual_naming) = known.ok_or_else(|| WeightsError::Unknown {
        file: file_name(path),
        found: content(&magic),
        expected: CONTAINERS.map(|(container, _)| container.title).join(" or "),
    })?;
    let file: Box<dyn TensorFile> = (container.open)(path, file)?;
    let list = file.list();
    let naming = NAMING_SCHEMES.into_iter().find(|naming| (naming.recognises)(&list));
    let names = (naming.unwrap_or(usual_naming).read)(&*file, &list, info)?;
    Ok(CheckedFile::new(file, names, info))
}

/// What the first bytes of an unknown file say.
fn content(magic: &[u8]) -> String {
    match magic {
        [] => "an empty file".to_owned(),
        [b'P', b'K', ..] => "a zip archive, as .keras and .pth files are".to_owned(),
        bytes => format!("a file that starts with {bytes:02x?}"),
    }
}
