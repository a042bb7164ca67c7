//! Names of torchvision and timm: `{layer}.conv.weight` (OIHW), `{layer}.bn.weight`, `.bias`,
//! `.running_mean`, `.running_var`. Layers of the head have a matrix `weight` and a `bias`, or
//! what a BatchNorm has, under any name, such as `fc`, `classifier.1` or `head.fc`. A second
//! BatchNorm of a convolution is `{layer}.bn2`.
//!
//! Wrappers put a prefix before all names (`module.`, `model.`, `state_dict.`): it is what the name
//! of the network's first convolution has before it. `AuxLogits` and `num_batches_tracked` are
//! without effect on what a network computes after training.

use std::collections::{BTreeMap, HashSet};

use crate::network::{AveragePooling, ConvSpec};
use crate::util::files::one_line;
use crate::weights::error::WeightsError;
use crate::weights::head::{HeadPart, HeadParts, PartKind};
use crate::weights::names::{ConvTensors, Name, NormTensors};
use crate::weights::naming::{Axes, File, LayerNames, Layers, Naming};
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
    let container = |tensor: &str| file.tensors.get(tensor).and_then(|info| info.group.as_deref());
    let first = file.convs.first().map(|conv| format!("{prefix}{}.conv.weight", conv.torch));
    let of_network = first.as_deref().and_then(container);
    // Each with the first of its tensors that no known layer has.
    let mut layers: BTreeMap<&str, &str> = BTreeMap::new();
    for (in_file, info) in file.tensors {
        let is_elsewhere = info.group.as_deref() != of_network;
        let first = in_file.split('.').next().unwrap_or_default();
        match in_file.strip_prefix(prefix) {
            _ if in_file.ends_with("num_batches_tracked") => {}
            // Another dictionary, of the training: its state, or a number like the best accuracy.
            _ if is_elsewhere && (TRAINING.contains(&first) || info.shape.is_empty()) => {}
            None if is_elsewhere => {
                head.unknown.get_or_insert_with(|| one_line(in_file));
            }
            Some(name) if name.starts_with(AUXILIARY) || of_trunk(name) => {}
            // A layer next to the network, as in a module that has a backbone and a head, counts too.
            _ => {
                let (layer, leaf) = in_file.rsplit_once('.').unwrap_or(("", in_file));
                let shown = layers.entry(layer).or_insert(in_file);
                if LEAVES.contains(&shown.rsplit('.').next().unwrap_or_default()) && !LEAVES.contains(&leaf) {
                    *shown = in_file;
                }
            }
        }
    }
    for (layer, tensor) in layers {
        match part(file.tensors, layer, layer.strip_prefix(prefix).unwrap_or(layer)) {
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

/// A dense layer or a BatchNorm, called `shown`; none if the tensors are of neither.
fn part(tensors: &Tensors, layer: &str, shown: &str) -> Option<HeadPart> {
    let path = format!("{layer}.");
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
    Some(HeadPart { layer: shown.to_owned(), kind })
}

impl LayerNames for TorchNames {
    fn conv(&self, spec: &ConvSpec) -> ConvTensors<Name> {
        let name = |suffix: &str| Name::plain(format!("{}{}.{suffix}", self.prefix, spec.torch));
        let norm = |number: usize| {
            let layer = if number == 0 { "bn".to_owned() } else { format!("bn{}", number + 1) };
            let name = |tensor: &str| name(&format!("{layer}.{tensor}"));
            NormTensors {
                gamma: Some(name("weight")),
                beta: Some(name("bias")),
                mean: name("running_mean"),
                variance: name("running_var"),
                epsilon: None,
            }
        };
        ConvTensors {
            kernel: name("conv.weight"),
            bias: Some(name("conv.bias")),
            norms: (0..spec.norms).map(norm).collect(),
        }
    }

    fn head(&self, file: &File) -> HeadParts {
        head(file, &self.prefix)
    }
}
