//! Convolutions: one family a file.

pub mod amx;
pub mod direct;
pub mod im2col;
pub mod separable;
pub mod strassen;
mod tiles;
mod tiling;
pub mod transform;
pub mod unfused;
pub mod winograd;
