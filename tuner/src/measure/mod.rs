//! The race of a problem's candidates.

pub mod elimination;
pub mod exhaustive;
pub mod local_search;
pub mod memory;
pub mod problem;
pub mod race;
pub mod schedule;
pub mod types;
