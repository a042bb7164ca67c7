//! Convolutions: one family a file.

#[cfg(target_arch = "x86_64")]
pub mod amx;
pub mod direct;
pub mod im2col;
pub mod strassen;
pub mod unfused;
pub mod winograd;
