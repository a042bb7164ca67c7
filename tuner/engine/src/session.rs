//! A network as a program runs it: images in, classes and features out, in its own threads.

use std::path::Path;

use kernels::Cpu;

use crate::network::Model;
use crate::plan::error::PlanError;
use crate::plan::request::Request;
use crate::plan::schema::{Plan, PlanRequest};
use crate::runtime::{
    Machine, MemoryError, NotFinite, PrepareError, PreparedNetwork, Threads, ThreadsError, ensure_runs, graph,
};
use crate::weights::Weights;

/// Why a session can't be built.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The plan is for another model or machine, or does not fit; messages call its file `plan`.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The network needs more memory than there is.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The system does not start the threads.
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    /// A kernel refuses its step, or weights are missing or wrong.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
}

/// Why images can't be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RunError {
    /// The values are not those of one image or several.
    #[error("found {found} values, expected a multiple of {}: images of {shape:?}", .shape.iter().product::<usize>())]
    Size {
        /// How many values there are.
        found: usize,
        /// Height, width and channels of an image.
        shape: [usize; 3],
    },
    /// What the network makes of an image is infinite or not a number.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
}

/// What a [`Session`] is made of.
#[derive(Debug)]
pub struct SessionBuilder<'a> {
    model: &'a Model,
    weights: &'a Weights,
    plan: Option<&'a Plan>,
    any_machine: bool,
}

impl<'a> SessionBuilder<'a> {
    /// The plan to run, which states threads and batch too; [`Plan::untuned`] where none is given.
    pub fn plan(self, plan: &'a Plan) -> Self {
        Self { plan: Some(plan), ..self }
    }

    /// Accepts a plan that was made on another machine. Its kernels must be on this one.
    pub fn any_machine(self) -> Self {
        Self { any_machine: true, ..self }
    }

    /// Checks the plan in full, starts threads, and reads and packs the weights.
    ///
    /// # Errors
    /// If the plan does not fit, there is not the memory, or weights are missing or wrong.
    pub fn build(self) -> Result<Session, SessionError> {
        let model = self.weights.fit(self.model);
        let plan = self.plan.cloned().unwrap_or_else(|| Plan::untuned(&model));
        let (cpu, path) = (Cpu::detect(), Path::new("plan"));
        let request = Request::new(&model);
        let asked = PlanRequest { threads: None, batch: None, ..request.plan_request() };
        plan.check_wanted(path, &asked)?;
        if !self.any_machine {
            plan.check_machine(path, &Machine::of(&cpu))?;
        }
        let (graph, choices) = plan.network(path, &graph(&model, self.weights, plan.batch), &cpu)?;
        ensure_runs(&model.name, &graph)?;
        let threads = Threads::new(plan.threads)?;
        let network = PreparedNetwork::new(graph, &choices, self.weights, &cpu, &threads)?;
        Ok(Session { network, threads, input: model.input(), has_classes: model.has_top() })
    }
}

/// A network that is ready to run, and the threads that run it.
///
/// It wraps a [`PreparedNetwork`], whose `run` neither fails nor allocates.
pub struct Session {
    network: PreparedNetwork,
    threads: Threads,
    input: [usize; 3],
    has_classes: bool,
}

impl Session {
    /// A session of a model on weights that were opened for it.
    pub fn builder<'a>(model: &'a Model, weights: &'a Weights) -> SessionBuilder<'a> {
        SessionBuilder { model, weights, plan: None, any_machine: false }
    }

    /// Height, width and channels of an image.
    pub fn input(&self) -> [usize; 3] {
        self.input
    }

    /// Images that are computed at once.
    pub fn batch(&self) -> usize {
        self.network.graph().batch
    }

    /// Threads that compute them.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// Runs images, as many at once as the plan's batch: `[n, height, width, channels]` values,
    /// preprocessed, as [`crate::image::load`] gives one.
    ///
    /// # Errors
    /// If the values are not those of whole images, at least one.
    pub fn run(&mut self, images: &[f32]) -> Result<Output, RunError> {
        let size: usize = self.input.iter().product();
        if images.is_empty() || !images.len().is_multiple_of(size) {
            return Err(RunError::Size { found: images.len(), shape: self.input });
        }
        let Self { network, threads, .. } = self;
        let (mut values, mut features) = (Vec::new(), Vec::new());
        for batch in images.chunks(size * network.graph().batch) {
            let n = batch.len() / size;
            threads.install(|| {
                network.run(threads, batch, n);
                network.check_finite(threads, batch, n)
            })?;
            values.extend(network.output(n));
            features.extend(network.features(n).unwrap_or_default());
        }
        Ok(Output { images: images.len() / size, values, features, has_classes: self.has_classes })
    }
}

/// What a network makes of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    images: usize,
    /// The last output, `[n, ..]`.
    values: Vec<f32>,
    /// `[n, features]`; empty where the model has none.
    features: Vec<f32>,
    has_classes: bool,
}

impl Output {
    /// How many images there were.
    pub fn images(&self) -> usize {
        self.images
    }

    /// The classes of the first image with the highest probabilities, and these, the highest first;
    /// nothing for a model without classes.
    pub fn top(&self, count: usize) -> Vec<(usize, f32)> {
        self.top_of(0, count)
    }

    /// As [`Output::top`], of any image.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn top_of(&self, image: usize, count: usize) -> Vec<(usize, f32)> {
        let Some(probabilities) = self.probabilities() else { return Vec::new() };
        let classes = probabilities.len() / self.images;
        let of_image = &probabilities[image * classes..][..classes];
        let mut list: Vec<(usize, f32)> = of_image.iter().copied().enumerate().collect();
        list.sort_by(|a, b| b.1.total_cmp(&a.1));
        list.truncate(count);
        list
    }

    /// Probabilities `[n, classes]`, where the model has classes.
    pub fn probabilities(&self) -> Option<&[f32]> {
        self.has_classes.then_some(&self.values[..])
    }

    /// Pooled features `[n, features]`, where the model has them.
    pub fn features(&self) -> Option<&[f32]> {
        (!self.features.is_empty()).then_some(&self.features[..])
    }

    /// The last output of the model, `[n, ..]`: probabilities, or else features, or else the output
    /// of a block as `[n, height, width, channels]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::stats::relative_l2;
    use crate::weights::synthetic;

    #[test]
    fn a_session_gives_the_same_whatever_its_batch_and_says_what_does_not_fit() {
        let model = Model::block("mixed10").expect("a block");
        let weights = Weights::synthetic(&model, 1);
        let [h, w, c] = model.input();
        let images = synthetic::image(3, h, w, c, 0);
        let outputs = [1, 2].map(|batch| {
            let plan = Request::new(&model).threads(2).batch(batch).untuned();
            let mut session = Session::builder(&model, &weights).plan(&plan).build().expect("a session");
            assert_eq!((session.batch(), session.threads(), session.input()), (batch, 2, [h, w, c]));
            for wrong in [&images[..0], &images[1..]] {
                let error = session.run(wrong).expect_err("no whole images").to_string();
                assert!(error.contains(&format!("found {} values", wrong.len())), "{error}");
            }
            session.run(&images).expect("three images")
        });
        // The kernels of another batch may add in another order.
        let error = relative_l2(outputs[0].values(), outputs[1].values());
        assert!(error < 1e-5, "{error:e}");
        assert_eq!((outputs[0].images(), outputs[0].values().len()), (3, 3 * 8 * 8 * 2048));
        assert!(outputs[0].features().is_none() && outputs[0].top(5).is_empty());
        let other = Model::block("mixed9").expect("a block");
        let plan = Plan::untuned(&other);
        let error = Session::builder(&model, &weights).plan(&plan).build().err().expect("another model");
        assert_eq!(error.to_string(), "plan: model is mixed9, expected mixed10");
    }

    #[test]
    fn the_classes_with_the_highest_probabilities_come_first() {
        let values = vec![0.1, 0.7, 0.2, 0.6, 0.1, 0.3];
        let output = Output { images: 2, values, features: Vec::new(), has_classes: true };
        assert_eq!(output.top(2), [(1, 0.7), (2, 0.2)]);
        assert_eq!(output.top_of(1, 9), [(0, 0.6), (2, 0.3), (1, 0.1)]);
    }
}
