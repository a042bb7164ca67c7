//! Why a kernel does not apply.

use crate::tier::Tier;

/// Why a kernel does not take a problem, a tuning or a machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The processor lacks the instructions that the kernel is written for.
    #[error("this processor has no {0}")]
    Isa(Tier),
    /// The user does not allow the instructions.
    #[error("needs {needed}, limited to {limit}")]
    IsaLimited {
        /// What the kernel is written for.
        needed: Tier,
        /// What is allowed.
        limit: Tier,
    },
    /// Another kind of problem than what it takes.
    #[error("takes {0} only")]
    Kind(&'static str),
    /// A property of the shape that the kernel is not made for.
    #[error("{what} is {found}, expected {expected}")]
    Shape {
        /// The property.
        what: &'static str,
        /// Its value.
        found: String,
        /// What the kernel takes.
        expected: &'static str,
    },
    /// A tuning that the kernel does not offer for the problem.
    #[error("no tuning {0} for this problem")]
    Tuning(String),
    /// Formats that the kernel does not take with the tuning.
    #[error("formats are {found}, expected at least {expected}")]
    Formats {
        /// What was given.
        found: String,
        /// What it takes.
        expected: String,
    },
    /// Filters that do not belong to the problem.
    #[error("filter {index} is {found}, expected {expected}")]
    Filters {
        /// Which of the filters.
        index: usize,
        /// Its dimensions.
        found: String,
        /// The problem's.
        expected: String,
    },
}
