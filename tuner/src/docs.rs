//! The guides of the repository, as far as they are about measuring, planning and the command line.
//!
//! Links in them lead to other files of the repository.

#[doc = include_str!("../docs/measuring.md")]
pub mod measuring {}

#[doc = include_str!("../docs/planning.md")]
pub mod planning {}

#[doc = include_str!("../docs/precision.md")]
pub mod precision {}

#[doc = include_str!("../docs/rules.md")]
pub mod rules {}

#[doc = include_str!("../docs/fid.md")]
pub mod fid {}

#[doc = include_str!("../docs/python.md")]
pub mod python {}

#[doc = include_str!("../docs/command-line.md")]
pub mod command_line {}

#[doc = include_str!("../docs/dependencies.md")]
pub mod dependencies {}

#[doc = include_str!("../docs/robustness.md")]
pub mod robustness {}
