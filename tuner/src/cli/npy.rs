//! Tensors as numpy's `.npy` files.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use engine::util::files::{InputError, file_name, one_line, write_with};
use ndarray::{Array, Array4, ArrayD, Dimension, Ix4, IxDyn, ShapeBuilder};
use ndarray_npy::WriteNpyExt;
use ndarray_npy::npy::header::Header;

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

/// Reads preprocessed images `[n, h, w, c]` of float32, where `expected` is `[h, w, c]` and n is at
/// least 1. C and Fortran order are accepted.
///
/// # Errors
/// If type, rank or size differ, a value is not finite, or bytes are missing or left over.
pub fn load_npy(path: &Path, expected: [usize; 3]) -> Result<Array4<f32>, InputError> {
    let [h, w, c] = expected;
    let npy = Npy::open(path, "input")?;
    npy.check_type(&[F32])?;
    let fits = matches!(npy.shape[..], [n, ref image @ ..] if n > 0 && image == expected);
    npy.check_shape(fits, format!("[images, {h}, {w}, {c}] with at least 1 image"))?;
    let values = npy.values(f32::from_le_bytes)?;
    Ok(values.into_dimensionality::<Ix4>().expect("the rank has been checked"))
}

/// Reads a float32 tensor of shape `expected`; `name` says in errors what it is.
///
/// # Errors
/// As [`load_npy`].
pub fn load_npy_dyn(path: &Path, name: &str, expected: &[usize]) -> Result<ArrayD<f32>, InputError> {
    let npy = Npy::open(path, name)?;
    npy.check_type(&[F32])?;
    npy.check_shape(npy.shape == expected, format!("{expected:?}"))?;
    npy.values(f32::from_le_bytes)
}

/// As [`load_npy_dyn`], of float32 or float64.
///
/// # Errors
/// As [`load_npy`].
pub fn load_expect(path: &Path, name: &str, expected: &[usize]) -> Result<ExpectTensor, InputError> {
    let npy = Npy::open(path, name)?;
    npy.check_type(&[F32, F64])?;
    npy.check_shape(npy.shape == expected, format!("{expected:?}"))?;
    let is_f64 = npy.descriptor == F64;
    let values = if is_f64 {
        npy.values(f64::from_le_bytes)?
    } else {
        npy.values(f32::from_le_bytes)?.mapv(f64::from)
    };
    Ok(ExpectTensor { values, is_f64 })
}

/// Replaces the file at `path` by this tensor, or leaves it as it was: see
/// [`write_atomically`](engine::util::files::write_atomically).
///
/// # Errors
/// If the folder or the file cannot be written.
pub fn save_npy<D: Dimension>(path: &Path, values: &Array<f32, D>) -> Result<(), InputError> {
    write_with(path, |out| {
        values.write_npy(out).map_err(|error| match error {
            ndarray_npy::WriteNpyError::Io(error) => error,
            other => std::io::Error::other(other.to_string()),
        })
    })
}

/// A file whose header has been read.
struct Npy {
    file: String,
    name: String,
    /// numpy's type, such as `<f4`.
    descriptor: String,
    fortran: bool,
    shape: Vec<usize>,
    length: u64,
    reader: BufReader<File>,
}

impl Npy {
    fn open(path: &Path, name: &str) -> Result<Self, InputError> {
        let file = file_name(path);
        let read = |source| InputError::Read { file: file.clone(), source };
        let handle = File::open(path).map_err(read)?;
        let length = handle.metadata().map_err(read)?.len();
        let mut reader = BufReader::with_capacity(1 << 16, handle);
        let header = read_header(&mut reader).map_err(read)?.map_err(|found| InputError::Format {
            file: file.clone(),
            found,
            expected: "an array in numpy's .npy format".to_owned(),
        })?;
        let descriptor = match header.type_descriptor.as_string() {
            Some(text) => one_line(text),
            None => one_line(&header.type_descriptor.to_string()),
        };
        let (fortran, shape) = (header.layout.is_fortran(), header.shape);
        Ok(Self { name: name.to_owned(), descriptor, fortran, shape, length, reader, file })
    }

    fn check_type(&self, accepted: &[&str]) -> Result<(), InputError> {
        if accepted.contains(&self.descriptor.as_str()) {
            return Ok(());
        }
        let expected = match accepted {
            [F32] => "<f4 (little-endian float32)",
            _ => "<f4 or <f8 (little-endian float32 or float64)",
        };
        let (file, name, found) = (self.file.clone(), self.name.clone(), self.descriptor.clone());
        Err(InputError::Type { file, name, found, expected })
    }

    fn check_shape(&self, fits: bool, expected: String) -> Result<(), InputError> {
        if fits {
            return Ok(());
        }
        let (file, name, found) = (self.file.clone(), self.name.clone(), self.shape.clone());
        Err(InputError::Shape { file, name, found, expected })
    }

    /// All values in C order; they are finite, and the file ends after them.
    fn values<T, const SIZE: usize>(
        mut self,
        from_bytes: fn([u8; SIZE]) -> T,
    ) -> Result<ArrayD<T>, InputError>
    where
        T: Copy + Into<f64>,
    {
        let count = self.shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
        let Some((count, bytes)) = count.and_then(|n| Some((n, n.checked_mul(SIZE)?))) else {
            let expected = "a shape that fits into memory".to_owned();
            return Err(self.check_shape(false, expected).expect_err("it does not fit"));
        };
        let mut values = Vec::with_capacity(count.min((self.length / SIZE as u64) as usize));
        let mut buffer = [0; SIZE];
        let mut found = 0;
        while found < bytes {
            let read = fill(&mut self.reader, &mut buffer)
                .map_err(|source| InputError::Read { file: self.file.clone(), source })?;
            found += read;
            if read < SIZE {
                return Err(self.bytes(format!("a file truncated after {found} bytes of values"), bytes));
            }
            values.push(from_bytes(buffer));
        }
        let left = fill(&mut self.reader, &mut [0; 1]);
        if left.map_err(|source| InputError::Read { file: self.file.clone(), source })? > 0 {
            return Err(self.bytes("bytes left over after the values".to_owned(), bytes));
        }
        let shape = IxDyn(&self.shape).set_f(self.fortran);
        let values = ArrayD::from_shape_vec(shape, values).expect("as many values as the shape says");
        let bad = values.indexed_iter().map(|(at, value)| (at, (*value).into()));
        if let Some((at, found)) = bad.into_iter().find(|(_, value)| !value.is_finite()) {
            let at = at.slice().to_vec();
            return Err(InputError::NotFinite { file: self.file, name: self.name, found, at });
        }
        Ok(if self.fortran { values.as_standard_layout().into_owned() } else { values })
    }

    fn bytes(self, found: String, expected: usize) -> InputError {
        let expected = format!("{expected} bytes of values for {} of shape {:?}", self.name, self.shape);
        InputError::Format { file: self.file, found, expected }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The header, or what was found instead of one.
///
/// Length and nesting are looked at first: the parser allocates what the length says, and recurses.
fn read_header(reader: &mut impl Read) -> std::io::Result<Result<Header, String>> {
    let mut start = [0; 12];
    let filled = fill(reader, &mut start[..8])?;
    if filled < 8 || !start.starts_with(b"\x93NUMPY") {
        let found = match filled {
            0 => "an empty file".to_owned(),
            _ => format!("a file that starts with {:02x?}", &start[..filled]),
        };
        return Ok(Err(found));
    }
    let prefix = if start[6] == 1 { 10 } else { 12 };
    fill(reader, &mut start[8..prefix])?;
    let length = u32::from_le_bytes([start[8], start[9], start[10], start[11]]) as usize;
    if length > MAX_HEADER {
        return Ok(Err(format!("a header of {length} bytes")));
    }
    let mut header = start[..prefix].to_vec();
    reader.take(length as u64).read_to_end(&mut header)?;
    let mut depth = 0usize;
    for byte in &header[prefix..] {
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
