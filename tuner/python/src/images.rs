//! What Python gives as images.

use std::borrow::Cow;
use std::path::PathBuf;

use engine::image::{PixelView, SampleView, from_bytes, from_pixels, load_with};
use engine::{Loaded, Model, Preprocessing};
use numpy::{PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tuner::ImagePaths;

use crate::errors::Raised;

/// An image as Python's side of the package gives it: arrays are C-contiguous and of native byte
/// order.
#[derive(FromPyObject)]
pub enum Given<'py> {
    /// What is in a file.
    Bytes(Bound<'py, PyBytes>),
    /// A file.
    Path(PathBuf),
    /// `[height, width]` or `[height, width, channels]`.
    U8(PyReadonlyArrayDyn<'py, u8>),
    /// As `U8`, of 16 bits.
    U16(PyReadonlyArrayDyn<'py, u16>),
    /// Preprocessed: `[height, width, channels]`.
    F32(PyReadonlyArrayDyn<'py, f32>),
    /// What `decode` makes an array of.
    Other(Bound<'py, PyAny>),
}

/// The same while other threads may run Python.
pub enum Source<'a> {
    Bytes(&'a [u8]),
    Path(PathBuf),
    Pixels(PixelView<'a>),
    Values(&'a [f32]),
    Object(Py<PyAny>),
}

/// Values that a network takes.
pub struct Image<'a>(Cow<'a, [f32]>);

impl Loaded for Image<'_> {
    fn values(&self) -> Option<&[f32]> {
        Some(&self.0)
    }
}

impl<'py> Given<'py> {
    /// Borrows arrays. Values must have the model's shape, as no preprocessing is between.
    /// Where `unit` is, float32 is pixels from 0 to 1.
    pub fn source(&self, number: usize, model: &Model, unit: bool) -> PyResult<Source<'_>> {
        let name = || format!("images[{number}]");
        Ok(match self {
            Self::Bytes(bytes) => Source::Bytes(bytes.as_bytes()),
            Self::Path(path) => Source::Path(path.clone()),
            Self::U8(array) => {
                let samples = SampleView::U8(array.as_slice()?);
                Source::Pixels(pixels(&name(), array.shape(), samples)?)
            }
            Self::U16(array) => {
                let samples = SampleView::U16(array.as_slice()?);
                Source::Pixels(pixels(&name(), array.shape(), samples)?)
            }
            Self::F32(array) if unit => {
                let samples = SampleView::F32(array.as_slice()?);
                Source::Pixels(pixels(&name(), array.shape(), samples)?)
            }
            Self::F32(array) if array.shape() == model.input() => Source::Values(array.as_slice()?),
            Self::F32(array) => {
                let (found, expected) = (array.shape(), model.input());
                let text = format!(
                    "{}: found float32 of shape {found:?}, expected a preprocessed image {expected:?}, or uint8",
                    name()
                );
                return Err(PyValueError::new_err(text));
            }
            Self::Other(object) => Source::Object(object.clone().unbind()),
        })
    }
}

/// Pixels of an array.
fn pixels<'a>(name: &str, shape: &[usize], samples: SampleView<'a>) -> PyResult<PixelView<'a>> {
    match *shape {
        [height, width] => Ok(PixelView { width, height, channels: 1, samples }),
        [height, width, channels] if (1..=4).contains(&channels) => {
            Ok(PixelView { width, height, channels, samples })
        }
        _ => {
            let expected = "expected [height, width] or [height, width, 1 to 4 channels]";
            Err(PyValueError::new_err(format!("{name}: found shape {shape:?}, {expected}")))
        }
    }
}

/// Decodes and preprocesses the images of a call.
pub struct Loader<'a> {
    pub sources: Vec<Source<'a>>,
    /// The number of the first.
    pub first: usize,
    /// Makes an array of pixels of an object.
    pub decode: Py<PyAny>,
    pub model: &'a Model,
    pub preprocessing: &'a Preprocessing,
}

impl<'a> Loader<'a> {
    /// Whether loading is work for several threads.
    pub fn is_work(&self) -> bool {
        self.sources.iter().any(|source| !matches!(source, Source::Values(_)))
    }

    /// An image by its place. Called without the GIL, which it takes for objects only.
    pub fn load(&self, place: usize) -> PyResult<Image<'a>> {
        let Self { model, preprocessing, .. } = self;
        let name = || format!("images[{}]", self.first + place);
        let loaded = match &self.sources[place] {
            Source::Values(values) => return Ok(Image(Cow::Borrowed(values))),
            Source::Bytes(bytes) => from_bytes(&name(), bytes.to_vec(), model, preprocessing),
            Source::Path(path) => load_with(path, model, preprocessing),
            Source::Pixels(pixels) => from_pixels(&name(), *pixels, model, preprocessing),
            Source::Object(object) => {
                let owned = Python::attach(|py| self.decoded(object.bind(py), &name()))?;
                from_pixels(&name(), owned.view(), model, preprocessing)
            }
        };
        Ok(Image(Cow::Owned(loaded.map_err(Raised::raised)?.values)))
    }

    /// The pixels of an object, copied, so that what follows needs no GIL.
    fn decoded(&self, object: &Bound<'_, PyAny>, name: &str) -> PyResult<Owned> {
        let array = self.decode.bind(object.py()).call1((object, name))?;
        if let Ok(array) = array.cast::<PyArrayDyn<u8>>() {
            return Ok(Owned { shape: array.shape().to_vec(), samples: Samples::U8(array.to_vec()?) });
        }
        if let Ok(array) = array.cast::<PyArrayDyn<u16>>() {
            return Ok(Owned { shape: array.shape().to_vec(), samples: Samples::U16(array.to_vec()?) });
        }
        Err(PyTypeError::new_err(format!("{name}: found no pixels, expected an image")))
    }
}

/// Pixels that no array holds.
struct Owned {
    shape: Vec<usize>,
    samples: Samples,
}

enum Samples {
    U8(Vec<u8>),
    U16(Vec<u16>),
}

impl Owned {
    /// What is no image has no samples of its size, which is then reported.
    fn view(&self) -> PixelView<'_> {
        let [height, width, channels] = match self.shape[..] {
            [height, width] => [height, width, 1],
            [height, width, channels] => [height, width, channels],
            _ => [0; 3],
        };
        let samples = match &self.samples {
            Samples::U8(samples) => SampleView::U8(samples),
            Samples::U16(samples) => SampleView::U16(samples),
        };
        PixelView { width, height, channels, samples }
    }
}

/// The images that a folder, a pattern or a list stands for, as the command line takes them, and what to
/// know of them.
#[pyfunction]
pub fn image_paths(py: Python<'_>, path: PathBuf) -> PyResult<(Vec<PathBuf>, Option<String>)> {
    let found = py.detach(|| ImagePaths::several(&path, "a folder of images, a pattern or a list (.txt)"));
    let ImagePaths { paths, note } = found.map_err(Raised::raised)?;
    Ok((paths, note))
}
