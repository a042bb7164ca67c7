//! Tensors as numpy's `.npy` files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use engine::InputError;
use engine::util::files::{file_name, one_line, starts_like, write_with};
use ndarray::{Array4, ArrayBase, ArrayD, Data, Dimension, Ix4, IxDyn, ShapeBuilder};
use serde::Deserialize;
use serde_json::Value;

/// The longest header accepted; numpy's own are 118 bytes.
const MAX_HEADER: usize = 4096;

const F32: &str = "<f4";
const F64: &str = "<f8";

/// A tensor of results to compare with.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectTensor {
    /// Its values.
    pub values: ArrayD<f64>,
    /// Whether the file holds float64, rather than float32.
    pub is_f64: bool,
}

/// Reads images `[n, h, w, c]` of float32, where `expected` is `[h, w, c]` and n is at least 1.
/// C and Fortran order are accepted.
///
/// # Errors
/// If type, rank or size differ, a value is not finite, or bytes are missing or left over.
pub fn load_npy(path: &Path, expected: [usize; 3]) -> Result<Array4<f32>, InputError> {
    let npy = Npy::open(path, "input", &[F32])?;
    if !matches!(npy.shape[..], [n, ref image @ ..] if n > 0 && image == expected) {
        let [h, w, c] = expected;
        return Err(npy.shape_error(format!("[images, {h}, {w}, {c}] with at least 1 image")));
    }
    let values = npy.values(f32::from_le_bytes)?;
    Ok(values.into_dimensionality::<Ix4>().expect("the rank has been checked"))
}

/// Reads a float32 tensor of shape `expected`; `name` says in errors what it is.
///
/// # Errors
/// As [`load_npy`].
pub fn load_npy_dyn(path: &Path, name: &str, expected: &[usize]) -> Result<ArrayD<f32>, InputError> {
    Npy::of_shape(path, name, &[F32], expected)?.values(f32::from_le_bytes)
}

/// As [`load_npy_dyn`], of float32 or float64.
///
/// # Errors
/// As [`load_npy`].
pub fn load_expect(path: &Path, name: &str, expected: &[usize]) -> Result<ExpectTensor, InputError> {
    let npy = Npy::of_shape(path, name, &[F32, F64], expected)?;
    let is_f64 = npy.descriptor == F64;
    let values = match is_f64 {
        true => npy.values(f64::from_le_bytes)?,
        false => npy.values(f32::from_le_bytes)?.mapv(f64::from),
    };
    Ok(ExpectTensor { values, is_f64 })
}

/// Replaces the file at `path` by this tensor, or leaves it as it was: see
/// [`write_atomically`](engine::util::files::write_atomically).
///
/// # Errors
/// If the folder or the file cannot be written.
pub fn save_npy<D: Dimension>(
    path: &Path,
    values: &ArrayBase<impl Data<Elem = f32>, D>,
) -> Result<(), InputError> {
    write_with(path, |out| {
        out.write_all(&header(values.shape()))?;
        values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
    })
}

/// A float32 tensor as a file has it, its values in C order.
pub fn npy_bytes(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let mut bytes = header(shape);
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// What precedes the values of a float32 array in C order, in version 1 of the format: magic,
/// version, length, and a text that ends at a multiple of 64 bytes.
fn header(shape: &[usize]) -> Vec<u8> {
    let extents: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
    let text = format!("{{'descr': '{F32}', 'fortran_order': False, 'shape': ({extents}), }}");
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let padded = format!("{text:<width$}\n", width = length - 1);
    [b"\x93NUMPY\x01\x00", &(length as u16).to_le_bytes()[..], padded.as_bytes()].concat()
}

/// A header, which is a literal of Python.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    descr: Value,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// Reads the literal as JSON, which it is but for quotes, tuples, `True` and trailing commas.
fn parse(text: &[u8]) -> Option<Header> {
    let text = std::str::from_utf8(text).ok()?.replace('\'', "\"").replace('(', "[").replace(')', "]");
    let text = text.replace("True", "true").replace("False", "false").replace([' ', '\n'], "");
    serde_json::from_str(&text.replace(",]", "]").replace(",}", "}")).ok()
}

/// A file whose header has been read.
struct Npy<'a> {
    file: String,
    name: &'a str,
    /// numpy's type, such as `<f4`.
    descriptor: String,
    fortran: bool,
    shape: Vec<usize>,
    reader: File,
}

impl<'a> Npy<'a> {
    fn open(path: &Path, name: &'a str, types: &[&str]) -> Result<Self, InputError> {
        let file = file_name(path);
        let read = |source| InputError::Read { file: file.clone(), source };
        let reader = File::open(path).map_err(read)?;
        let header = read_header(&reader).map_err(read)?.map_err(|found| {
            let expected = "an array in numpy's .npy format".to_owned();
            InputError::Format { file: file.clone(), found, expected }
        })?;
        let fields = || header.descr.to_string();
        let descriptor = one_line(&header.descr.as_str().map_or_else(fields, str::to_string));
        if !types.contains(&descriptor.as_str()) {
            let expected = match types {
                [F32] => "<f4 (little-endian float32)",
                _ => "<f4 or <f8 (little-endian float32 or float64)",
            };
            return Err(InputError::Type { file, name: name.to_owned(), found: descriptor, expected });
        }
        Ok(Self { name, descriptor, fortran: header.fortran_order, shape: header.shape, reader, file })
    }

    fn of_shape(path: &Path, name: &'a str, types: &[&str], expected: &[usize]) -> Result<Self, InputError> {
        let npy = Self::open(path, name, types)?;
        if npy.shape == expected { Ok(npy) } else { Err(npy.shape_error(format!("{expected:?}"))) }
    }

    fn shape_error(self, expected: String) -> InputError {
        InputError::Shape { file: self.file, name: self.name.to_owned(), found: self.shape, expected }
    }

    /// All values in C order; they are finite, and the file ends after them.
    fn values<T: Copy + Into<f64>, const SIZE: usize>(
        self,
        from_bytes: fn([u8; SIZE]) -> T,
    ) -> Result<ArrayD<T>, InputError> {
        let Some(size) = self.shape.iter().try_fold(SIZE, |bytes, extent| bytes.checked_mul(*extent)) else {
            return Err(self.shape_error("a shape that fits into memory".to_owned()));
        };
        // A byte more tells whether one is left over.
        let there = self.reader.metadata().map_or(0, |file| file.len() as usize);
        let mut bytes = Vec::with_capacity(size.min(there) + 1);
        let read = (&self.reader).take((size as u64).saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|source| InputError::Read { file: self.file.clone(), source })?;
        if bytes.len() != size {
            let found = match bytes.len() < size {
                true => format!("a file truncated after {} bytes of values", bytes.len()),
                false => "bytes left over after the values".to_owned(),
            };
            let expected = format!("{size} bytes of values for {} of shape {:?}", self.name, self.shape);
            return Err(InputError::Format { file: self.file, found, expected });
        }
        let values = bytes.as_chunks().0.iter().map(|bytes| from_bytes(*bytes)).collect();
        drop(bytes);
        let shape = IxDyn(&self.shape).set_f(self.fortran);
        let values = ArrayD::from_shape_vec(shape, values).expect("as many values as the shape says");
        let mut all = values.indexed_iter().map(|(at, value)| (at, (*value).into()));
        if let Some((at, found)) = all.find(|(_, value)| !value.is_finite()) {
            let (name, at) = (self.name.to_owned(), at.slice().to_vec());
            return Err(InputError::NotFinite { file: self.file, name, found, at });
        }
        Ok(if self.fortran { values.as_standard_layout().into_owned() } else { values })
    }
}

/// The header, or what was found instead of one.
///
/// Its length is looked at first.
fn read_header(file: &File) -> std::io::Result<Result<Header, String>> {
    let mut header = Vec::new();
    let read = |count: usize, header: &mut Vec<u8>| file.take(count as u64).read_to_end(header);
    read(8, &mut header)?;
    if header.len() < 8 || !header.starts_with(b"\x93NUMPY") {
        return Ok(Err(starts_like(&header)));
    }
    let prefix = if header[6] == 1 { 10 } else { 12 };
    read(prefix - 8, &mut header)?;
    let length = header[8..].iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > MAX_HEADER {
        return Ok(Err(format!("a header of {length} bytes")));
    }
    read(length, &mut header)?;
    let malformed = "a header that does not state descr, fortran_order and shape".to_owned();
    Ok(header.get(prefix..).and_then(parse).ok_or(malformed))
}
