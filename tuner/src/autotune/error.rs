//! Why a tuning came to nothing.

use std::path::PathBuf;

use engine::runtime::PrepareError;
use engine::{InputError, MemoryError, PlanError, ThreadsError};

use crate::log::LogError;
use crate::planner::PlannerError;

/// Why a tuning came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// The system starts no such number of threads.
    #[error("--threads {}: {}", .0.count, .0)]
    Threads(#[from] ThreadsError),
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
    /// Weights can't be read to tell them from others.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan can't be written.
    #[error(transparent)]
    Write(#[from] NotWritten),
    /// The folder of plans can't be made or written to.
    #[error(transparent)]
    Folder(#[from] InputError),
    /// The observer has ended the tuning.
    #[error("the tuning was stopped")]
    Stopped,
}

/// A plan that is not in its file.
#[derive(Debug, thiserror::Error)]
#[error("{error}; {}", where_it_is(plan))]
pub struct NotWritten {
    /// Why it is not.
    pub error: Box<PlanError>,
    /// The file that has it, or why there is none.
    pub plan: Result<PathBuf, PlanError>,
}

fn where_it_is(plan: &Result<PathBuf, PlanError>) -> String {
    match plan {
        Ok(path) => format!("the plan is in {}", path.display()),
        Err(error) => format!("{error}; what was measured is in the log"),
    }
}
