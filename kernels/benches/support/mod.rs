//! What the benches share.

#![allow(dead_code, reason = "no bench uses all of it")]

pub mod measurement;
pub mod problems;
pub mod step;
