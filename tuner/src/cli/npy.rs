//! Tensors as numpy's `.npy` files.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use engine::InputError;
use engine::util::files::{AtomicFile, coordinate, file_name};
use engine::util::read_at::read_exact_at;
use ndarray::{Array4, ArrayD, Dimension, IxDyn, ShapeBuilder};

use crate::cli::Failure;
use crate::npy::{self, F32, F64};

/// Bytes that are read at a time.
const PART: usize = 1 << 16;

/// What is expected of a shape that is larger than any memory.
const IN_MEMORY: &str = "a shape that fits into memory";

/// A tensor of results to compare with.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectTensor {
    /// Its values.
    pub values: ArrayD<f64>,
    /// Whether the file holds float64, rather than float32.
    pub is_f64: bool,
}

/// Images `[n, h, w, c]` of float32, read one by one. C and Fortran order are accepted; of the
/// latter, and of a pipe, all are in memory.
pub struct NpyImages {
    values: Values,
    count: usize,
    /// Values of an image.
    size: usize,
}

enum Values {
    InFile(Npy<'static>),
    InMemory(Vec<f32>),
}

impl NpyImages {
    /// Opens a file whose images are `expected`, `[h, w, c]`, and at least one.
    ///
    /// # Errors
    /// If type, rank or size differ, or bytes are missing or left over.
    pub fn open(path: &Path, expected: [usize; 3]) -> Result<Self, InputError> {
        let npy = Npy::open(path, "input", &[F32])?;
        if !matches!(npy.shape[..], [n, ref image @ ..] if n > 0 && image == expected) {
            let [h, w, c] = expected;
            return Err(npy.shape_error(format!("[images, {h}, {w}, {c}] with at least 1 image")));
        }
        let count = npy.shape[0];
        // The length of a pipe is known at its end.
        let is_file = npy.reader.metadata().is_ok_and(|there| there.is_file());
        let values = match is_file && !npy.fortran {
            true => Values::InFile(npy.of_its_length()?),
            false => Values::InMemory(npy.values(f32::from_le_bytes)?.into_raw_vec_and_offset().0),
        };
        Ok(Self { values, count, size: expected.iter().product() })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The values `[h, w, c]` of an image.
    ///
    /// # Errors
    /// If a value is not finite, or the file cannot be read.
    pub fn image(&self, number: usize) -> Result<Vec<f32>, InputError> {
        let (from, size) = (number * self.size, self.size);
        match &self.values {
            Values::InMemory(all) => Ok(all[from..from + size].to_vec()),
            Values::InFile(npy) => npy.part(from, size),
        }
    }
}

/// Reads images `[n, h, w, c]` as [`NpyImages`], all of them.
///
/// # Errors
/// As those.
pub fn load_npy(path: &Path, expected: [usize; 3]) -> Result<Array4<f32>, InputError> {
    let images = NpyImages::open(path, expected)?;
    let (count, [h, w, c]) = (images.count(), expected);
    let values: Vec<Vec<f32>> = (0..count).map(|number| images.image(number)).collect::<Result<_, _>>()?;
    let values = values.concat();
    Ok(Array4::from_shape_vec((count, h, w, c), values).expect("as many values as the shape says"))
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

/// A float32 tensor that is written row by row; the file is there once all are: see [`AtomicFile`].
pub struct NpyWriter(AtomicFile);

impl NpyWriter {
    /// For a tensor of a shape.
    ///
    /// # Errors
    /// If the folder or the file cannot be written; so have the other functions.
    pub fn create(path: &Path, shape: &[usize]) -> Result<Self, InputError> {
        let mut file = AtomicFile::create(path)?;
        file.write_all(&header(shape))?;
        Ok(Self(file))
    }

    /// Writes the next values in C order.
    pub fn write(&mut self, values: &[f32]) -> Result<(), InputError> {
        self.0.write_all(&bytes(values))
    }

    /// Puts the file in its place.
    pub fn finish(self) -> Result<(), InputError> {
        self.0.finish()
    }
}

/// Values as a file has them.
pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// What precedes the values of a float32 array in C order.
pub fn header(shape: &[usize]) -> Vec<u8> {
    npy::header(F32, shape)
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
    /// Bytes before the values.
    start: u64,
}

impl<'a> Npy<'a> {
    fn open(path: &Path, name: &'a str, types: &[&str]) -> Result<Self, InputError> {
        let file = file_name(path);
        let read = |source| InputError::Read { file: file.clone(), source };
        let reader = File::open(path).map_err(read)?;
        let header = npy::read_header(&reader).map_err(read)?.map_err(|found| {
            let expected = "an array in numpy's .npy format".to_owned();
            InputError::Format { file: file.clone(), found, expected }
        })?;
        let descriptor = header.descriptor();
        if !types.contains(&descriptor.as_str()) {
            let expected = match types {
                [F32] => "<f4 (little-endian float32)",
                _ => "<f4 or <f8 (little-endian float32 or float64)",
            };
            return Err(InputError::Type { file, name: name.to_owned(), found: descriptor, expected });
        }
        // A pipe has no position, and is read at once.
        let start = (&reader).stream_position().unwrap_or(0);
        let (fortran, shape) = (header.is_fortran, header.shape);
        Ok(Self { name, descriptor, fortran, shape, reader, start, file })
    }

    fn of_shape(path: &Path, name: &'a str, types: &[&str], expected: &[usize]) -> Result<Self, InputError> {
        let npy = Self::open(path, name, types)?;
        if npy.shape == expected { Ok(npy) } else { Err(npy.shape_error(format!("{expected:?}"))) }
    }

    fn shape_error(self, expected: String) -> InputError {
        InputError::Shape { file: self.file, name: self.name.to_owned(), found: self.shape, expected }
    }

    fn not_finite(&self, found: f64, at: Vec<usize>) -> InputError {
        InputError::NotFinite { file: self.file.clone(), name: self.name.to_owned(), found, at }
    }

    /// The file, if what is left of it is as long as its float32 values are.
    fn of_its_length(self) -> Result<Self, InputError> {
        let read = |source| InputError::Read { file: self.file.clone(), source };
        let at = (&self.reader).stream_position().map_err(read)?;
        let there = self.reader.metadata().map_err(read)?.len().saturating_sub(at);
        let size = self.size::<4>();
        match size {
            Some(size) if size as u64 == there => Ok(self),
            Some(size) => Err(self.length_error(there, size)),
            None => Err(self.shape_error(IN_MEMORY.to_owned())),
        }
    }

    /// Bytes of all values of a size; none where they are more than can be.
    fn size<const SIZE: usize>(&self) -> Option<usize> {
        self.shape.iter().try_fold(SIZE, |bytes, extent| bytes.checked_mul(*extent))
    }

    /// `there` bytes follow the header, and not `size`; of what is longer not all may be counted.
    fn length_error(&self, there: u64, size: usize) -> InputError {
        let found = match there < size as u64 {
            true => format!("a file truncated after {there} bytes of values"),
            false => "bytes left over after the values".to_owned(),
        };
        let expected = format!("{size} bytes of values for {} of shape {:?}", self.name, self.shape);
        InputError::Format { file: self.file.clone(), found, expected }
    }

    /// `size` values from element `from` of the tensor on; they are finite.
    fn part(&self, from: usize, size: usize) -> Result<Vec<f32>, InputError> {
        let read = |source| InputError::Read { file: self.file.clone(), source };
        let mut values: Vec<f32> = Vec::with_capacity(size);
        let mut part = vec![0; PART];
        while values.len() < size {
            let part = &mut part[..PART.min((size - values.len()) * size_of::<f32>())];
            let at = self.start + ((from + values.len()) * size_of::<f32>()) as u64;
            read_exact_at(&self.reader, part, at).map_err(read)?;
            values.extend(part.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => {
                let at = coordinate(from + index, &self.shape);
                Err(self.not_finite(f64::from(values[index]), at))
            }
            None => Ok(values),
        }
    }

    /// All values in C order; they are finite, and the file ends after them.
    fn values<T: Copy + Into<f64>, const SIZE: usize>(
        self,
        from_bytes: fn([u8; SIZE]) -> T,
    ) -> Result<ArrayD<T>, InputError> {
        let Some(size) = self.size::<SIZE>() else {
            return Err(self.shape_error(IN_MEMORY.to_owned()));
        };
        // A byte more tells whether one is left over.
        let there = self.reader.metadata().map_or(0, |file| file.len() as usize);
        let mut bytes = Vec::with_capacity(size.min(there) + 1);
        let read = (&self.reader).take((size as u64).saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|source| InputError::Read { file: self.file.clone(), source })?;
        if bytes.len() != size {
            return Err(self.length_error(bytes.len() as u64, size));
        }
        let values = bytes.as_chunks().0.iter().map(|bytes| from_bytes(*bytes)).collect();
        drop(bytes);
        let shape = IxDyn(&self.shape).set_f(self.fortran);
        let values = ArrayD::from_shape_vec(shape, values).expect("as many values as the shape says");
        let mut all = values.indexed_iter().map(|(at, value)| (at, (*value).into()));
        if let Some((at, found)) = all.find(|(_, value)| !value.is_finite()) {
            return Err(self.not_finite(found, at.slice().to_vec()));
        }
        Ok(if self.fortran { values.as_standard_layout().into_owned() } else { values })
    }
}

/// The shape of an array of float32 in C order, and the length of what precedes its values.
///
/// # Errors
/// If the file has no such array.
pub fn read_shape(mut file: &File) -> Result<(Vec<usize>, usize), Failure> {
    match npy::read_header(file)? {
        Ok(header) if header.descriptor() == F32 && !header.is_fortran => {
            Ok((header.shape, file.stream_position()? as usize))
        }
        Ok(_) => Err("found values of another type or order, expected float32 in C order".into()),
        Err(found) => Err(format!("found {found}, expected an array in numpy's .npy format").into()),
    }
}
