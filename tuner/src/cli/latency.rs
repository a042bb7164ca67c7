//! Latencies of a network, and where its time goes.

use std::path::Path;
use std::time::Instant;

use engine::Model;
use engine::network::{Choice, multiply_adds};
use engine::runtime::{PreparedNetwork, Stream};
use engine::util::Timing;
use kernels::Cpu;
use serde::Serialize;

use crate::bench::{
    CoreDistanceMonitor, POLICY, Progress, Rounds, RunCount, RunQueueMonitor, Stage, StageProgress,
};
use crate::cli::{Answer, Meter};
use crate::report::{RUNS, Table, count, layers_text, percent, short, time_text, wrap};

/// What is measured.
pub struct Measured<'a> {
    pub model: &'a Model,
    pub choices: &'a [Choice],
    /// The plan's file; none for the built-in choice.
    pub plan: Option<&'a Path>,
    pub cpu: &'a Cpu,
}

impl Measured<'_> {
    /// Latencies of full batches, and the seconds of their steps where these are kept; images repeat to
    /// fill a batch.
    pub fn measure(
        &self,
        Stream { threads, network }: &mut Stream,
        images: &[f32],
        repeat: usize,
        keeps_steps: bool,
    ) -> (Latencies, Vec<Vec<f64>>) {
        let (batch, size) = (network.graph().batch, self.model.input().iter().product());
        let full: Vec<f32> = images.chunks(size).cycle().take(batch).flatten().copied().collect();
        let mut steps = vec![Vec::new(); network.graph().steps.len()];
        let (mut latency_ms, mut runs) = (Vec::with_capacity(repeat), RunCount::default());
        let (monitor, distance) = (RunQueueMonitor::new(threads), CoreDistanceMonitor::default());
        let (mut meter, rounds) = (Meter::default(), POLICY.repeat_warm_up + repeat);
        let progress = Progress::new(&mut meter);
        let stage = StageProgress::new(&progress, Stage::Inferences);
        let rounds = Rounds::exactly(rounds, threads, &distance, stage);
        threads.install(|| {
            rounds.run(|turn| {
                let run = monitor.sample(|| {
                    let start = Instant::now();
                    network.run(threads, &full, batch);
                    start.elapsed().as_secs_f64()
                });
                if turn.round >= POLICY.repeat_warm_up {
                    runs.add(run);
                    latency_ms.push((run.seconds * 1e6).round() / 1e3);
                    let seconds = keeps_steps.then(|| network.step_seconds()).into_iter().flatten();
                    steps.iter_mut().zip(seconds).for_each(|(list, seconds)| list.push(seconds));
                }
            });
        });
        let median_ms = Timing::of(&latency_ms).median;
        let latencies = Latencies {
            latency_ms,
            disturbed: runs.disturbed,
            median_ms,
            images_per_second: batch as f64 * 1e3 / median_ms,
            model: self.model.to_string(),
            shape: self.model.shape_text(),
            threads: threads.count(),
            batch,
            plan: self.plan.as_ref().map_or(BUILT_IN.to_string(), |path| path.display().to_string()),
            multiply_adds: multiply_adds(network.graph(), self.choices, self.cpu),
        };
        (latencies, steps)
    }

    /// The time of each step.
    pub fn profile(&self, network: &PreparedNetwork, step_seconds: &[Vec<f64>], width: usize) -> String {
        let peak = kernels::peak::fma_peak(self.cpu, 20_000);
        let graph = network.graph();
        let medians: Vec<f64> = step_seconds.iter().map(|seconds| Timing::of(seconds).median * 1e6).collect();
        let total: f64 = medians.iter().sum();
        let mut table = Table::new("layer | (problem) | kernel | (tuning) | us | share | (GFLOP/s)");
        for (index, ((step, choice), us)) in graph.steps.iter().zip(self.choices).zip(&medians).enumerate() {
            let flops = step.problem.flops() * graph.repeats(index) as u64;
            let (layers, kernel, tuning) = (layers_text(&step.layers), choice.row.id, &choice.tuning);
            let (share, speed) = (percent(*us, total), short(flops as f64 / us / 1e3));
            table.row(&[&layers, &step.problem, &kernel, tuning, &short(*us), &share, &speed]);
        }
        let table = table.fold(width);
        let (peak, sum) = (short(peak / 1e9), time_text(total));
        format!("FMA peak of one core now: {peak} GFLOP/s\n{table}sum of the steps: {sum}\n")
    }
}

/// Inferences of full batches.
#[derive(Debug, Serialize)]
pub struct Latencies {
    latency_ms: Vec<f64>,
    /// Of the inferences, those that something else on the machine disturbed.
    disturbed: usize,
    median_ms: f64,
    images_per_second: f64,
    model: String,
    /// [`Plan::shape`]
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<String>,
    threads: usize,
    batch: usize,
    /// The plan's file, or `default`.
    plan: String,
    /// That an inference executes.
    multiply_adds: u64,
}

impl Answer for Latencies {
    fn text(&self, width: usize) -> String {
        let Timing { median, quartiles: [low, high], fastest, samples } = Timing::of(&self.latency_ms);
        let inferences = count(samples, "inference");
        let (unit, scale) = if median < 1.0 { ("µs", 1e3) } else { ("ms", 1.0) };
        let [median, low, high, fastest] = [median, low, high, fastest].map(|ms| short(ms * scale));
        let quartiles = if samples < RUNS { "-".to_string() } else { format!("{low} .. {high}") };
        let (images, rate) = (count(self.batch, "image"), short(self.images_per_second));
        let text = format!(
            "{inferences} of {images}: median {median} {unit}, quartiles {quartiles}, fastest {fastest}, {rate} images \
             a second; {} disturbed",
            self.disturbed
        );
        wrap(&text, width, 2) + "\n"
    }
}

/// What [`Latencies::plan`] is without a plan.
const BUILT_IN: &str = "default";
