//! What a program asks of a plan: the newest that fits, or one that is made without measurements.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kernels::{Cpu, PoolKind};

use crate::network::{Block, Choice, F32_ERROR, Graph, Model, Step, TOOL, built_in};
use crate::plan::error::PlanError;
use crate::plan::schema::{Bounds, Plan, PlanRequest, SCHEMA};
use crate::plan::step::PlanStep;
use crate::plan::store::{nearest, newest};
use crate::plan::{BlockVariantRecord, VariantReason};
use crate::runtime::{Machine, available, graph, physical_cores};
use crate::util::now;
use crate::weights::Weights;

/// What a program asks of a plan.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    model: &'a Model,
    threads: usize,
    batch: usize,
    max_rel_error: f64,
}

impl<'a> Request<'a> {
    /// A plan for a model, by all physical cores that this process may use, one image at a time, in
    /// f32.
    pub fn new(model: &'a Model) -> Self {
        Self { model, threads: physical_cores(), batch: 1, max_rel_error: F32_ERROR }
    }

    /// Another number of threads.
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// Another number of images that are computed at once.
    pub fn batch(self, batch: usize) -> Self {
        Self { batch: batch.max(1), ..self }
    }

    /// Another bound on the relative L2 error of the features. A looser one allows bf16.
    pub fn max_rel_error(self, max_rel_error: f64) -> Self {
        Self { max_rel_error, ..self }
    }

    /// A plan that is made without measurements, in f32: each block in the variant that changes
    /// most, a transform for each step where one is valid and the direct kernel for the others, by
    /// default tunings.
    ///
    /// # Panics
    /// If no kernel takes a step.
    pub fn untuned(&self) -> Plan {
        let cpu = Cpu::detect();
        let plain = Graph::new(self.model, self.batch, PoolKind::Average);
        let (graph, choices) = built_in(&plain, &cpu);
        let variant = |block: &Block| BlockVariantRecord {
            block: block.name.to_string(),
            variant: block.most().to_string(),
            alternatives: Vec::new(),
            reason: VariantReason::NotMeasured,
        };
        let variants = Block::all(&plain).iter().map(variant).collect();
        self.unmeasured(&graph, &choices, variants, &cpu)
    }

    /// A plan of which no time is known.
    fn unmeasured(
        &self,
        graph: &Graph,
        choices: &[Choice],
        block_variants: Vec<BlockVariantRecord>,
        cpu: &Cpu,
    ) -> Plan {
        let step = |(s, choice): (&Step, &Choice)| PlanStep::unmeasured(s, choice, self.threads);
        Plan {
            schema: SCHEMA.to_string(),
            model: self.model.name.clone(),
            shape: self.model.shape_text(),
            batch: self.batch,
            threads: self.threads,
            max_rel_error: self.max_rel_error,
            machine: Machine::of(cpu),
            cores_allowed: Some(available()),
            tool: TOOL.to_string(),
            created: now(),
            block_variants,
            steps: graph.steps.iter().zip(choices).map(step).collect(),
            ..Plan::default()
        }
    }

    /// The plan that a run takes where none is named: the newest valid one for the request, as
    /// [`Plan::find`] gives, or else the nearest, see [`PlanOrigin::Nearest`]. Plans of other
    /// processors are never taken. `None` if there is neither.
    ///
    /// # Errors
    /// If the machine's folder is there and can't be read.
    pub fn find(
        &self,
        results: impl AsRef<Path>,
        weights: &Weights,
    ) -> Result<Option<PlanChoice>, PlanError> {
        let cpu = Cpu::detect();
        let machine = Machine::of(&cpu);
        let Some(folder) = folder_of_plans(&machine, results.as_ref())? else { return Ok(None) };
        let bounds = Bounds { error: self.max_rel_error, memory: None };
        let plain = graph(self.model, weights, self.batch);
        let mut notes = Vec::new();
        if let Some((file, plan)) = newest(&folder, &self.plan_request(), &bounds, &machine) {
            match plan.network(&file, &plain, &cpu) {
                Ok(_) => {
                    let notes = plan.notes(&file, Some(&machine));
                    return Ok(Some(PlanChoice { plan, origin: PlanOrigin::Newest(file), notes }));
                }
                Err(error) => notes.push(error.to_string()),
            }
        }
        let found = nearest(&folder, &self.plan_request(), &bounds, &machine);
        let adapted = found.and_then(|(file, plan)| {
            let (graph, choices) = plan.adapted(&plain, &cpu)?;
            let origin = PlanOrigin::Nearest { file, threads: plan.threads, batch: plan.batch };
            let plan = self.unmeasured(&graph, &choices, plan.block_variants, &cpu);
            Some(PlanChoice { plan, origin, notes })
        });
        Ok(adapted)
    }

    pub(crate) fn plan_request(&self) -> PlanRequest<'_> {
        let (threads, batch) = (Some(self.threads), Some(self.batch));
        PlanRequest { model: &self.model.name, shape: self.model.shape_text(), threads, batch }
    }
}

/// A plan that a run takes, and where it is from.
#[derive(Clone, Debug)]
pub struct PlanChoice {
    /// For the request's batch and threads.
    pub plan: Plan,
    /// Where it is from.
    pub origin: PlanOrigin,
    /// What to know of it, a line each: what has changed since it was made, why a newer one is not
    /// taken.
    pub notes: Vec<String>,
}

/// Where a plan is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanOrigin {
    /// A file for the request.
    Newest(PathBuf),
    /// A file for another batch or number of threads: the next batch, of those the next number of
    /// threads. Its kernels are taken where they take the step, and default ones elsewhere.
    Nearest {
        /// The file.
        file: PathBuf,
        /// Threads that it is for.
        threads: usize,
        /// Images at once that it is for.
        batch: usize,
    },
}

impl PlanOrigin {
    /// The file.
    pub fn file(&self) -> &Path {
        match self {
            Self::Newest(file) | Self::Nearest { file, .. } => file,
        }
    }
}

/// The folder of a machine's plans; none where it is not there.
fn folder_of_plans(machine: &Machine, results: &Path) -> Result<Option<PathBuf>, PlanError> {
    let folder = machine.folder(results);
    match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PlanError::Read { file: folder.display().to_string(), source }),
        Ok(_) => Ok(Some(folder)),
    }
}

impl Plan {
    /// The newest plan for a request that was made on a machine like this one: of those with the
    /// request's bound on the error, if there is one, else of those with a tighter one; plans with
    /// a bound on memory are passed over. `results` is a folder of results, in which each machine
    /// has a folder. `None` if there is no such plan.
    ///
    /// # Errors
    /// If the machine's folder is there and can't be read.
    pub fn find(results: impl AsRef<Path>, request: &Request) -> Result<Option<Self>, PlanError> {
        let machine = Machine::of(&Cpu::detect());
        let Some(folder) = folder_of_plans(&machine, results.as_ref())? else { return Ok(None) };
        let bounds = Bounds { error: request.max_rel_error, memory: None };
        let found = newest(&folder, &request.plan_request(), &bounds, &machine);
        Ok(found.map(|(_, plan)| plan))
    }

    /// A plan that is made without measurements, see [`Request::untuned`].
    ///
    /// # Panics
    /// As [`Request::untuned`].
    pub fn untuned(model: &Model) -> Self {
        Request::new(model).untuned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_without_measurements_is_found_again_and_fits_its_model() {
        let model = Model::block("mixed10").expect("a block");
        let results = tempfile::tempdir().expect("a folder");
        let request = Request::new(&model).threads(2).batch(3);
        assert!(Plan::find(results.path(), &request).expect("no folder is no error").is_none());
        let plan = request.untuned();
        let folder = plan.machine.folder(results.path());
        std::fs::create_dir_all(&folder).expect("a folder");
        plan.write(&folder.join("plan.json")).expect("written");
        assert_eq!(Plan::find(results.path(), &request).expect("readable"), Some(plan.clone()));
        let other = Request::new(&model).threads(1).batch(3);
        assert!(Plan::find(results.path(), &other).expect("readable").is_none());
        let plain = Graph::new(&model, 3, PoolKind::Average);
        let (graph, choices) = plan.network(Path::new("plan"), &plain, &Cpu::detect()).expect("it fits");
        assert_eq!((graph, choices), built_in(&plain, &Cpu::detect()));
    }

    #[test]
    fn the_nearest_plan_runs_where_none_is_for_the_request_and_never_one_of_another_processor() {
        let model = Model::block("mixed10").expect("a block");
        let weights = Weights::synthetic(&model, 1);
        let results = tempfile::tempdir().expect("a folder");
        let request = Request::new(&model).threads(2).batch(3);
        assert!(request.find(results.path(), &weights).expect("no folder is no error").is_none());
        let folder = Machine::of(&Cpu::detect()).folder(results.path());
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut other = request.untuned();
        other.machine.cpu += " of another kind";
        other.write(&folder.join("other.json")).expect("written");
        assert!(request.find(results.path(), &weights).expect("readable").is_none());
        let file = folder.join("nearest.json");
        Request::new(&model).threads(1).batch(4).untuned().write(&file).expect("written");
        let found = request.find(results.path(), &weights).expect("readable").expect("the nearest");
        assert_eq!(found.origin, PlanOrigin::Nearest { file, threads: 1, batch: 4 });
        assert_eq!((found.plan.threads, found.plan.batch), (2, 3));
        let plain = graph(&model, &weights, 3);
        assert!(found.plan.network(Path::new("plan"), &plain, &Cpu::detect()).is_ok());
        let file = folder.join("newest.json");
        request.untuned().write(&file).expect("written");
        let found = request.find(results.path(), &weights).expect("readable").expect("the newest");
        assert_eq!((found.origin.file(), found.notes.len()), (file.as_path(), 0));
    }

    #[test]
    fn a_single_convolution_is_asked_for_by_its_shape() {
        let conv = "n1h9w9c16k24r3s3".parse().expect("a shape");
        let model = Model::conv2d_bn(&conv);
        assert_eq!(Request::new(&model).plan_request().shape.as_deref(), Some("n1h9w9c16k24r3s3"));
        assert_eq!(Request::new(&Model::inception_v3()).plan_request().shape, None);
    }

    #[test]
    fn a_plan_of_the_whole_network_serves_one_that_is_cut() {
        let whole = Model::by_name("inception_v3_fid", None, None).expect("a network");
        let (plan, cpu) = (Request::new(&whole).threads(1).untuned(), Cpu::detect());
        for dims in [64, 768] {
            let cut = whole.clone().with_dims(dims).expect("a tap");
            let plain = Graph::new(&cut, 1, PoolKind::Average);
            let (graph, choices) = plan.adapted(&plain, &cpu).expect("formats agree");
            let last = graph.steps.len() - 1;
            for (step, choice) in graph.steps[..last].iter().zip(&choices) {
                let planned = plan.steps.iter().find(|planned| planned.layers == step.layers);
                assert_eq!(
                    planned.map(|planned| &planned.kernel[..]),
                    Some(choice.row.id),
                    "{:?}",
                    step.layers
                );
            }
        }
    }
}
