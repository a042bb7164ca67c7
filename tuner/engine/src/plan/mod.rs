//! Plans: the file, its records, and how it fits a graph.

pub mod error;
pub mod reasons;
pub mod records;
pub mod request;
pub mod resolve;
pub mod schema;
pub mod step;
pub mod store;
pub mod variants;
