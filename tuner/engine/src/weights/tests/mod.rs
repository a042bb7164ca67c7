use std::path::{Path, PathBuf};

use ::safetensors::tensor::Dtype;
use kernels::Filter;
use tempfile::TempDir;

use crate::network::spec::{ConvSpec, Spec};
use crate::weights::error::WeightsError;
use crate::weights::naming::AveragePooling;
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
    Weights::open_for(path, spec)
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
    let weights = Weights::synthetic_for(&spec(), 1);
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
        (legacy_bytes_of(0, None, &filters(true), Stored::Chunked), true),
        (legacy_bytes_of(0, None, &filters(true), Stored::BigEndian), true),
        (keras3_bytes(&filters(false), false), false),
        (keras3_bytes(&filters(true), false), true),
    ];
    for (number, (bytes, gamma)) in files.iter().enumerate() {
        let (convs, top) = read(bytes, &spec()).unwrap();
        assert_eq!(convs, filters(*gamma), "file {number}");
        assert_eq!(top, Some(dense()), "file {number}");
    }
}

/// Made by `tests/fixtures/weights/make.py`, with the values of [`filters`].
const FROM_KERAS: [&[u8]; 3] = [
    include_bytes!("../../../../../tests/fixtures/weights/legacy.h5"),
    include_bytes!("../../../../../tests/fixtures/weights/model.h5"),
    include_bytes!("../../../../../tests/fixtures/weights/keras3.weights.h5"),
];

#[test]
fn files_that_keras_wrote_give_their_layers_in_order_of_creation() {
    for (number, bytes) in FROM_KERAS.iter().enumerate() {
        let (convs, top) = read(bytes, &spec()).unwrap();
        assert_eq!(convs, filters(false), "file {number}");
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
fn any_container_is_read_with_any_naming_scheme() {
    let (_folder, path) = write(&safetensors_bytes(&keras_tensors(&filters(true)), Dtype::F32));
    let weights = open(&path, &spec()).unwrap();
    assert_eq!(weights.average_pooling(), AveragePooling::Keras);
    let convs: Vec<Filter> = spec().convs.iter().map(|conv| weights.conv(conv).unwrap()).collect();
    assert_eq!((convs, weights.dense().unwrap()), (filters(true), Some(dense())));
    let mut fewer = keras_tensors(&filters(true));
    fewer.retain(|(name, ..)| name != "conv2d_3/kernel");
    let message = refusal(&safetensors_bytes(&fewer, Dtype::F32), &spec());
    assert!(message.contains("tensor conv2d_3/kernel is missing, expected f32 [1, 1, 5, 5]"), "{message}");
    // Where the names are those of no scheme, the container's usual one says what is missing.
    let others = vec![("weight".to_owned(), vec![1], vec![0.0])];
    let message = refusal(&safetensors_bytes(&others, Dtype::F32), &spec());
    assert!(message.contains("tensor Mixed_0.branch.conv.weight is missing"), "{message}");
}

#[test]
fn a_part_of_the_network_finds_its_layers_in_a_whole_file() {
    let part = Spec { convs: vec![spec().convs[3].clone()], features: 0, ..spec() };
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
fn damaged_files_are_refused_or_read_but_never_panic() {
    let (_folder, path) = write(b"");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let weights = open(&path, &spec())?;
        spec().convs.iter().try_for_each(|conv| weights.conv(conv).map(drop))?;
        weights.dense()
    };
    let safetensors = safetensors_bytes(&torch_tensors(), Dtype::F32);
    for bytes in FROM_KERAS.into_iter().chain([&safetensors[..]]) {
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

/// Kernel 7 and variance 4 of convolution 1, kernel 2999 of the dense layer.
const SYNTHETIC: [f32; 3] = [0.5197836, 1.2494526, -0.2927572];
