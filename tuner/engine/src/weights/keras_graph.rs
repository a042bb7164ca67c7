//! Models as Keras describes them, in JSON: `{"class_name": .., "config": {"layers": [..]}}`, where a
//! layer may be a model again.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::util::files::one_line;

/// Models in models, at most.
const MAX_DEPTH: usize = 8;

/// A layer as the description has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer<'a> {
    pub class: &'a str,
    pub name: &'a str,
    pub config: &'a Value,
    /// How many times it is applied.
    pub calls: usize,
}

impl Layer<'_> {
    pub fn shown(&self) -> String {
        format!("layer {} ({})", one_line(self.name), one_line(self.class))
    }
}

fn layers(model: &Value) -> &[Value] {
    model["config"]["layers"].as_array().map_or(&[], |layers| layers)
}

fn layer(layer: &Value) -> Layer<'_> {
    let (class, name) = (&layer["class_name"], &layer["config"]["name"]);
    let [class, name] = [class, name].map(|text| text.as_str().unwrap_or_default());
    let calls = layer["inbound_nodes"].as_array().map_or(1, |nodes| nodes.len().max(1));
    Layer { class, name, config: &layer["config"], calls }
}

/// All layers of models in models, in order.
pub(super) fn collect<'a>(model: &'a Value, depth: usize, all: &mut Vec<Layer<'a>>) {
    for inner in layers(model) {
        match layers(inner) {
            [] => all.push(layer(inner)),
            _ if depth < MAX_DEPTH => collect(inner, depth + 1, all),
            _ => {}
        }
    }
}

/// The places of layers by their names.
fn places(layers: &[Value]) -> HashMap<&str, usize> {
    let named = layers.iter().enumerate();
    named.filter_map(|(at, layer)| Some((layer["config"]["name"].as_str()?, at))).collect()
}

/// The layers that a layer reads.
fn inputs(layer: &Value, places: &HashMap<&str, usize>) -> Vec<usize> {
    let mut names = Vec::new();
    strings(&layer["inbound_nodes"], &mut names);
    let mut inputs: Vec<usize> = names.into_iter().filter_map(|name| places.get(name).copied()).collect();
    inputs.dedup();
    inputs
}

/// All layers from which the one called `joins` comes, in the order of the model that has it.
pub(super) fn trunk<'a>(model: &'a Value, joins: &str, depth: usize) -> Vec<Layer<'a>> {
    let all = layers(model);
    let places = places(all);
    let Some(&last) = places.get(joins) else {
        let inner = || all.iter().map(|inner| trunk(inner, joins, depth + 1)).find(|found| !found.is_empty());
        return if depth < MAX_DEPTH { inner().unwrap_or_default() } else { Vec::new() };
    };
    let (mut seen, mut open) = (BTreeSet::from([last]), vec![last]);
    while let Some(at) = open.pop() {
        open.extend(inputs(&all[at], &places).into_iter().filter(|input| seen.insert(*input)));
    }
    seen.into_iter().map(|at| layer(&all[at])).collect()
}

/// The layers from the last output back to the input or to the layer `joins`, the last first; of
/// others with several inputs, the first is the end. Whether there was an end before the input.
pub(super) fn walk_back<'a>(model: &'a Value, joins: &str, depth: usize, chain: &mut Vec<Layer<'a>>) -> bool {
    let all = layers(model);
    let places = places(all);
    let find = |name: &str| places.get(name).copied();
    let is_sequential = model["class_name"] == "Sequential";
    let mut outputs = Vec::new();
    strings(&model["config"]["output_layers"], &mut outputs);
    let mut at = match is_sequential {
        true => all.len().checked_sub(1),
        false => outputs.into_iter().rev().find_map(find),
    };
    // No layer is passed twice.
    for _ in 0..all.len() {
        let Some(index) = at else { return false };
        let inner = &all[index];
        let before = match is_sequential {
            true => index.checked_sub(1).into_iter().collect(),
            false => inputs(inner, &places),
        };
        let is_model = !layers(inner).is_empty();
        if is_model && depth < MAX_DEPTH {
            if walk_back(inner, joins, depth + 1, chain) {
                return true;
            }
        } else if before.len() > 1 && inner["config"]["name"] == *joins {
            return true;
        } else {
            chain.push(layer(inner));
        }
        at = match before[..] {
            [] => return false,
            [input] => Some(input),
            _ => return true,
        };
    }
    true
}

/// All strings of a JSON value.
pub(super) fn strings<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(list) => list.iter().for_each(|value| strings(value, found)),
        Value::Object(map) => map.values().for_each(|value| strings(value, found)),
        _ => {}
    }
}
