//! Tensors as numpy's `.npy` files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use engine::InputError;
use engine::util::files::{file_name, one_line, write_with};
use ndarray::{Array, Array4, ArrayD, Dimension, Ix4, IxDyn, ShapeBuilder};
use ndarray_npy::npy::header::Header;
use ndarray_npy::{WriteNpyError, WriteNpyExt};

/// The longest header accepted; numpy's own are 118 bytes.
const MAX_HEADER: usize = 4096;

/// The deepest nesting of brackets accepted in a header; that of a plain array is 2.
const MAX_NESTING: usize = 8;

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
pub fn save_npy<D: Dimension>(path: &Path, values: &Array<f32, D>) -> Result<(), InputError> {
    let io = |error| match error {
        WriteNpyError::Io(error) => error,
        other => std::io::Error::other(other.to_string()),
    };
    write_with(path, |out| values.write_npy(out).map_err(io))
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
        let descriptor = match header.type_descriptor.as_string() {
            Some(text) => one_line(text),
            None => one_line(&header.type_descriptor.to_string()),
        };
        if !types.contains(&descriptor.as_str()) {
            let expected = match types {
                [F32] => "<f4 (little-endian float32)",
                _ => "<f4 or <f8 (little-endian float32 or float64)",
            };
            return Err(InputError::Type { file, name: name.to_owned(), found: descriptor, expected });
        }
        Ok(Self { name, descriptor, fortran: header.layout.is_fortran(), shape: header.shape, reader, file })
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
/// Length and nesting are looked at first: the parser allocates what the length says, and recurses.
fn read_header(file: &File) -> std::io::Result<Result<Header, String>> {
    let mut header = Vec::new();
    let read = |count: usize, header: &mut Vec<u8>| file.take(count as u64).read_to_end(header);
    read(8, &mut header)?;
    if header.is_empty() {
        return Ok(Err("an empty file".to_owned()));
    }
    if header.len() < 8 || !header.starts_with(b"\x93NUMPY") {
        return Ok(Err(format!("a file that starts with {header:02x?}")));
    }
    let prefix = if header[6] == 1 { 10 } else { 12 };
    read(prefix - 8, &mut header)?;
    let length = header[8..].iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > MAX_HEADER {
        return Ok(Err(format!("a header of {length} bytes")));
    }
    read(length, &mut header)?;
    let mut depth = 0usize;
    for byte in header.iter().skip(prefix) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Ok(Err("a header of nested brackets".to_owned()));
        }
    }
    let malformed = "a header that does not state descr, fortran_order and shape".to_owned();
    Ok(Header::from_reader(&mut header.as_slice()).map_err(|_| malformed))
}
