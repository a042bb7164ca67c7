//! Measures the kernels on this machine and plans a network: [`autotune()`].
//!
//! Its stages are modules, each of which imports those before it alone: `bench`, `log`, `measure`,
//! `planner`, `autotune`, `report`, `compare`, `cli`. [`fid`] compares sets of images by their features, and needs
//! none of the others.

mod autotune;
mod bench;
#[doc(hidden)]
pub mod cli;
mod compare;
pub mod docs;
pub mod fid;
mod log;
mod measure;
mod npy;
mod planner;
mod report;

pub use autotune::error::TuneError;
pub use autotune::file::{TuningLock, autotune_to, plan_file, results_folder};
pub use autotune::network::autotune;
pub use autotune::options::Options;
pub use bench::progress::{Observer, Silent, Stage, Warning};
pub use cli::image_paths::ImagePaths;
