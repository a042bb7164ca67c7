//! The plan: which kernel computes which step, as JSON that a person can read and edit.
//!
//! A plan is checked in full before anything runs: every block has its variant, every step is
//! the graph's, every kernel is in the table and on this machine, every tuning is one that the
//! kernel offers.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::network::Calibration;
use crate::plan::bandwidth::BandwidthRecord;
use crate::plan::error::{PlanError, field, json_error};
use crate::plan::records::{
    BlockVariantRecord, MemoryBytes, NetworkRecord, Noise, ParetoPoint, Planning, ProblemRecord, RuleRecord,
    StreamsRecord,
};
use crate::plan::step::PlanStep;
use crate::runtime::Machine;
use crate::util::bounded::{self, Limit};
use crate::util::files::write_atomically;
use crate::util::words;

pub const SCHEMA: &str = "convolution-plan-2";

/// An earlier version that is read: its fields have other names, and some of their texts.
const FIRST_SCHEMA: &str = "convolution-plan-1";

/// What the schemas of earlier results of lists begin with, which are not read.
const LIST_SCHEMA: &str = "convolution-shapes-";

/// Blocks that take some images of a batch at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSplit {
    /// The first block that takes all images at once; none where none does.
    pub before: Option<String>,
    /// Images that the blocks before it take at a time.
    pub images: usize,
    /// Each worker takes images of its own through them, alone.
    #[serde(alias = "apart", default, skip_serializing_if = "std::ops::Not::not")]
    pub per_worker: bool,
}

impl std::fmt::Display for PlanSplit {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match &self.before {
            Some(block) => write!(f, "the blocks before {block}")?,
            None => f.write_str("all blocks")?,
        }
        let images = match self.images {
            1 => "image by image".to_string(),
            n => format!("{n} images at a time"),
        };
        let workers = if self.per_worker { "each worker its own" } else { "all workers together" };
        write!(f, " are taken {images}, {workers}")
    }
}

/// Which kernel computes which step of a network, and what was measured to choose it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub schema: String,
    /// The model's name, or that of a list of convolutions: see
    /// [`model_of_list`](crate::plan::list::model_of_list).
    pub model: String,
    /// What the model is made for, see [`ModelShape`](crate::ModelShape).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// Images of an inference; of a list, those of its first convolution.
    pub batch: usize,
    pub threads: usize,
    /// Bound on the relative L2 error of the features.
    pub max_rel_error: f64,
    /// The largest such error that was measured, against the network in f64.
    pub rel_error: Option<f64>,
    /// Bound on the memory of a process that runs the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory_mib: Option<u32>,
    /// Memory of the prepared network.
    pub memory_bytes: Option<MemoryBytes>,
    pub machine: Machine,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores_allowed: Option<usize>,
    pub tool: String,
    /// The commit that the tuner was built from; none where it was built without git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// When, in seconds since 1970.
    pub created: u64,
    /// Sum of what was predicted for the steps and around them.
    pub predicted_ms: Option<f64>,
    /// Predicted around the steps: to wake the workers, to end, and to wait for others.
    #[serde(alias = "around_us", skip_serializing_if = "Option::is_none")]
    pub overhead_us: Option<f64>,
    pub measured_ms: Option<f64>,
    /// Seconds that measuring might take, and those that it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measuring_s: Option<f64>,
    /// The least budget that leaves time for close candidates in the network, where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_network_budget_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planning: Option<Planning>,
    pub noise: Option<Noise>,
    /// What the cores read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<BandwidthRecord>,
    /// The ranges of activations, where a tensor is u8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Whether others had the cores when the choices were made; those of an earlier plan that
    /// stayed were made before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen_beside_load: Option<bool>,
    /// The whole network by this and by other plans.
    #[serde(alias = "contest")]
    pub networks: Vec<NetworkRecord>,
    /// Images a second of inferences at the same time, one after the other first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamsRecord>,
    /// What published rules cost on the plain network, in f32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleRecord>,
    /// What an error bound costs: plans by isolated times, the fastest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pareto: Vec<ParetoPoint>,
    /// Where the batch is split; a plan without takes all images at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<PlanSplit>,
    /// The forms of the blocks that have several; a plan that lacks a block has it plain.
    #[serde(alias = "rewrites", default, skip_serializing_if = "Vec::is_empty")]
    pub block_variants: Vec<BlockVariantRecord>,
    pub steps: Vec<PlanStep>,
    pub measurements: Vec<ProblemRecord>,
    /// Fields of the file that a plan does not have; they change nothing.
    #[serde(skip)]
    pub unknown_fields: Vec<String>,
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

    /// Reads what a run needs: not the measurements, which are most of the text.
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
        let (mut track, mut unknown_fields) = (serde_path_to_error::Track::new(), Vec::new());
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
        let read = serde_ignored::deserialize(tracked, |field| unknown_fields.push(field.to_string()));
        let mut plan: Self = read.map_err(|error| {
            let field = track.path().to_string();
            json_error(path, if field == "." { "plan" } else { &field }, error)
        })?;
        if plan.schema == SCHEMA {
            plan.unknown_fields = unknown_fields;
        }
        plan.complete_formats();
        Ok(plan)
    }

    /// Earlier plans leave out formats of candidates in the network: they are those of the step.
    fn complete_formats(&mut self) {
        for PlanStep { in_network, runner_up, formats, .. } in &mut self.steps {
            let ids = in_network.iter_mut().map(|c| &mut c.id).chain(runner_up.as_mut().map(|c| &mut c.id));
            ids.filter(|id| id.formats.is_missing()).for_each(|id| id.formats.clone_from(formats));
        }
    }

    /// The streams that give the most images a second, if that is known. By the medians: an
    /// interval that includes 1 is no reason against several, which lose less than one session
    /// where loaders of images work on the same cores.
    pub fn fastest_streams(&self) -> Option<&StreamsRecord> {
        self.streams.iter().max_by(|a, b| a.images_per_second.total_cmp(&b.images_per_second))
    }

    /// What to know of a plan, a line each: what has changed since it was made on a machine like
    /// this, where that is asked, and fields that it does not have.
    pub fn notes(&self, path: &Path, machine: Option<&Machine>) -> Vec<String> {
        let changes = machine.and_then(|machine| self.stale(machine));
        let stale = changes.map(|changes| format!("{}: {changes}", path.display()));
        stale.into_iter().chain(self.unknown_note(path)).collect()
    }

    /// What to tell of fields that a plan does not have.
    pub fn unknown_note(&self, path: &Path) -> Option<String> {
        let first = self.unknown_fields.first()?;
        let others = match self.unknown_fields.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        let file = path.display();
        Some(format!("{file}: found the field {first}{others}, which no plan has: it changes nothing"))
    }

    /// Writes a plan whole or not at all.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn write(&self, path: &Path) -> Result<(), PlanError> {
        let text = self.to_json().map_err(|e| json_error(path, "plan", e))?;
        Ok(write_atomically(path, text.as_bytes())?)
    }

    /// What [`Self::write`] writes.
    ///
    /// # Errors
    /// If a number is not finite.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

/// Some hundred times as much as the plan of a network has.
const MOST: Limit = Limit { of: "a plan", mib: 64 };

fn read_text(path: &Path) -> Result<String, PlanError> {
    let file = || path.display().to_string();
    let bytes = bounded::read(path, MOST).map_err(|source| PlanError::Read { file: file(), source })?;
    String::from_utf8(bytes).map_err(|_| no_plan(path, "found bytes that are no text"))
}

fn no_plan(path: &Path, found: &str) -> PlanError {
    PlanError::NoPlan { file: path.display().to_string(), found: found.to_owned() }
}

fn outline<'a>(path: &Path, text: &'a str) -> Result<Outline<'a>, PlanError> {
    if text.trim().is_empty() {
        return Err(no_plan(path, "found an empty file"));
    }
    let outline: Outline = serde_json::from_str(text).map_err(|error| match error.is_data() {
        true => no_plan(path, "found JSON that is no object"),
        false => no_plan(path, &words::of_json(&error)),
    })?;
    let expected = match outline.schema.as_str() {
        Some(SCHEMA | FIRST_SCHEMA) => return Ok(outline),
        Some(found) if found.starts_with(LIST_SCHEMA) => {
            format!("\"{SCHEMA}\", which `tuner tune --shapes LIST` writes now")
        }
        _ => format!("\"{SCHEMA}\""),
    };
    Err(field(path, "schema", outline.schema, expected))
}

/// What a run asks of a plan; threads and batch only if the user says.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRequest<'a> {
    pub model: &'a str,
    pub shape: Option<String>,
    pub threads: Option<usize>,
    pub batch: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Relative L2 error of the features against f64.
    pub error: f64,
    /// MiB of the process that runs the plan, all of it counted.
    pub memory: Option<u32>,
}
