//! What measuring needs, for a network as for a list of problems: workers, the log, monitors of the machine.

use std::time::{Duration, Instant};

use engine::network::Precision;
use engine::plan::{CoreDistance, Noise, WeightResidency};
use engine::runtime::{Machine, Threads};
use engine::util::create_folder;
use kernels::Problem;

use crate::autotune::error::TuneError;
use crate::autotune::options::Options;
use crate::autotune::record::noise_record;
use crate::bench::{
    CoreDistanceMonitor, POLICY, Report, RunQueueMonitor, Stage, StageProgress, Warning, noise, weight_bytes,
    weights_come_from,
};
use crate::log::{Log, LogError};
use crate::measure::{Job, MeasureContext, Outcome, ProblemResult, ensure_measured, measure_all};

/// Workers, the log and monitors, ready to measure.
pub struct Setup<'a> {
    pub options: &'a Options,
    pub progress: &'a dyn Report,
    pub machine: Machine,
    pub threads: Threads,
    pub distance: CoreDistanceMonitor,
    pub precision: Precision,
    problems: Vec<Problem>,
    weights_from: WeightResidency,
    log: Option<Log>,
    run_queue: RunQueueMonitor,
    stolen: u64,
    start: Instant,
}

pub struct Measured {
    pub floor: f64,
    pub results: Vec<ProblemResult>,
    /// Time that went into what the search had skipped.
    pub exhausted: Duration,
}

impl<'a> Setup<'a> {
    /// For problems, each of which occurs so many times. The time of measuring begins.
    pub fn new(
        options: &'a Options,
        work: Vec<(Problem, usize)>,
        progress: &'a dyn Report,
    ) -> Result<Self, TuneError> {
        ensure_measured(work.iter().map(|(problem, _)| problem), &options.cpu)?;
        let threads = Threads::new(options.threads)?;
        let machine = Machine::of(&options.cpu);
        let precision = Precision::within(options.bounds.error);
        let bytes = weight_bytes(work.iter().map(|(problem, count)| (problem, *count)), precision);
        let weights_from = weights_come_from(bytes, &options.cpu);
        let log = open_log(options, &machine, threads.count(), precision, weights_from, progress)?;
        let run_queue = RunQueueMonitor::new(&threads);
        let distance = CoreDistanceMonitor::default();
        log.as_ref().and_then(Log::nearest).into_iter().for_each(|seconds| distance.known(seconds));
        distance.set_patience(options.budget.mul_f64(POLICY.stages.patience_share));
        Ok(Self {
            stolen: run_queue.stolen(),
            start: Instant::now(),
            problems: work.into_iter().map(|(problem, _)| problem).collect(),
            options,
            progress,
            machine,
            threads,
            distance,
            precision,
            weights_from,
            log,
            run_queue,
        })
    }

    /// When a share of the budget has gone by.
    pub fn after(&self, share: f64) -> Instant {
        self.start + self.options.budget.mul_f64(share)
    }

    /// Measures the noise floor, then the candidates of problems in a share of the budget.
    pub fn measure(&self, jobs: &[Job], share: f64) -> Measured {
        let Options { cpu, budget, exhaustive, .. } = self.options;
        let (floor, results) = self.threads.install(|| {
            let progress = StageProgress::new(self.progress, Stage::NoiseFloor);
            let floor = noise::floor(self.problems.clone(), cpu, &self.threads, self.weights_from, progress);
            let context = MeasureContext {
                cpu,
                threads: &self.threads,
                distance: &self.distance,
                tie: noise::tie(floor),
                cold: self.weights_from,
                log: self.log.as_ref(),
                progress: self.progress,
            };
            let time = (self.start, budget.mul_f64(share));
            (floor, measure_all(jobs, &context, self.precision, time, *exhaustive))
        });
        self.warn(&results);
        let exhausted = results.iter().map(|result| result.search.exhausted).sum();
        Measured { floor, results, exhausted }
    }

    /// Tells of wrong candidates, and of a log that can't be written any more.
    fn warn(&self, results: &[ProblemResult]) {
        for result in results {
            for candidate in &result.candidates {
                let Outcome::Wrong { error, tolerance } = candidate.outcome else { continue };
                self.progress.warning(&Warning::Wrong {
                    candidate: format!("{} [{}]", candidate.choice.row.id, candidate.choice.tuning),
                    problem: result.problem.to_string(),
                    error,
                    tolerance,
                });
            }
        }
        if let Some(reason) = self.log.as_ref().and_then(Log::failure) {
            self.progress.warning(&Warning::NotLogged { reason });
        }
    }

    /// How quiet the machine has been since the start; `networks_ns` is the core-to-core latency when whole networks
    /// were measured.
    pub fn noise(&self, measured: &Measured, networks_ns: Option<f64>) -> Noise {
        let distance = self.distance.distance().map(|distance| CoreDistance { networks_ns, ..distance });
        let meanwhile = (self.run_queue.stolen() - self.stolen, distance);
        noise_record(measured.floor, self.weights_from, &measured.results, meanwhile, self.start.elapsed())
    }
}

/// The log of this machine; none where none is asked for, or its folder can't be written.
fn open_log(
    options: &Options,
    machine: &Machine,
    threads: usize,
    precision: Precision,
    weights_from: WeightResidency,
    progress: &dyn Report,
) -> Result<Option<Log>, TuneError> {
    let Some(results) = &options.results else { return Ok(None) };
    let folder = machine.folder(results);
    let is_fresh = options.fresh || options.exhaustive;
    let reason = match create_folder(&folder) {
        Err(error) => error.to_string(),
        Ok(()) => match Log::open(&folder, machine, threads, precision, weights_from, is_fresh) {
            Ok(log) => return Ok(Some(log)),
            Err(error @ (LogError::Foreign { .. } | LogError::Schema { .. })) => return Err(error.into()),
            Err(error) => error.to_string(),
        },
    };
    progress.warning(&Warning::NotLogged { reason });
    Ok(None)
}
