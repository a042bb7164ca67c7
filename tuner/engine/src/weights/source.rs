//! Weights of the network: made up, or read from a Keras or torchvision file.
//!
//! [`Weights::open`] reads headers only and checks every tensor the network needs; values are read
//! layer by layer, by [`Weights::conv`] and [`Weights::dense`], so that no second copy of the
//! network is ever held. A file is recognised by its content, not by its name:
//!
//! | content | layout | kernels | average pooling |
//! |---|---|---|---|
//! | HDF5 | Keras: `.h5` and `.weights.h5` | HWIO | Keras |
//! | safetensors | torchvision, timm | OIHW | torchvision |

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use kernels::filter::Filter;

use crate::network::spec::{ConvSpec, InputSpec, Spec};
use crate::weights::error::WeightsError;
use crate::weights::{checkpoint, error, expected, keras, safetensors, synthetic};

/// What a 3x3 average pool divides by at the border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AveragePooling {
    /// The inputs under the window: the border is excluded.
    Keras,
    /// 9: the border is counted as zeros.
    Torchvision,
}

/// Where weights come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Made up, see [`synthetic`].
    Synthetic {
        /// Different seeds give different weights.
        seed: u64,
    },
    /// A Keras `.h5` or `.weights.h5`, or a torchvision `.safetensors`.
    File(PathBuf),
}

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
    Synthetic { seed: u64 },
    Keras(keras::Keras),
    Torch(safetensors::Torch),
}

impl Weights {
    /// Opens `source` and checks presence, shape and type of all that `spec` needs: kernel and
    /// BatchNorm of every convolution, and the dense layer if the file has any tensor of it.
    /// Values are not read.
    ///
    /// # Errors
    /// The first thing that is wrong, see [`WeightsError`].
    pub fn open(source: &Source, spec: &Spec) -> Result<Self, WeightsError> {
        let features = spec.features;
        let (store, description) = match source {
            Source::Synthetic { seed } => {
                (Store::Synthetic { seed: *seed }, format!("synthetic (seed {seed})"))
            }
            Source::File(path) => {
                let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
                (open_file(path)?, crate::util::files::one_line(&name))
            }
        };
        let classes = match &store {
            Store::Synthetic { .. } => (features > 0).then_some(synthetic::CLASSES),
            Store::Keras(file) => checkpoint::check(file, spec)?,
            Store::Torch(file) => checkpoint::check(file, spec)?,
        };
        Ok(Self { store, description, features, classes })
    }

    /// Outputs of the dense layer; `None` if the file has no such layer or the spec asks for none.
    pub fn classes(&self) -> Option<usize> {
        self.classes
    }

    /// The pooling the weights were trained with.
    pub fn average_pooling(&self) -> AveragePooling {
        match self.store {
            Store::Synthetic { .. } | Store::Keras(_) => AveragePooling::Keras,
            Store::Torch(_) => AveragePooling::Torchvision,
        }
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
        match &self.store {
            Store::Synthetic { seed } => Ok(synthetic::conv(*seed, spec)),
            Store::Keras(file) => checkpoint::conv(file, spec),
            Store::Torch(file) => checkpoint::conv(file, spec),
        }
    }

    /// What each input channel of a convolution is on average, as far as BatchNorms tell (`expected.rs`), for
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
            let norm = match &self.store {
                Store::Synthetic { seed } => synthetic::norm(*seed, conv),
                Store::Keras(file) => checkpoint::norm(file, conv)?,
                Store::Torch(file) => checkpoint::norm(file, conv)?,
            };
            inputs.extend((0..*channels).map(|channel| expected::after_relu(&norm, channel, *maxima)));
        }
        Ok(Some(inputs))
    }

    /// The dense layer as a 1x1 convolution `[1, 1, features, classes]` with a bias, where
    /// [`Weights::classes`] is not `None`.
    ///
    /// # Errors
    /// As [`Weights::conv`].
    pub fn dense(&self) -> Result<Option<Filter>, WeightsError> {
        if self.classes.is_none() {
            return Ok(None);
        }
        match &self.store {
            Store::Synthetic { seed } => Ok(Some(synthetic::dense(*seed, self.features))),
            Store::Keras(file) => checkpoint::dense(file, self.features),
            Store::Torch(file) => checkpoint::dense(file, self.features),
        }
    }
}

fn open_file(path: &Path) -> Result<Store, WeightsError> {
    let read = |source| WeightsError::Read { file: error::file_name(path), source };
    let file = File::open(path).map_err(read)?;
    let mut magic = Vec::new();
    (&file).take(9).read_to_end(&mut magic).map_err(read)?;
    match &magic[..] {
        [b'\x89', b'H', b'D', b'F', ..] => Ok(Store::Keras(keras::Keras::open(path, file)?)),
        [.., b'{'] if magic.len() == 9 => Ok(Store::Torch(safetensors::Torch::open(path, file)?)),
        other => {
            let found = match other {
                [] => "an empty file".to_owned(),
                [b'P', b'K', ..] => "a zip archive, as .keras and .pth files are".to_owned(),
                bytes => format!("a file that starts with {bytes:02x?}"),
            };
            Err(WeightsError::Unknown { file: error::file_name(path), found })
        }
    }
}
