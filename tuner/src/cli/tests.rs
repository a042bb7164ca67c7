use std::path::PathBuf;

use engine::util::files::*;
use ndarray::{Array, Array4, ArrayD, Dimension, IxDyn, ShapeBuilder};
use tempfile::TempDir;

use super::classes::load_labels;
use super::npy::*;

fn write(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.file");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// The message, which must be one line that names the file.
fn refusal<T: std::fmt::Debug>(result: Result<T, impl std::error::Error>) -> String {
    let message = result.expect_err("the file is wrong").to_string();
    assert!(message.contains("x.file: ") && !message.contains('\n'), "{message}");
    message
}

fn npy_bytes(header: &str, values: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16 + 1).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.push(b'\n');
    bytes.extend(values);
    bytes
}

fn header(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}")
}

fn npy_of<D: Dimension>(values: &Array<f32, D>) -> Vec<u8> {
    let extents: String = values.shape().iter().map(|extent| format!("{extent}, ")).collect();
    let c_order = header("<f4", &format!("({extents})"));
    let (header, in_order) = match values.is_standard_layout() {
        true => (c_order, values.view()),
        false => (c_order.replace("False", "True"), values.t()),
    };
    npy_bytes(&header, &in_order.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

fn images(n: usize) -> Array4<f32> {
    Array::from_shape_fn((n, 4, 5, 3), |(n, y, x, c)| (n * 1000 + y * 100 + x * 10 + c) as f32)
}

fn load(bytes: &[u8]) -> Result<Array4<f32>, InputError> {
    load_npy(&write(bytes).1, [4, 5, 3])
}

#[test]
fn images_come_back_in_c_order_whatever_the_files_order() {
    for n in [1, 3] {
        assert_eq!(load(&npy_of(&images(n))).unwrap(), images(n));
        let mut fortran = Array4::zeros((n, 4, 5, 3).f());
        fortran.assign(&images(n));
        let loaded = load(&npy_of(&fortran)).unwrap();
        assert_eq!(loaded, images(n));
        assert!(loaded.is_standard_layout());
    }
}

#[test]
fn other_shapes_are_named_with_what_was_expected() {
    for shape in [&[4, 5, 3][..], &[0, 4, 5, 3], &[1, 5, 4, 3], &[1, 4, 5, 1], &[1, 1, 4, 5, 3], &[]] {
        let message = refusal(load(&npy_of(&ArrayD::<f32>::zeros(shape))));
        let expected = "expected [images, 4, 5, 3] with at least 1 image";
        assert!(message.contains(&format!("input: found shape {shape:?}, {expected}")), "{message}");
    }
}

#[test]
fn other_types_are_named_with_what_was_expected() {
    for descr in ["<f8", ">f4", "<i4", "|u1", "<f2"] {
        let message = refusal(load(&npy_bytes(&header(descr, "(1, 4, 5, 3)"), &[0; 240])));
        assert!(message.contains(&format!("input: found type {descr}, expected <f4")), "{message}");
    }
    let records = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 4, 5, 3), }";
    assert!(refusal(load(&npy_bytes(records, &[0; 240]))).contains(r#"found type [["a","<f4"]]"#));
}

#[test]
fn the_first_value_that_is_not_finite_is_named() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = Array4::zeros((2, 4, 5, 3).f());
        values.assign(&images(2));
        values[[1, 2, 4, 0]] = bad;
        values[[1, 3, 0, 0]] = bad;
        let message = refusal(load(&npy_of(&values)));
        assert!(message.contains(&format!("input: found {bad} at [1, 2, 4, 0]")), "{message}");
    }
}

#[test]
fn files_end_where_their_values_end() {
    let bytes = npy_of(&images(1));
    for missing in [1, 4, 100, 240] {
        let message = refusal(load(&bytes[..bytes.len() - missing]));
        assert!(message.contains(&format!("truncated after {} bytes", 240 - missing)), "{message}");
    }
    assert!(refusal(load(&[&bytes[..], &[0]].concat())).contains("bytes left over"));
}

#[test]
fn headers_are_not_trusted() {
    let huge = header("<f4", &format!("({}, 4, 5, 3)", usize::MAX / 16));
    let long = header("<f4", "(1000000000000, 4, 5, 3)");
    let nested = header("<f4", &"(".repeat(4000));
    for (bytes, part) in [
        (&npy_bytes(&huge, &[0; 240])[..], "fits into memory"),
        (&npy_bytes(&long, &[0; 240]), "truncated"),
        (&npy_bytes(&nested, &[]), "a header that does not state"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "a header of 4294967295 bytes"),
        (b"", "an empty file"),
        (b"\x89HDF\r\n\x1a\n...", "a file that starts with [89, 48"),
    ] {
        let message = refusal(load(bytes));
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn damaged_headers_never_panic() {
    let whole = npy_of(&images(1));
    for length in 0..whole.len() {
        assert!(load(&whole[..length]).is_err());
    }
    for at in 0..whole.len() - 240 {
        for value in [0, b'(', b'\'', b'\\', b'9', b'-', 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = value;
            let _ = load(&damaged);
        }
    }
}

#[test]
fn expected_results_may_be_f32_or_f64() {
    let shape = IxDyn(&[2, 3]);
    let narrow = ArrayD::from_shape_fn(shape.clone(), |at| at[0] as f32 + 0.1 * at[1] as f32);
    let wide = ArrayD::from_shape_fn(shape, |at| at[0] as f64 + 0.1 * at[1] as f64);
    let (_folder, path) = write(&npy_of(&narrow));
    let expected = ExpectTensor { values: narrow.mapv(f64::from), is_f64: false };
    assert_eq!(load_expect(&path, "--expect", &[2, 3]).unwrap(), expected);
    assert_eq!(load_npy_dyn(&path, "--filter", &[2, 3]).unwrap(), narrow);
    let message = refusal(load_npy_dyn(&path, "--filter", &[3, 2]));
    assert!(message.contains("--filter: found shape [2, 3], expected [3, 2]"), "{message}");
    let bytes: Vec<u8> = wide.iter().flat_map(|value| value.to_le_bytes()).collect();
    let (_folder, path) = write(&npy_bytes(&header("<f8", "(2, 3)"), &bytes));
    assert_eq!(load_expect(&path, "--expect", &[2, 3]).unwrap(), ExpectTensor { values: wide, is_f64: true });
    assert!(refusal(load_npy_dyn(&path, "--filter", &[2, 3])).contains("found type <f8"));
}

#[test]
fn a_saved_tensor_replaces_the_file_and_leaves_nothing_else() {
    let (folder, path) = write(b"before");
    let values = images(2).into_raw_vec_and_offset().0;
    let saved = |rows: &[&[f32]]| {
        let mut writer = NpyWriter::create(&path, &[2, 4, 5, 3]).unwrap();
        rows.iter().for_each(|row| writer.write(row).unwrap());
        writer
    };
    drop(saved(&[&values]));
    assert_eq!(std::fs::read(&path).unwrap(), b"before", "without an end, nothing is replaced");
    saved(&[&values[..60], &values[60..]]).finish().unwrap();
    assert_eq!(load_npy(&path, [4, 5, 3]).unwrap(), images(2));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn images_that_are_read_one_by_one_are_those_that_are_read_at_once() {
    let mut fortran = Array4::zeros((5, 4, 5, 3).f());
    fortran.assign(&images(5));
    for bytes in [npy_of(&images(5)), npy_of(&fortran)] {
        let (_folder, path) = write(&bytes);
        let file = NpyImages::open(&path, [4, 5, 3]).unwrap();
        let mut each = [4, 2, 0, 3, 1].map(|number| (number, file.image(number).unwrap()));
        each.sort_by_key(|(number, _)| *number);
        assert_eq!(each.map(|(_, values)| values).concat(), images(5).into_raw_vec_and_offset().0);
    }
    let mut wrong = images(5);
    wrong[[3, 1, 2, 0]] = f32::NAN;
    let (_folder, path) = write(&npy_of(&wrong));
    let file = NpyImages::open(&path, [4, 5, 3]).unwrap();
    file.image(2).unwrap();
    assert!(refusal(file.image(3)).contains("found NaN at [3, 1, 2, 0]"));
}

#[test]
fn labels_are_one_a_line() {
    for text in
        ["tench\ngreat white shark\n", "tench\r\ngreat white shark", "\u{feff}tench\n great white shark \n"]
    {
        assert_eq!(load_labels(&write(text.as_bytes()).1, 2).unwrap(), ["tench", "great white shark"]);
    }
    let message = refusal(load_labels(&write(b"a\nb\nc\n").1, 2));
    assert!(message.contains("found 3 labels, expected one a line for 2 classes"), "{message}");
    assert!(message.contains("is the first line a background"), "{message}");
    assert!(refusal(load_labels(&write(b"a\n").1, 2)).contains("is class 0 the background"));
    assert!(refusal(load_labels(&write(b"a\n\xff\n").1, 2)).contains("not UTF-8"));
    assert!(refusal(load_labels(&write(b"[\"a\", \"b\"").1, 2)).contains("JSON that ends too early"));
    assert_eq!(load_labels(&write(b"a\x1b[2J\nb").1, 2).unwrap()[0].find('\x1b'), None);
}
