//! Why no network can be planned.

use engine::runtime::PrepareError;

/// Why no network can be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlannerError {
    /// No plan keeps the bound on memory.
    #[error("--max-memory {bound} MiB: no plan keeps it, the least is {least} MiB")]
    Memory {
        /// The bound in MiB.
        bound: usize,
        /// The least MiB that a plan takes.
        least: usize,
    },
    /// No plan keeps the bound on the error, or not within the bound on memory.
    #[error(
        "--max-rel-error {bound:e}: no plan keeps it{}, the best reaches {reached:.1e}",
        if *.with_memory { " with --max-memory" } else { "" }
    )]
    Error {
        /// The bound.
        bound: f64,
        /// The least error that was measured.
        reached: f64,
        /// There is a bound on memory too.
        with_memory: bool,
    },
    /// A kernel refuses what it was measured with, or weights are missing or wrong.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}
