//! What a program asks of a plan: the newest that fits, or one that is made without measurements.

use std::io::ErrorKind;
use std::path::Path;

use kernels::{Cpu, PoolKind};

use crate::network::{Block, Choice, F32_ERROR, Graph, Model, Step, TOOL, built_in};
use crate::plan::error::PlanError;
use crate::plan::schema::{Bounds, Plan, PlanRequest, SCHEMA};
use crate::plan::step::PlanStep;
use crate::plan::store::newest;
use crate::plan::{BlockVariantRecord, VariantReason};
use crate::runtime::{Machine, available, physical_cores};
use crate::util::now;

/// What a program asks of a plan.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    model: &'a Model,
    threads: usize,
    batch: usize,
    max_rel_error: f64,
}

impl<'a> Request<'a> {
    /// A plan for a model, by all physical cores that this process may use, one image at a time, in f32.
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

    /// A plan that is made without measurements, in f32: each block in the variant that changes most,
    /// a transform for each step where one is valid and the direct kernel for the others, by default
    /// tunings.
    ///
    /// # Panics
    /// If no kernel takes a step.
    pub fn untuned(&self) -> Plan {
        let cpu = Cpu::detect();
        let plain = Graph::new(self.model, self.batch, PoolKind::Average);
        let (graph, choices) = built_in(&plain, &cpu);
        let step = |(s, choice): (&Step, &Choice)| PlanStep::unmeasured(s, choice, self.threads);
        let variant = |block: &Block| BlockVariantRecord {
            block: block.name.to_string(),
            variant: block.most().to_string(),
            alternatives: Vec::new(),
            reason: VariantReason::NotMeasured,
        };
        Plan {
            schema: SCHEMA.to_string(),
            model: self.model.name.clone(),
            shape: self.model.shape_text(),
            batch: self.batch,
            threads: self.threads,
            max_rel_error: self.max_rel_error,
            machine: Machine::of(&cpu),
            cores_allowed: Some(available()),
            tool: TOOL.to_string(),
            created: now(),
            block_variants: Block::all(&plain).iter().map(variant).collect(),
            steps: graph.steps.iter().zip(&choices).map(step).collect(),
            ..Plan::default()
        }
    }

    pub(crate) fn plan_request(&self) -> PlanRequest<'_> {
        let (threads, batch) = (Some(self.threads), Some(self.batch));
        PlanRequest { model: &self.model.name, shape: self.model.shape_text(), threads, batch }
    }
}

impl Plan {
    /// The newest plan for a request that was made on a machine like this one: of those with the
    /// request's bound on the error, if there is one, else of those with a tighter one; plans with a
    /// bound on memory are passed over. `results`
    /// is a folder of results, in which each machine has a folder. `None` if there is no such plan.
    ///
    /// # Errors
    /// If the machine's folder is there and can't be read.
    pub fn find(results: impl AsRef<Path>, request: &Request) -> Result<Option<Self>, PlanError> {
        let machine = Machine::of(&Cpu::detect());
        let folder = machine.folder(results.as_ref());
        match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PlanError::Read { file: folder.display().to_string(), source }),
            Ok(_) => {}
        }
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
