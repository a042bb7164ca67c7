//! The native part of the Python package `inception_tuner`: the engine and the tuner, bound.
//!
//! ```text
//! errors       errors of the engine and the tuner as exceptions
//! preprocess   a preset, and changes of it
//! images       what Python gives as images: arrays, paths, and objects that Pillow decodes
//! open         model, weights and plan that fit together
//! tuning       tuning with progress, and once on a machine
//! session      a network that is ready to run
//! fid          statistics of features and their distance
//! ```
//!
//! What users see is Python, in `python/inception_tuner`: it gives these functions arguments of one
//! kind each. Nothing here holds the GIL while it computes, reads a file or waits.

mod errors;
mod fid;
mod images;
mod open;
mod preprocess;
mod session;
mod tuning;

/// The functions and classes that the Python modules import.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::errors::{
        FidError, ImageError, ModelError, NotFiniteError, PlanError, TuneError, WeightsError,
    };
    #[pymodule_export]
    use crate::fid::FidStatistics;
    #[pymodule_export]
    use crate::images::image_paths;
    #[pymodule_export]
    use crate::session::Session;
    #[pymodule_export]
    use crate::tuning::{results_folder, tune};
}
