//! Convolutions: one family a file.

pub mod amx;
pub mod direct;
pub mod im2col;
pub mod strassen;
pub mod unfused;
pub mod winograd;
