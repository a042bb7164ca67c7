//! Why a tuning came to nothing.

use engine::MemoryError;
use engine::runtime::PrepareError;

use crate::log::LogError;
use crate::planner::PlannerError;

/// Why a tuning came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The system starts no such number of threads.
    #[error("--threads {count}: {reason}")]
    Threads {
        /// How many were asked for.
        count: usize,
        /// The system's reason.
        reason: String,
    },
    /// There is not the memory that measuring or running needs.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The log of measurements is of another kind or version.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No plan keeps the bounds, or a kernel refuses what it was measured with.
    #[error(transparent)]
    Planner(#[from] PlannerError),
    /// Weights are missing or wrong.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}
