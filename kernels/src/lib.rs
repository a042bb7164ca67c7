//! Convolution and pooling kernels for InceptionV3 on CPUs.
//!
//! The way of a tensor, in reading order:
//!
//! 1. [`problem`]: what is to be computed, as shapes.
//! 2. [`tensor`]: how activations lie in memory (NHWC with a zero halo) and the views of them.
//! 3. [`filter`]: weights and the BatchNorms that follow, folded or not.
//! 4. [`kernel`]: the traits that every implementation stands behind, and the table of all of them.
//! 5. [`conv`], [`pool`], [`softmax`]: the implementations; [`gemm`]: what they multiply with;
//!    [`vector`]: how they load and store.
//! 6. [`team`]: how workers share a step.
//! 7. [`mod@reference`]: the naive oracle, and the tolerance that each kernel is held to; [`mod@exact`]: whole
//!    tensors in f64.
//!
//! The library does no I/O and starts no threads.

pub mod arch;
pub mod conv;
pub mod cpu;
pub mod error;
pub mod filter;
pub mod gemm;
pub mod kernel;
pub mod memory;
pub mod peak;
pub mod pool;
pub mod problem;
pub mod registry;
pub mod shape;
mod shape_text;
pub mod softmax;
pub mod team;
pub mod tensor;
pub mod tier;
pub mod vector;
pub mod verify;

#[cfg(target_arch = "x86_64")]
pub use cpu::Amx;
pub use cpu::Cpu;
pub use error::Unsupported;
pub use filter::{BatchNorm, Filter};
pub use kernel::{Io, Kernel, Numerics, Prepared, Signature, Tuning};
pub use memory::{Buffer, Scratch, ScratchReq};
pub use problem::{Conv, Epilogue, MAX_SEGMENTS, Pool, PoolKind, Problem, Segment, Window};
pub use registry::{KernelEntry, Role, entry, table};
pub use shape::{Padding, Shape};
pub use shape_text::ShapeError;
pub use team::{Member, Team, run_alone, scratch_for};
pub use tensor::{Dtype, Element, Format, Formats, Pitch, Placement, Tensor, View, ViewMut};
pub use tier::Tier;
