//! What a tuning is asked for.

use std::path::PathBuf;
use std::time::Duration;

use engine::network::F32_ERROR;
use engine::plan::{Bounds, Plan};
use engine::runtime::physical_cores;
use kernels::Cpu;

use crate::bench::POLICY;

/// What a tuning is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The processor, limited to the instructions that kernels may use.
    pub cpu: Cpu,
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Images of one inference, at least 1.
    pub batch: usize,
    /// What the plan must keep.
    pub bounds: Bounds,
    /// Time for all measuring.
    pub budget: Duration,
    /// Try all tunings that the search has skipped as well; that time is not part of the budget.
    pub exhaustive: bool,
    /// Measure plans from the fastest to the most exact as well, which takes some seconds more.
    pub pareto: bool,
    /// Folder of results, in it a folder a machine with the log of measurements; no log without it.
    pub results: Option<PathBuf>,
    /// Take nothing from the log but how near the cores have been.
    pub fresh: bool,
    /// A plan for the same: its network competes with the new one, and stays where it is faster.
    pub earlier: Option<Plan>,
    /// Images `[h, w, c]` that the error is measured on; three built-in ones where there are none.
    pub images: Vec<Vec<f32>>,
}

impl Default for Options {
    /// All physical cores, batch 1, f32, the default budget, no log.
    fn default() -> Self {
        Self {
            cpu: Cpu::detect(),
            threads: physical_cores(),
            batch: 1,
            bounds: Bounds { error: F32_ERROR, memory: None },
            budget: Duration::from_secs(POLICY.stages.budget_s.into()),
            exhaustive: false,
            pareto: false,
            results: None,
            fresh: false,
            earlier: None,
            images: Vec::new(),
        }
    }
}
