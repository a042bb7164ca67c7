//! Measures the kernels on this machine and plans InceptionV3.

pub mod autotune;
pub mod bench;
pub mod cli;
pub mod log;
pub mod measure;
pub mod planner;
pub mod report;
