//! Whether a plan is for what a run asks, for this machine and for a graph.

use std::path::Path;

use kernels::{Cpu, Dtype, Tuning, entry, table};
use serde_json::{Map, Value};

use crate::network::dtypes::Disagreement;
use crate::network::{
    Choice, Graph, Step, StepFormats, choice_reading, default_choice, of_tensors, problem_name, scales,
    tuning_to_json,
};
use crate::plan::error::{PlanError, field};
use crate::plan::records::StreamsRecord;
use crate::plan::schema::{Bounds, Plan, PlanRequest};
use crate::plan::step::PlanStep;
use crate::runtime::weight_cache::fingerprint;
use crate::runtime::{Machine, expected_threads, most_threads};
use crate::util::names;
use crate::weights::Weights;

/// The most images of an inference by a plan.
const MAX_BATCH: usize = 4096;

fn tuning_text(tuning: &Map<String, Value>) -> String {
    Value::Object(tuning.clone()).to_string()
}

/// What is expected where a tuning is none of those that a kernel offers: the nearest.
fn expected_tuning(found: &Map<String, Value>, offered: &[Tuning]) -> String {
    let distance = |tuning: &&Tuning| {
        let values = tuning.iter().map(|(name, value)| match found.get(name).and_then(Value::as_u64) {
            Some(found) => (usize::from(found != value as u64), found.abs_diff(value as u64)),
            None => (1, u64::MAX),
        });
        values.fold((0, 0u64), |(all, far), (differs, by)| (all + differs, far.saturating_add(by)))
    };
    let nearest = offered.iter().min_by_key(distance).map(|tuning| tuning_text(&tuning_to_json(tuning)));
    match (offered.len(), nearest) {
        (1, Some(only)) => only,
        (count, Some(nearest)) => format!("one of {count} tunings, of which {nearest} is the nearest"),
        (_, None) => "none".to_owned(),
    }
}

impl Plan {
    /// Checks that the plan is for what a run asks; the error names the first field that differs.
    pub fn check_wanted(&self, path: &Path, wanted: &PlanRequest) -> Result<(), PlanError> {
        if self.is_of_list() {
            let expected = format!("{}: a list of convolutions is no network that runs", wanted.model);
            return Err(field(path, "model", &self.model, expected));
        }
        if self.model != wanted.model {
            return Err(field(path, "model", &self.model, wanted.model));
        }
        if self.shape != wanted.shape {
            let text = |shape: &Option<String>| shape.clone().unwrap_or_else(|| "absent".to_string());
            return Err(field(path, "shape", text(&self.shape), text(&wanted.shape)));
        }
        if !(1..=MAX_BATCH).contains(&self.batch) {
            return Err(field(path, "batch", self.batch, format!("a number from 1 to {MAX_BATCH}")));
        }
        self.check_thread_count(path)?;
        for (name, found, asked) in
            [("threads", self.threads, wanted.threads), ("batch", self.batch, wanted.batch)]
        {
            if let Some(asked) = asked.filter(|asked| *asked != found) {
                return Err(field(path, name, found, format!("{asked} as --{name} asks")));
            }
        }
        if !(self.max_rel_error > 0.0 && self.max_rel_error.is_finite()) {
            return Err(field(path, "max_rel_error", self.max_rel_error, "a number above 0"));
        }
        Ok(())
    }

    /// Checks that this machine can run so many threads as the plan states.
    pub fn check_thread_count(&self, path: &Path) -> Result<(), PlanError> {
        let most = most_threads();
        if !(1..=most).contains(&self.threads) {
            return Err(field(path, "threads", self.threads, expected_threads()));
        }
        for (index, StreamsRecord { streams, threads, .. }) in self.streams.iter().enumerate() {
            if streams.checked_mul(*threads).is_none_or(|all| !(1..=most).contains(&all)) {
                let found = format!("{streams} of {threads} threads each");
                return Err(field(path, &format!("streams[{index}]"), found, expected_threads()));
            }
        }
        Ok(())
    }

    /// Checks that the ranges of activations, if the plan has them, are those of the weights.
    pub fn check_calibration(&self, path: &Path, weights: &Weights) -> Result<(), PlanError> {
        let Some(calibration) = &self.calibration else { return Ok(()) };
        let file = || weights.description();
        let own = fingerprint(weights).map_err(|source| PlanError::Read { file: file(), source })?;
        if calibration.weights == own {
            return Ok(());
        }
        let expected = format!("\"{own}\" of {}: tune again with these weights", weights.description());
        Err(field(path, "calibration.weights", format!("\"{}\"", calibration.weights), expected))
    }

    /// Whether the plan keeps what a run asks. One with a bound on memory is slower than it could
    /// be, and only for runs that ask for one; one without keeps a bound if what was measured does.
    pub fn keeps(&self, bounds: &Bounds) -> bool {
        let is_exact = self.max_rel_error <= bounds.error;
        let keeps_memory = match (bounds.memory, self.max_memory_mib) {
            (None, bound) => bound.is_none(),
            (Some(asked), Some(bound)) => bound <= asked,
            (Some(asked), None) => self.process_bytes().is_some_and(|bytes| bytes <= (asked as usize) << 20),
        };
        is_exact && keeps_memory
    }

    /// Bytes of a process that runs the plan, at most; none where they are not known.
    pub fn process_bytes(&self) -> Option<usize> {
        self.memory_bytes?.total()
    }

    /// The plan's choices for a graph of another batch or number of threads, or one that ends
    /// before the plan's does, in the plan's forms and not split: a step that the plan's candidate
    /// does not take there, or whose layers the plan does not have, gets a choice in f32 that reads
    /// what is there. None where formats would not agree.
    pub fn adapted(&self, plain: &Graph, cpu: &Cpu) -> Option<(Graph, Vec<Choice>)> {
        let (path, mut whole) = (Path::new("plan"), Self { split: None, ..self.clone() });
        let blocks = plain.blocks();
        whole.block_variants.retain(|planned| blocks.contains(&&planned.block[..]));
        let graph = whole.graph(path, plain).ok()?;
        let mut types: Vec<Option<Dtype>> = vec![None; graph.tensors.len()];
        let choose = |step: &Step| {
            let planned = self.steps.iter().position(|planned| planned.layers == step.layers);
            let choice = planned.and_then(|index| {
                let planned = PlanStep { problem: problem_name(step), ..self.steps[index].clone() };
                self.choice(path, index, &planned, step, cpu).ok()
            });
            let read = types[step.src.tensor].unwrap_or(Dtype::F32);
            let choice = choice.or_else(|| choice_reading(&step.problem, cpu, read));
            let choice = choice.unwrap_or_else(|| default_choice(&step.problem, cpu));
            step.dst.iter().for_each(|slice| types[slice.tensor] = Some(choice.formats.dst.dtype));
            choice
        };
        let choices: Vec<Choice> = graph.steps.iter().map(choose).collect();
        let types = of_tensors(&graph, &choices).ok()?;
        scales(&graph, &types, self.calibration.as_ref()).is_ok().then_some((graph, choices))
    }

    /// A plain graph with its blocks in the plan's forms, and the choices for it, every one
    /// checked. Steps of the top that the plan lacks get a default. The error names the first field
    /// that does not hold.
    pub fn network(&self, path: &Path, plain: &Graph, cpu: &Cpu) -> Result<(Graph, Vec<Choice>), PlanError> {
        let graph = self.graph(path, plain)?;
        let choices = self.choices(path, &graph, cpu)?;
        Ok((graph, choices))
    }

    fn choices(&self, path: &Path, graph: &Graph, cpu: &Cpu) -> Result<Vec<Choice>, PlanError> {
        let body = graph.steps.iter().filter(|step| !step.is_top).count();
        let is_planned_top = |planned: &PlanStep| planned.layers.iter().any(|layer| graph.is_in_top(layer));
        let found = self.steps.iter().filter(|planned| !is_planned_top(planned)).count();
        if found != body {
            let expected = format!("{body} steps of {}{} before its top", self.model, self.in_forms());
            return Err(field(path, "steps", found, expected));
        }
        // Weights decide which steps the top has; branch-parallel plans list the branches of one
        // worker, then another's.
        let is_branch_parallel = self.steps.iter().any(|planned| planned.worker.is_some());
        let choose = |(place, step): (usize, &Step)| {
            let in_order = (!step.is_top).then_some(place);
            let of_layers = || self.steps.iter().position(|planned| planned.layers == step.layers);
            let planned =
                if is_branch_parallel { of_layers().or(in_order) } else { in_order.or_else(of_layers) };
            match planned {
                Some(index) => {
                    self.check_threads(path, index, graph.is_per_worker(place))?;
                    self.choice(path, index, &self.steps[index], step, cpu)
                }
                None => Ok(default_choice(&step.problem, cpu)),
            }
        };
        let choices: Vec<Choice> = graph.steps.iter().enumerate().map(choose).collect::<Result<_, _>>()?;
        let Disagreement { step, reads, found, expected } = match of_tensors(graph, &choices) {
            // Nothing runs a list but measurements of its steps.
            Ok(_) if self.is_of_list() => return Ok(choices),
            Ok(types) => {
                let file = || path.display().to_string();
                return scales(graph, &types, self.calibration.as_ref())
                    .map(|_| choices)
                    .map_err(|source| PlanError::Scale { file: file(), source });
            }
            Err(disagreement) => disagreement,
        };
        let side = if reads { "in" } else { "out" };
        let expected = format!("{expected} as the steps before it");
        Err(field(path, &format!("steps[{step}].formats.{side}"), found, expected))
    }

    /// A step is taken by all workers, or by one where each takes images of its own.
    fn check_threads(&self, path: &Path, index: usize, alone: bool) -> Result<(), PlanError> {
        let PlanStep { threads: found, worker, .. } = &self.steps[index];
        let (expected, why) =
            if alone { (1, "one worker takes it alone") } else { (self.threads, "as the plan") };
        if worker.is_some() || *found == expected {
            return Ok(());
        }
        Err(field(path, &format!("steps[{index}].threads"), found, format!("{expected}, {why}")))
    }

    /// The choice of a step of the plan, or of one like it, for a step of a graph; every part
    /// checked. The error names the first field that does not hold.
    pub fn choice(
        &self,
        path: &Path,
        index: usize,
        planned: &PlanStep,
        step: &Step,
        cpu: &Cpu,
    ) -> Result<Choice, PlanError> {
        let at = |name: &str| format!("steps[{index}].{name}");
        let quoted = |layers: &[String]| format!("[{}]", layers.join(", "));
        if planned.layers != step.layers {
            return Err(field(path, &at("layers"), quoted(&planned.layers), quoted(&step.layers)));
        }
        let problem = problem_name(step);
        if planned.problem != problem && !step.is_top {
            return Err(field(path, &at("problem"), &planned.problem, problem));
        }
        let Some(row) = entry(&planned.kernel) else {
            let expected = names::expected(&planned.kernel, table().iter().map(|row| row.id));
            return Err(field(path, &at("kernel"), &planned.kernel, expected));
        };
        let refused = |refusal| {
            let expected = format!("a kernel that takes {} here ({refusal})", step.problem);
            field(path, &at("kernel"), &planned.kernel, expected)
        };
        let kernel = (row.make)(cpu).map_err(refused)?;
        kernel.supports(&step.problem).map_err(refused)?;
        let offered = kernel.tunings(&step.problem);
        let same = |tuning: &&Tuning| {
            planned.tuning.len() == tuning.iter().count()
                && tuning.iter().all(|(name, value)| planned.tuning.get(name) == Some(&Value::from(value)))
        };
        let tuning = match offered.iter().find(same) {
            Some(tuning) => tuning.clone(),
            None if step.is_top => offered[0].clone(),
            None => {
                let expected = expected_tuning(&planned.tuning, &offered);
                return Err(field(path, &at("tuning"), tuning_text(&planned.tuning), expected));
            }
        };
        let offered = kernel.formats(&step.problem, &tuning);
        match offered.iter().find(|formats| StepFormats::of(formats) == planned.formats) {
            Some(&formats) => Ok(Choice { row, tuning, formats }),
            None => {
                let list: Vec<String> = offered.iter().map(|f| StepFormats::of(f).to_string()).collect();
                Err(field(path, &at("formats"), &planned.formats, list.join(" or ")))
            }
        }
    }

    /// Checks that the plan was made on a machine like this; the error names the first difference.
    pub fn check_machine(&self, path: &Path, machine: &Machine) -> Result<(), PlanError> {
        let Some(difference) = self.machine.differs(machine) else { return Ok(()) };
        let expected = format!("{} as here, or --any-machine", difference.other);
        Err(field(path, &format!("machine.{}", difference.field), difference.this, expected))
    }

    /// What has changed since the plan was made, so that its times may no longer hold.
    pub fn stale(&self, machine: &Machine) -> Option<String> {
        let mut changes = self.machine.changes(machine);
        let is_other = |step: &&PlanStep| {
            let now = entry(&step.kernel).map(|row| row.code());
            step.code.as_deref().zip(now).is_some_and(|(then, now)| then != now)
        };
        let is_of_another =
            |step: &&PlanStep| table().iter().any(|row| Some(row.code()) == step.code.as_deref());
        let others = self.steps.iter().filter(is_other);
        let (edited, others): (Vec<&PlanStep>, Vec<_>) = others.partition(is_of_another);
        if let Some(first) = edited.first() {
            let (count, all, layers) = (edited.len(), self.steps.len(), first.layers.join(" "));
            changes.push(format!(
                "another kernel than was chosen in {count} of {all} steps, {layers} the first"
            ));
        }
        if let Some(first) = others.first() {
            let mut kernels: Vec<&str> = others.iter().map(|step| step.kernel.as_str()).collect();
            kernels.sort_unstable();
            kernels.dedup();
            let (count, all) = (others.len(), self.steps.len());
            let (kernels, layers) = (kernels.join(" "), first.layers.join(" "));
            changes.push(format!(
                "the code of {kernels} has changed, which {count} of {all} steps use, {layers} the first"
            ));
        }
        (!changes.is_empty())
            .then(|| format!("{}; tuning again measures what it concerns", changes.join("; ")))
    }
}
