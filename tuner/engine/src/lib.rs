//! Loads InceptionV3, takes a plan, runs it.

pub mod image;
pub mod network;
pub mod plan;
pub mod runtime;
pub mod util;
pub mod weights;
