//! What is to be computed: networks as data, graphs of steps, and the choice of a kernel for each.

pub mod block_variant;
pub mod builder;
pub mod candidates;
pub mod choice;
pub mod dtypes;
pub mod graph;
pub mod inception_v3;
pub mod model;
pub mod models;
pub mod spec;

/// All networks. A new one is a file of data and a row here.
pub const NETWORKS: [&builder::Network; 1] = [&inception_v3::NETWORK];
