//! Weights: made up, or read from files.

pub mod checkpoint;
pub mod error;
pub mod expected;
pub mod keras;
pub mod pieces;
pub mod safetensors;
pub mod source;
pub mod synthetic;
pub mod values;

#[cfg(test)]
mod tests;
