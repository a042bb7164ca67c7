//! Statistics of features, and the Fréchet distance of two of them.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tuner::fid::{self, FidState};

use crate::errors::{FidError, Raised};

/// Mean and covariance of the features of images, which come some rows at a time.
///
/// Memory does not grow with the number of images. It pickles, bit by bit.
///
/// :param dims: Features of an image.
#[pyclass(frozen, module = "inception_tuner")]
pub struct FidStatistics(Mutex<fid::FidStatistics>);

/// Arrays of a state, as pickles hold them.
type State<'py> =
    (Option<u64>, Bound<'py, PyArrayDyn<f64>>, Bound<'py, PyArrayDyn<f64>>, Bound<'py, PyArrayDyn<f32>>);

/// The most features of an image.
const MOST_DIMS: usize = tuner::fid::MAX_DIMS;

impl FidStatistics {
    fn of(statistics: fid::FidStatistics) -> Self {
        Self(Mutex::new(statistics))
    }

    /// Only held without waiting for another lock or the GIL.
    fn lock(&self) -> MutexGuard<'_, fid::FidStatistics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn copy(&self) -> fid::FidStatistics {
        self.lock().clone()
    }
}

fn array<T: numpy::Element>(py: Python<'_>, values: Vec<T>) -> PyResult<Bound<'_, PyArrayDyn<T>>> {
    let count = values.len();
    PyArray1::from_vec(py, values).reshape(vec![count])
}

#[pymethods]
impl FidStatistics {
    #[new]
    #[pyo3(signature = (dims = 2048))]
    fn new(dims: usize) -> PyResult<Self> {
        if !(1..=MOST_DIMS).contains(&dims) {
            let text = format!("dims is {dims}, expected a number from 1 to {MOST_DIMS}");
            return Err(PyValueError::new_err(text));
        }
        Ok(Self::of(fid::FidStatistics::new(dims)))
    }

    /// Reads an `.npz` file with `mu` and `sigma`, as pytorch-fid, clean-fid and :meth:`save` write
    /// it.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let read = py.detach(|| fid::FidStatistics::read(path));
        read.map(Self::of).map_err(|error| fid::FidError::from(error).raised())
    }

    /// Writes an `.npz` file that pytorch-fid and others read; whole or not at all.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.lock().write(path)).map_err(Raised::raised)
    }

    /// Adds the features of images, float32 [N, dims].
    fn update(&self, py: Python<'_>, features: PyReadonlyArrayDyn<'_, f32>) -> PyResult<()> {
        let dims = self.dims(py);
        if features.shape().len() != 2 || features.shape()[1] != dims {
            let text = format!("features: found shape {:?}, expected [N, {dims}]", features.shape());
            return Err(FidError::new_err(text));
        }
        let copy: Vec<f32>;
        // A slice of an array in Fortran's order would be transposed.
        let rows = if features.is_c_contiguous() {
            features.as_slice()?
        } else {
            copy = features.as_array().iter().copied().collect();
            &copy
        };
        py.detach(|| self.lock().add(rows)).map_err(Raised::raised)
    }

    /// Adds the images of others, without loss but for rounding.
    fn merge(&self, py: Python<'_>, other: &Self) -> PyResult<()> {
        py.detach(|| {
            let other = other.copy();
            self.lock().merge(&other)
        })
        .map_err(Raised::raised)
    }

    /// The Fréchet distance to others: FID, where the features are those of FID's network.
    fn distance(&self, py: Python<'_>, other: &Self) -> PyResult<f64> {
        py.detach(|| fid::frechet_distance(&self.copy(), &other.copy())).map_err(Raised::raised)
    }

    /// Features of an image.
    #[getter]
    fn dims(&self, py: Python<'_>) -> usize {
        py.detach(|| self.lock().dims())
    }

    /// Images so far; None where they are from a file that does not state it.
    #[getter]
    fn count(&self, py: Python<'_>) -> Option<u64> {
        py.detach(|| self.lock().count())
    }

    /// The mean of each feature, float64 [dims].
    #[getter]
    fn mean<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<f64>>> {
        array(py, py.detach(|| self.lock().mean()))
    }

    /// The covariance, float64 [dims, dims], unbiased as numpy's `cov`.
    #[getter]
    fn covariance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDyn<f64>>> {
        let values = py.detach(|| self.lock().covariance()).map_err(Raised::raised)?;
        let dims = self.dims(py);
        PyArray1::from_vec(py, values).reshape(vec![dims, dims])
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let images = self.count(py).map_or("images not stated".to_owned(), |count| format!("{count} images"));
        format!("<inception_tuner.FidStatistics of {} features, {images}>", self.dims(py))
    }

    #[staticmethod]
    fn _of_state(
        count: Option<u64>,
        mean: PyReadonlyArrayDyn<'_, f64>,
        products: PyReadonlyArrayDyn<'_, f64>,
        pending: PyReadonlyArrayDyn<'_, f32>,
    ) -> PyResult<Self> {
        let (mean, products) = (mean.as_slice()?.to_vec(), products.as_slice()?.to_vec());
        let state = FidState { count, mean, products, pending: pending.as_slice()?.to_vec() };
        fid::FidStatistics::from_state(state).map(Self::of).map_err(Raised::raised)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, State<'py>)> {
        let (py, this) = (slf.py(), slf.get());
        let FidState { count, mean, products, pending } = py.detach(|| this.lock().state());
        let state = (count, array(py, mean)?, array(py, products)?, array(py, pending)?);
        Ok((slf.get_type().getattr("_of_state")?, state))
    }
}
