//! Convolutions: one family a file.

pub mod direct;
