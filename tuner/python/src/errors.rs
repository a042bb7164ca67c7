//! Errors of the engine and the tuner as exceptions: of what a user gave wrongly, a `ValueError`;
//! of files, an `OSError`; of the machine, a `RuntimeError` or a `MemoryError`.

use std::io::{self, ErrorKind};

use engine::runtime::PrepareError;
use engine::{InputError, RunError, SessionError, ThreadsError};
use pyo3::PyErr;
use pyo3::create_exception;
use pyo3::exceptions::{
    PyFileNotFoundError, PyIsADirectoryError, PyMemoryError, PyOSError, PyPermissionError, PyRuntimeError,
    PyValueError,
};

create_exception!(inception_tuner, ModelError, PyValueError, "A name or a size that is no model's.");
create_exception!(
    inception_tuner,
    WeightsError,
    PyValueError,
    "A file of weights that is not the model's, or damaged."
);
create_exception!(
    inception_tuner,
    PlanError,
    PyValueError,
    "A plan for something else, for another machine, or no plan."
);
create_exception!(
    inception_tuner,
    ImageError,
    PyValueError,
    "A file that is no image, or an image that does not fit."
);
create_exception!(
    inception_tuner,
    NotFiniteError,
    PyValueError,
    "An image whose results are infinite or not a number."
);
create_exception!(
    inception_tuner,
    FidError,
    PyValueError,
    "Statistics that can't be made, or have no distance."
);
create_exception!(inception_tuner, TuneError, PyRuntimeError, "A tuning that came to nothing.");

/// An error as an exception with its one line.
pub trait Raised {
    fn raised(self) -> PyErr;
}

/// The exception of what the system refuses.
fn of_system(error: &io::Error, text: String) -> PyErr {
    match error.kind() {
        ErrorKind::NotFound => PyFileNotFoundError::new_err(text),
        ErrorKind::PermissionDenied => PyPermissionError::new_err(text),
        ErrorKind::IsADirectory => PyIsADirectoryError::new_err(text),
        _ => PyOSError::new_err(text),
    }
}

/// An error of a file: what the system refuses, or else `other`.
fn of_input(error: &InputError, other: fn(String) -> PyErr) -> PyErr {
    let text = error.to_string();
    match error {
        InputError::Read { source, .. }
        | InputError::Write { source, .. }
        | InputError::Folder { source, .. } => of_system(source, text),
        _ => other(text),
    }
}

impl Raised for InputError {
    fn raised(self) -> PyErr {
        of_input(&self, ImageError::new_err)
    }
}

impl Raised for engine::ModelError {
    fn raised(self) -> PyErr {
        ModelError::new_err(self.to_string())
    }
}

impl Raised for engine::WeightsError {
    fn raised(self) -> PyErr {
        let text = self.to_string();
        match self {
            Self::Read { source, .. } => of_system(&source, text),
            _ => WeightsError::new_err(text),
        }
    }
}

impl Raised for engine::PlanError {
    fn raised(self) -> PyErr {
        let text = self.to_string();
        match self {
            Self::Read { source, .. } => of_system(&source, text),
            Self::Write(error) => of_input(&error, PlanError::new_err),
            _ => PlanError::new_err(text),
        }
    }
}

impl Raised for engine::ImageError {
    fn raised(self) -> PyErr {
        match &self {
            Self::Input(error) => of_input(error, ImageError::new_err),
            _ => ImageError::new_err(self.to_string()),
        }
    }
}

impl Raised for PrepareError {
    fn raised(self) -> PyErr {
        match self {
            Self::Weights(error) => error.raised(),
            other => PyRuntimeError::new_err(other.to_string()),
        }
    }
}

impl Raised for ThreadsError {
    fn raised(self) -> PyErr {
        PyRuntimeError::new_err(self.to_string())
    }
}

impl Raised for SessionError {
    fn raised(self) -> PyErr {
        match self {
            Self::Plan(error) => error.raised(),
            Self::Memory(error) => PyMemoryError::new_err(error.to_string()),
            Self::Threads(error) => error.raised(),
            Self::Prepare(error) => error.raised(),
        }
    }
}

impl Raised for RunError {
    fn raised(self) -> PyErr {
        match &self {
            Self::NotFinite(_) => NotFiniteError::new_err(self.to_string()),
            Self::Size { .. } => PyValueError::new_err(self.to_string()),
        }
    }
}

impl Raised for tuner::TuneError {
    fn raised(self) -> PyErr {
        match self {
            Self::Memory(error) => PyMemoryError::new_err(error.to_string()),
            Self::Prepare(error) => error.raised(),
            Self::Plan(error) => error.raised(),
            Self::Write(error) => PyOSError::new_err(error.to_string()),
            Self::Folder(error) => of_input(&error, TuneError::new_err),
            other => TuneError::new_err(other.to_string()),
        }
    }
}

impl Raised for tuner::fid::FidError {
    fn raised(self) -> PyErr {
        match &self {
            Self::File(error) => of_input(error, FidError::new_err),
            _ => FidError::new_err(self.to_string()),
        }
    }
}
