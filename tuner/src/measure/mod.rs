//! The race of a problem's candidates.

pub mod elimination;
pub mod exhaustive;
pub mod local_search;
pub mod memory;
pub mod problem;
pub mod race;
pub mod schedule;
pub mod types;

pub use memory::ensure_measured;
pub use problem::measure_kernels;
pub use schedule::{Job, jobs, measure_all};
pub use types::{
    CandidateResult, MeasureBudget, MeasureContext, Outcome, ProblemResult, of_step, widest_tie,
};
