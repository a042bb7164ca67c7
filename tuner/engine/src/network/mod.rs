//! What is to be computed: models as data, graphs of steps, and the choice of a kernel for each.

pub mod block_variant;
pub mod candidates;
pub mod choice;
pub mod dtypes;
pub mod graph;
pub mod model;

pub mod spec;
