//! Convolution, pooling, softmax and sigmoid kernels for CPUs, behind one trait and in one table.
//!
//! The modules, in reading order. Each imports only from those before it.
//!
//! | module | what is in it |
//! |---|---|
//! | [`shape`], [`tier`], [`error`] | extents and padding; instruction sets; why a kernel does not apply |
//! | [`arch`], [`memory`], [`cpu`] | what the machine can do; aligned buffers and scratch; proofs of instruction sets |
//! | [`tensor`] | how activations lie in memory (NHWC with a zero halo), and the views of them |
//! | [`problem`], `shape_text`, [`filter`] | what to compute, as shapes and as text; weights and BatchNorms |
//! | [`kernel`] | the traits of every implementation |
//! | `vector`, `gemm` | loads and stores; register blocks and packed weights |
//! | `conv`, `pool`, `softmax`, `sigmoid` | the implementations, a file or a folder a family; `pixel_function` is what the last two share |
//! | [`verify`] | the naive oracle, its tolerance, and whole tensors in f64 |
//! | [`registry`] | the table of all kernels, and how to add one |
//! | [`team`], [`peak`], [`bandwidth`] | how workers share a step; what a core multiplies and reads at most |
//!
//! Users import the names below the modules from the root. Inside the library, names are imported
//! from their modules, so that the build script knows which code a kernel is made of.
//!
//! The library does no I/O and starts no threads.

#![cfg_attr(test, allow(dead_code, unused_imports, reason = "unit tests have no kernels: registry.rs"))]

pub mod arch;
pub mod bandwidth;
mod conv;
pub mod cpu;
/// The guides: new kernels, and benchmarks.
#[doc = include_str!("../docs/adding-a-kernel.md")]
#[doc = include_str!("../docs/benchmarks.md")]
pub mod docs {}
pub mod error;
pub mod filter;
mod gemm;
pub mod kernel;
pub mod memory;
pub mod peak;
mod pixel_function;
mod pool;
pub mod problem;
pub mod registry;
pub mod shape;
mod shape_text;
mod sigmoid;
mod softmax;
pub mod team;
pub mod tensor;
pub mod tier;
mod vector;
pub mod verify;

#[cfg(target_arch = "x86_64")]
pub use cpu::Amx;
pub use cpu::Cpu;
pub use error::Unsupported;
pub use filter::{BatchNorm, Filter};
pub use kernel::{Io, Kernel, Numerics, Prepared, Request, Signature, Tuning};
pub use memory::{Buffer, Scratch};
pub use problem::{Conv, Epilogue, MAX_SEGMENTS, Pool, PoolKind, Problem, Segment, Window};
pub use registry::{KernelEntry, Role, entry, table};
pub use shape::{Padding, Shape};
pub use shape_text::{MAX_ELEMENTS, ShapeError};
pub use team::{Member, Team, run_alone, scratch_for};
pub use tensor::{Dtype, Element, Format, Formats, Pitch, Placement, Tensor, View, ViewMut};
pub use tier::Tier;
