//! Convolutions: one family a file or a folder.

#![allow(unsafe_code, reason = "vector code, AMX code, views")]

#[cfg(target_arch = "x86_64")]
pub mod amx;
pub mod direct;
pub mod im2col;
pub mod im2col_gemm;
pub mod strassen;
pub mod unfused;
pub mod winograd;

// What most families import from here.
use crate::cpu::{Cpu, Isa};
use crate::error::Unsupported;
use crate::kernel::{Io, Kernel, Numerics, Prepared, Request, Signature, Tuning};
use crate::memory::{Buffer, Scratch, round_up};
use crate::problem::{Conv, Problem, Window};
use crate::tensor::{Dtype, Format, Formats, View, ViewMut};
