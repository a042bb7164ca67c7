use std::path::{Path, PathBuf};

use ::safetensors::tensor::Dtype;
use kernels::{BatchNorm, Filter};
use tempfile::TempDir;

use crate::network::{Activation, Head, HeadLayer};
use crate::network::{AveragePooling, ConvSpec, Model, Spec};
use crate::weights::error::WeightsError;
use crate::weights::head::HeadOptions;
use crate::weights::source::Weights;

mod files;

use files::*;

fn write(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn open(path: &Path, spec: &Spec) -> Result<Weights, WeightsError> {
    Weights::open_for(path, spec, &HeadOptions::default())
}

/// Opens and reads everything: convolutions and the first dense layer.
fn read(bytes: &[u8], spec: &Spec) -> Result<(Vec<Filter>, Option<Filter>), WeightsError> {
    let (_folder, path) = write(bytes);
    let weights = open(&path, spec)?;
    let convs = spec.convs.iter().map(|conv| weights.conv(conv)).collect::<Result<_, _>>()?;
    Ok((convs, weights.head().map(|_| weights.dense(0)).transpose()?))
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
    let weights = Weights::synthetic_for(&spec(), 1);
    assert_eq!(weights.description(), "synthetic (seed 1)");
    assert_eq!(weights.classes(), Some(1000));
    let conv = weights.conv(&spec().convs[1]).unwrap();
    assert_eq!(conv.weights[7], SYNTHETIC[0]);
    assert_eq!(conv.norms[0].variance[4], SYNTHETIC[1]);
    assert_eq!(weights.dense(0).unwrap().weights[2999], SYNTHETIC[2]);
}

/// Made by `tests/fixtures/weights/make.py`, with the values of [`filters`].
const FROM_KERAS: [&[u8]; 3] = [
    include_bytes!("../../../../../tests/fixtures/weights/legacy.h5"),
    include_bytes!("../../../../../tests/fixtures/weights/model.h5"),
    include_bytes!("../../../../../tests/fixtures/weights/keras3.weights.h5"),
];

/// Made by `tests/fixtures/weights/make_torch.py`, with the same values.
const FROM_TORCH: [&[u8]; 2] = [
    include_bytes!("../../../../../tests/fixtures/weights/torch.pt"),
    include_bytes!("../../../../../tests/fixtures/weights/torch_legacy.pth"),
];

#[test]
fn every_container_with_every_naming_scheme_gives_the_same_filters_as_hwio() {
    let files = [
        (safetensors_bytes(&torch_tensors(), Dtype::F32), true),
        (legacy_bytes(0, None, &filters(false), Stored::Plain), false),
        (legacy_bytes(1, None, &filters(true), Stored::Plain), true),
        (legacy_bytes(95, Some("model_weights"), &filters(false), Stored::Plain), false),
        (legacy_bytes(0, Some("inception_v3"), &filters(false), Stored::Plain), false),
        (legacy_bytes(0, None, &filters(true), Stored::Chunked), true),
        (legacy_bytes(0, None, &filters(true), Stored::BigEndian), true),
        (keras3_bytes(&filters(false), false), false),
        (keras3_bytes(&filters(true), false), true),
        (safetensors_bytes(&keras_tensors(&filters(true)), Dtype::F32), true),
    ];
    let of_keras = FROM_KERAS.map(|bytes| (bytes.to_vec(), false));
    let of_torch = FROM_TORCH.map(|bytes| (bytes.to_vec(), true));
    for (number, (bytes, gamma)) in files.into_iter().chain(of_keras).chain(of_torch).enumerate() {
        let (convs, top) = read(&bytes, &spec()).unwrap();
        assert_eq!(convs, filters(gamma), "file {number}");
        assert_eq!(top, Some(dense()), "file {number}");
    }
}

#[test]
fn the_naming_scheme_says_how_to_pool() {
    for (bytes, pooling) in [
        (safetensors_bytes(&torch_tensors(), Dtype::F32), AveragePooling::Torchvision),
        (safetensors_bytes(&keras_tensors(&filters(true)), Dtype::F32), AveragePooling::Keras),
        (keras3_bytes(&filters(false), false), AveragePooling::Keras),
    ] {
        let (_folder, path) = write(&bytes);
        let weights = open(&path, &spec()).unwrap();
        assert_eq!((weights.average_pooling(), &weights.description()[..]), (pooling, "weights.bin"));
    }
}

#[test]
fn a_part_of_the_network_finds_its_layers_in_a_whole_file() {
    let part = Spec { convs: vec![spec().convs[3].clone()], features: 0, ..spec() };
    for bytes in [
        safetensors_bytes(&torch_tensors(), Dtype::F32),
        legacy_bytes(1, None, &filters(true), Stored::Plain),
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
fn the_first_convolution_says_how_many_channels_an_image_has() {
    let with_channels = |channels: usize| {
        let mut tensors = torch_tensors();
        let first = tensors.iter_mut().find(|(name, ..)| name == "Mixed_0.branch.conv.weight").unwrap();
        let [k, c, r, s] = first.1[..] else { panic!("{:?}", first.1) };
        assert_eq!(c, 3);
        (first.1, first.2) = (vec![k, channels, r, s], vec![0.5; k * channels * r * s]);
        write(&safetensors_bytes(&tensors, Dtype::F32))
    };
    for channels in [1, 3, 16] {
        let (_folder, path) = with_channels(channels);
        let weights = open(&path, &spec()).unwrap();
        assert_eq!((weights.channels(), weights.image_size()), (channels, None));
        let conv = ConvSpec { channels, ..spec().convs[0].clone() };
        assert_eq!(weights.conv(&conv).unwrap().dims[2], channels);
    }
    let (_folder, path) = with_channels(17);
    let message = open(&path, &spec()).unwrap_err().to_string();
    assert!(message.contains("found images of 17 channels, expected 1 to 16"), "{message}");
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
        // A dense layer may have no bias.
        if name == "fc.bias" {
            assert_eq!(read(&bytes, &spec()).unwrap().1.unwrap().bias, Some(vec![0.0; 2]));
            continue;
        }
        let message = refusal(&bytes, &spec());
        let missing = format!("tensor {name} is missing, expected {shape:?}");
        let expected = if name == "fc.weight" { "found fc.bias in the classifier" } else { &missing };
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let (spec, whole) = (spec(), filters(false));
    let [mut wider, mut longer] = [(); 2].map(|()| spec.clone());
    wider.convs[1].filters = 6;
    longer.convs.push(ConvSpec { index: 4, ..spec.convs[3].clone() });
    let of_more_features = Spec { features: 4, ..spec.clone() };
    let [mut not_finite, mut negative] = [false, true].map(filters);
    not_finite[1].weights[7] = f32::NAN;
    negative[3].norms[0].variance[4] = -0.5;
    let mut fewer = keras_tensors(&filters(true));
    fewer.retain(|(name, ..)| name != "conv2d_3/kernel");
    // Where the names are those of no scheme, the container's usual one says what is missing.
    let of_no_scheme = vec![("weight".to_owned(), vec![1], vec![0.0])];
    let torch = |dtype| safetensors_bytes(&torch_tensors(), dtype);
    let safetensors = |tensors: &Tensors| safetensors_bytes(tensors, Dtype::F32);
    let legacy = |filters: &[Filter]| legacy_bytes(1, None, filters, Stored::Plain);
    let cases = [
        (
            torch(Dtype::F32),
            &wider,
            "Mixed_1.branch.conv.weight has shape [5, 4, 1, 3], expected [6, 4, 1, 3]",
        ),
        (keras3_bytes(&whole, false), &wider, "conv2d_95/0 has shape [1, 3, 4, 5], expected [1, 3, 4, 6]"),
        (legacy(&whole), &of_more_features, "layer predictions, which takes 3 channels and not 4,"),
        (torch(Dtype::I32), &spec, "Mixed_0.branch.conv.weight has type I32, expected f32, f16"),
        (legacy(&not_finite), &spec, "conv2d_2/kernel holds NaN at [0, 0, 1, 2], expected a finite"),
        (keras3_bytes(&negative, false), &spec, "batch_normalization_97/3 holds -0.5 at [4]"),
        (keras3_bytes(&whole, true), &spec, "without the layer's name"),
        (legacy(&whole), &longer, "tensor conv2d_5/kernel is missing, expected [1, 1, 5, 5] for conv3"),
        (safetensors(&fewer), &spec, "tensor conv2d_3/kernel is missing, expected [1, 1, 5, 5]"),
        (safetensors(&of_no_scheme), &spec, "tensor Mixed_0.branch.conv.weight is missing"),
        (b"".to_vec(), &spec, "an empty file"),
        (b"PK\x03\x04............".to_vec(), &spec, "damaged zip file"),
        (b"{\"a\": 1, \"b\": 2}".to_vec(), &spec, "a JSON file without `weight_map`"),
        (b"\x00\x01 no known file".to_vec(), &spec, "a file that starts with [00, 01"),
        (b"\x89HDF\r\n\x1a\n".to_vec(), &spec, "damaged HDF5 file"),
    ];
    for (bytes, spec, expected) in cases {
        let message = refusal(&bytes, spec);
        assert!(message.contains(expected), "{message}, expected {expected}");
    }
    let message = open(Path::new("/nowhere/w.h5"), &spec).unwrap_err().to_string();
    assert!(message.contains("/nowhere/w.h5: cannot read"), "{message}");
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
fn values_that_lie_outside_the_file_are_damage_of_their_tensor() {
    // Without checksums.
    let bytes = FROM_KERAS[0].to_vec();
    let file = hdf5_pure::File::from_bytes(bytes.clone()).unwrap();
    let layout = file.dataset("predictions/predictions/kernel").unwrap().layout().unwrap();
    let hdf5_pure::Layout::Contiguous { address: Some(address), size } = layout else { panic!("{layout:?}") };
    let places: Vec<usize> =
        (0..bytes.len() - 8).filter(|&at| bytes[at..at + 8] == address.to_le_bytes()).collect();
    let [place] = places[..] else { panic!("the address is at {places:?}") };
    for wrong in [bytes.len() as u64 - size + 1, bytes.len() as u64, address + (1 << 63), u64::MAX - size - 1]
    {
        let mut damaged = bytes.clone();
        damaged[place..place + 8].copy_from_slice(&wrong.to_le_bytes());
        let message = refusal(&damaged, &spec());
        assert!(message.contains("damaged HDF5 file: tensor predictions/kernel: "), "{message}");
    }
}

#[test]
fn numbers_of_another_layout_of_bits_are_no_f32() {
    let message = refusal(&legacy_bytes(0, None, &filters(true), Stored::Biased), &spec());
    assert!(message.contains("has type f32 of another layout, expected f32, f16, bf16 or f64"), "{message}");
}

#[test]
fn damaged_files_are_refused_or_read_but_never_panic() {
    let (_folder, path) = write(b"");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let weights = open(&path, &spec())?;
        spec().convs.iter().try_for_each(|conv| weights.conv(conv).map(drop))?;
        weights.head().map(|_| weights.dense(0)).transpose()
    };
    let safetensors = safetensors_bytes(&torch_tensors(), Dtype::F32);
    for bytes in FROM_KERAS.into_iter().chain(FROM_TORCH).chain([&safetensors[..]]) {
        for length in (0..bytes.len()).step_by(509).chain([bytes.len() - 1]) {
            assert!(read(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
        let mut damaged = bytes.to_vec();
        for at in (0..bytes.len()).step_by(251) {
            for value in [0, 0x7f, 0xff] {
                damaged[at] = value;
                let _ = read(&damaged);
            }
            damaged[at] = bytes[at];
        }
    }
}

/// A file of `torch.save` before 1.6, without storages: magic, protocol, system, object, keys.
fn torch_legacy(object: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    [magic, &b"\x80\x02M\xe9\x03.\x80\x02}.\x80\x02"[..], object, b".\x80\x02]."].concat()
}

#[test]
fn pickles_that_call_or_grow_without_end_are_refused() {
    // Each list has the one before it fifty times.
    let mut shared = b"]q\x00".to_vec();
    for kept in 1..10 {
        let items = [b'h', kept - 1].repeat(50);
        shared.extend([&b"("[..], &items, b"lq", &[kept]].concat());
    }
    // A text of a megabyte, copied again and again.
    let text = [&b"X\x00\x00\x10\x00"[..], &[b'a'; 1 << 20], b"q\x00"].concat();
    let copies = b"h\x01h\x00\x85R0".repeat(10_000);
    let copied = [&text[..], b"ctorch\nSize\nq\x01", &copies].concat();
    // A list that has one value without end.
    let long = [&b"]q\x00(N"[..], &b"2".repeat(2_000_000), b"e"].concat();
    let cases: [(&[u8], &str); 8] = [
        (&long, "values without end"),
        (
            b"}X\x01\x00\x00\x00ac__builtin__\nset\n](K\x01K\x02e\x85Rs",
            "tensor Mixed_0.branch.conv.weight is missing",
        ),
        (b"cos\nsystem\nX\x02\x00\x00\x00ls\x85R", "an object of os.system, which is not read"),
        (b"}q\x00X\x01\x00\x00\x00ah\x00s", "containers in containers without end"),
        (&shared, "values without end"),
        (&copied, "values without end"),
        (b"}N", "tensor Mixed_0.branch.conv.weight is missing"),
        (b"t", "a mark is missing"),
    ];
    for (object, expected) in cases {
        let message = refusal(&torch_legacy(object), &spec());
        assert!(message.contains(expected), "{message}, expected {expected}");
    }
}

/// A head of PyTorch's names: of each layer its name and shape; of three numbers, a BatchNorm.
fn with_head(layers: &[(&str, &[usize])]) -> Tensors {
    let mut tensors = torch_tensors();
    tensors.retain(|(name, ..)| !name.starts_with("fc."));
    for (layer, shape) in layers {
        let mut add = |name: &str, shape: &[usize], value: f32| {
            let count = shape.iter().product();
            tensors.push((format!("{layer}.{name}"), shape.to_vec(), vec![value; count]));
        };
        match shape {
            [outputs, inputs] => {
                add("weight", &[*outputs, *inputs], 0.5);
                add("bias", &[*outputs], 0.25);
            }
            shape => {
                for (name, value) in
                    [("weight", 2.0), ("bias", -1.0), ("running_mean", 0.5), ("running_var", 4.0)]
                {
                    add(name, shape, value);
                }
            }
        }
    }
    tensors
}

/// Outputs and activations of the head of a file, or the message.
fn head_of(tensors: &Tensors, options: &HeadOptions) -> Result<Head, String> {
    let (_folder, path) = write(&safetensors_bytes(tensors, Dtype::F32));
    let weights = Weights::open_for(&path, &spec(), options).map_err(|error| error.to_string())?;
    Ok(weights.head().cloned().unwrap_or(Head { is_max_pooled: false, layers: Vec::new() }))
}

#[test]
fn heads_are_chains_of_layers_whose_sizes_fit() {
    use Activation::{None, Relu, Sigmoid, Softmax};
    type Layers<'a> = &'a [(&'a str, &'a [usize])];
    let cases: [(Layers, &[(usize, Activation)]); 9] = [
        (&[("fc", &[5, 3])], &[(5, Softmax)]),
        (&[("fc", &[1, 3])], &[(1, Sigmoid)]),
        (&[("head.fc_new", &[5, 3])], &[(5, Softmax)]),
        (&[("classifier.1", &[7, 3]), ("classifier.4", &[5, 7])], &[(7, Relu), (5, Softmax)]),
        (&[("fc.0", &[7, 3]), ("fc.1", &[5, 7])], &[(7, None), (5, Softmax)]),
        (&[("fc1", &[7, 3]), ("fc2", &[5, 7]), ("bn1", &[7])], &[(7, Relu), (5, Softmax)]),
        (&[("fc.0", &[3]), ("fc.1", &[7, 3]), ("fc.3", &[7]), ("fc.4", &[1, 7])], &[(7, Relu), (1, Sigmoid)]),
        (&[("fc.10", &[2, 4]), ("fc.2", &[4, 3])], &[(4, Relu), (2, Softmax)]),
        (&[], &[]),
    ];
    for (layers, expected) in cases {
        let expected = expected.iter().map(|&(outputs, activation)| HeadLayer { outputs, activation });
        let found = head_of(&with_head(layers), &HeadOptions::default()).unwrap();
        assert_eq!(found.layers, expected.collect::<Vec<_>>(), "{layers:?}");
    }
    // A module that has the network as its backbone, and a head next to it.
    let mut next = with_head(&[]);
    next.iter_mut().for_each(|(name, ..)| name.insert_str(0, "backbone."));
    next.extend(with_head(&[("head", &[5, 3])]).into_iter().filter(|(name, ..)| name.starts_with("head")));
    let found = head_of(&next, &HeadOptions::default()).unwrap();
    assert_eq!(found.layers, [HeadLayer { outputs: 5, activation: Softmax }]);
    let logits = HeadOptions { activation: Some(None), ..HeadOptions::default() };
    let found = head_of(&with_head(&[("fc", &[5, 3])]), &logits).unwrap();
    assert_eq!(found.layers, [HeadLayer { outputs: 5, activation: None }]);
}

#[test]
fn what_does_not_fit_into_a_head_is_named_and_leaves_the_features() {
    let mut strange = with_head(&[("fc", &[5, 3])]);
    strange.push(("head.conv.weight".to_owned(), vec![2, 3, 1, 1], vec![0.0; 6]));
    let mut outside = with_head(&[("fc", &[5, 3])]);
    outside.iter_mut().for_each(|(name, ..)| name.insert_str(0, "module."));
    outside.push(("scale".to_owned(), vec![3], vec![1.0; 3]));
    let mut temperature = with_head(&[("fc", &[5, 3])]);
    temperature.iter_mut().for_each(|(name, ..)| name.insert_str(0, "model."));
    temperature.push(("temperature".to_owned(), vec![], vec![2.0]));
    // No state of a training: it is in the dictionary of the network.
    let mut scaler = with_head(&[("fc", &[5, 3])]);
    scaler.push(("scaler.scale".to_owned(), vec![1], vec![2.0]));
    // A tensor of its own in a layer of the trunk, and one next to those of a BatchNorm.
    let mut adapted = with_head(&[("fc", &[5, 3])]);
    adapted.push(("Mixed_1.branch.bn.scale".to_owned(), vec![5], vec![2.0; 5]));
    let mut norm = with_head(&[("fc.0", &[3]), ("fc.1", &[5, 3])]);
    norm.push(("fc.0.shift".to_owned(), vec![3], vec![2.0; 3]));
    let cases = [
        (with_head(&[("fc", &[5, 4])]), "layer fc, which takes 4 channels and not 3,"),
        (with_head(&[("fc", &[5, 3]), ("other", &[6, 3])]), "layer other, which takes 3 channels and not 5,"),
        (with_head(&[("fc", &[5, 3]), ("z", &[5])]), ""),
        (strange, "found head.conv.weight in the classifier"),
        (outside, "found scale in the classifier"),
        (temperature, "found temperature in the classifier"),
        (scaler, "found scaler.scale in the classifier"),
        (with_head(&[("fc", &[0, 3])]), "found layer fc, which has no outputs, in the classifier"),
        (adapted, "found Mixed_1.branch.bn.scale in the classifier"),
        (norm, "found fc.0.shift in the classifier"),
    ];
    for (tensors, expected) in cases {
        match head_of(&tensors, &HeadOptions::default()) {
            Err(message) => assert!(!expected.is_empty() && message.contains(expected), "{message}"),
            // A BatchNorm at the end is folded into the layer before it.
            Ok(head) => assert!(expected.is_empty() && head.layers.len() == 1, "{head:?}, not {expected}"),
        }
        let features = HeadOptions { features_only: true, ..HeadOptions::default() };
        assert!(head_of(&tensors, &features).unwrap().layers.is_empty());
    }
}

#[test]
fn what_was_assumed_of_a_head_is_told() {
    let assumed = |layers: &[(&str, &[usize])]| {
        let (_folder, path) = write(&safetensors_bytes(&with_head(layers), Dtype::F32));
        open(&path, &spec()).unwrap().assumed_head()
    };
    assert_eq!(assumed(&[("fc", &[5, 3])]), None);
    assert_eq!(assumed(&[("fc", &[1, 3])]).as_deref(), Some("dense 1, sigmoid"));
    let two = assumed(&[("fc1", &[7, 3]), ("fc2", &[5, 7])]);
    assert_eq!(two.as_deref(), Some("dense 7, ReLU, dense 5, softmax"));
    assert_eq!(assumed(&[("fc.0", &[3]), ("fc.1", &[5, 3])]), None);
    let room = assumed(&[("fc.0", &[3]), ("fc.2", &[5, 3])]);
    assert_eq!(room.as_deref(), Some("BatchNorm, dense 5, softmax"));
}

#[test]
fn a_batch_norm_before_a_dense_layer_is_folded_into_it() {
    let (_folder, path) =
        write(&safetensors_bytes(&with_head(&[("fc.0", &[3]), ("fc.1", &[5, 3])]), Dtype::F32));
    let weights = open(&path, &spec()).unwrap();
    let filter = weights.dense(0).unwrap();
    // 2 (x - 0.5) / sqrt(4 + 1e-5) - 1 for each of three inputs, times 0.5, and 0.25.
    let scale = 2.0 / (4.0 + 1e-5f64).sqrt();
    let shift = -1.0 - 0.5 * scale;
    assert_eq!(filter.weights, vec![(0.5 * scale) as f32; 15]);
    assert_eq!(filter.bias, Some(vec![(0.25 + 3.0 * 0.5 * shift) as f32; 5]));
}

/// An index of two safetensors files and the files; all tensors but the listed ones are in the first.
fn shards(unlisted: &[&str]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (first, second): (Tensors, Tensors) =
        torch_tensors().into_iter().partition(|(name, ..)| name.starts_with("Mixed"));
    let mut map = serde_json::Map::new();
    for (file, tensors) in [("a.safetensors", first), ("b.safetensors", second)] {
        std::fs::write(folder.path().join(file), safetensors_bytes(&tensors, Dtype::F32)).unwrap();
        let listed = tensors.iter().filter(|(name, ..)| !unlisted.contains(&&name[..]));
        map.extend(listed.map(|(name, ..)| (name.clone(), file.into())));
    }
    let path = folder.path().join("model.safetensors.index.json");
    std::fs::write(&path, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
    (folder, path)
}

#[test]
fn a_single_convolution_has_one_batch_norm_or_two() {
    for (text, norms) in [("n1h9w9c16k24r3s3", 1), ("n1h9w9c16k24r3s3-bn2", 2)] {
        let shape = text.parse().expect("a shape");
        let model = Model::by_name("conv2d_bn", Some(&shape), None).expect("a model");
        assert_eq!(model.shape_text().as_deref(), Some(text));
        let filter = Weights::synthetic(&model, 1).conv(&Spec::new(&model).convs[0]).expect("weights");
        let of_norms = filter.norms.iter().map(|n| n.beta.len() + n.mean.len() + n.variance.len());
        let parameters = filter.weights.len() + of_norms.sum::<usize>();
        assert_eq!(parameters, (3 * 3 * 16 + 3 * norms) * 24, "{text}");
        assert!(filter.norms.windows(2).all(|pair| pair[0] != pair[1]), "{text}");
    }
}

/// A single convolution with two BatchNorms, and what they are.
fn two_norms() -> (Spec, [Filter; 2]) {
    let mut spec = spec();
    spec.convs.truncate(1);
    spec.convs[0].norms = 2;
    let filters = [filter(0, true), filter(0, true)];
    let doubled = filters[1].norms[0].mean.iter().map(|mean| 2.0 * mean).collect();
    let [first, mut second] = filters;
    second.norms[0].mean = doubled;
    (Spec { features: 0, ..spec }, [first, second])
}

/// The tensors of a BatchNorm, by the names that a scheme has for them.
fn norm_tensors(norm: &BatchNorm, names: [&str; 4], layer: &str) -> Tensors {
    let gamma = norm.gamma.clone().expect("a scale");
    let values = [gamma, norm.beta.clone(), norm.mean.clone(), norm.variance.clone()];
    let named = names.into_iter().zip(values);
    named.map(|(name, values)| (format!("{layer}{name}"), vec![values.len()], values)).collect()
}

#[test]
fn a_second_batch_norm_is_the_next_of_keras_or_bn2_of_torch() {
    let (spec, [first, second]) = two_norms();
    let keras = ["gamma", "beta", "moving_mean", "moving_variance"];
    let mut of_keras = keras_tensors(std::slice::from_ref(&first));
    of_keras.extend(norm_tensors(&second.norms[0], keras, "batch_normalization_2/"));
    let mut of_torch = torch_tensors();
    let torch = ["weight", "bias", "running_mean", "running_var"];
    of_torch.extend(norm_tensors(&second.norms[0], torch, "Mixed_0.branch.bn2."));
    for tensors in [of_keras, of_torch] {
        let (convs, _) = read(&safetensors_bytes(&tensors, Dtype::F32), &spec).expect("readable");
        assert_eq!(convs[0].norms, [&first.norms[..], &second.norms].concat());
    }
}

#[test]
fn a_second_batch_norm_that_is_missing_or_may_be_of_another_layer_is_refused() {
    let (spec, [first, _]) = two_norms();
    let refused = |tensors: Tensors, part: &str| {
        let message = refusal(&safetensors_bytes(&tensors, Dtype::F32), &spec);
        assert!(message.contains(part), "{message}");
    };
    refused(torch_tensors(), "Mixed_0.branch.bn2.weight");
    refused(keras_tensors(&[first]), "batch_normalization_2/");
    refused(keras_tensors(&filters(true)), "found 4 layers conv2d, expected one, so that its BatchNorms");
}

#[test]
fn an_index_lists_all_tensors_of_its_files() {
    let (_folder, path) = shards(&[]);
    assert_eq!(open(&path, &spec()).unwrap().classes(), Some(2));
    let (_folder, path) = shards(&["fc.bias"]);
    let message = open(&path, &spec()).unwrap_err().to_string();
    assert!(message.contains("a tensor fc.bias that the index does not list"), "{message}");
    let (folder, path) = shards(&[]);
    std::fs::remove_file(folder.path().join("b.safetensors")).unwrap();
    let message = open(&path, &spec()).unwrap_err().to_string();
    assert!(message.contains("b.safetensors that cannot be read"), "{message}");
}

#[test]
fn weights_that_overflow_with_their_batch_norm_are_named() {
    let mut tensors = torch_tensors();
    let gamma = tensors.iter_mut().find(|(name, ..)| name == "Mixed_1.branch.bn.weight").unwrap();
    gamma.2[3] = f32::MAX;
    let variance = tensors.iter_mut().find(|(name, ..)| name == "Mixed_1.branch.bn.running_var").unwrap();
    variance.2[3] = 1e-9;
    let message = refusal(&safetensors_bytes(&tensors, Dtype::F32), &spec());
    let expected = "tensor Mixed_1.branch.bn.weight: weights or bias of output channel 3 overflow f32";
    assert!(message.contains(expected), "{message}");
}

/// Kernel 7 and variance 4 of convolution 1, kernel 2999 of the dense layer.
const SYNTHETIC: [f32; 3] = [0.5197836, 1.2494526, -0.2927572];
