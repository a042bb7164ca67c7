//! What measuring needs, for a network as for a list of problems: workers, the log, monitors.

use std::time::{Duration, Instant};

use engine::network::Precision;
use engine::plan::{BandwidthRecord, CoreDistance, LoadRecord, Noise, WeightResidency};
use engine::runtime::{Machine, Threads, available};
use engine::util::{create_folder, median};
use kernels::Problem;

use crate::autotune::error::TuneError;
use crate::autotune::options::Options;
use crate::bench::bandwidth::{bandwidth, sizes};
use crate::bench::{
    CoreDistanceMonitor, LoadMonitor, POLICY, Report, RunQueueMonitor, RunTally, Stage, StageProgress,
    Topology, Warning, noise, weight_bytes, weights_come_from,
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
    /// Runs of networks, and of candidates in them.
    pub network_runs: RunTally,
    run_queue: RunQueueMonitor,
    stolen: u64,
    load: LoadMonitor,
    /// Cores that other processes used before.
    load_before: Option<f64>,
    start: Instant,
}

pub struct Measured {
    pub floor: f64,
    pub results: Vec<ProblemResult>,
    /// Cores that other processes used meanwhile.
    load: Option<f64>,
    /// Time that went into what the search had skipped.
    pub exhausted: Duration,
}

impl Measured {
    /// The share of the runs that something else disturbed.
    fn disturbed_share(&self) -> f64 {
        let candidates = || self.results.iter().flat_map(|result| &result.candidates);
        let runs: usize = candidates().filter_map(|c| c.timing()).map(|t| t.samples).sum();
        let disturbed: usize = candidates().map(|c| c.disturbed).sum();
        disturbed as f64 / runs.max(1) as f64
    }
}

impl<'a> Setup<'a> {
    /// For problems, each of which occurs so many times. The time of measuring begins.
    pub fn new(
        options: &'a Options,
        work: Vec<(Problem, usize)>,
        progress: &'a dyn Report,
    ) -> Result<Self, TuneError> {
        let precision = Precision::within(options.bounds.error);
        let problems = work.iter().map(|(problem, _)| problem);
        ensure_measured(problems, &options.cpu, precision, options.threads)?;
        let threads = Threads::new(options.threads)?;
        let machine = Machine::of(&options.cpu);
        let bytes = weight_bytes(work.iter().map(|(problem, count)| (problem, *count)), precision);
        let weights_from = weights_come_from(bytes, &options.cpu);
        let mut setup = Self {
            problems: work.into_iter().map(|(problem, _)| problem).collect(),
            distance: CoreDistanceMonitor::default(),
            run_queue: RunQueueMonitor::new(&threads),
            log: None,
            network_runs: RunTally::default(),
            load: LoadMonitor::new(),
            load_before: None,
            stolen: 0,
            start: Instant::now(),
            options,
            progress,
            machine,
            threads,
            precision,
            weights_from,
        };
        setup.log = setup.open_log()?;
        setup.log.as_ref().and_then(|log| log.nearest).inspect(|seconds| setup.distance.known(*seconds));
        setup.distance.set_patience(options.budget.mul_f64(POLICY.stages.patience_share));
        setup.load_before = setup.load_now();
        let of = setup.load.cores();
        if let Some(cores) = setup.load_before.filter(|&cores| is_busy(cores, of)) {
            setup.progress.warning(&Warning::Busy { cores, of });
        }
        (setup.stolen, setup.start) = (setup.run_queue.stolen(), Instant::now());
        Ok(setup)
    }

    /// How many cores other processes use now.
    fn load_now(&self) -> Option<f64> {
        self.load.others();
        std::thread::sleep(POLICY.contention.load_sample);
        self.load.others()
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        (self.start.elapsed().as_secs_f64() * 10.0).round() / 10.0
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
        let exhausted = results.iter().map(|result| result.exhausted).sum();
        Measured { floor, results, load: self.load.others(), exhausted }
    }

    /// Tells of wrong candidates, and of a log that can't be written any more.
    fn warn(&self, results: &[ProblemResult]) {
        for result in results {
            for candidate in &result.candidates {
                let Outcome::Wrong { error, tolerance } = candidate.outcome else { continue };
                self.progress.warning(&Warning::Wrong {
                    candidate: candidate.choice.id().to_string(),
                    problem: result.problem.to_string(),
                    error,
                    tolerance,
                });
            }
        }
        if let Some(warning) = self.log.as_ref().and_then(Log::finish) {
            self.progress.warning(&warning);
        }
    }

    /// How quiet the machine has been; `networks_ns` is the core-to-core latency of whole networks.
    pub fn noise(&self, measured: &Measured, networks_ns: Option<f64>) -> Noise {
        let mut clocks: Vec<f64> = measured.results.iter().filter_map(|r| r.conditions.clock_ghz()).collect();
        clocks.sort_by(f64::total_cmp);
        let spread = |middle| Some([*clocks.first()?, middle, *clocks.last()?]);
        let stolen_s = (self.run_queue.stolen() - self.stolen) as f64 / 100.0;
        let disturbed_networks = self.network_runs.count().disturbed_share();
        let load = || {
            let networks = disturbed_networks.and_then(|_| self.load.others());
            Some(LoadRecord {
                cores: self.load.cores(),
                before: hundredths(self.load_before?),
                isolated: hundredths(measured.load.unwrap_or(0.0)),
                networks: networks.map(hundredths),
                after: hundredths(self.load_now()?),
            })
        };
        let cores_s = self.start.elapsed().as_secs_f64() * available() as f64;
        Noise {
            clock_ghz: median(&clocks).and_then(spread),
            core_distance: self.distance.distance().map(|distance| CoreDistance { networks_ns, ..distance }),
            noise_floor: measured.floor,
            weights_from: self.weights_from,
            tie: noise::tie(measured.floor),
            disturbed: measured.disturbed_share(),
            disturbed_networks,
            load: load(),
            steal_share: stolen_s / cores_s.max(1e-9),
        }
    }

    /// What the workers' cores read.
    pub fn bandwidth(&self) -> BandwidthRecord {
        let cpu = &self.options.cpu;
        let sizes = sizes(&cpu.caches, &Topology::detect(), self.threads.count());
        self.threads.install(|| bandwidth(cpu, &self.threads, sizes))
    }

    /// Whether others have had the cores for more than goes unnoticed so far.
    pub fn is_busy(&self, measured: &Measured) -> bool {
        let isolated = measured.load.unwrap_or(0.0);
        let load = LoadRecord { cores: self.load.cores(), isolated, ..LoadRecord::default() };
        let disturbed = measured.disturbed_share();
        noise::is_busy(&Noise { disturbed, load: Some(load), ..Noise::default() })
    }

    /// The log of this machine; none where none is asked for, or its folder can't be written.
    fn open_log(&self) -> Result<Option<Log>, TuneError> {
        let Self { options, machine, threads, precision, weights_from, .. } = self;
        let Some(results) = &options.results else { return Ok(None) };
        let folder = machine.folder(results);
        let is_fresh = options.fresh || options.exhaustive;
        let open = || Log::open(&folder, machine, threads.count(), *precision, *weights_from, is_fresh);
        let reason = match create_folder(&folder).map(|()| open()) {
            Ok(Ok(log)) => return Ok(Some(log)),
            Ok(Err(error @ (LogError::Foreign { .. } | LogError::Schema { .. }))) => return Err(error.into()),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.progress.warning(&Warning::NotLogged { reason });
        Ok(None)
    }
}

/// Whether others use more of so many cores than goes unnoticed.
fn is_busy(used: f64, cores: usize) -> bool {
    used > POLICY.contention.busy_share * cores as f64
}

fn hundredths(cores: f64) -> f64 {
    (cores * 100.0).round() / 100.0
}
