//! Candidates and problems as they are measured, and with how much effort.

use std::time::{Duration, Instant};

use engine::network::{Choice, Excluded, Step, pair};
use engine::plan::{SearchRecord, WeightResidency};
use engine::runtime::Threads;
use engine::util::{Interval, Timing};
use kernels::{Cpu, Dtype, Problem};

use crate::bench::{Conditions, CoreDistanceMonitor, Report};
use crate::log::{Checked, History, Log};

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Timed to the end, or until it was clear that it loses.
    Timed { timing: Timing, dropped: bool },
    /// Its results are wrong; it is out.
    Wrong { error: f64, tolerance: f64 },
}

#[derive(Clone)]
pub struct CandidateResult {
    pub choice: Choice,
    pub checked: Checked,
    pub multiply_adds: u64,
    /// Its time over that of the fastest of the same types, in the rounds that both were in.
    pub versus: Option<Interval>,
    /// Of its runs, those that something else disturbed, however often they were repeated.
    pub disturbed: usize,
    pub outcome: Outcome,
}

impl CandidateResult {
    /// A candidate that takes so many seconds, to test what chooses.
    #[cfg(test)]
    pub fn taking(seconds: f64, id: &str, formats: kernels::Formats, tuning: kernels::Tuning) -> Self {
        Self {
            choice: Choice { row: kernels::entry(id).expect("a row"), tuning, formats },
            checked: Checked::default(),
            multiply_adds: 0,
            versus: None,
            disturbed: 0,
            outcome: Outcome::Timed { timing: Timing::of(&[seconds]), dropped: false },
        }
    }

    /// The types that it reads and writes.
    pub fn types(&self) -> [Dtype; 2] {
        pair(&self.choice.formats)
    }

    /// Bytes of packed weights and scratch.
    pub fn bytes(&self) -> usize {
        self.checked.packed + self.checked.scratch
    }

    /// Its median time; infinite if its results are wrong.
    pub fn seconds(&self) -> f64 {
        self.timing().map_or(f64::INFINITY, |timing| timing.median)
    }

    pub fn timing(&self) -> Option<Timing> {
        match self.outcome {
            Outcome::Timed { timing, .. } => Some(timing),
            Outcome::Wrong { .. } => None,
        }
    }
}

#[derive(Clone)]
pub struct ProblemResult {
    pub problem: Problem,
    pub candidates: Vec<CandidateResult>,
    pub left_out: Vec<Excluded>,
    /// Times within this share of each other are ties.
    pub tie: f64,
    pub search: SearchRecord,
    /// Time of trying what the search has left out.
    pub exhausted: Duration,
    pub conditions: Conditions,
    pub history: History,
}

/// The measurement of a step's problem; none where it was not measured.
pub fn of_step<'a>(measurements: &'a [ProblemResult], step: &Step) -> Option<&'a ProblemResult> {
    measurements.iter().find(|measurement| measurement.problem == step.problem)
}

/// Times of whole networks within this share of each other are ties.
pub fn widest_tie(measurements: &[ProblemResult]) -> f64 {
    measurements.iter().map(|measurement| measurement.tie).fold(0.0, f64::max)
}

impl ProblemResult {
    /// Of candidates, to test what chooses.
    #[cfg(test)]
    pub fn of(problem: Problem, candidates: Vec<CandidateResult>) -> Self {
        let (left_out, search, exhausted, conditions, history) = Default::default();
        Self { problem, candidates, left_out, tie: 0.01, search, exhausted, conditions, history }
    }

    /// Candidates whose results are right, the fastest first.
    pub fn ranking(&self) -> Vec<&CandidateResult> {
        let mut list: Vec<_> = self.candidates.iter().filter(|c| c.timing().is_some()).collect();
        list.sort_by(|a, b| a.seconds().total_cmp(&b.seconds()));
        list
    }
}

#[derive(Clone, Copy, Debug)]
pub struct MeasureBudget {
    /// Time for all of it; the default of each kernel has its turn however short it is.
    pub budget: Duration,
    /// Time that is its share of the budget until now, whatever other problems leave of theirs.
    pub share: Duration,
    /// When it must be over, however long rounds have waited.
    pub deadline: Instant,
    pub rounds: usize,
    /// Try all other tunings after the search, whatever time that takes.
    pub exhaustive: bool,
}

pub struct MeasureContext<'a> {
    pub cpu: &'a Cpu,
    pub threads: &'a Threads,
    pub distance: &'a CoreDistanceMonitor,
    /// Times within this share of each other are ties.
    pub tie: f64,
    /// Where weights are when a candidate is timed.
    pub cold: WeightResidency,
    /// Where each round is written, and what earlier ones are taken from.
    pub log: Option<&'a Log>,
    pub progress: &'a dyn Report,
}
