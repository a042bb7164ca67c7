//! What all others use and what uses none of them: errors, files, statistics, random numbers.

pub mod error;
pub mod files;
pub mod random;
pub mod read_at;
pub mod stats;
