//! What a program asks of a plan, and the plan that it gets: the one of a file, the newest or the
//! nearest of a folder, or one that is made without measurements.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use kernels::{Cpu, PoolKind};

use crate::network::{
    Block, Choice, F32_ERROR, Graph, Model, Step, TOOL, built_in, problem_name, reproducible_choices,
};
use crate::plan::error::{PlanError, field};
use crate::plan::schema::{Bounds, Plan, PlanRequest, SCHEMA};
use crate::plan::step::PlanStep;
use crate::plan::store::{nearest, newest};
use crate::plan::{BlockVariantRecord, VariantReason};
use crate::runtime::{Machine, available, graph, physical_cores};
use crate::util::now;
use crate::weights::Weights;

/// What a program asks of a plan. What it does not state any plan of a file may have; where a plan
/// is looked for or made, it is for all physical cores that this process may use, one image at a
/// time, in f32 and without a bound on memory.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    model: &'a Model,
    cpu: Cpu,
    threads: Option<usize>,
    batch: Option<usize>,
    max_rel_error: Option<f64>,
    max_memory: Option<u32>,
    any_machine: bool,
}

impl<'a> Request<'a> {
    /// A plan for a model on this processor.
    pub fn new(model: &'a Model) -> Self {
        Self {
            model,
            cpu: Cpu::detect(),
            threads: None,
            batch: None,
            max_rel_error: None,
            max_memory: None,
            any_machine: false,
        }
    }

    /// For a processor with other instructions, as [`Cpu::limited_to`] gives.
    pub fn cpu(self, cpu: &Cpu) -> Self {
        Self { cpu: cpu.clone(), ..self }
    }

    /// A number of threads.
    pub fn threads(self, threads: impl Into<Option<usize>>) -> Self {
        Self { threads: threads.into().map(|threads| threads.max(1)), ..self }
    }

    /// A number of images that are computed at once.
    pub fn batch(self, batch: impl Into<Option<usize>>) -> Self {
        Self { batch: batch.into().map(|batch| batch.max(1)), ..self }
    }

    /// A bound on the relative L2 error of the features. A looser one than that of f32 allows bf16,
    /// and a looser one than that of bf16 u8.
    pub fn max_rel_error(self, max_rel_error: impl Into<Option<f64>>) -> Self {
        Self { max_rel_error: max_rel_error.into(), ..self }
    }

    /// A bound on the memory of the process, in MiB. Without one no plan is taken that has one.
    pub fn max_memory(self, mib: impl Into<Option<u32>>) -> Self {
        Self { max_memory: mib.into(), ..self }
    }

    /// Accepts a plan of a file that was made on another machine.
    pub fn any_machine(self, any_machine: bool) -> Self {
        Self { any_machine, ..self }
    }

    /// A plan that is made without measurements, in f32: each block in the variant that changes
    /// most, a transform for each step where one is valid and the direct kernel for the others, by
    /// default tunings.
    ///
    /// # Panics
    /// If no kernel takes a step.
    pub fn untuned(&self) -> Plan {
        self.built_in(&Graph::new(self.model, self.looked_for().1, PoolKind::Average)).plan
    }

    fn built_in(&self, plain: &Graph) -> PlanChoice {
        let (graph, choices) = built_in(plain, &self.cpu);
        let variant = |block: &Block| BlockVariantRecord {
            block: block.name.to_string(),
            variant: block.most().to_string(),
            alternatives: Vec::new(),
            reason: VariantReason::NotMeasured,
        };
        let variants = Block::all(plain).iter().map(variant).collect();
        let plan = self.unmeasured(&graph, &choices, variants);
        PlanChoice { plan, graph, choices, origin: PlanOrigin::BuiltIn, notes: Vec::new() }
    }

    /// A plan whose results have the same bits on every processor with fused multiply-add, on any
    /// number of threads and in any batch: each sum is computed in one order, in f32. It is made
    /// without measurements, and takes about twice the time of a tuned one.
    ///
    /// # Errors
    /// If the processor, or what it is limited to, has no fused multiply-add.
    pub fn reproducible(&self, weights: &Weights) -> Result<PlanChoice, PlanError> {
        let graph = graph(self.model, weights, self.looked_for().1);
        let choices = reproducible_choices(&graph, &self.cpu).map_err(|step| PlanError::NotReproducible {
            tier: self.cpu.tier(),
            problem: problem_name(&graph.steps[step]),
        })?;
        let plan = self.unmeasured(&graph, &choices, Vec::new());
        Ok(PlanChoice { plan, graph, choices, origin: PlanOrigin::Reproducible, notes: Vec::new() })
    }

    /// A plan of which no time is known.
    fn unmeasured(&self, graph: &Graph, choices: &[Choice], block_variants: Vec<BlockVariantRecord>) -> Plan {
        let (threads, batch) = self.looked_for();
        let step = |(s, choice): (&Step, &Choice)| PlanStep::unmeasured(s, choice, threads);
        Plan {
            schema: SCHEMA.to_string(),
            model: self.model.name.clone(),
            shape: self.model.shape_text(),
            batch,
            threads,
            max_rel_error: self.bounds().error,
            machine: Machine::of(&self.cpu),
            cores_allowed: Some(available()),
            tool: TOOL.to_string(),
            created: now(),
            block_variants,
            steps: graph.steps.iter().zip(choices).map(step).collect(),
            ..Plan::default()
        }
    }

    /// The plan that a run takes where none is named: the newest valid one of a folder for the
    /// request, as [`Plan::find`] gives, or else the nearest, see [`PlanOrigin::Nearest`], or else
    /// that of [`Request::untuned`]. Plans of other processors are never taken.
    ///
    /// # Errors
    /// If the machine's folder is there and can't be read.
    ///
    /// # Panics
    /// If no kernel takes a step.
    pub fn find(&self, results: impl AsRef<Path>, weights: &Weights) -> Result<PlanChoice, PlanError> {
        let machine = Machine::of(&self.cpu);
        let (request, bounds) = (self.plan_request(), self.bounds());
        let plain = graph(self.model, weights, self.looked_for().1);
        let mut notes = Vec::new();
        if let Some(folder) = folder_of_plans(&machine, results.as_ref())? {
            if let Some((file, plan)) = newest(&folder, &request, &bounds, &machine, Some(weights)) {
                match self.chosen(plan, &file, &plain, weights) {
                    Ok(choice) => {
                        notes.extend(choice.plan.notes(&file, Some(&machine)));
                        return Ok(PlanChoice { origin: PlanOrigin::Newest(file), notes, ..choice });
                    }
                    Err(error) => notes.push(error.to_string()),
                }
            }
            let nearest = nearest(&folder, &request, &bounds, &machine, Some(weights));
            let adapted = nearest.and_then(|(file, plan)| {
                let (graph, choices) = plan.adapted(&plain, &self.cpu)?;
                let origin = PlanOrigin::Nearest { file, threads: plan.threads, batch: plan.batch };
                let calibration = plan.calibration;
                let plan = self.unmeasured(&graph, &choices, plan.block_variants);
                let plan = Plan { calibration, ..plan };
                Some(PlanChoice { plan, graph, choices, origin, notes: notes.clone() })
            });
            if let Some(choice) = adapted {
                return Ok(choice);
            }
        }
        Ok(PlanChoice { notes, ..self.built_in(&plain) })
    }

    /// The plan of a file, which must be for what the request states.
    ///
    /// # Errors
    /// If the file is no plan, or is for something else or another machine.
    pub fn read(&self, file: impl AsRef<Path>, weights: &Weights) -> Result<PlanChoice, PlanError> {
        let (file, machine) = (file.as_ref(), Machine::of(&self.cpu));
        let plan = Plan::read_steps(file)?;
        plan.check_wanted(file, &self.stated())?;
        if !self.any_machine {
            plan.check_machine(file, &machine)?;
        }
        if let Some(bound) = self.max_rel_error.filter(|bound| plan.max_rel_error > *bound) {
            let found = format!("{:e}", plan.max_rel_error);
            return Err(field(file, "max_rel_error", found, format!("at most {bound:e}")));
        }
        let plain = graph(self.model, weights, plan.batch);
        let notes = plan.notes(file, Some(&machine).filter(|_| !self.any_machine));
        Ok(PlanChoice { notes, ..self.chosen(plan, file, &plain, weights)? })
    }

    /// The network by a plan of a file. One that ends before the plan's does has a plan of its own.
    fn chosen(
        &self,
        plan: Plan,
        file: &Path,
        plain: &Graph,
        weights: &Weights,
    ) -> Result<PlanChoice, PlanError> {
        plan.check_calibration(file, weights)?;
        let (origin, notes) = (PlanOrigin::Named(file.to_owned()), Vec::new());
        if !self.model.is_cut() {
            let (graph, choices) = plan.network(file, plain, &self.cpu)?;
            return Ok(PlanChoice { plan, graph, choices, origin, notes });
        }
        let (graph, choices) = plan.adapted(plain, &self.cpu).ok_or_else(|| {
            let found = "in formats that do not agree in a part of the network";
            field(file, "steps", found, "a plan for that part")
        })?;
        let (threads, batch) = (Some(plan.threads), Some(plan.batch));
        let cut = Self { threads, batch, ..self.clone() }.unmeasured(&graph, &choices, plan.block_variants);
        let plan = Plan { streams: plan.streams, calibration: plan.calibration, ..cut };
        Ok(PlanChoice { plan, graph, choices, origin, notes })
    }

    /// Threads and images at once where a plan is looked for or made.
    fn looked_for(&self) -> (usize, usize) {
        (self.threads.unwrap_or_else(physical_cores), self.batch.unwrap_or(1))
    }

    fn bounds(&self) -> Bounds {
        Bounds { error: self.max_rel_error.unwrap_or(F32_ERROR), memory: self.max_memory }
    }

    /// For a plan that is looked for.
    fn plan_request(&self) -> PlanRequest<'_> {
        let (threads, batch) = self.looked_for();
        PlanRequest { threads: Some(threads), batch: Some(batch), ..self.stated() }
    }

    /// For a plan that is named.
    pub(crate) fn stated(&self) -> PlanRequest<'_> {
        let Self { model, threads, batch, .. } = *self;
        PlanRequest { model: &model.name, shape: model.shape_text(), threads, batch }
    }
}

/// A plan that a run takes, and where it is from.
#[derive(Clone, Debug)]
pub struct PlanChoice {
    /// For the request's model, batch and threads.
    pub plan: Plan,
    /// The model by the plan.
    pub graph: Graph,
    /// Of each step of the graph.
    pub choices: Vec<Choice>,
    /// Where it is from.
    pub origin: PlanOrigin,
    /// What to know of it, a line each: what has changed since it was made, why a newer one is not
    /// taken.
    pub notes: Vec<String>,
}

/// Where a plan is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanOrigin {
    /// The file that was named.
    Named(PathBuf),
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
    /// It is made without measurements.
    BuiltIn,
    /// It is that of [`Request::reproducible`].
    Reproducible,
}

impl PlanOrigin {
    /// The file, where it has one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Named(file) | Self::Newest(file) | Self::Nearest { file, .. } => Some(file),
            Self::BuiltIn | Self::Reproducible => None,
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
    /// request's bound on the error, if there is one, else of those with a tighter one. `results`
    /// is a folder of results, in which each machine has a folder. `None` if there is no such plan.
    ///
    /// # Errors
    /// If the machine's folder is there and can't be read.
    pub fn find(results: impl AsRef<Path>, request: &Request) -> Result<Option<Self>, PlanError> {
        let machine = Machine::of(&request.cpu);
        let Some(folder) = folder_of_plans(&machine, results.as_ref())? else { return Ok(None) };
        let found = newest(&folder, &request.plan_request(), &request.bounds(), &machine, None);
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
        let origin = |request: &Request| request.find(results.path(), &weights).expect("readable").origin;
        assert_eq!(origin(&request), PlanOrigin::BuiltIn);
        let folder = Machine::of(&Cpu::detect()).folder(results.path());
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut other = request.untuned();
        other.machine.cpu += " of another kind";
        other.write(&folder.join("other.json")).expect("written");
        assert_eq!(origin(&request), PlanOrigin::BuiltIn);
        let file = folder.join("nearest.json");
        Request::new(&model).threads(1).batch(4).untuned().write(&file).expect("written");
        let found = request.find(results.path(), &weights).expect("readable");
        assert_eq!(found.origin, PlanOrigin::Nearest { file, threads: 1, batch: 4 });
        assert_eq!((found.plan.threads, found.plan.batch), (2, 3));
        let plain = graph(&model, &weights, 3);
        let network = found.plan.network(Path::new("plan"), &plain, &Cpu::detect()).expect("it fits");
        assert_eq!(network, (found.graph, found.choices));
        let file = folder.join("newest.json");
        request.untuned().write(&file).expect("written");
        let found = request.find(results.path(), &weights).expect("readable");
        assert_eq!((found.origin, found.notes.len()), (PlanOrigin::Newest(file.clone()), 0));
        let read = |request: Request| request.read(&file, &weights).map(|choice| choice.plan.batch);
        assert_eq!(read(Request::new(&model)).expect("all that is stated"), 3);
        assert!(read(Request::new(&model).batch(2)).is_err());
        assert!(read(Request::new(&model).max_rel_error(1e-9)).is_err());
    }

    #[test]
    fn a_single_convolution_is_asked_for_by_its_shape() {
        let conv = "n1h9w9c16k24r3s3".parse().expect("a shape");
        let model = Model::conv2d_bn(&conv);
        assert_eq!(Request::new(&model).stated().shape.as_deref(), Some("n1h9w9c16k24r3s3"));
        assert_eq!(Request::new(&Model::inception_v3()).stated().shape, None);
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
