//! A graph with what it needs to be run, and what a small change of a step makes of its result.

use std::time::Instant;

use engine::network::{Calibration, Choice, Graph, Precision, Step, default_choice, default_choices};
use engine::plan::Bounds;
use engine::runtime::{PrepareError, PreparedNetwork, Reference, Threads};
use engine::util::{relative_l2, unit};
use engine::weights::{Weights, image};
use kernels::Cpu;

use crate::bench::{CoreDistanceMonitor, POLICY, Report, Rounds, RunTally, Stage, StageProgress};
use crate::measure::{CandidateResult, ProblemResult};

/// A graph with what it needs to be planned and run.
pub struct Network<'a, 'm> {
    pub graph: &'a Graph,
    /// The candidates of all problems of the graph.
    pub measurements: &'m [ProblemResult],
    pub bounds: &'a Bounds,
    /// The results in f64 of this graph or another form of it.
    pub reference: &'a Reference,
    /// The ranges of activations; none where no tensor may be u8.
    pub calibration: Option<&'a Calibration>,
    pub weights: &'a Weights,
    pub cpu: &'a Cpu,
    pub threads: &'a Threads,
    pub distance: &'a CoreDistanceMonitor,
    pub progress: &'a dyn Report,
    /// Where its runs are counted.
    pub runs: &'a RunTally,
    /// When candidates in the network must be done; none where isolated times decide.
    pub in_network_until: Option<Instant>,
}

impl Network<'_, '_> {
    /// The types that the bound on the error allows.
    pub fn precision(&self) -> Precision {
        Precision::within(self.bounds.error)
    }

    /// Rounds in which networks are timed.
    pub fn rounds(&self, stage: Stage, count: [usize; 2], end: Instant) -> Rounds<'_> {
        let Self { threads, distance, progress, .. } = *self;
        let progress = StageProgress::new(progress, stage);
        let time = end.saturating_duration_since(Instant::now());
        Rounds { threads, distance, progress, count, time, end }
    }

    pub fn session(&self, choices: &[Choice]) -> Result<PreparedNetwork, PrepareError> {
        let Self { graph, calibration, weights, cpu, threads, .. } = *self;
        PreparedNetwork::new(graph.clone(), choices, calibration, weights, cpu, threads)
    }

    /// The choices of winners, and default choices for steps without one.
    pub fn choices(&self, winners: &[Option<&CandidateResult>]) -> Vec<Choice> {
        let choose = |(won, step): (&Option<&CandidateResult>, &Step)| match won {
            Some(c) => c.choice.clone(),
            None => default_choice(&step.problem, self.cpu),
        };
        winners.iter().zip(&self.graph.steps).map(choose).collect()
    }

    /// [`Self::gains`] of the network by default choices, which is in f32.
    pub fn default_gains(&self) -> Result<Vec<f64>, PrepareError> {
        let mut session = self.session(&default_choices(self.graph, self.cpu))?;
        Ok(self.gains(&mut session, &built_in_images(self.graph, 1)))
    }

    /// How many times a small random change of each step's outputs is magnified in the result.
    pub fn gains(&self, session: &mut PreparedNetwork, image: &[f32]) -> Vec<f64> {
        session.run(self.threads, image, 1);
        let before = session.result(1);
        let mut gain = |step: usize| {
            let change = |values: &mut [f32]| {
                let squares: f64 = values.iter().map(|&v| (v as f64).powi(2)).sum();
                let size = POLICY.bounds.change * (12.0 * squares / values.len() as f64).sqrt();
                for (i, value) in values.iter_mut().enumerate().filter(|(_, v)| **v != 0.0) {
                    *value += (size * (unit(17, step as u64, i as u64) - 0.5)) as f32;
                }
            };
            relative_l2(&session.run_changed(self.threads, image, step, change), &before)
                / POLICY.bounds.change
        };
        let progress = StageProgress::new(self.progress, Stage::StepErrors);
        let mut gains = Vec::new();
        for (index, step) in self.graph.steps.iter().enumerate() {
            gains.push(gain(index));
            progress.detail(&step.layers[0]).done(gains.len() as f64 / self.graph.steps.len() as f64);
        }
        progress.ended();
        gains
    }
}

/// As many built-in images.
pub fn built_in_images(graph: &Graph, n: usize) -> Vec<f32> {
    let input = graph.tensors[0];
    image(n, input.h, input.w, input.c, 0)
}
