//! Names of Keras, which numbers its layers in the order of creation.
//!
//! - Keras 3 has `.../<group>/vars/<n>`. Groups are numbered in the order of `model.layers`, which
//!   is not that of creation; the layer's name is the attribute `name` of its `vars`. Files without
//!   it cannot be put in order and are refused.
//! - Legacy files have `<layer>/.../<variable>`, where the variable may end in `:0`, for weights
//!   alone or, under `model_weights`, for a whole saved model.
//!
//! Keras numbers its layers `conv2d`, `conv2d_1`, ... as it creates them, going on from the models
//! that the process made before. So the lowest number in the file is the first layer, and a
//! missing number is a missing layer. Convolutions and BatchNorms are numbered separately.

use std::collections::BTreeMap;

use crate::network::{ConvSpec, ModelInfo};
use crate::util::files::one_line;
use crate::weights::error::WeightsError;
use crate::weights::naming::{AveragePooling, Axes, ConvTensors, DenseTensors, LayerNames, Name, Naming};
use crate::weights::tensor_file::{TensorInfo, Tensors};

pub(super) const KERAS: Naming = Naming {
    axes: Axes::OutputLast,
    average_pooling: AveragePooling::Keras,
    recognises: |tensors| tensors.iter().any(is_numbered),
    read: |file, tensors, info| Ok(Box::new(KerasNames::new(file, tensors, info)?)),
};

/// Where a whole saved model has its weights.
const SAVED_MODEL: &str = "model_weights/";

/// The names in the file of a layer's variables, by variable or by number in Keras 3's `vars`.
type Variables = BTreeMap<String, String>;

#[derive(Debug, Default)]
struct KerasNames {
    /// The file, for messages.
    file: String,
    /// Name of the dense layer.
    dense: Option<&'static str>,
    convs: BTreeMap<u64, Variables>,
    norms: BTreeMap<u64, Variables>,
    others: BTreeMap<String, Variables>,
}

impl KerasNames {
    fn new(file: &str, tensors: &Tensors, info: &ModelInfo) -> Result<Self, WeightsError> {
        let dense = info.top.map(|top| top.dense);
        let mut names = Self { file: file.to_owned(), dense, ..Self::default() };
        let is_saved_model = tensors.keys().any(|name| name.starts_with(SAVED_MODEL));
        let prefix = if is_saved_model { SAVED_MODEL } else { "" };
        for (in_file, tensor) in tensors {
            if let Some(name) = in_file.strip_prefix(prefix) {
                names.add(name, in_file, tensor)?;
            }
        }
        if names.convs.is_empty() {
            let expected = format!("the layers of Keras's {}", info.title);
            return Err(names.layers("no layer conv2d".to_owned(), &expected));
        }
        Ok(names)
    }

    /// Adds a tensor, of whose name in the file `name` is all or what follows [`SAVED_MODEL`].
    fn add(&mut self, name: &str, in_file: &str, tensor: &TensorInfo) -> Result<(), WeightsError> {
        let (groups, variable) = name.rsplit_once('/').unwrap_or(("", name));
        let layer = self.layer_name(groups, tensor.group.as_deref())?;
        let variable = variable.trim_end_matches(":0");
        let kind = kind(&layer);
        let variables = match kind {
            Kind::Conv(number) => self.convs.entry(number).or_default(),
            Kind::Norm(number) => self.norms.entry(number).or_default(),
            Kind::Other => self.others.entry(layer.clone()).or_default(),
        };
        match variables.insert(variable.to_owned(), in_file.to_owned()) {
            Some(_) if kind != Kind::Other => {
                Err(self.layers(one_line(&format!("two tensors {layer}/{variable}")), "one"))
            }
            _ => Ok(()),
        }
    }

    /// The layer whose variables are in nested groups, of which the last has a name as attribute.
    fn layer_name(&self, groups: &str, attribute: Option<&str>) -> Result<String, WeightsError> {
        let mut path = groups.split('/');
        let last = path.clone().next_back();
        if last == Some("vars") {
            return attribute.map(str::to_owned).ok_or_else(|| {
                let found = format!("group {} without the layer's name", one_line(groups));
                self.layers(found, "its attribute `name`, as current versions of Keras write")
            });
        }
        let known = |name: &&str| kind(name) != Kind::Other || self.dense == Some(*name);
        Ok(path.find(known).or(last).unwrap_or_default().to_owned())
    }

    fn layers(&self, found: String, expected: &str) -> WeightsError {
        WeightsError::Content { file: self.file.clone(), found, expected: expected.to_owned() }
    }
}

/// The variable called `name`, or by its place in `vars`.
fn find(layer: &str, variables: Option<&Variables>, name: &str, place: &str) -> Name {
    let get = |variable| Some((variable, Some(variables?.get(variable)?.clone())));
    let (variable, in_file) = get(name).or_else(|| get(place)).unwrap_or((name, None));
    Name { shown: one_line(&format!("{layer}/{variable}")), in_file }
}

fn dense_names(layer: &str, variables: &Variables) -> DenseTensors<Name> {
    DenseTensors {
        kernel: find(layer, Some(variables), "kernel", "0"),
        bias: find(layer, Some(variables), "bias", "1"),
    }
}

impl LayerNames for KerasNames {
    fn conv(&self, spec: &ConvSpec) -> ConvTensors<Name> {
        let kinds = [("conv2d", &self.convs), ("batch_normalization", &self.norms)];
        let [(conv_layer, conv), (norm_layer, norm)] = kinds.map(|(base, layers)| {
            let number = layers.keys().next().unwrap_or(&0).saturating_add(spec.index as u64);
            (numbered(base, number), layers.get(&number))
        });
        let has_gamma = norm.is_some_and(|norm| norm.contains_key("gamma") || norm.contains_key("3"));
        let [beta, mean, variance] = if has_gamma { ["1", "2", "3"] } else { ["0", "1", "2"] };
        ConvTensors {
            kernel: find(&conv_layer, conv, "kernel", "0"),
            bias: Some(find(&conv_layer, conv, "bias", "1")),
            gamma: has_gamma.then(|| find(&norm_layer, norm, "gamma", "0")),
            beta: find(&norm_layer, norm, "beta", beta),
            mean: find(&norm_layer, norm, "moving_mean", mean),
            variance: find(&norm_layer, norm, "moving_variance", variance),
        }
    }

    /// The layer of the network's name, or else the only one whose kernel is a matrix.
    fn dense(&self, tensors: &Tensors) -> Result<Option<DenseTensors<Name>>, WeightsError> {
        if let Some(layer) = self.dense
            && let Some(variables) = self.others.get(layer)
        {
            return Ok(Some(dense_names(layer, variables)));
        }
        let rank = |name: &Name| Some(tensors.get(name.in_file.as_ref()?)?.shape.len());
        let all = self.others.iter().map(|(layer, variables)| (layer, dense_names(layer, variables)));
        let mut dense: Vec<_> = all.filter(|(_, names)| rank(&names.kernel) == Some(2)).collect();
        if dense.len() > 1 {
            let layers: Vec<_> = dense.iter().map(|(layer, _)| one_line(layer)).collect();
            return Err(self.layers(format!("dense layers {}", layers.join(", ")), "at most one"));
        }
        Ok(dense.pop().map(|(_, names)| names))
    }
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
        Some((base, digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => (base, digits.parse().ok()),
        _ => (layer, Some(0)),
    };
    match (base, number) {
        ("conv2d", Some(number)) => Kind::Conv(number),
        ("batch_normalization" | "batch_normalization_v1", Some(number)) => Kind::Norm(number),
        _ => Kind::Other,
    }
}

/// Whether a tensor is of a layer that Keras has numbered.
fn is_numbered((name, tensor): (&String, &TensorInfo)) -> bool {
    tensor.group.as_deref().into_iter().chain(name.split('/')).any(|layer| kind(layer) != Kind::Other)
}

pub(super) fn numbered(base: &str, number: u64) -> String {
    if number == 0 { base.to_owned() } else { format!("{base}_{number}") }
}
