//! Lines of the log.

use engine::network::CandidateId;
use engine::plan::WeightResidency;
use engine::runtime::Machine;
use serde::{Deserialize, Serialize};

pub const SCHEMA: &str = "measurements-1";

/// How runs are measured: raised when times change their meaning; others' runs are ignored.
pub const METHOD: u32 = 4;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    Run(Run),
    /// Candidates of a problem that are measured from now on.
    Candidates {
        run: String,
        problem: String,
        first: usize,
        list: Vec<LoggedCandidate>,
    },
    /// All candidates that are left, timed once.
    Round {
        run: String,
        problem: String,
        /// Its number, from 1.
        round: usize,
        /// In the order they ran.
        times: Vec<Time>,
        /// Core-to-core latency of the workers' cores.
        #[serde(skip_serializing_if = "Option::is_none")]
        core_to_core_ns: Option<f64>,
    },
    /// The run goes on where another has ended.
    Resumes {
        run: String,
        problem: String,
        from: String,
    },
    /// Measured as long as its share of the budget allows.
    Done {
        run: String,
        problem: String,
        #[serde(flatten)]
        done: Done,
    },
}

/// One tuning on one machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its name: when and by which process.
    pub run: String,
    pub schema: String,
    pub tool: String,
    pub machine: Machine,
    pub threads: usize,
    /// `f32`, or `lower` where lower types are measured too.
    pub types: String,
    #[serde(default)]
    pub cold: WeightResidency,
    #[serde(default)]
    pub method: u32,
    /// Seconds since 1970.
    pub started: u64,
}

/// What the check of a candidate has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// Largest error over the largest output.
    pub rel_error: f64,
    /// Root mean square of the errors over that of the outputs.
    pub rms_error: f64,
    /// Bytes of packed weights.
    pub packed: usize,
    /// Bytes of scratch.
    pub scratch: usize,
}

/// A candidate as it was found when it was checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoggedCandidate {
    #[serde(flatten)]
    pub id: CandidateId,
    /// Hash of the kernel's code.
    pub code: String,
    #[serde(flatten)]
    pub checked: Checked,
    /// Error and tolerance of one whose results are wrong; it is not timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong: Option<[f64; 2]>,
}

impl LoggedCandidate {
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.id, &self.code) == (&other.id, &other.code)
    }
}

/// A candidate's time in a round: its number, nanoseconds, and 1 if something else disturbed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time(pub usize, pub u64, pub u8);

impl Time {
    pub fn new(number: usize, seconds: f64, disturbed: bool) -> Self {
        Self(number, (seconds * 1e9).round() as u64, u8::from(disturbed))
    }

    pub fn seconds(&self) -> f64 {
        self.1 as f64 / 1e9
    }
}

/// With what the measuring of a problem came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Seconds of the budget that were its share.
    pub share: f64,
    /// It had all tunings and rounds that there are.
    pub complete: bool,
}

impl Done {
    /// A share of the budget that is no less than this part of another stands for it.
    pub const ENOUGH: f64 = 0.9;

    /// Whether there is nothing to be gained by another so large share of the budget, in seconds.
    pub fn is_enough(&self, share: f64) -> bool {
        self.complete || self.share >= Self::ENOUGH * share
    }
}
