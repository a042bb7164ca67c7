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
//! missing number is a missing layer. Convolutions and BatchNorms are numbered separately. What is
//! numbered behind those of the network, or not numbered so, belongs to the head.

use std::collections::BTreeMap;

use crate::network::ConvSpec;
use crate::util::files::one_line;
use crate::weights::error::WeightsError;
use crate::weights::head::{HeadPart, HeadParts, PartKind};
use crate::weights::keras_config::Described;
use crate::weights::names::{ConvTensors, Name, NormTensors};
use crate::weights::naming::{AveragePooling, Axes, File, LayerNames, Naming};
use crate::weights::tensor_file::{TensorInfo, Tensors};

pub(super) const KERAS: Naming = Naming {
    axes: Axes::OutputLast,
    average_pooling: AveragePooling::Keras,
    recognises: |tensors| tensors.iter().any(is_numbered),
    read: |file| Ok(Box::new(KerasNames::new(file)?)),
};

/// Epsilon of Keras's BatchNorms where nothing else is said.
const HEAD_EPSILON: f32 = 1e-3;

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
    fn new(file: &File) -> Result<Self, WeightsError> {
        let dense = file.info.top.map(|top| top.dense);
        let mut names = Self { file: file.name.to_owned(), dense, ..Self::default() };
        let is_saved_model = file.tensors.keys().any(|name| name.starts_with(SAVED_MODEL));
        let prefix = if is_saved_model { SAVED_MODEL } else { "" };
        for (in_file, tensor) in file.tensors {
            if let Some(name) = in_file.strip_prefix(prefix) {
                names.add(name, in_file, tensor)?;
            }
        }
        if names.convs.is_empty() {
            let expected = format!("the layers of Keras's {}", file.info.title);
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

/// A dense layer or a BatchNorm; none if the variables are of neither.
fn part(tensors: &Tensors, layer: &str, variables: &Variables) -> Option<HeadPart> {
    let shape = |name: &Name| Some(&tensors.get(name.in_file.as_ref()?)?.shape[..]);
    let kernel = find(layer, Some(variables), "kernel", "0");
    let kind = match (shape(&kernel), variables.len()) {
        (Some(&[inputs, outputs]), 1 | 2) => {
            let bias = Some(find(layer, Some(variables), "bias", "1")).filter(|bias| bias.in_file.is_some());
            PartKind::Dense { kernel, bias, inputs, outputs }
        }
        _ => {
            let norm = norm(layer, Some(variables));
            let size = shape(&norm.mean).filter(|_| shape(&norm.variance).is_some())?.first().copied()?;
            PartKind::Norm { tensors: norm, size, epsilon: HEAD_EPSILON }
        }
    };
    Some(HeadPart { layer: layer.to_owned(), kind })
}

/// The variables of a BatchNorm. Without names, four have a scale, and three have none.
fn norm(layer: &str, variables: Option<&Variables>) -> NormTensors<Name> {
    let has_gamma = variables.is_some_and(|norm| norm.contains_key("gamma") || norm.contains_key("3"));
    let [beta, mean, variance] = if has_gamma { ["1", "2", "3"] } else { ["0", "1", "2"] };
    NormTensors {
        gamma: has_gamma.then(|| find(layer, variables, "gamma", "0")),
        beta: Some(find(layer, variables, "beta", beta)),
        mean: find(layer, variables, "moving_mean", mean),
        variance: find(layer, variables, "moving_variance", variance),
    }
}

impl LayerNames for KerasNames {
    fn conv(&self, spec: &ConvSpec) -> ConvTensors<Name> {
        let kinds = [(CONV, &self.convs), (NORM, &self.norms)];
        let [(conv_layer, conv), (norm_layer, norm_variables)] = kinds.map(|(base, layers)| {
            let number = layers.keys().next().unwrap_or(&0).saturating_add(spec.index as u64);
            (numbered(base, number), layers.get(&number))
        });
        ConvTensors {
            kernel: find(&conv_layer, conv, "kernel", "0"),
            bias: Some(find(&conv_layer, conv, "bias", "1")),
            norm: norm(&norm_layer, norm_variables),
        }
    }

    /// The layers that are none of the network's convolutions and BatchNorms.
    fn head(&self, file: &File) -> HeadParts {
        let behind = |layers: &'_ BTreeMap<u64, Variables>, base: &str| -> Vec<(String, Variables)> {
            let first = layers.keys().next().map_or(0, |first| first.saturating_add(file.convs.len() as u64));
            layers.range(first..).map(|(number, layer)| (numbered(base, *number), layer.clone())).collect()
        };
        let others = self.others.iter().map(|(layer, variables)| (layer.clone(), variables.clone()));
        let layers = behind(&self.convs, CONV).into_iter().chain(behind(&self.norms, NORM)).chain(others);
        let (mut parts, mut unknown) = (BTreeMap::new(), None);
        for (layer, variables) in layers {
            match part(file.tensors, &layer, &variables) {
                Some(part) => {
                    parts.insert(layer, part);
                }
                None => {
                    let tensor = variables.values().next().map_or(&layer, |tensor| tensor);
                    unknown.get_or_insert_with(|| one_line(tensor));
                }
            }
        }
        match file.model_config {
            Some(config) if unknown.is_none() => Described::of(config).head(parts),
            _ => HeadParts { parts: parts.into_values().collect(), unknown, ..HeadParts::default() },
        }
    }
}

/// What Keras calls convolutions and BatchNorms.
const CONV: &str = "conv2d";
const NORM: &str = "batch_normalization";

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
        (CONV, Some(number)) => Kind::Conv(number),
        (NORM | "batch_normalization_v1", Some(number)) => Kind::Norm(number),
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
