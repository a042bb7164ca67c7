//! Small files of every format, with the same values.

use std::collections::HashMap;

use ::safetensors::tensor::{Dtype, TensorView};
use hdf5_pure::{AttrValue, Datatype, DatatypeByteOrder, FileBuilder, GroupBuilder, make_f32_type};
use kernels::filter::{BatchNorm, Filter};

use crate::network::inception_v3::NETWORK;
use crate::network::spec::{ConvSpec, Spec};

const FEATURES: usize = 3;
const CLASSES: usize = 2;

/// Shapes `[r, s, c, k]`; the last two are equal, so that only the order tells them apart.
const SHAPES: [[usize; 4]; 4] = [[3, 2, 3, 4], [1, 3, 4, 5], [1, 1, 5, 5], [1, 1, 5, 5]];

pub fn spec() -> Spec {
    let convs = SHAPES.iter().enumerate().map(|(index, &[r, s, channels, filters])| ConvSpec {
        inputs: Vec::new(),
        index,
        name: format!("conv{index}"),
        torch: format!("Mixed_{index}.branch"),
        kernel: [r, s],
        channels,
        filters,
    });
    Spec { convs: convs.collect(), features: FEATURES, info: NETWORK.info }
}

/// Tensors of the test files by layer, HWIO.
pub fn filter(index: usize, gamma: bool) -> Filter {
    let dims = SHAPES[index];
    let values =
        |tensor: u64, len, lo| crate::util::random::uniform(7, 16 * index as u64 + tensor, len, lo, 1.0);
    let norm = BatchNorm {
        gamma: gamma.then(|| values(1, dims[3], -1.0)),
        beta: values(2, dims[3], -1.0),
        mean: values(3, dims[3], -1.0),
        variance: values(4, dims[3], 0.0),
        epsilon: NETWORK.info.bn_epsilon,
    };
    Filter { norms: vec![norm], ..Filter::new(dims, values(0, dims.iter().product(), -1.0)) }
}

pub fn dense() -> Filter {
    let weights = crate::util::random::uniform(7, 1000, FEATURES * CLASSES, -1.0, 1.0);
    Filter { bias: Some(vec![0.5, -0.5]), ..Filter::new([1, 1, FEATURES, CLASSES], weights) }
}

pub type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

pub fn torch_tensors() -> Tensors {
    let mut tensors = Tensors::new();
    for conv in spec().convs {
        let filter = filter(conv.index, true);
        let [r, s, c, k] = filter.dims;
        let mut oihw = Vec::new();
        for (o, i) in (0..k).flat_map(|o| (0..c).map(move |i| (o, i))) {
            for (y, x) in (0..r).flat_map(|y| (0..s).map(move |x| (y, x))) {
                oihw.push(filter.weights[((y * s + x) * c + i) * k + o]);
            }
        }
        let norm = filter.norms[0].clone();
        let mut add =
            |name: &str, shape, values| tensors.push((format!("{}.{name}", conv.torch), shape, values));
        add("conv.weight", vec![k, c, r, s], oihw);
        add("bn.weight", vec![k], norm.gamma.unwrap());
        add("bn.bias", vec![k], norm.beta);
        add("bn.running_mean", vec![k], norm.mean);
        add("bn.running_var", vec![k], norm.variance);
        add("bn.num_batches_tracked", vec![], vec![f32::NAN]);
    }
    let w = dense().weights;
    tensors.push(("fc.weight".to_owned(), vec![CLASSES, FEATURES], vec![w[0], w[2], w[4], w[1], w[3], w[5]]));
    tensors.push(("fc.bias".to_owned(), vec![CLASSES], dense().bias.unwrap()));
    tensors
}

pub fn safetensors_bytes(tensors: &Tensors, dtype: Dtype) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap())
    });
    ::safetensors::serialize(views.collect::<HashMap<_, _>>(), None).unwrap()
}

/// How the values of a dataset lie in the file.
#[derive(Clone, Copy, Debug)]
pub enum Stored {
    /// In one piece, as memory has them.
    Plain,
    /// By rows of the first axis.
    Chunked,
    /// In one piece, the highest byte first.
    BigEndian,
}

fn dataset(group: &mut GroupBuilder, name: &str, shape: &[u64], values: &[f32], stored: Stored) {
    let dataset = group.create_dataset(name);
    match stored {
        Stored::Plain => dataset.with_f32_data(values),
        Stored::Chunked => dataset.with_f32_data(values).with_chunks(&[&[1], &shape[1..]].concat()),
        Stored::BigEndian => {
            let Datatype::FloatingPoint { size, layout, .. } = make_f32_type() else { unreachable!("f32") };
            let datatype = Datatype::FloatingPoint { size, byte_order: DatatypeByteOrder::BigEndian, layout };
            let bytes = values.iter().flat_map(|value| value.to_be_bytes()).collect();
            dataset.with_raw_data(datatype, bytes, values.len() as u64)
        }
    }
    .with_shape(shape);
}

fn conv_variables(filter: &Filter, names: [&str; 5]) -> (Tensors, Tensors) {
    let norm = &filter.norms[0];
    let vector = |name: &str, values: &[f32]| (name.to_owned(), vec![values.len()], values.to_vec());
    let kernel = (names[0].to_owned(), filter.dims.to_vec(), filter.weights.clone());
    let gamma = norm.gamma.as_ref().map(|gamma| vector(names[1], gamma));
    let rest = [(2, &norm.beta), (3, &norm.mean), (4, &norm.variance)].map(|(n, v)| vector(names[n], v));
    (vec![kernel], gamma.into_iter().chain(rest).collect())
}

fn dense_variables(names: [&str; 2]) -> Tensors {
    let kernel = (names[0].to_owned(), vec![FEATURES, CLASSES], dense().weights);
    vec![kernel, (names[1].to_owned(), vec![CLASSES], dense().bias.unwrap())]
}

/// As [`legacy_bytes`] names them, for a container without groups.
pub fn keras_tensors(filters: &[Filter]) -> Tensors {
    let mut tensors = Tensors::new();
    let mut add = |layer: &str, variables: Tensors| {
        tensors.extend(variables.into_iter().map(|(name, shape, v)| (format!("{layer}/{name}"), shape, v)));
    };
    for (index, filter) in filters.iter().enumerate() {
        let (conv, norm) =
            conv_variables(filter, ["kernel", "gamma", "beta", "moving_mean", "moving_variance"]);
        add(&format!("conv2d_{}", index + 1), conv);
        add(&format!("batch_normalization_{}", index + 1), norm);
    }
    add("predictions", dense_variables(["kernel", "bias"]));
    tensors
}

fn add_variables(group: &mut GroupBuilder, variables: &Tensors, stored: Stored) {
    for (name, shape, values) in variables {
        dataset(group, name, &shape.iter().map(|n| *n as u64).collect::<Vec<_>>(), values, stored);
    }
}

/// `<layer>/<layer>_1/<variable>:0`, the layers numbered from `first`, under `parent`.
pub fn legacy_bytes(first: usize, parent: Option<&str>, filters: &[Filter]) -> Vec<u8> {
    legacy_bytes_of(first, parent, filters, Stored::Plain)
}

/// As [`legacy_bytes`].
pub fn legacy_bytes_of(first: usize, parent: Option<&str>, filters: &[Filter], stored: Stored) -> Vec<u8> {
    let names = ["kernel:0", "gamma:0", "beta:0", "moving_mean:0", "moving_variance:0"];
    let mut layers = vec![("predictions".to_owned(), dense_variables(["kernel:0", "bias:0"]))];
    for (index, filter) in filters.iter().enumerate() {
        let (conv, norm) = conv_variables(filter, names);
        let suffix = if first + index == 0 { String::new() } else { format!("_{}", first + index) };
        layers.push((format!("conv2d{suffix}"), conv));
        layers.push((format!("batch_normalization{suffix}"), norm));
    }
    let mut file = FileBuilder::new();
    let mut model = parent.map(|name| file.create_group(name));
    for (name, variables) in layers {
        let group = |layer: &mut GroupBuilder| {
            let mut inner = layer.create_group(&format!("{name}_1"));
            add_variables(&mut inner, &variables, stored);
            layer.add_group(inner.finish());
        };
        let mut layer = match &mut model {
            Some(model) => model.create_group(&name),
            None => file.create_group(&name),
        };
        group(&mut layer);
        match &mut model {
            Some(model) => model.add_group(layer.finish()),
            None => file.add_group(layer.finish()),
        };
    }
    if let Some(model) = model {
        file.add_group(model.finish());
    }
    file.finish().unwrap()
}

/// Keras 3: groups numbered backwards, the layers' names in an attribute unless `anonymous`.
pub fn keras3_bytes(filters: &[Filter], anonymous: bool) -> Vec<u8> {
    let mut file = FileBuilder::new();
    let mut layers = file.create_group("layers");
    let mut add = |group: String, name: String, mut variables: Tensors| {
        for (place, variable) in variables.iter_mut().enumerate() {
            variable.0 = place.to_string();
        }
        let mut layer = layers.create_group(&group);
        let mut vars = layer.create_group("vars");
        if !anonymous {
            vars.set_attr("name", AttrValue::String(name));
        }
        add_variables(&mut vars, &variables, Stored::Plain);
        layer.add_group(vars.finish());
        layers.add_group(layer.finish());
    };
    let suffix = |n: usize| if n == 0 { String::new() } else { format!("_{n}") };
    for (index, filter) in filters.iter().enumerate() {
        let (conv, norm) = conv_variables(filter, [""; 5]);
        let group = suffix(filters.len() - 1 - index);
        add(format!("conv2d{group}"), format!("conv2d{}", suffix(index + 94)), conv);
        add(
            format!("batch_normalization{group}"),
            format!("batch_normalization{}", suffix(index + 94)),
            norm,
        );
    }
    add("dense".to_owned(), "predictions".to_owned(), dense_variables([""; 2]));
    file.add_group(layers.finish());
    file.finish().unwrap()
}

pub fn filters(gamma: bool) -> Vec<Filter> {
    (0..SHAPES.len()).map(|index| filter(index, gamma)).collect()
}
