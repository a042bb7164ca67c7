//! The guides of the repository, as far as they are about networks and weights.
//!
//! Links in them lead to other files of the repository.

#[doc = include_str!("../../docs/weights.md")]
pub mod weights {}

#[doc = include_str!("../../docs/images.md")]
pub mod images {}

#[doc = include_str!("../../docs/adding-a-network.md")]
pub mod adding_a_network {}

#[doc = include_str!("../../docs/adding-a-weight-format.md")]
pub mod adding_a_weight_format {}

#[doc = include_str!("../../docs/glossary.md")]
pub mod glossary {}

/// The example of the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
