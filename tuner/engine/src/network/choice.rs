//! The kernels of a network's steps.

use kernels::KernelEntry;
use kernels::cpu::Cpu;
use kernels::kernel::{Kernel, Tuning};
use kernels::problem::{PoolKind, Problem};
use kernels::tensor::{Dtype, Formats};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::network::graph::{Graph, Step};

/// The kernel and tuning of one step.
#[derive(Clone)]
pub struct Choice {
    pub row: &'static KernelEntry,
    pub tuning: Tuning,
    /// What it reads, with the halo that it wants, and what it writes.
    pub formats: Formats,
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        self.id().fmt(f)
    }
}

/// Two rows of the table are one where their ids are.
impl PartialEq for Choice {
    fn eq(&self, other: &Self) -> bool {
        (self.row.id, &self.tuning, self.formats) == (other.row.id, &other.tuning, other.formats)
    }
}

impl Choice {
    /// Whether it reads or writes a type.
    pub fn has(&self, dtype: Dtype) -> bool {
        [self.formats.src.dtype, self.formats.dst.dtype].contains(&dtype)
    }

    /// A kernel and a tuning that it offers, in its first formats.
    ///
    /// # Panics
    /// If it has none.
    pub fn of(row: &'static KernelEntry, kernel: &dyn Kernel, problem: &Problem, tuning: Tuning) -> Self {
        let formats = kernel.formats(problem, &tuning)[0];
        Self { row, tuning, formats }
    }

    pub fn id(&self) -> CandidateId {
        CandidateId {
            kernel: self.row.id.to_string(),
            tuning: tuning_to_json(&self.tuning),
            formats: StepFormats::of(&self.formats),
        }
    }

    /// Multiply-adds that it executes for a convolution; 0 for other problems, and where this
    /// machine lacks the kernel.
    pub fn multiply_adds(&self, problem: &Problem, cpu: &Cpu) -> u64 {
        match ((self.row.make)(cpu), problem) {
            (Ok(kernel), Problem::Conv(_)) => kernel.multiply_adds(problem, &self.tuning),
            _ => 0,
        }
    }
}

/// Multiply-adds that choices execute for a batch of a graph.
pub fn multiply_adds(graph: &Graph, choices: &[Choice], cpu: &Cpu) -> u64 {
    let of = |(index, (step, choice)): (usize, (&Step, &Choice))| {
        choice.multiply_adds(&step.problem, cpu) * graph.repeats(index) as u64
    };
    graph.steps.iter().zip(choices).enumerate().map(of).sum()
}

/// What makes plans.
pub const TOOL: &str = concat!("tuner ", env!("CARGO_PKG_VERSION"));

/// The identity of a candidate: logs, plans and reports name it by these three, whatever this
/// version of the table of kernels offers. A [`Choice`] is one that the table has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CandidateId {
    pub kernel: String,
    pub tuning: Map<String, Value>,
    /// What it reads and writes.
    #[serde(default = "StepFormats::missing")]
    pub formats: StepFormats,
}

/// Like `direct_avx2 [pixels=6,vectors=2]`, without the formats.
impl std::fmt::Display for CandidateId {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} [{}]", self.kernel, tuning_text(&self.tuning))
    }
}

/// Like `pixels=6,vectors=2`; `-` for none.
pub fn tuning_text(tuning: &Map<String, Value>) -> String {
    let parts: Vec<String> = tuning.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if parts.is_empty() { "-".to_string() } else { parts.join(",") }
}

/// Formats of a step, f32 by default.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StepFormats {
    #[serde(rename = "in")]
    pub src: String,
    #[serde(rename = "out")]
    pub dst: String,
}

impl StepFormats {
    /// What earlier plans left out.
    fn missing() -> Self {
        Self { src: String::new(), dst: String::new() }
    }

    pub(crate) fn is_missing(&self) -> bool {
        *self == Self::missing()
    }

    /// Of a kernel.
    pub fn of(formats: &Formats) -> Self {
        Self { src: formats.src.to_string(), dst: formats.dst.to_string() }
    }

    /// The type of each, like `bf16` and `f32`.
    pub fn each_type(&self) -> (&str, &str) {
        fn of(format: &str) -> &str {
            format.split(':').next().unwrap_or_default()
        }
        (of(&self.src), of(&self.dst))
    }

    /// The types alone, like `f32` or `bf16 to f32`.
    pub fn types(&self) -> String {
        let (src, dst) = self.each_type();
        if src == dst { src.to_string() } else { format!("{src} to {dst}") }
    }
}

impl Default for StepFormats {
    fn default() -> Self {
        Self::of(&Formats::F32)
    }
}

impl std::fmt::Display for StepFormats {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} -> {}", self.src, self.dst)
    }
}

pub fn tuning_to_json(tuning: &Tuning) -> Map<String, Value> {
    tuning.iter().map(|(name, value)| (name.to_string(), Value::from(value))).collect()
}

/// The name that a problem has in plans: average pools and the dense layer have one name whatever
/// the weights bring, so that a plan serves them all.
pub fn problem_name(step: &Step) -> String {
    let mut problem = step.problem.clone();
    if let Problem::Pool(pool) = &mut problem
        && pool.kind == PoolKind::AverageCountingBorder
    {
        pool.kind = PoolKind::Average;
    }
    problem.to_string()
}
