//! What Keras saves of a model next to its weights: its layers in order, with their options.
//!
//! Keras 2 has it as the attribute `model_config` of a saved `.h5`, Keras 3 as `config.json` in a
//! `.keras` archive. [`super::keras_graph`] walks through it; here is what its layers mean.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::network::Activation;
use crate::util::files::one_line;
use crate::weights::head::{HeadPart, HeadParts, PartKind};
use crate::weights::keras_graph::{Layer, collect, strings, trunk, walk_back};

/// Layers that compute nothing after training.
const WITHOUT_EFFECT: [&str; 9] = [
    "InputLayer",
    "Dropout",
    "AlphaDropout",
    "SpatialDropout2D",
    "GaussianNoise",
    "GaussianDropout",
    "ActivityRegularization",
    "Identity",
    "Functional",
];

/// The layers behind the last block, and one before it that changes what the network computes.
#[derive(Debug)]
pub(super) struct Described<'a> {
    layers: Vec<Layer<'a>>,
    changed: Option<String>,
    /// How many outputs the model has.
    outputs: usize,
}

impl<'a> Described<'a> {
    /// The layers from the one called `joins`, which joins the branches of the last block, to the
    /// last output. Another that has several inputs is one of the head.
    pub fn of(config: &'a Value, joins: &str) -> Self {
        let (mut behind, mut all) = (Vec::new(), Vec::new());
        walk_back(config, joins, 0, &mut behind);
        behind.reverse();
        collect(config, 0, &mut all);
        let changes =
            |layer: &&Layer| !WITHOUT_EFFECT.contains(&layer.class) && !is_usual_preprocessing(layer);
        let before = all.iter().take_while(|layer| layer.class != "Conv2D").find(changes);
        let before = before.map(|layer| format!("{} before the first block", layer.shown()));
        let inside = || {
            let other = trunk(config, joins, 0).into_iter().find(|layer| !is_of_the_network(layer))?;
            Some(format!("{} in the blocks", other.shown()))
        };
        let mut outputs = Vec::new();
        strings(&config["config"]["output_layers"], &mut outputs);
        Self { layers: behind, changed: before.or_else(inside), outputs: outputs.len() }
    }

    /// The head, of which `parts` has the tensors by layer.
    pub fn head(self, mut parts: BTreeMap<String, HeadPart>) -> HeadParts {
        let mut head = HeadParts { is_stated: true, changed: self.changed, ..HeadParts::default() };
        if self.outputs > 1 {
            let last = self.layers.last().map_or("", |layer| layer.name);
            let text = "outputs, of which the last is computed: that of layer";
            head.note = Some(format!("the model has {} {text} {}", self.outputs, one_line(last)));
        }
        let (mut is_pooled, mut is_linear) = (false, true);
        for layer in self.layers {
            let Layer { class, name, config, calls } = layer;
            let activation = match class {
                _ if calls > 1 => None,
                // A BatchNorm may turn the order around.
                "GlobalMaxPooling2D" if head.parts.is_empty() => {
                    (head.is_max_pooled, is_pooled) = (true, true);
                    continue;
                }
                // The mean of what is linear is that of its mean.
                "GlobalAveragePooling2D" if is_linear => {
                    is_pooled = true;
                    continue;
                }
                // Of one pixel.
                "Flatten" if is_pooled => continue,
                class if WITHOUT_EFFECT.contains(&class) => continue,
                "ReLU" if is_plain_relu(config) => Some(Activation::Relu),
                "Softmax" => Some(Activation::Softmax),
                "Dense" | "Activation" => activation(&config["activation"]),
                "BatchNormalization" if has_epsilon(config) => Some(Activation::None),
                _ => None,
            };
            let Some(activation) = activation else {
                let times = if calls > 1 { format!(", applied {calls} times,") } else { String::new() };
                head.unknown.get_or_insert_with(|| layer.shown() + &times);
                continue;
            };
            is_linear &= activation == Activation::None;
            match (parts.remove(name), class) {
                (Some(part), "Dense" | "BatchNormalization") => head.parts.push(part),
                (None, "Dense" | "BatchNormalization") => {
                    head.unknown.get_or_insert_with(|| format!("{} without tensors", layer.shown()));
                }
                _ => {}
            }
            if activation != Activation::None {
                let layer = format!("{name}'s {activation:?}");
                head.parts.push(HeadPart { layer, kind: PartKind::Activation(activation) });
            }
        }
        if let Some(layer) = parts.keys().next() {
            let text = "that is not on the way to the last output";
            head.unknown.get_or_insert_with(|| format!("layer {} {text}", one_line(layer)));
        }
        if !is_pooled && !head.parts.is_empty() {
            head.unknown.get_or_insert_with(|| "no global pooling before the classes".to_owned());
        }
        head
    }
}

/// Height and width of an image, where the first input states both.
pub(super) fn input_size(config: &Value) -> Option<[usize; 2]> {
    let mut all = Vec::new();
    collect(config, 0, &mut all);
    let input = all.into_iter().find(|layer| layer.class == "InputLayer")?.config;
    let shape = ["batch_shape", "batch_input_shape"].into_iter().find_map(|name| input[name].as_array())?;
    let [_, h, w, _] = &shape[..] else { return None };
    Some([usize::try_from(h.as_u64()?).ok()?, usize::try_from(w.as_u64()?).ok()?])
}

/// What a description says of a BatchNorm.
#[derive(Clone, Copy, Debug)]
pub(super) struct NormOptions {
    pub has_gamma: bool,
    pub has_beta: bool,
    pub epsilon: Option<f32>,
}

/// The BatchNorms of a description, by name.
pub(super) fn norms(config: &Value) -> HashMap<String, NormOptions> {
    let mut all = Vec::new();
    collect(config, 0, &mut all);
    let norms = all.into_iter().filter(|layer| layer.class == "BatchNormalization");
    let options = |layer: Layer| {
        let (has_gamma, has_beta) = (layer.config["scale"] != false, layer.config["center"] != false);
        let epsilon = layer.config["epsilon"].as_f64().map(|epsilon| epsilon as f32);
        (layer.name.to_owned(), NormOptions { has_gamma, has_beta, epsilon })
    };
    norms.map(options).collect()
}

/// Augmentation, and values of 0 to 255 to -1 to 1, which is how images are read for Keras's
/// networks.
fn is_usual_preprocessing(Layer { class, config, .. }: &Layer) -> bool {
    let is = |name: &str, value: f64| config[name].as_f64().is_some_and(|found| (found - value).abs() < 1e-6);
    class.starts_with("Random") || *class == "Rescaling" && is("scale", 1.0 / 127.5) && is("offset", -1.0)
}

/// Whether a layer of the blocks computes what it does in the network, as far as it says.
fn is_of_the_network(layer: &Layer) -> bool {
    let Layer { class, config, calls, .. } = layer;
    let is_one = |name: &str| match &config[name] {
        Value::Array(sizes) => sizes.iter().all(|size| *size == 1),
        size => size.is_null() || *size == 1,
    };
    let is_known = match *class {
        "Conv2D" => {
            activation(&config["activation"]) == Some(Activation::None)
                && is_one("dilation_rate")
                && is_one("groups")
                && config["data_format"] != "channels_first"
        }
        "BatchNormalization" => has_epsilon(config),
        "Activation" => activation(&config["activation"]) == Some(Activation::Relu),
        "ReLU" => is_plain_relu(config),
        "MaxPooling2D" | "AveragePooling2D" | "Concatenate" => true,
        class => WITHOUT_EFFECT.contains(&class) || is_usual_preprocessing(layer),
    };
    is_known && *calls == 1
}

/// Whether the epsilon of a BatchNorm is one, or not stated.
fn has_epsilon(config: &Value) -> bool {
    let epsilon = &config["epsilon"];
    epsilon.is_null() || epsilon.as_f64().is_some_and(|epsilon| (1e-12..1.0).contains(&epsilon))
}

fn activation(name: &Value) -> Option<Activation> {
    match name.as_str() {
        Some("linear") => Some(Activation::None),
        Some("relu") => Some(Activation::Relu),
        Some("sigmoid") => Some(Activation::Sigmoid),
        Some("softmax") => Some(Activation::Softmax),
        None if name.is_null() => Some(Activation::None),
        _ => None,
    }
}

/// A ReLU without a slope below zero, an upper limit or a threshold.
fn is_plain_relu(config: &Value) -> bool {
    let is_zero = |name: &str| config[name].as_f64().unwrap_or(0.0) == 0.0;
    is_zero("negative_slope") && is_zero("threshold") && config["max_value"].is_null()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::weights::names::{Name, NormTensors};

    fn shown(config: &Value) -> (Vec<String>, Option<String>) {
        let Described { layers, changed, .. } = Described::of(config, "mixed10");
        (layers.into_iter().map(|layer| layer.name.to_owned()).collect(), changed)
    }

    fn node(class: &str, name: &str, inputs: &[&str]) -> Value {
        let inputs: Vec<Value> = inputs.iter().map(|input| json!([input, 0, 0, {}])).collect();
        json!({"class_name": class, "config": {"name": name}, "inbound_nodes": [inputs]})
    }

    fn network() -> Value {
        let layers = [
            node("InputLayer", "in", &[]),
            node("Conv2D", "conv2d", &["in"]),
            node("Concatenate", "mixed10", &["conv2d", "in"]),
        ];
        json!({"class_name": "Functional", "config": {
            "name": "inception_v3", "layers": layers, "output_layers": [["mixed10", 0, 0]]}})
    }

    #[test]
    fn the_head_is_what_lies_between_the_last_join_and_the_last_output() {
        let mut whole = network();
        let layers = whole["config"]["layers"].as_array_mut().unwrap();
        layers.push(node("Dense", "predictions", &["pool"]));
        layers.push(node("GlobalMaxPooling2D", "pool", &["mixed10"]));
        layers.push(node("Add", "other", &["conv2d", "mixed10"]));
        whole["config"]["output_layers"] = json!([["other", 0, 0], ["predictions", 0, 0]]);
        assert_eq!(shown(&whole), (vec!["pool".to_owned(), "predictions".to_owned()], None));
    }

    fn head(layers: &[Value], parts: &[(&str, PartKind)]) -> HeadParts {
        let config = json!({"class_name": "Sequential", "config": {"layers": layers}});
        let part = |(layer, kind): &(&str, PartKind)| {
            (layer.to_string(), HeadPart { layer: layer.to_string(), kind: kind.clone() })
        };
        Described::of(&config, "mixed10").head(parts.iter().map(part).collect())
    }

    fn dense() -> PartKind {
        PartKind::Dense { kernel: Name::plain("kernel".to_owned()), bias: None, inputs: 3, outputs: 2 }
    }

    #[test]
    fn what_no_chain_of_layers_computes_is_unknown() {
        let pool = || node("GlobalMaxPooling2D", "pool", &[]);
        let dense_layer = || node("Dense", "top", &[]);
        let found = head(&[network(), pool(), dense_layer()], &[("top", dense())]);
        assert_eq!((found.is_max_pooled, found.unknown, found.parts.len()), (true, None, 1));
        let norm = || {
            let [mean, variance] = ["mean", "variance"].map(|name| Name::plain(name.to_owned()));
            let tensors = NormTensors { gamma: None, beta: None, mean, variance, epsilon: None };
            PartKind::Norm { tensors, size: 3 }
        };
        let norm_layer = node("BatchNormalization", "norm", &[]);
        for (layers, unknown) in [
            (vec![network(), norm_layer, pool(), dense_layer()], "layer pool (GlobalMaxPooling2D)"),
            (vec![network(), pool(), node("Lambda", "scale", &[]), dense_layer()], "layer scale (Lambda)"),
        ] {
            let found = head(&layers, &[("top", dense()), ("norm", norm())]);
            assert_eq!(found.unknown.as_deref(), Some(unknown));
        }
    }

    #[test]
    fn a_layer_that_is_a_model_is_walked_through() {
        let sequence = |layers: &[Value]| json!({"class_name": "Sequential", "config": {"layers": layers}});
        let inner = sequence(&[node("Dense", "top", &[])]);
        let layers = [network(), node("GlobalMaxPooling2D", "pool", &[]), inner];
        let found = head(&layers, &[("top", dense())]);
        assert_eq!((found.is_max_pooled, found.unknown, found.parts.len()), (true, None, 1));
    }

    #[test]
    fn the_mean_may_come_behind_what_is_linear_and_must_come() {
        let of = |layers: &[Value]| head(&[&[network()], layers].concat(), &[("top", dense())]).unknown;
        let (pool, top) = (node("GlobalAveragePooling2D", "pool", &[]), node("Dense", "top", &[]));
        assert_eq!(of(&[top.clone(), pool.clone()]), None);
        let mut relu = top.clone();
        relu["config"]["activation"] = json!("relu");
        assert_eq!(of(&[relu, pool.clone()]).as_deref(), Some("layer pool (GlobalAveragePooling2D)"));
        assert_eq!(of(std::slice::from_ref(&top)).as_deref(), Some("no global pooling before the classes"));
        assert_eq!(of(&[node("Flatten", "flat", &[]), top]).as_deref(), Some("layer flat (Flatten)"));
    }

    #[test]
    fn layers_that_are_applied_twice_and_outputs_that_are_not_computed_are_told() {
        let mut whole = network();
        let layers = whole["config"]["layers"].as_array_mut().unwrap();
        layers.push(node("GlobalAveragePooling2D", "pool", &["mixed10"]));
        layers.push(node("Dense", "top", &["pool"]));
        whole["config"]["output_layers"] = json!([["pool", 0, 0], ["top", 0, 0]]);
        let of = |whole: &Value| {
            let part = HeadPart { layer: "top".to_owned(), kind: dense() };
            Described::of(whole, "mixed10").head(BTreeMap::from([("top".to_owned(), part)]))
        };
        let note = "the model has 2 outputs, of which the last is computed: that of layer top";
        assert_eq!((of(&whole).unknown, of(&whole).note.as_deref()), (None, Some(note)));
        let layers = whole["config"]["layers"].as_array_mut().unwrap();
        layers.last_mut().unwrap()["inbound_nodes"] = json!([[["pool", 0, 0, {}]], [["top", 0, 0, {}]]]);
        assert_eq!(of(&whole).unknown.as_deref(), Some("layer top (Dense), applied 2 times,"));
    }

    #[test]
    fn blocks_that_compute_otherwise_are_named() {
        let changed = |class: &str, config: Value| {
            let mut whole = network();
            let mut other = node(class, "other", &["in"]);
            other["config"].as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
            let layers = whole["config"]["layers"].as_array_mut().unwrap();
            layers[2]["inbound_nodes"] = json!([[["conv2d", 0, 0, {}], ["other", 0, 0, {}]]]);
            layers.push(other);
            Described::of(&whole, "mixed10").changed
        };
        assert_eq!(changed("Activation", json!({"activation": "relu"})), None);
        assert_eq!(changed("BatchNormalization", json!({"epsilon": 0.01})), None);
        for (class, config) in [
            ("Activation", json!({"activation": "silu"})),
            ("BatchNormalization", json!({"epsilon": 1e60})),
            ("Conv2D", json!({"dilation_rate": [2, 2]})),
            ("Multiply", json!({})),
        ] {
            assert_eq!(changed(class, config), Some(format!("layer other ({class}) in the blocks")));
        }
    }

    #[test]
    fn layers_with_several_inputs_belong_to_the_head_but_for_the_one_that_ends_the_blocks() {
        let mut whole = network();
        let layers = whole["config"]["layers"].as_array_mut().unwrap();
        layers.push(node("GlobalAveragePooling2D", "pool", &["mixed10"]));
        layers.push(node("Multiply", "gate", &["pool", "conv2d"]));
        layers.push(node("Dense", "top", &["gate"]));
        whole["config"]["output_layers"] = json!([["top", 0, 0]]);
        let (layers, before) = shown(&whole);
        assert_eq!((layers, before), (vec!["gate".to_owned(), "top".to_owned()], None));
        let found = Described::of(&whole, "mixed10").head(BTreeMap::new());
        assert_eq!(found.unknown.as_deref(), Some("layer gate (Multiply)"));
    }

    #[test]
    fn the_first_input_may_state_the_size_of_an_image() {
        for (shape, size) in [
            (json!([null, 150, 200, 3]), Some([150, 200])),
            (json!([null, null, null, 3]), None),
            (json!([null, -1, 200, 3]), None),
            (json!([null, 2048]), None),
        ] {
            for name in ["batch_shape", "batch_input_shape"] {
                let mut whole = network();
                whole["config"]["layers"][0]["config"][name] = shape.clone();
                assert_eq!(input_size(&whole), size, "{shape}");
            }
        }
        assert_eq!(input_size(&network()), None);
    }

    #[test]
    fn a_network_may_be_a_layer_of_a_sequence() {
        let scaling = json!({"class_name": "Rescaling", "config":
            {"name": "rescaling", "scale": 1.0 / 127.5, "offset": -1.0}});
        let mut layers = vec![scaling.clone(), network()];
        layers.extend(["GlobalAveragePooling2D", "Dropout", "Dense"].map(|class| node(class, class, &[])));
        let sequence = |layers: &[Value]| json!({"class_name": "Sequential", "config": {"layers": layers}});
        let names = ["GlobalAveragePooling2D", "Dropout", "Dense"].map(str::to_owned).to_vec();
        assert_eq!(shown(&sequence(&layers)), (names.clone(), None));
        layers[0]["config"]["offset"] = json!(0.0);
        let before = "layer rescaling (Rescaling) before the first block".to_owned();
        assert_eq!(shown(&sequence(&layers)), (names, Some(before)));
    }
}
