//! The layers between features and classes, as files have them.
//!
//! A file states tensors, and seldom what lies between them. Where it does not, this is the rule:
//!
//! - Layers follow each other as their sizes fit, the first by name where several do.
//! - Between two dense layers there is one ReLU: behind the first, or behind its BatchNorm. There is
//!   none where PyTorch's numbers in a `Sequential` leave no room for it.
//! - At the end there is a sigmoid for one output, and softmax for more.
//!
//! A BatchNorm is folded into a dense layer: the one before it, or if an activation lies between,
//! the one behind it.

use crate::network::{Activation, Head, HeadLayer};
use crate::weights::names::{Name, NormTensors};

/// What of a file's head is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadOptions {
    /// Nothing: the head may be any.
    pub features_only: bool,
    /// What its last layer ends with, in place of what the file says or what is assumed.
    pub activation: Option<Activation>,
}

/// What a naming scheme finds behind the last block.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadParts {
    /// In order where the file states it.
    pub parts: Vec<HeadPart>,
    /// Whether the file states the order and all activations.
    pub is_stated: bool,
    /// A layer before the first block, or in the blocks, that changes what the network computes.
    pub changed: Option<String>,
    /// What a user should know of it.
    pub note: Option<String>,
    /// A layer or a tensor that is none of those that are known.
    pub unknown: Option<String>,
    /// The maximum in place of the mean over the image.
    pub is_max_pooled: bool,
}

#[derive(Clone, Debug)]
pub(super) struct HeadPart {
    /// The layer's name.
    pub layer: String,
    pub kind: PartKind,
}

#[derive(Clone, Debug)]
pub(super) enum PartKind {
    Dense { kernel: Name, bias: Option<Name>, inputs: usize, outputs: usize },
    Norm { tensors: NormTensors<Name>, size: usize },
    Activation(Activation),
}

impl HeadPart {
    /// The channels it takes; none for an activation, which takes any.
    fn inputs(&self) -> Option<usize> {
        match self.kind {
            PartKind::Dense { inputs, .. } => Some(inputs),
            PartKind::Norm { size, .. } => Some(size),
            PartKind::Activation(_) => None,
        }
    }

    /// The channels that a dense layer gives.
    pub fn outputs(&self) -> Option<usize> {
        match self.kind {
            PartKind::Dense { outputs, .. } => Some(outputs),
            _ => None,
        }
    }
}

/// A dense layer with the BatchNorms that are folded into it.
#[derive(Clone, Debug)]
pub(super) struct DenseNames {
    pub layer: String,
    pub kernel: Name,
    pub bias: Option<Name>,
    pub inputs: usize,
    pub outputs: usize,
    /// BatchNorms of its inputs, in order.
    pub before: Vec<NormTensors<Name>>,
    /// BatchNorms of its outputs.
    pub after: Vec<NormTensors<Name>>,
    pub activation: Activation,
}

/// The layers of a head, and whether something of them was assumed.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadChain {
    pub dense: Vec<DenseNames>,
    pub is_max_pooled: bool,
    pub is_assumed: bool,
}

impl HeadChain {
    /// The chain of parts from `features` channels on, or what does not fit in it. `last` is the
    /// activation at the end, where the user says it.
    pub fn of(parts: HeadParts, features: usize, last: Option<Activation>) -> Result<Self, String> {
        let HeadParts { parts, is_stated, unknown, is_max_pooled, .. } = parts;
        if let Some(unknown) = unknown {
            return Err(unknown);
        }
        let parts = if is_stated { parts } else { in_order(parts, features)? };
        let chain = Self { is_max_pooled, ..Self::default() };
        let mut builder = Builder { chain, is_stated, pending: Vec::new(), previous: None };
        let mut channels = features;
        for part in parts {
            if let Some(found) = part.inputs().filter(|inputs| *inputs != channels) {
                return Err(format!(
                    "layer {}, which takes {found} channels and not {channels},",
                    part.layer
                ));
            }
            if let PartKind::Dense { outputs, .. } = part.kind {
                channels = outputs;
            }
            if channels == 0 {
                return Err(format!("layer {}, which has no outputs,", part.layer));
            }
            builder.push(part)?;
        }
        if !builder.pending.is_empty() {
            return Err("a BatchNorm behind the last activation".to_owned());
        }
        let mut chain = builder.chain;
        if let Some(end) = chain.dense.last_mut() {
            let assumed = if end.outputs == 1 { Activation::Sigmoid } else { Activation::Softmax };
            chain.is_assumed |= !is_stated && last.is_none() && end.outputs == 1;
            end.activation = last.unwrap_or(if is_stated { end.activation } else { assumed });
        }
        Ok(chain)
    }

    /// The layers in order, for texts: `BatchNorm, dense 64, ReLU, dense 5, softmax`.
    pub fn describe(&self) -> String {
        let norms = |list: &[NormTensors<Name>]| vec!["BatchNorm".to_owned(); list.len()];
        let layers = |dense: &DenseNames| {
            let activation = match dense.activation {
                Activation::None => vec![],
                Activation::Relu => vec!["ReLU".to_owned()],
                Activation::Sigmoid => vec!["sigmoid".to_owned()],
                Activation::Softmax => vec!["softmax".to_owned()],
            };
            [norms(&dense.before), vec![format!("dense {}", dense.outputs)], norms(&dense.after), activation]
                .concat()
        };
        self.dense.iter().flat_map(layers).collect::<Vec<_>>().join(", ")
    }

    /// What the network's end is; none for features that are means.
    pub fn head(&self) -> Option<Head> {
        let layer = |dense: &DenseNames| HeadLayer { outputs: dense.outputs, activation: dense.activation };
        let layers: Vec<HeadLayer> = self.dense.iter().map(layer).collect();
        let Self { is_max_pooled, .. } = *self;
        (is_max_pooled || !layers.is_empty()).then_some(Head { is_max_pooled, layers })
    }
}

/// A chain that grows by one part after the other.
struct Builder {
    chain: HeadChain,
    is_stated: bool,
    /// BatchNorms for the next dense layer.
    pending: Vec<NormTensors<Name>>,
    /// The layer of the part before.
    previous: Option<String>,
}

impl Builder {
    fn push(&mut self, HeadPart { layer, kind }: HeadPart) -> Result<(), String> {
        let room = self.previous.as_deref().and_then(|previous| room(previous, &layer));
        match kind {
            PartKind::Activation(activation) => self.activate(activation, &layer)?,
            PartKind::Norm { tensors, .. } => {
                if room == Some(true) {
                    self.assume_relu();
                }
                match self.open() {
                    Some(dense) => dense.after.push(tensors),
                    None => self.pending.push(tensors),
                }
            }
            PartKind::Dense { kernel, bias, inputs, outputs } => {
                if room != Some(false) {
                    self.assume_relu();
                }
                // Between a BatchNorm of its inputs and it there is room for an activation.
                self.chain.is_assumed |= room == Some(true) && !self.pending.is_empty();
                let (before, layer) = (std::mem::take(&mut self.pending), layer.clone());
                let (after, activation) = (Vec::new(), Activation::None);
                let dense = DenseNames { layer, kernel, bias, inputs, outputs, before, after, activation };
                self.chain.dense.push(dense);
            }
        }
        self.previous = Some(layer);
        Ok(())
    }

    /// The last dense layer, as long as nothing but BatchNorms follows it.
    fn open(&mut self) -> Option<&mut DenseNames> {
        self.chain.dense.last_mut().filter(|dense| dense.activation == Activation::None)
    }

    fn activate(&mut self, activation: Activation, layer: &str) -> Result<(), String> {
        match self.open() {
            Some(dense) => dense.activation = activation,
            None if activation == Activation::None => {}
            None => return Err(format!("activation {layer} follows no dense layer")),
        }
        Ok(())
    }

    fn assume_relu(&mut self) {
        let is_stated = self.is_stated;
        if let Some(dense) = self.open().filter(|_| !is_stated) {
            dense.activation = Activation::Relu;
            self.chain.is_assumed = true;
        }
    }
}

/// Whether PyTorch's numbers of two layers in a `Sequential` leave room for another between them;
/// none where they have no such numbers.
fn room(before: &str, after: &str) -> Option<bool> {
    let numbered = |layer: &str| {
        let (parent, number) = layer.rsplit_once('.').unwrap_or(("", layer));
        Some((parent.to_owned(), number.parse::<usize>().ok()?))
    };
    let ((one, first), (other, second)) = (numbered(before)?, numbered(after)?);
    (one == other).then_some(second > first + 1)
}

/// Parts as their sizes follow each other; the first by name where several fit.
fn in_order(mut parts: Vec<HeadPart>, mut channels: usize) -> Result<Vec<HeadPart>, String> {
    parts.sort_by_key(|part| natural(&part.layer));
    let mut ordered = Vec::with_capacity(parts.len());
    while !parts.is_empty() {
        let Some(next) = parts.iter().position(|part| part.inputs().is_none_or(|inputs| inputs == channels))
        else {
            let part = &parts[0];
            let inputs = part.inputs().unwrap_or_default();
            return Err(format!("layer {}, which takes {inputs} channels and not {channels},", part.layer));
        };
        let part = parts.remove(next);
        if let PartKind::Dense { outputs, .. } = part.kind {
            channels = outputs;
        }
        ordered.push(part);
    }
    Ok(ordered)
}

/// A name whose numbers compare as numbers.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let digits = rest[text..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| text + end);
        parts.push((rest[..text].to_owned(), rest[text..digits].parse().unwrap_or(0)));
        rest = &rest[digits..];
    }
    parts
}
