//! Convolutions: one family a file.

pub mod direct;
pub mod im2col;
pub mod separable;
mod tiles;
pub mod transform;
pub mod unfused;
pub mod winograd;
