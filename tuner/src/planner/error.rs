//! Why no network can be planned.

use engine::runtime::PrepareError;

#[derive(Debug, thiserror::Error)]
pub enum PlannerError {
    #[error("--max-memory {bound} MiB: no plan keeps it, a process takes {least} MiB at least")]
    Memory { bound: usize, least: usize },
    /// No plan keeps the bound on the error, or not within that on memory; the least that was
    /// measured is `reached`.
    #[error(
        "--max-rel-error {bound:e}: no plan keeps it{}, the best reaches {reached:.1e}",
        if *.with_memory { " with --max-memory" } else { "" }
    )]
    Error { bound: f64, reached: f64, with_memory: bool },
    /// A kernel refuses what it was measured with, or weights are missing or wrong.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}
