//! Measurements on disk.

pub mod file;
pub mod history;
pub mod journal;
pub mod schema;
