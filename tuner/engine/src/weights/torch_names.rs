//! Names of torchvision and timm: `{layer}.conv.weight` (OIHW), `{layer}.bn.weight`, `.bias`,
//! `.running_mean`, `.running_var`. Layers of the head have a matrix `weight` and a `bias`, or
//! what a BatchNorm has, under any name, such as `fc`, `classifier.1` or `head.fc`.
//!
//! Wrappers put a prefix before all names (`module.`, `model.`, `state_dict.`): it is what the name
//! of the network's first convolution has before it. `AuxLogits` and `num_batches_tracked` are
//! without effect on what a network computes after training.

use std::collections::{BTreeMap, HashSet};

use crate::network::ConvSpec;
use crate::util::files::one_line;
use crate::weights::error::WeightsError;
use crate::weights::head::{HeadPart, HeadParts, PartKind};
use crate::weights::names::{ConvTensors, Name, NormTensors};
use crate::weights::naming::{AveragePooling, Axes, File, LayerNames, Layers, Naming};
use crate::weights::tensor_file::{TensorInfo, Tensors};

pub(super) const TORCHVISION: Naming = Naming {
    axes: Axes::OutputFirst,
    average_pooling: AveragePooling::Torchvision,
    recognises: |tensors| tensors.keys().any(|name| name.ends_with(".conv.weight")),
    read,
};

/// Epsilon of PyTorch's BatchNorms where nothing else is said.
const HEAD_EPSILON: f32 = 1e-5;

/// The tensors of a convolution of the network.
const TRUNK: [&str; 6] =
    ["conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"];

/// The tensors of layers of the head.
const LEAVES: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// Modules that training alone uses.
const AUXILIARY: &str = "AuxLogits.";

/// What optimizers and training scripts save next to a network: first parts of names.
const TRAINING: [&str; 6] =
    ["optimizer", "optimizer_state_dict", "optimizer_states", "lr_schedulers", "scheduler", "scaler"];

#[derive(Debug)]
struct TorchNames {
    /// What all names of the network have before them.
    prefix: String,
}

fn read(file: &File) -> Layers {
    let first = file.convs.first().map(|conv| format!("{}.conv.weight", conv.torch)).unwrap_or_default();
    let prefixes: Vec<&str> =
        file.tensors.keys().filter_map(|name| name.strip_suffix(&first[..])).filter(is_prefix).collect();
    let prefix = match prefixes[..] {
        [] => "",
        [prefix] => prefix,
        [..] => {
            let found = prefixes.iter().map(|prefix| one_line(prefix)).collect::<Vec<_>>().join("`, `");
            let (file, found) = (file.name.to_owned(), format!("several networks, under `{found}`"));
            return Err(WeightsError::Content { file, found, expected: "one".to_owned() });
        }
    };
    Ok(Box::new(TorchNames { prefix: prefix.to_owned() }))
}

/// Whether what precedes a name is nothing, or modules.
fn is_prefix(prefix: &&str) -> bool {
    prefix.is_empty() || prefix.ends_with('.')
}

/// The layers of the tensors that belong to no convolution of the network.
fn head(file: &File, prefix: &str) -> HeadParts {
    let mut head = HeadParts::default();
    let convs: HashSet<&str> = file.convs.iter().map(|conv| &conv.torch[..]).collect();
    let of_trunk = |name: &str| {
        TRUNK.iter().any(|end| {
            let layer = name.strip_suffix(end).and_then(|layer| layer.strip_suffix('.'));
            layer.is_some_and(|layer| convs.contains(layer))
        })
    };
    // Each with the first of its tensors that no known layer has.
    let mut layers: BTreeMap<&str, &str> = BTreeMap::new();
    for (in_file, info) in file.tensors {
        let name = in_file.strip_prefix(prefix);
        let first = in_file.split('.').next().unwrap_or_default();
        let may_train = prefix.is_empty() || name.is_none();
        match name {
            _ if may_train && TRAINING.contains(&first) => {}
            // One number next to the network, like the best accuracy so far, is no layer.
            None if info.shape.is_empty() => {}
            None => {
                head.unknown.get_or_insert_with(|| one_line(in_file));
            }
            Some(name) if name.starts_with(AUXILIARY) || name.ends_with("num_batches_tracked") => {}
            Some(name) if of_trunk(name) => {}
            Some(name) => {
                let (layer, leaf) = name.rsplit_once('.').unwrap_or(("", name));
                let shown = layers.entry(layer).or_insert(in_file);
                if LEAVES.contains(&shown.rsplit('.').next().unwrap_or_default()) && !LEAVES.contains(&leaf) {
                    *shown = in_file;
                }
            }
        }
    }
    for (layer, tensor) in layers {
        match part(file.tensors, prefix, layer) {
            Some(part) => head.parts.push(part),
            None => {
                head.unknown.get_or_insert_with(|| one_line(tensor));
            }
        }
    }
    head
}

/// The tensors whose names start so.
fn starting(tensors: &Tensors, start: String) -> impl Iterator<Item = (&String, &TensorInfo)> {
    tensors.range(start.clone()..).take_while(move |(name, _)| name.starts_with(&start))
}

/// A dense layer or a BatchNorm; none if the tensors are of neither.
fn part(tensors: &Tensors, prefix: &str, layer: &str) -> Option<HeadPart> {
    let path = format!("{prefix}{layer}.");
    let shape = |leaf: &str| tensors.get(&format!("{path}{leaf}")).map(|info| &info.shape[..]);
    let name = |leaf: &str| Name::plain(format!("{path}{leaf}"));
    let there = |leaf: &str| shape(leaf).map(|_| name(leaf));
    let count = starting(tensors, path.clone()).count();
    let counter = usize::from(there("num_batches_tracked").is_some());
    let kind = match (shape("weight"), shape("running_mean")) {
        (Some([outputs, inputs]), None) if count == 1 + usize::from(there("bias").is_some()) => {
            let (kernel, bias) = (name("weight"), there("bias"));
            PartKind::Dense { kernel, bias, inputs: *inputs, outputs: *outputs }
        }
        (_, Some([size]))
            if count == 2 + ["weight", "bias"].map(there).iter().flatten().count() + counter =>
        {
            let [gamma, beta] = ["weight", "bias"].map(there);
            let (mean, variance) = (name("running_mean"), name("running_var"));
            let tensors = NormTensors { gamma, beta, mean, variance, epsilon: Some(HEAD_EPSILON) };
            PartKind::Norm { tensors, size: *size }
        }
        _ => return None,
    };
    Some(HeadPart { layer: layer.to_owned(), kind })
}

impl LayerNames for TorchNames {
    fn conv(&self, spec: &ConvSpec) -> ConvTensors<Name> {
        let name = |suffix: &str| Name::plain(format!("{}{}.{suffix}", self.prefix, spec.torch));
        ConvTensors {
            kernel: name("conv.weight"),
            bias: Some(name("conv.bias")),
            norm: NormTensors {
                gamma: Some(name("bn.weight")),
                beta: Some(name("bn.bias")),
                mean: name("bn.running_mean"),
                variance: name("bn.running_var"),
                epsilon: None,
            },
        }
    }

    fn head(&self, file: &File) -> HeadParts {
        head(file, &self.prefix)
    }
}
