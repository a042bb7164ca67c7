//! Small files of every format, with the same values.

use std::collections::HashMap;

use ::safetensors::tensor::{Dtype, TensorView};
use hdf5_pure::{AttrValue, Datatype, DatatypeByteOrder, FileBuilder, GroupBuilder, make_f32_type};
use kernels::{BatchNorm, Filter};

use crate::network::{ConvSpec, NETWORK, Spec};
use crate::util::random::uniform;
use crate::weights::keras_names::numbered;

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
        norms: 1,
    });
    Spec { convs: convs.collect(), features: FEATURES, info: NETWORK.info }
}

/// Tensors of the test files by layer, HWIO.
pub fn filter(index: usize, gamma: bool) -> Filter {
    let dims = SHAPES[index];
    let values = |tensor: u64, len, lo| uniform(7, 16 * index as u64 + tensor, len, lo, 1.0);
    let norm = BatchNorm {
        gamma: gamma.then(|| values(1, dims[3], -1.0)),
        beta: values(2, dims[3], -1.0),
        mean: values(3, dims[3], -1.0),
        variance: values(4, dims[3], 0.0),
        epsilon: NETWORK.info.bn_epsilon,
    };
    Filter { norms: vec![norm], ..Filter::new(dims, values(0, dims.iter().product(), -1.0)) }
}

pub fn filters(gamma: bool) -> Vec<Filter> {
    (0..SHAPES.len()).map(|index| filter(index, gamma)).collect()
}

pub fn dense() -> Filter {
    let weights = uniform(7, 1000, FEATURES * CLASSES, -1.0, 1.0);
    Filter { bias: Some(vec![0.5, -0.5]), ..Filter::new([1, 1, FEATURES, CLASSES], weights) }
}

pub type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

pub fn torch_tensors() -> Tensors {
    let mut tensors = Tensors::new();
    for conv in spec().convs {
        let filter = filter(conv.index, true);
        let [r, s, c, k] = filter.dims;
        let hwio = |at: usize| ((at % (r * s)) * c + at / (r * s) % c) * k + at / (c * r * s);
        let oihw = (0..filter.weights.len()).map(|at| filter.weights[hwio(at)]).collect();
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
    let views = tensors.iter().map(|(name, shape, values)| {
        (name.as_str(), TensorView::new(dtype, shape.clone(), bytemuck::cast_slice(values)).unwrap())
    });
    ::safetensors::serialize(views.collect::<HashMap<_, _>>(), None).unwrap()
}

/// How the values of a dataset lie in the file: in chunks, these are rows of the first axis.
#[derive(Clone, Copy, Debug)]
pub enum Stored {
    Plain,
    Chunked,
    BigEndian,
    /// With another bias of exponents than f32's.
    Biased,
}

fn add_variables(group: &mut GroupBuilder, variables: &Tensors, stored: Stored) {
    for (name, shape, values) in variables {
        let shape: Vec<u64> = shape.iter().map(|n| *n as u64).collect();
        let dataset = group.create_dataset(name);
        match stored {
            Stored::Plain => dataset.with_f32_data(values),
            Stored::Chunked => dataset.with_f32_data(values).with_chunks(&[&[1], &shape[1..]].concat()),
            Stored::BigEndian => {
                let Datatype::FloatingPoint { size, layout, .. } = make_f32_type() else { panic!("f32") };
                let byte_order = DatatypeByteOrder::BigEndian;
                let datatype = Datatype::FloatingPoint { size, byte_order, layout };
                let bytes = values.iter().flat_map(|value| value.to_be_bytes()).collect();
                dataset.with_raw_data(datatype, bytes, values.len() as u64)
            }
            Stored::Biased => {
                let mut datatype = make_f32_type();
                let Datatype::FloatingPoint { layout, .. } = &mut datatype else { panic!("f32") };
                layout.exponent_bias += 1;
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                dataset.with_raw_data(datatype, bytes, values.len() as u64)
            }
        }
        .with_shape(&shape);
    }
}

/// Keras's name of each layer without its number, its number and its variables. Convolutions and
/// BatchNorms are numbered from `first`.
fn keras_layers(first: u64, filters: &[Filter]) -> Vec<(&'static str, u64, Tensors)> {
    let variable =
        |name: &str, shape: &[usize], values: &[f32]| (name.to_owned(), shape.to_vec(), values.to_vec());
    let mut layers = Vec::new();
    for (number, filter) in (first..).zip(filters) {
        let norm = &filter.norms[0];
        let gamma = norm.gamma.iter().map(|gamma| ("gamma", gamma));
        let rest = [("beta", &norm.beta), ("moving_mean", &norm.mean), ("moving_variance", &norm.variance)];
        let norm = gamma.chain(rest).map(|(name, values)| variable(name, &[values.len()], values));
        layers.push(("conv2d", number, vec![variable("kernel", &filter.dims, &filter.weights)]));
        layers.push(("batch_normalization", number, norm.collect()));
    }
    let kernel = variable("kernel", &[FEATURES, CLASSES], &dense().weights);
    layers.push(("predictions", 0, vec![kernel, variable("bias", &[CLASSES], &dense().bias.unwrap())]));
    layers
}

/// As [`legacy_bytes`] names them, for a container without groups.
pub fn keras_tensors(filters: &[Filter]) -> Tensors {
    let mut tensors = Tensors::new();
    for (base, number, variables) in keras_layers(1, filters) {
        let named = |name| format!("{}/{name}", numbered(base, number));
        tensors.extend(variables.into_iter().map(|(name, shape, values)| (named(name), shape, values)));
    }
    tensors
}

/// `<layer>/<layer>_1/<variable>:0`, the layers numbered from `first`, under `parent`.
pub fn legacy_bytes(first: u64, parent: Option<&str>, filters: &[Filter], stored: Stored) -> Vec<u8> {
    let mut file = FileBuilder::new();
    let mut layers = Vec::new();
    for (base, number, mut variables) in keras_layers(first, filters) {
        let name = numbered(base, number);
        variables.iter_mut().for_each(|(name, ..)| name.push_str(":0"));
        let mut layer = file.create_group(&name);
        let mut inner = layer.create_group(&format!("{name}_1"));
        add_variables(&mut inner, &variables, stored);
        layer.add_group(inner.finish());
        layers.push(layer.finish());
    }
    match parent {
        None => layers.into_iter().for_each(|layer| file.add_group(layer)),
        Some(parent) => {
            let mut model = file.create_group(parent);
            layers.into_iter().for_each(|layer| model.add_group(layer));
            file.add_group(model.finish());
        }
    }
    file.finish().unwrap()
}

/// Keras 3: groups numbered backwards, the layers' names in an attribute unless `anonymous`.
pub fn keras3_bytes(filters: &[Filter], anonymous: bool) -> Vec<u8> {
    const FIRST: u64 = 94;
    let mut file = FileBuilder::new();
    let mut layers = file.create_group("layers");
    for (base, number, mut variables) in keras_layers(FIRST, filters) {
        for (place, variable) in variables.iter_mut().enumerate() {
            variable.0 = place.to_string();
        }
        let group_base = if base == "predictions" { "dense" } else { base };
        let mut layer = layers.create_group(&numbered(group_base, FIRST + filters.len() as u64 - 1 - number));
        let mut vars = layer.create_group("vars");
        if !anonymous {
            vars.set_attr("name", AttrValue::String(numbered(base, number)));
        }
        add_variables(&mut vars, &variables, Stored::Plain);
        layer.add_group(vars.finish());
        layers.add_group(layer.finish());
    }
    file.add_group(layers.finish());
    file.finish().unwrap()
}
