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

use std::collections::{BTreeMap, HashMap};

use crate::network::{AveragePooling, ConvSpec};
use crate::util::files::one_line;
use crate::weights::error::WeightsError;
use crate::weights::head::{HeadPart, HeadParts, PartKind};
use crate::weights::keras_config::{self, Described, NormOptions};
use crate::weights::names::{ConvTensors, Name, NormTensors};
use crate::weights::naming::{Axes, File, LayerNames, Naming};
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
    /// What the file says of its BatchNorms.
    options: HashMap<String, NormOptions>,
    /// A tensor of a layer of the head that two layers of one name have.
    twice: Option<String>,
}

impl KerasNames {
    fn new(file: &File) -> Result<Self, WeightsError> {
        let dense = file.info.top.map(|top| top.dense);
        let options = file.model_config.map(keras_config::norms).unwrap_or_default();
        let mut names = Self { file: file.name.to_owned(), dense, options, ..Self::default() };
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
        let has_several = file.convs.iter().any(|conv| conv.norms > 1);
        if has_several && names.convs.len() != file.convs.len() {
            // Which convolution a BatchNorm follows is known where each has one, or one has all.
            let found = format!("{} layers conv2d", names.convs.len());
            return Err(names.layers(found, "one, so that its BatchNorms are known"));
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
            Some(_) => {
                self.twice.get_or_insert_with(|| one_line(&format!("two tensors {layer}/{variable}")));
                Ok(())
            }
            None => Ok(()),
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

/// A layer's name and variables, by its place among those of its kind.
fn layer<'a>(
    base: &str,
    layers: &'a BTreeMap<u64, Variables>,
    index: usize,
) -> (String, Option<&'a Variables>) {
    let number = layers.keys().next().unwrap_or(&0).saturating_add(index as u64);
    (numbered(base, number), layers.get(&number))
}

/// The variable called `name`, or by its place in `vars`.
fn find(layer: &str, variables: Option<&Variables>, name: &str, place: &str) -> Name {
    let get = |variable| Some((variable, Some(variables?.get(variable)?.clone())));
    let (variable, in_file) = get(name).or_else(|| get(place)).unwrap_or((name, None));
    Name { shown: one_line(&format!("{layer}/{variable}")), in_file }
}

/// A dense layer or a BatchNorm; none if the variables are of neither.
fn part(
    tensors: &Tensors,
    layer: &str,
    variables: &Variables,
    options: Option<&NormOptions>,
) -> Option<HeadPart> {
    let shape = |name: &Name| Some(&tensors.get(name.in_file.as_ref()?)?.shape[..]);
    let kernel = find(layer, Some(variables), "kernel", "0");
    let kind = match (shape(&kernel), variables.len()) {
        (Some(&[inputs, outputs]), 1 | 2) => {
            let bias = Some(find(layer, Some(variables), "bias", "1")).filter(|bias| bias.in_file.is_some());
            PartKind::Dense { kernel, bias, inputs, outputs }
        }
        _ => {
            // Of three variables without names, the first is a scale or a shift.
            if options.is_none() && variables.len() == 3 && variables.contains_key("0") {
                return None;
            }
            let mut tensors = norm(layer, Some(variables), options);
            tensors.epsilon.get_or_insert(HEAD_EPSILON);
            let size =
                shape(&tensors.mean).filter(|_| shape(&tensors.variance).is_some())?.first().copied()?;
            PartKind::Norm { tensors, size }
        }
    };
    Some(HeadPart { layer: layer.to_owned(), kind })
}

/// The variables of a BatchNorm. Without names or options, four have a scale, and three have none.
fn norm(layer: &str, variables: Option<&Variables>, options: Option<&NormOptions>) -> NormTensors<Name> {
    let there = |name: &str| variables.is_some_and(|norm| norm.contains_key(name));
    let usual = NormOptions { has_gamma: there("gamma") || there("3"), has_beta: true, epsilon: None };
    let NormOptions { has_gamma, has_beta, epsilon } = *options.unwrap_or(&usual);
    let [gamma, beta] = [has_gamma, has_beta].map(usize::from);
    let find = |name: &str, place: usize| find(layer, variables, name, &place.to_string());
    NormTensors {
        gamma: has_gamma.then(|| find("gamma", 0)),
        beta: has_beta.then(|| find("beta", gamma)),
        mean: find("moving_mean", gamma + beta),
        variance: find("moving_variance", gamma + beta + 1),
        epsilon,
    }
}

impl LayerNames for KerasNames {
    fn conv(&self, spec: &ConvSpec) -> ConvTensors<Name> {
        let (conv, variables) = layer(CONV, &self.convs, spec.index);
        let norm = |number: usize| {
            let (name, variables) = layer(NORM, &self.norms, spec.index + number);
            norm(&name, variables, self.options.get(&name))
        };
        ConvTensors {
            kernel: find(&conv, variables, "kernel", "0"),
            bias: Some(find(&conv, variables, "bias", "1")),
            norms: (0..spec.norms).map(norm).collect(),
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
        let (mut parts, mut unknown) = (BTreeMap::new(), self.twice.clone());
        for (layer, variables) in layers {
            match part(file.tensors, &layer, &variables, self.options.get(&layer)) {
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
            Some(config) if unknown.is_none() => {
                Described::of(config, file.info.top.map_or("", |top| top.joins)).head(parts)
            }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::network::NETWORK;
    use crate::weights::tensor_file::Elements;

    /// A convolution, its BatchNorm, and a BatchNorm in the head, of three variables by place each.
    fn tensors() -> Tensors {
        let tensor = |group: &str, shape: &[usize]| TensorInfo {
            group: Some(group.to_owned()),
            shape: shape.to_vec(),
            elements: Elements::F32,
        };
        let mut all = Tensors::from([("c/vars/0".to_owned(), tensor("conv2d", &[1, 1, 3, 4]))]);
        for place in 0..3 {
            all.insert(format!("n/vars/{place}"), tensor("batch_normalization", &[4]));
            all.insert(format!("h/vars/{place}"), tensor("norm", &[4]));
        }
        all
    }

    fn conv() -> ConvSpec {
        let (name, torch) = (String::new(), String::new());
        let (kernel, channels, filters) = ([1, 1], 3, 4);
        ConvSpec { inputs: Vec::new(), index: 0, name, torch, kernel, channels, filters, norms: 1 }
    }

    fn read(model_config: Option<&Value>) -> (NormTensors<Name>, HeadParts) {
        let (tensors, convs) = (tensors(), [conv()]);
        let file =
            File { name: "w.keras", tensors: &tensors, model_config, info: &NETWORK.info, convs: &convs };
        let names = KerasNames::new(&file).unwrap();
        (names.conv(&conv()).norms.remove(0), names.head(&file))
    }

    fn in_file(name: Option<&Name>) -> Option<&str> {
        name.and_then(|name| name.in_file.as_deref())
    }

    #[test]
    fn a_description_says_what_a_batch_norm_has() {
        let layer = |class: &str, config: Value| json!({"class_name": class, "config": config});
        let norm = |name: &str, scale: bool, center: bool, epsilon: f64| {
            let options = json!({"name": name, "scale": scale, "center": center, "epsilon": epsilon});
            layer("BatchNormalization", options)
        };
        let config = layer(
            "Sequential",
            json!({"layers": [
                layer("Conv2D", json!({"name": "conv2d"})),
                norm("batch_normalization", false, true, 0.125),
                norm("norm", true, false, 0.25),
            ]}),
        );
        let (trunk, head) = read(Some(&config));
        assert_eq!((in_file(trunk.gamma.as_ref()), in_file(trunk.beta.as_ref())), (None, Some("n/vars/0")));
        assert_eq!((in_file(Some(&trunk.mean)), trunk.epsilon), (Some("n/vars/1"), Some(0.125)));
        let [HeadPart { kind: PartKind::Norm { tensors, size: 4 }, .. }] = &head.parts[..] else {
            panic!("{head:?}")
        };
        assert_eq!(
            (in_file(tensors.gamma.as_ref()), in_file(tensors.beta.as_ref())),
            (Some("h/vars/0"), None)
        );
        assert_eq!((in_file(Some(&tensors.mean)), tensors.epsilon), (Some("h/vars/1"), Some(0.25)));
    }

    #[test]
    fn without_one_three_variables_by_place_could_be_either() {
        let (trunk, head) = read(None);
        // Keras's network has no scales.
        assert_eq!((in_file(trunk.beta.as_ref()), trunk.epsilon), (Some("n/vars/0"), None));
        assert_eq!(head.unknown.as_deref(), Some("h/vars/0"));
    }
}
