//! Keras HDF5 files, found by the names of layers.
//!
//! - Keras 3's `.weights.h5` has `.../<group>/vars/<n>`. Groups are numbered in the order of
//!   `model.layers`, which is not that of creation; the layer's own name is the attribute `name` of
//!   its `vars`. Files without it cannot be put in order and are refused.
//! - Legacy `.h5`, with weights alone or, under `model_weights`, a whole saved model, has
//!   `<layer>/.../<variable>`, where the variable may end in `:0`.
//!
//! Keras numbers its layers `conv2d`, `conv2d_1`, ... as it creates them, going on from the models
//! that the process made before. So the lowest number in the file is the first layer, and a
//! missing number is a missing layer. Convolutions and BatchNorms are numbered apart.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use hdf5_pure::{DType, Dataset, Error, Group, Layout, Source, make_f32_type};

use crate::network::spec::ConvSpec;
use crate::weights::checkpoint::{Axes, Checkpoint, ConvTensors, DenseTensors, Required, Tensor};
use crate::weights::error::{WeightsError, file_name};
use crate::weights::pieces::Pieces;
use crate::weights::values;

const FORMAT: &str = "HDF5";

/// The dense layer of Keras's InceptionV3.
const DENSE: &str = "predictions";

/// More than any nesting of models, and an end to links that form a ring.
const MAX_DEPTH: usize = 12;

/// More than any network's, and an end to links that form a ring.
const MAX_GROUPS: usize = 20_000;

/// The variables of a layer by name, or by number in Keras 3's `vars`.
type Layer = BTreeMap<String, Dataset>;

/// An open file; tensors are read from it one by one.
#[derive(Debug)]
pub(super) struct Keras {
    name: String,
    /// For values that need no decoding, and its bytes.
    file: File,
    len: u64,
    convs: BTreeMap<u64, Layer>,
    norms: BTreeMap<u64, Layer>,
    others: BTreeMap<String, Layer>,
}

impl Keras {
    /// Reads the tree of groups and the header of every dataset.
    pub fn open(path: &Path, file: File) -> Result<Self, WeightsError> {
        let pieces =
            Pieces::of(&file).map_err(|source| WeightsError::Read { file: file_name(path), source })?;
        let mut keras = Self {
            name: file_name(path),
            len: pieces.len(),
            file,
            convs: BTreeMap::new(),
            norms: BTreeMap::new(),
            others: BTreeMap::new(),
        };
        let tree = hdf5_pure::File::from_source(pieces).map_err(|error| keras.damaged(error))?;
        let root = tree.root();
        let model = root.group("model_weights").unwrap_or(root);
        keras.walk(&model, &mut Vec::new(), &mut { MAX_GROUPS })?;
        if keras.convs.is_empty() {
            let (found, expected) = ("no layer conv2d", "the layers of Keras's InceptionV3");
            return Err(keras.layers(found.to_owned(), expected));
        }
        Ok(keras)
    }

    fn walk(
        &mut self,
        group: &Group,
        path: &mut Vec<String>,
        groups_left: &mut usize,
    ) -> Result<(), WeightsError> {
        if path.len() > MAX_DEPTH || *groups_left == 0 {
            return Err(self.damaged("groups in groups without end"));
        }
        *groups_left -= 1;
        let mut layer = None;
        for (variable, dataset) in group.iter_datasets().map_err(|error| self.damaged(error))? {
            let layer = match &layer {
                Some(name) => name,
                None => layer.insert(self.layer_name(group, path)?),
            };
            self.add(layer, variable.trim_end_matches(":0"), dataset)?;
        }
        for (name, child) in group.iter_groups().map_err(|error| self.damaged(error))? {
            if path.is_empty() && name == "optimizer" {
                continue;
            }
            path.push(name);
            self.walk(&child, path, groups_left)?;
            path.pop();
        }
        Ok(())
    }

    /// The layer whose variables are in the group at `path`.
    fn layer_name(&self, group: &Group, path: &[String]) -> Result<String, WeightsError> {
        if path.last().is_some_and(|last| last == "vars") {
            let attributes = group.attrs().map_err(|error| self.damaged(error))?;
            return match attributes.get("name").and_then(|name| name.as_str()) {
                Some(name) => Ok(name.to_owned()),
                None => Err(self.layers(
                    format!(
                        "group {} without the layer's name",
                        crate::util::files::one_line(&path.join("/"))
                    ),
                    "its attribute `name`, as current versions of Keras write",
                )),
            };
        }
        let known = |name: &&String| kind(name) != Kind::Other || *name == DENSE;
        Ok(path.iter().find(known).or(path.last()).cloned().unwrap_or_default())
    }

    fn add(&mut self, layer: &str, variable: &str, dataset: Dataset) -> Result<(), WeightsError> {
        let variables = match kind(layer) {
            Kind::Conv(number) => self.convs.entry(number).or_default(),
            Kind::Norm(number) => self.norms.entry(number).or_default(),
            Kind::Other => self.others.entry(layer.to_owned()).or_default(),
        };
        match variables.insert(variable.to_owned(), dataset) {
            Some(_) if kind(layer) != Kind::Other => {
                let found = crate::util::files::one_line(&format!("two tensors {layer}/{variable}"));
                Err(self.layers(found, "one"))
            }
            _ => Ok(()),
        }
    }

    /// The variable called `name`, or its place in `vars`.
    fn find(&self, title: &str, layer: Option<&Layer>, name: &str, place: &str) -> Required<Dataset> {
        let find = |name| Some((name, layer?.get(name)?));
        let (variable, dataset) =
            find(name).or_else(|| find(place)).ok_or_else(|| format!("{title}/{name}"))?;
        Ok(self.tensor(format!("{title}/{variable}"), dataset))
    }

    /// A header that cannot be read shows as the tensor's type.
    fn tensor(&self, name: String, dataset: &Dataset) -> Tensor<Dataset> {
        let (shape, other_type) = match (dataset.shape(), dataset.dtype()) {
            (Ok(shape), Ok(DType::F32)) => (shape, None),
            (Ok(shape), Ok(other)) => (shape, Some(crate::util::files::one_line(&other.to_string()))),
            (Err(error), _) | (_, Err(error)) => {
                (Vec::new(), Some(crate::util::files::one_line(&format!("unknown ({error})"))))
            }
        };
        let shape = shape.into_iter().map(|size| usize::try_from(size).unwrap_or(usize::MAX)).collect();
        Tensor { name, shape, other_type, handle: dataset.clone() }
    }

    fn damaged(&self, error: impl std::fmt::Display) -> WeightsError {
        WeightsError::damaged(&self.name, FORMAT, error)
    }

    fn layers(&self, found: String, expected: &str) -> WeightsError {
        WeightsError::Layers { file: self.name.clone(), found, expected: expected.to_owned() }
    }
}

impl Checkpoint for Keras {
    type Handle = Dataset;
    const AXES: Axes = Axes::Keras;

    fn file(&self) -> &str {
        &self.name
    }

    fn conv_tensors(&self, spec: &ConvSpec) -> Result<ConvTensors<Dataset>, WeightsError> {
        let number = |layers: &BTreeMap<u64, Layer>| {
            layers.keys().next().unwrap_or(&0).saturating_add(spec.index as u64)
        };
        let (conv, norm) = (number(&self.convs), number(&self.norms));
        let (conv_title, norm_title) = (numbered("conv2d", conv), numbered("batch_normalization", norm));
        let (conv, norm) = (self.convs.get(&conv), self.norms.get(&norm));
        let has_gamma = norm.is_some_and(|layer| layer.contains_key("gamma") || layer.contains_key("3"));
        let [beta, mean, variance] = if has_gamma { ["1", "2", "3"] } else { ["0", "1", "2"] };
        Ok(ConvTensors {
            kernel: self.find(&conv_title, conv, "kernel", "0"),
            bias: self.find(&conv_title, conv, "bias", "1").ok(),
            gamma: has_gamma.then(|| self.find(&norm_title, norm, "gamma", "0")),
            beta: self.find(&norm_title, norm, "beta", beta),
            mean: self.find(&norm_title, norm, "moving_mean", mean),
            variance: self.find(&norm_title, norm, "moving_variance", variance),
        })
    }

    /// [`DENSE`], or else the only one whose kernel is a matrix.
    fn dense_tensors(&self) -> Result<Option<DenseTensors<Dataset>>, WeightsError> {
        let of = |name: &str, layer: &Layer| DenseTensors {
            kernel: self.find(name, Some(layer), "kernel", "0"),
            bias: self.find(name, Some(layer), "bias", "1"),
        };
        if let Some(layer) = self.others.get(DENSE) {
            return Ok(Some(of(DENSE, layer)));
        }
        let is_dense = |tensors: &DenseTensors<_>| tensors.kernel.as_ref().is_ok_and(|k| k.shape.len() == 2);
        let named = self.others.iter().map(|(name, layer)| (name, of(name, layer)));
        let mut dense: Vec<_> = named.filter(|(_, tensors)| is_dense(tensors)).collect();
        if dense.len() > 1 {
            let names: Vec<_> = dense.iter().map(|(name, _)| crate::util::files::one_line(name)).collect();
            return Err(self.layers(format!("dense layers {}", names.join(", ")), "at most one"));
        }
        Ok(dense.pop().map(|(_, tensors)| tensors))
    }

    fn read(&self, tensor: &Tensor<Dataset>) -> Result<Vec<f32>, WeightsError> {
        let damaged = |reason: String| self.damaged(format!("tensor {}: {reason}", tensor.name));
        let expected = tensor.shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
        let expected = expected.ok_or_else(|| damaged(format!("found shape {:?}", tensor.shape)))?;
        let values = match plain_values(&tensor.handle, expected, self.len) {
            Some(at) => values::read(&self.file, at, expected).map_err(Error::Io),
            None => tensor.handle.read_f32(),
        };
        let values = values.map_err(|error| match error {
            Error::Io(source) => WeightsError::Read { file: self.name.clone(), source },
            error => damaged(error.to_string()),
        })?;
        if values.len() != expected {
            let found = values.len();
            return Err(damaged(format!("found {found} values, expected {expected}")));
        }
        Ok(values)
    }
}

/// Where the values of a dataset start, if they lie in a file of `len` bytes in one piece as memory has them: that is so
/// in what Keras writes, and reading them takes half the time then.
fn plain_values(dataset: &Dataset, count: usize, len: u64) -> Option<u64> {
    let bytes = (count as u64).checked_mul(size_of::<f32>() as u64)?;
    let Layout::Contiguous { address: Some(address), size } = dataset.layout().ok()? else { return None };
    let is_inside = address.checked_add(bytes)? <= len;
    (is_inside && size == bytes && dataset.datatype().ok()? == make_f32_type()).then_some(address)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Conv(u64),
    Norm(u64),
    Other,
}

/// What a layer is by the name that Keras gives it, and its number.
fn kind(layer: &str) -> Kind {
    let (base, number) = match layer.rsplit_once('_') {
        Some((base, digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
            Ok(number) => (base, number),
            Err(_) => return Kind::Other,
        },
        _ => (layer, 0),
    };
    match base {
        "conv2d" => Kind::Conv(number),
        "batch_normalization" | "batch_normalization_v1" => Kind::Norm(number),
        _ => Kind::Other,
    }
}

fn numbered(base: &str, number: u64) -> String {
    if number == 0 { base.to_owned() } else { format!("{base}_{number}") }
}
