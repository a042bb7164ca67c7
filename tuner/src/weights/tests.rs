use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ::safetensors::tensor::{Dtype, TensorView};
use hdf5_pure::{AttrValue, FileBuilder, GroupBuilder};
use kernels::filter::{BatchNorm, Filter};
use tempfile::TempDir;

use super::*;

const FEATURES: usize = 3;
const CLASSES: usize = 2;

/// Shapes `[r, s, c, k]`; the last two are equal, so that only the order tells them apart.
const SHAPES: [[usize; 4]; 4] = [[3, 2, 3, 4], [1, 3, 4, 5], [1, 1, 5, 5], [1, 1, 5, 5]];

fn spec() -> Spec {
    let convs = SHAPES.iter().enumerate().map(|(index, &[r, s, channels, filters])| ConvSpec {
        index,
        name: format!("conv{index}"),
        torch: format!("Mixed_{index}.branch"),
        kernel: [r, s],
        channels,
        filters,
    });
    Spec { convs: convs.collect(), features: FEATURES }
}

/// Tensors of the test files by layer, HWIO.
fn filter(index: usize, gamma: bool) -> Filter {
    let dims = SHAPES[index];
    let values = |tensor: u64, len, lo| synthetic::uniform(7, 16 * index as u64 + tensor, len, lo, 1.0);
    let norm = BatchNorm {
        gamma: gamma.then(|| values(1, dims[3], -1.0)),
        beta: values(2, dims[3], -1.0),
        mean: values(3, dims[3], -1.0),
        variance: values(4, dims[3], 0.0),
        epsilon: EPSILON,
    };
    Filter { norms: vec![norm], ..Filter::new(dims, values(0, dims.iter().product(), -1.0)) }
}

fn dense() -> Filter {
    let weights = synthetic::uniform(7, 1000, FEATURES * CLASSES, -1.0, 1.0);
    Filter { bias: Some(vec![0.5, -0.5]), ..Filter::new([1, 1, FEATURES, CLASSES], weights) }
}

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

fn torch_tensors() -> Tensors {
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

fn safetensors_bytes(tensors: &Tensors, dtype: Dtype) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap())
    });
    ::safetensors::serialize(views.collect::<HashMap<_, _>>(), None).unwrap()
}

fn dataset(group: &mut GroupBuilder, name: &str, shape: &[u64], values: &[f32]) {
    group.create_dataset(name).with_f32_data(values).with_shape(shape);
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

fn add_variables(group: &mut GroupBuilder, variables: &Tensors) {
    for (name, shape, values) in variables {
        dataset(group, name, &shape.iter().map(|n| *n as u64).collect::<Vec<_>>(), values);
    }
}

/// `<layer>/<layer>_1/<variable>:0`, the layers numbered from `first`, under `parent`.
fn legacy_bytes(first: usize, parent: Option<&str>, filters: &[Filter]) -> Vec<u8> {
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
            add_variables(&mut inner, &variables);
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
fn keras3_bytes(filters: &[Filter], anonymous: bool) -> Vec<u8> {
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
        add_variables(&mut vars, &variables);
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

fn filters(gamma: bool) -> Vec<Filter> {
    (0..SHAPES.len()).map(|index| filter(index, gamma)).collect()
}

fn write(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn open(path: &Path, spec: &Spec) -> Result<Weights, WeightsError> {
    Weights::open(&Source::File(path.to_owned()), spec)
}

/// Opens and reads everything.
fn read(bytes: &[u8], spec: &Spec) -> Result<(Vec<Filter>, Option<Filter>), WeightsError> {
    let (_folder, path) = write(bytes);
    let weights = open(&path, spec)?;
    let convs = spec.convs.iter().map(|conv| weights.conv(conv)).collect::<Result<_, _>>()?;
    Ok((convs, weights.dense()?))
}

/// The message, which must be one line that names the file.
fn refusal(bytes: &[u8], spec: &Spec) -> String {
    let message = read(bytes, spec).expect_err("the file is wrong").to_string();
    assert!(message.contains("weights.bin: ") && !message.contains('\n'), "{message}");
    message
}

#[test]
fn weights_can_be_read_by_many_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Weights>();
}

#[test]
fn synthetic_weights_are_those_of_the_python_twin() {
    let weights = Weights::open(&Source::Synthetic { seed: 1 }, &spec()).unwrap();
    assert_eq!(weights.description(), "synthetic (seed 1)");
    assert_eq!(weights.classes(), Some(1000));
    let conv = weights.conv(&spec().convs[1]).unwrap();
    assert_eq!(conv.weights[7], SYNTHETIC[0]);
    assert_eq!(conv.norms[0].variance[4], SYNTHETIC[1]);
    assert_eq!(weights.dense().unwrap().unwrap().weights[2999], SYNTHETIC[2]);
}

#[test]
fn every_format_gives_the_same_filters_as_hwio() {
    let files = [
        (safetensors_bytes(&torch_tensors(), Dtype::F32), true),
        (legacy_bytes(0, None, &filters(false)), false),
        (legacy_bytes(1, None, &filters(true)), true),
        (legacy_bytes(95, Some("model_weights"), &filters(false)), false),
        (legacy_bytes(0, Some("inception_v3"), &filters(false)), false),
        (keras3_bytes(&filters(false), false), false),
        (keras3_bytes(&filters(true), false), true),
    ];
    for (number, (bytes, gamma)) in files.iter().enumerate() {
        let (convs, top) = read(bytes, &spec()).unwrap();
        assert_eq!(convs, filters(*gamma), "file {number}");
        assert_eq!(top, Some(dense()), "file {number}");
    }
}

#[test]
fn the_format_says_how_to_pool() {
    let pooling = |bytes: &[u8]| open(&write(bytes).1, &spec()).map(|w| w.average_pooling());
    let (_folder, path) = write(&safetensors_bytes(&torch_tensors(), Dtype::F32));
    assert_eq!(open(&path, &spec()).unwrap().average_pooling(), AveragePooling::Torchvision);
    assert_eq!(open(&path, &spec()).unwrap().description(), "weights.bin");
    let (_folder, path) = write(&keras3_bytes(&filters(false), false));
    assert_eq!(open(&path, &spec()).unwrap().average_pooling(), AveragePooling::Keras);
    assert!(pooling(b"").is_err());
}

#[test]
fn a_part_of_the_network_finds_its_layers_in_a_whole_file() {
    let part = Spec { convs: vec![spec().convs[3].clone()], features: 0 };
    for bytes in [
        safetensors_bytes(&torch_tensors(), Dtype::F32),
        legacy_bytes(1, None, &filters(true)),
        keras3_bytes(&filters(true), false),
    ] {
        assert_eq!(read(&bytes, &part).unwrap(), (vec![filter(3, true)], None));
    }
}

#[test]
fn a_file_without_top_has_no_classes() {
    let mut tensors = torch_tensors();
    tensors.truncate(tensors.len() - 2);
    assert_eq!(read(&safetensors_bytes(&tensors, Dtype::F32), &spec()).unwrap().1, None);
}

#[test]
fn a_missing_tensor_is_named_with_its_shape() {
    for missing in 0..torch_tensors().len() {
        let mut tensors = torch_tensors();
        let (name, shape, _) = tensors.remove(missing);
        let bytes = safetensors_bytes(&tensors, Dtype::F32);
        if name.contains("num_batches") {
            read(&bytes, &spec()).unwrap();
            continue;
        }
        let message = refusal(&bytes, &spec());
        let shape = if name == "fc.weight" { "[classes, 3]".to_owned() } else { format!("{shape:?}") };
        assert!(message.contains(&format!("tensor {name} is missing, expected f32 {shape}")), "{message}");
    }
    let mut longer = spec();
    longer.convs.push(ConvSpec { index: 4, ..spec().convs[3].clone() });
    let message = refusal(&legacy_bytes(1, None, &filters(false)), &longer);
    assert!(
        message.contains("tensor conv2d_5/kernel is missing, expected f32 [1, 1, 5, 5] for conv3"),
        "{message}"
    );
}

#[test]
fn another_shape_is_named_with_both() {
    let mut wider = spec();
    wider.convs[1].filters = 6;
    let message = refusal(&safetensors_bytes(&torch_tensors(), Dtype::F32), &wider);
    assert!(
        message.contains("Mixed_1.branch.conv.weight has shape [5, 4, 1, 3], expected [6, 4, 1, 3]"),
        "{message}"
    );
    let message = refusal(&keras3_bytes(&filters(false), false), &wider);
    assert!(message.contains("conv2d_95/0 has shape [1, 3, 4, 5], expected [1, 3, 4, 6]"), "{message}");
    let wider = Spec { features: 4, ..spec() };
    let message = refusal(&legacy_bytes(0, None, &filters(false)), &wider);
    assert!(message.contains("predictions/kernel has shape [3, 2], expected [4, classes]"), "{message}");
}

#[test]
fn another_type_is_refused() {
    let message = refusal(&safetensors_bytes(&torch_tensors(), Dtype::I32), &spec());
    assert!(message.contains("Mixed_0.branch.conv.weight has type I32, expected f32"), "{message}");
}

#[test]
fn values_no_network_can_have_are_named_with_their_coordinate() {
    let mut bad = filters(false);
    bad[1].weights[7] = f32::NAN;
    let message = refusal(&legacy_bytes(1, None, &bad), &spec());
    assert!(message.contains("conv2d_2/kernel holds NaN at [0, 0, 1, 2], expected a finite"), "{message}");
    let mut bad = filters(true);
    bad[3].norms[0].variance[4] = -0.5;
    let message = refusal(&keras3_bytes(&bad, false), &spec());
    assert!(message.contains("batch_normalization_97/3 holds -0.5 at [4]"), "{message}");
}

#[test]
fn keras_groups_without_names_are_refused() {
    let message = refusal(&keras3_bytes(&filters(false), true), &spec());
    assert!(message.contains("without the layer's name"), "{message}");
}

#[test]
fn other_files_are_recognised() {
    for (bytes, found) in [
        (&b""[..], "an empty file"),
        (b"PK\x03\x04........", "a zip archive"),
        (b"{\"a\": 1, \"b\": 2}", "a file that starts with [7b, 22"),
        (b"\x89HDF\r\n\x1a\n", "damaged HDF5 file"),
    ] {
        let message = refusal(bytes, &spec());
        assert!(message.contains(found), "{message}");
    }
    assert!(
        open(Path::new("/nowhere/w.h5"), &spec())
            .unwrap_err()
            .to_string()
            .contains("/nowhere/w.h5: cannot read")
    );
}

#[test]
fn header_lengths_are_not_trusted() {
    let whole = safetensors_bytes(&torch_tensors(), Dtype::F32);
    for length in [u64::MAX, u64::MAX - 7, 1 << 40, 99_999_999, whole.len() as u64, 1] {
        let mut bytes = whole.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        assert!(refusal(&bytes, &spec()).contains("damaged safetensors file"), "{length}");
    }
}

#[test]
fn damaged_files_are_refused_or_read_but_never_panic() {
    for bytes in [
        safetensors_bytes(&torch_tensors(), Dtype::F32),
        legacy_bytes(1, Some("model_weights"), &filters(true)),
        keras3_bytes(&filters(false), false),
    ] {
        for length in (0..bytes.len()).step_by(37).chain([bytes.len() - 1]) {
            assert!(read(&bytes[..length], &spec()).is_err(), "{length} of {} bytes", bytes.len());
        }
        for at in (0..bytes.len()).step_by(11) {
            for value in [0, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = read(&damaged, &spec());
            }
        }
    }
}

/// Kernel 7 and variance 4 of convolution 1, kernel 2999 of the dense layer.
const SYNTHETIC: [f32; 3] = [0.5197836, 1.2494526, -0.2927572];
