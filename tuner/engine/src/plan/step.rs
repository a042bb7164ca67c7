//! One step of a plan.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::network::{CandidateId, Choice, Step, StepFormats, problem_name};
use crate::plan::reasons::StepReason;
use crate::util::{Timing, us};

/// Times in microseconds: the median, and the quartiles around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimeUs {
    pub median: f64,
    /// First quartile.
    pub low: f64,
    /// Third quartile.
    pub high: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerUp {
    #[serde(flatten)]
    pub id: CandidateId,
    /// Its median.
    pub time_us: f64,
}

/// One step of a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    pub layers: Vec<String>,
    pub problem: String,
    pub kernel: String,
    pub tuning: Map<String, Value>,
    /// Hash of the kernel's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    pub formats: StepFormats,
    pub threads: usize,
    /// The worker that took it in branch-parallel plans; now all threads share it.
    #[serde(default, skip_serializing)]
    pub worker: Option<usize>,
    /// How many times it runs for a batch, each for some images; times and work are of all.
    #[serde(alias = "turns", default = "once", skip_serializing_if = "is_once")]
    pub repeats: usize,
    /// Measured time: in the running network where it was timed there, else alone. This and the
    /// other times of a step that each worker takes for images of its own are over the number of
    /// workers, so that those of all steps add up.
    pub time_us: Option<TimeUs>,
    /// Its median when it was timed alone.
    pub isolated_us: Option<f64>,
    /// Its median when the whole network was measured at last.
    pub network_us: Option<f64>,
    /// What was predicted for it then, from the rounds in which it was chosen.
    pub predicted_us: Option<f64>,
    /// Candidates that were timed in the running network, first the best of those timed alone.
    #[serde(alias = "in_place", default)]
    pub in_network: Vec<InNetwork>,
    /// Largest error over the largest output.
    pub rel_error: Option<f64>,
    /// Multiply-adds of the problem per nanosecond, times two.
    pub gflops: Option<f64>,
    /// Multiply-adds that the kernel executes.
    pub multiply_adds: Option<u64>,
    pub runner_up: Option<RunnerUp>,
    pub reason: StepReason,
}

fn once() -> usize {
    1
}

fn is_once(turns: &usize) -> bool {
    *turns == 1
}

impl PlanStep {
    /// A step with a candidate of which no time is known.
    pub fn unmeasured(step: &Step, choice: &Choice, threads: usize) -> Self {
        let CandidateId { kernel, tuning, formats } = choice.id();
        Self {
            layers: step.layers.clone(),
            problem: problem_name(step),
            kernel,
            tuning,
            code: Some(choice.row.code().to_string()),
            formats,
            threads,
            repeats: 1,
            ..Self::default()
        }
    }

    pub fn id(&self) -> CandidateId {
        let (kernel, tuning, formats) = (self.kernel.clone(), self.tuning.clone(), self.formats.clone());
        CandidateId { kernel, tuning, formats }
    }

    pub fn runs(&self, id: &CandidateId) -> bool {
        (&self.kernel, &self.tuning) == (&id.kernel, &id.tuning)
            && (id.formats.is_missing() || self.formats == id.formats)
    }

    /// Microseconds that the step took more in the whole network than was predicted.
    pub fn residual_us(&self) -> Option<f64> {
        Some(self.network_us? - self.predicted_us?)
    }

    /// The choice by isolated times and that in the network, where they differ by more than a tie.
    pub fn flip(&self, tie: f64) -> Option<(&InNetwork, &InNetwork)> {
        let own = self.in_network.iter().find(|c| self.runs(&c.id))?;
        let first = self.in_network.first()?;
        (first.time_us.median > own.time_us.median * (1.0 + tie)).then_some((first, own))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InNetwork {
    #[serde(flatten)]
    pub id: CandidateId,
    pub time_us: TimeUs,
}

pub fn time_us(timing: &Timing) -> TimeUs {
    TimeUs { median: us(timing.median), low: us(timing.quartiles[0]), high: us(timing.quartiles[1]) }
}
