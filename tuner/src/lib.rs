//! Measures the kernels on this machine, plans InceptionV3 and runs it.

pub mod graph;
pub mod model;
