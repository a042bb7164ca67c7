//! Measures the kernels on this machine and plans a network.
//!
//! [`autotune()`] does all of it; its stages are the modules, each of which imports those before it alone:
//! [`mod@bench`], [`mod@log`], [`measure`], [`planner`], [`mod@autotune`], `report`, [`cli`].

pub mod autotune;
pub mod bench;
pub mod cli;
pub mod docs;
pub mod log;
pub mod measure;
pub mod planner;
mod report;

pub use autotune::error::TuneError;
pub use autotune::network::autotune;
pub use autotune::options::Options;
pub use bench::progress::{Observer, Silent, Stage, Warning};
