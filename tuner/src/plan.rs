//! The plan: which kernel computes which step, as JSON that a person can read and edit.
//!
//! A plan is checked in full before anything runs: every rewrite is one that its block has, every step is
//! the graph's, every kernel is in the table and on this machine, every tuning is one that the kernel
//! offers.

mod fits;
mod records;
mod rewrites;

use std::path::{Path, PathBuf};

use kernels::kernel::Tuning;
use kernels::problem::{PoolKind, Problem};
use kernels::tensor::Formats;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::choose::Bounds;
use crate::graph::Step;
use crate::input::{InputError, write_atomically};
use crate::machine::Machine;

pub use fits::Wanted;
pub use records::{
    BesideRecord, CandidateRecord, Contest, MemoryBytes, Noise, ParetoPoint, Planning, ProblemRecord,
    RuleRecord, SearchRecord,
};
pub use rewrites::{Alternative, BlockRewrite};

/// Version of the format.
pub const SCHEMA: &str = "convolution-plan-1";

/// What makes plans.
pub const TOOL: &str = concat!("tuner ", env!("CARGO_PKG_VERSION"));

/// Why a plan is not used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file can't be read.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is no JSON, or a field is missing or of another type.
    #[error("{file}: {field}: {source}")]
    Json {
        /// The file.
        file: String,
        /// Path of the field, `plan` for the whole.
        field: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A field does not hold what it must.
    #[error("{file}: {field} is {found}, expected {expected}")]
    Field {
        /// The file.
        file: String,
        /// Path of the field.
        field: String,
        /// Its value.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// The file can't be written.
    #[error(transparent)]
    Write(#[from] InputError),
}

/// Times in microseconds: the median, and the quartiles around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimeUs {
    /// Median.
    pub median: f64,
    /// First quartile.
    pub low: f64,
    /// Third quartile.
    pub high: f64,
}

/// Formats of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFormats {
    /// What it reads.
    #[serde(rename = "in")]
    pub src: String,
    /// What it writes.
    #[serde(rename = "out")]
    pub dst: String,
}

impl StepFormats {
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

impl std::fmt::Display for StepFormats {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} -> {}", self.src, self.dst)
    }
}

/// The candidate that came second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunnerUp {
    /// Its id.
    pub kernel: String,
    /// Its tuning.
    pub tuning: Map<String, Value>,
    /// Its median.
    pub time_us: f64,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    /// Layers that the step computes.
    pub layers: Vec<String>,
    /// What it computes.
    pub problem: String,
    /// Id of its kernel.
    pub kernel: String,
    /// The kernel's tuning.
    pub tuning: Map<String, Value>,
    /// Hash of the kernel's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Formats.
    pub formats: StepFormats,
    /// Threads it runs on.
    pub threads: usize,
    /// The worker that took it alone in earlier versions, next to other branches; now all threads share it.
    #[serde(default, skip_serializing)]
    pub worker: Option<usize>,
    /// How many times it is taken for a batch, each for some of the images; times and work are of all.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub turns: usize,
    /// Measured time: in the running network where it was timed there, else alone. This and the other times of a step
    /// that each worker takes for images of its own are over the number of workers, so that those of all steps add up.
    pub time_us: Option<TimeUs>,
    /// Its median when it was timed alone.
    #[serde(default)]
    pub alone_us: Option<f64>,
    /// Its median when the whole network was measured at last.
    #[serde(default)]
    pub network_us: Option<f64>,
    /// What was predicted for it then, from the rounds in which it was chosen.
    #[serde(default)]
    pub predicted_us: Option<f64>,
    /// Candidates that were timed in the running network, first the best of those timed alone.
    #[serde(default)]
    pub in_place: Vec<InPlace>,
    /// Largest error over the largest output.
    pub rel_error: Option<f64>,
    /// Multiply-adds of the problem per nanosecond, times two.
    pub gflops: Option<f64>,
    /// Multiply-adds that the kernel executes.
    #[serde(default)]
    pub multiply_adds: Option<u64>,
    /// The candidate that came second.
    pub runner_up: Option<RunnerUp>,
    /// Why this kernel.
    pub reason: String,
}

fn once() -> usize {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_once(turns: &usize) -> bool {
    *turns == 1
}

/// Blocks that take some images of a batch at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSplit {
    /// The first block that takes all images at once; none where none does.
    pub before: Option<String>,
    /// Images that the blocks before it take at a time.
    pub images: usize,
    /// Each worker takes images of its own through them, alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub apart: bool,
}

impl std::fmt::Display for PlanSplit {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match &self.before {
            Some(block) => write!(f, "the blocks before {block}")?,
            None => f.write_str("all blocks")?,
        }
        let images = if self.images == 1 {
            "image by image".to_string()
        } else {
            format!("{} images at a time", self.images)
        };
        let workers = if self.apart { "each worker its own" } else { "all workers together" };
        write!(f, " are taken {images}, {workers}")
    }
}

impl PlanStep {
    /// Microseconds that the step took more in the whole network, measured at last, than was predicted.
    pub fn residual_us(&self) -> Option<f64> {
        Some(self.network_us? - self.predicted_us?)
    }

    /// The choice by times alone and the running network's own, where they are two and differ by more than a tie.
    pub fn flip(&self, tie: f64) -> Option<(&InPlace, &InPlace)> {
        let own = self.in_place.iter().find(|c| c.is_of(self))?;
        let first = self.in_place.first()?;
        (first.time_us.median > own.time_us.median * (1.0 + tie)).then_some((first, own))
    }
}

/// A candidate in the running network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InPlace {
    /// Its id.
    pub kernel: String,
    /// Its tuning.
    pub tuning: Map<String, Value>,
    /// Its time.
    pub time_us: TimeUs,
}

impl InPlace {
    /// Whether a step runs it.
    pub fn is_of(&self, step: &PlanStep) -> bool {
        self.kernel == step.kernel && self.tuning == step.tuning
    }
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`SCHEMA`].
    pub schema: String,
    /// The model's name.
    pub model: String,
    /// The shape of a `conv2d_bn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// Images of an inference.
    pub batch: usize,
    /// Threads.
    pub threads: usize,
    /// Bound on the relative L2 error of the features.
    pub max_rel_error: f64,
    /// The largest such error that was measured, against the network in f64.
    pub rel_error: Option<f64>,
    /// Bound on the memory of a process that runs the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory_mib: Option<u32>,
    /// Memory of the prepared network.
    #[serde(default)]
    pub memory_bytes: Option<MemoryBytes>,
    /// What it was made on.
    pub machine: Machine,
    /// Cores that the tuner was allowed to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores_allowed: Option<usize>,
    /// What made it.
    pub tool: String,
    /// When, in seconds since 1970.
    pub created: u64,
    /// Sum of what was predicted for the steps and around them.
    pub predicted_ms: Option<f64>,
    /// What was predicted around the steps: to wake the workers, to end, and to wait for those who take other steps at the
    /// same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around_us: Option<f64>,
    /// The whole network's time.
    pub measured_ms: Option<f64>,
    /// How near the choice is to the best there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planning: Option<Planning>,
    /// How quiet the machine was.
    #[serde(default)]
    pub noise: Option<Noise>,
    /// The whole network by this and by other plans.
    pub contest: Vec<Contest>,
    /// What published rules cost on the plain network, in f32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleRecord>,
    /// What an error bound costs: plans by times alone, the fastest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pareto: Vec<ParetoPoint>,
    /// Where the batch is split; a plan without takes all images at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<PlanSplit>,
    /// The forms of the blocks that have several; a plan that lacks a block has it plain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewrites: Vec<BlockRewrite>,
    /// The steps in order.
    pub steps: Vec<PlanStep>,
    /// What was measured to choose them.
    pub measurements: Vec<ProblemRecord>,
}

/// A tuning as a JSON object.
pub fn tuning_to_json(tuning: &Tuning) -> Map<String, Value> {
    tuning.iter().map(|(name, value)| (name.to_string(), Value::from(value))).collect()
}

/// The name that a problem has in plans: average pools and the dense layer have one name whatever the
/// weights bring, so that a plan serves them all.
pub fn problem_name(step: &Step) -> String {
    let mut problem = step.problem.clone();
    if let Problem::Pool(pool) = &mut problem
        && pool.kind == PoolKind::AverageCountingBorder
    {
        pool.kind = PoolKind::Average;
    }
    problem.to_string()
}

/// What tells whether the rest can be read, and what need not be.
#[derive(Deserialize)]
struct Outline<'a> {
    #[serde(default)]
    schema: Value,
    #[serde(default, borrow)]
    measurements: Option<&'a RawValue>,
}

impl Plan {
    /// Reads a plan; [`Plan::network`] checks it against a graph.
    ///
    /// # Errors
    /// If it can't be read or is of another schema.
    pub fn read(path: &Path) -> Result<Self, PlanError> {
        let text = read_text(path)?;
        outline(path, &text)?;
        Self::of_json(path, &text)
    }

    /// Reads what a run needs: not the measurements, which are most of the text and take most of the time.
    ///
    /// # Errors
    /// As for [`Self::read`], but for what is wrong with the measurements.
    pub fn read_steps(path: &Path) -> Result<Self, PlanError> {
        let text = read_text(path)?;
        let Some(measurements) = outline(path, &text)?.measurements else {
            return Self::of_json(path, &text);
        };
        let start = measurements.get().as_ptr().addr() - text.as_ptr().addr();
        let (before, after) = (&text[..start], &text[start + measurements.get().len()..]);
        // As many lines as before, for those of errors.
        let lines = "\n".repeat(measurements.get().matches('\n').count());
        Self::of_json(path, &[before, "[", &lines, "]", after].concat())
    }

    fn of_json(path: &Path, text: &str) -> Result<Self, PlanError> {
        serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|error| {
            let field = match error.path().to_string().as_str() {
                "." => "plan".to_string(),
                path => path.to_string(),
            };
            json_error(path, field, error.into_inner())
        })
    }

    /// Writes a plan whole or not at all.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn write(&self, path: &Path) -> Result<(), PlanError> {
        let mut text =
            serde_json::to_string_pretty(self).map_err(|source| json_error(path, "plan", source))?;
        text.push('\n');
        Ok(write_atomically(path, text.as_bytes())?)
    }
}

fn read_text(path: &Path) -> Result<String, PlanError> {
    std::fs::read_to_string(path)
        .map_err(|source| PlanError::Read { file: path.display().to_string(), source })
}

/// The outline of a plan of the schema that is known.
fn outline<'a>(path: &Path, text: &'a str) -> Result<Outline<'a>, PlanError> {
    let outline: Outline = serde_json::from_str(text).map_err(|source| json_error(path, "plan", source))?;
    match outline.schema == SCHEMA {
        true => Ok(outline),
        false => Err(field(path, "schema", outline.schema, format!("\"{SCHEMA}\""))),
    }
}

fn json_error(path: &Path, field: impl Into<String>, source: serde_json::Error) -> PlanError {
    PlanError::Json { file: path.display().to_string(), field: field.into(), source }
}

fn field(path: &Path, field: &str, found: impl ToString, expected: impl ToString) -> PlanError {
    let short = |text: String| match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    };
    PlanError::Field {
        file: path.display().to_string(),
        field: field.to_string(),
        found: short(found.to_string()).replace('\n', " "),
        expected: expected.to_string(),
    }
}

/// File name of a plan: what it is for, so that plans for different uses lie side by side.
pub fn file_name(model: &str, shape: Option<&str>, threads: usize, batch: usize, bounds: &Bounds) -> String {
    let shape = shape.map(|s| format!("-{s}")).unwrap_or_default();
    let memory = bounds.memory.map(|mib| format!("-m{mib}")).unwrap_or_default();
    format!("plan-{model}{shape}-t{threads}-b{batch}-e{:e}{memory}.json", bounds.error)
}

/// The newest plan of a folder that is for what a run asks, and its path: of those with the run's own bound on
/// the error, if there is one, else of those with a tighter one. Files that are no plans, or plans for something
/// else, are passed over.
pub fn newest(
    folder: &Path,
    wanted: &Wanted,
    max_rel_error: f64,
    machine: &Machine,
) -> Option<(PathBuf, Plan)> {
    let fits = |(path, plan): &(PathBuf, Plan)| {
        plan.check_wanted(path, wanted).is_ok()
            && plan.max_rel_error <= max_rel_error
            && plan.machine.differs(machine).is_none()
    };
    in_folder(folder).filter(fits).max_by_key(|(_, plan)| (plan.max_rel_error == max_rel_error, plan.created))
}

/// All plans of a folder; files that are none are passed over.
pub fn in_folder(folder: &Path) -> impl Iterator<Item = (PathBuf, Plan)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let json = paths.filter(|path| path.extension().is_some_and(|e| e == "json"));
    json.filter_map(|path| Plan::read_steps(&path).ok().map(|plan| (path, plan)))
}
