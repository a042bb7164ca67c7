//! The classes of images, their names, and tensors in one line.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use engine::network::Activation;
use engine::runtime::{self, NotFiniteOutput};
use engine::util::bounded::{self, Limit};
use engine::util::files::{file_name, one_line};
use engine::util::words;
use engine::{InputError, Model, Weights};
use serde_json::Value;

use crate::cli::Failure;

/// What classes are called.
#[derive(Debug, Default)]
pub struct ClassNames {
    /// Of each class; empty without names.
    pub names: Vec<String>,
    /// What to know of them.
    pub note: Option<String>,
}

impl ClassNames {
    /// The names in a file, none where the user wants `none`, or else those of the network.
    pub fn of(labels: Option<&Path>, model: &Model, weights: &Weights) -> Result<Self, Failure> {
        let made_up = || "the weights are synthetic, so that their classes mean nothing".to_owned();
        let note = (weights.is_synthetic() && weights.classes().is_some()).then(made_up);
        let names = match (labels, weights.classes()) {
            (None, Some(classes)) if note.is_none() => return Ok(Self::usual(model, weights, classes)),
            (None, _) => Vec::new(),
            (Some(path), _) if path == Path::new("none") => Vec::new(),
            (Some(path), Some(classes)) => load_labels(path, classes)?,
            (Some(path), None) => {
                let path = path.display();
                return Err(format!("--labels {path}: the weights have no classes to name").into());
            }
        };
        Ok(Self { names, note })
    }

    /// The names that the classes of a network have, if there are as many, or one more for the
    /// background.
    fn usual(model: &Model, weights: &Weights, classes: usize) -> Self {
        let Some(top) = model.info.top.filter(|top| !top.class_names.is_empty()) else {
            return Self::default();
        };
        let background = (classes == top.classes + 1).then_some("background");
        if background.is_none() && classes != top.classes {
            return Self::default();
        }
        let names = background.into_iter().chain(top.class_names.lines()).map(str::to_owned).collect();
        let note = format!(
            "{} has {classes} classes, which get the names of {} (--labels FILE or none)",
            weights.description(),
            top.class_names_of
        );
        Self { names, note: Some(note) }
    }
}

/// More than the names of any classes.
const MOST: Limit = Limit { of: "labels", mib: 4 };

/// Reads the names of `classes` outputs; of one output, those of the two classes that it decides.
///
/// One a line of UTF-8, or JSON: a list of names, `{"0": [id, name]}` as Keras's
/// `imagenet_class_index.json`, or `{name: 0}` as its `class_indices`. A byte order mark and empty
/// lines at the end count for nothing.
pub fn load_labels(path: &Path, classes: usize) -> Result<Vec<String>, InputError> {
    let file = file_name(path);
    let bytes =
        bounded::read(path, MOST).map_err(|source| InputError::Read { file: file.clone(), source })?;
    let format = |found: &str, expected: &str| {
        let (file, found, expected) = (file.clone(), found.to_owned(), expected.to_owned());
        InputError::Format { file, found, expected }
    };
    let Ok(text) = String::from_utf8(bytes) else {
        return Err(format("bytes that are not UTF-8", "text, one label a line"));
    };
    let text = text.trim_start_matches('\u{feff}').trim_end();
    let labels: Vec<String> = match serde_json::from_str(text) {
        Ok(json @ (Value::Array(_) | Value::Object(_))) => of_json(&json)
            .ok_or_else(|| format("JSON of another kind", "names, {\"0\": [id, name]} or {name: 0}"))?,
        Err(error) if text.starts_with(['{', '[']) => {
            let found = words::of_json(&error);
            return Err(format(found.trim_start_matches("found "), "names in JSON, or one a line"));
        }
        _ => text.lines().map(str::to_owned).collect(),
    };
    let labels: Vec<String> = labels.iter().map(|label| one_line(label)).collect();
    let expected = if classes == 1 { 2 } else { classes };
    match labels.len() {
        found if found == expected => Ok(labels),
        found => Err(InputError::Labels { file, found, expected }),
    }
}

/// Names in order of their numbers; none if the JSON has no names, or leaves numbers out.
fn of_json(json: &Value) -> Option<Vec<String>> {
    let name = |value: &Value| match value {
        Value::Array(pair) => pair.last()?.as_str().map(str::to_owned),
        value => value.as_str().map(str::to_owned),
    };
    match json {
        Value::Array(names) => names.iter().map(name).collect(),
        Value::Object(map) => {
            let by_number = |(key, value): (&String, &Value)| match value.as_u64() {
                Some(number) => Some((number, key.clone())),
                None => Some((key.parse().ok()?, name(value)?)),
            };
            let names: BTreeMap<u64, String> = map.iter().map(by_number).collect::<Option<_>>()?;
            let is_whole = names.len() == map.len() && names.keys().copied().eq(0..names.len() as u64);
            is_whole.then(|| names.into_values().collect())
        }
        _ => None,
    }
}

/// A tensor in one line: its shape, the mean and root mean square of its values, the first of them.
fn print_tensor(name: &str, values: &[f32], shape: &[usize], out: &mut dyn Write) -> Result<(), Failure> {
    let n = values.len();
    let extents: Vec<String> = shape.iter().skip_while(|n| **n == 1).map(usize::to_string).collect();
    let shape = if extents.is_empty() { "1".to_owned() } else { extents.join("x") };
    let mean = values.iter().map(|&v| v as f64).sum::<f64>() / n as f64;
    let rms = (values.iter().map(|&v| (v as f64).powi(2)).sum::<f64>() / n as f64).sqrt();
    let head = values.iter().take(3).map(|v| format!("{v:.6}")).collect::<Vec<_>>().join(" ");
    Ok(writeln!(out, "{name}: {shape} values, mean {mean:.6}, rms {rms:.6}, first {head}")?)
}

/// An image whose results are not all finite, by its name.
#[derive(Debug, thiserror::Error)]
#[error("image {image}: {output}")]
pub struct NotFinite {
    image: String,
    output: NotFiniteOutput,
}

impl NotFinite {
    pub fn of(error: &runtime::NotFinite, image: &str) -> Self {
        Self { image: image.to_owned(), output: error.output.clone() }
    }
}

/// The classes with the highest outputs, and these, the highest first. One output says how likely the
/// second of two classes is.
pub fn highest(values: &[f32], top: usize) -> impl Iterator<Item = (usize, f32)> + use<> {
    let mut order: Vec<(usize, f32)> = values.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let is_one = values.len() == 1;
    order.into_iter().take(top).map(move |(class, value)| (if is_one { 1 } else { class }, value))
}

/// How to name classes, and how many of them; outputs are no classes where `top` is none.
pub struct Classes<'a> {
    pub labels: &'a [String],
    pub top: Option<usize>,
    /// The axes of an image's outputs.
    pub shape: &'a [usize],
    /// What the outputs are: probabilities that sum up to 1, one a class, or logits.
    pub activation: Activation,
}

impl Classes<'_> {
    /// Prints the likeliest classes of an image, or its tensor where there are no classes.
    pub fn print(&self, values: &[f32], name: &str, out: &mut dyn Write) -> Result<(), Failure> {
        let Some(top) = self.top else { return print_tensor(name, values, self.shape, out) };
        writeln!(out, "{name}:")?;
        for (class, value) in highest(values, top) {
            writeln!(out, "  {}  {}", self.value(value), self.class(class, values.len()))?;
        }
        Ok(())
    }

    fn value(&self, value: f32) -> String {
        match self.activation {
            Activation::Softmax | Activation::Sigmoid => format!("{:8.4}%", value * 100.0),
            Activation::None | Activation::Relu => format!("{value:9.4}"),
        }
    }

    /// A class by its number and name.
    fn class(&self, number: usize, outputs: usize) -> String {
        let label = self.labels.get(number).map_or(String::new(), |label| format!("  {label}"));
        let note = if outputs == 1 { " (of 0 and 1)" } else { "" };
        format!("class {number}{note}{label}")
    }
}
