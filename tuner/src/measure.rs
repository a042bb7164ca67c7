//! Measures the candidates of one problem: checked against the oracle first, then timed in shuffled,
//! interleaved rounds, the clear losers dropped early.
//!
//! Weights are evicted from the caches before each run. In a network, the weights of all other layers
//! have passed since a layer's turn, more than the caches hold; a loop over one layer finds them warm and
//! favours what reads them often.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kernels::arch::cache::evict;
use kernels::cpu::Cpu;
use kernels::kernel::{Bound, Io, Kernel, Prepared, Role, Row, Tuning, table};
use kernels::problem::Problem;
use kernels::scratch::Buffer;
use kernels::team::Team;
use kernels::tensor::{Dtype, Formats, Tensor};

use crate::oracle::{Comparison, Inputs, Oracle, sample_pixels};
use crate::session::Choice;
use crate::threads::Threads;
use crate::types::{Types, pair};
use crate::weights::synthetic::unit;

/// A kernel of the table that this machine can run, for one problem.
pub struct Available {
    /// Its row.
    pub row: &'static Row,
    /// The kernel.
    pub kernel: Box<dyn Kernel>,
}

/// Why a row has no candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its id.
    pub id: &'static str,
    /// The reason.
    pub reason: String,
}

/// The rows that take a problem on this machine, and those that do not with their reasons.
///
/// Of the rows of one family only the first that this machine has is taken: the others are the same
/// code for a lower tier.
pub fn available(cpu: &Cpu, problem: &Problem) -> (Vec<Available>, Vec<LeftOut>) {
    let (mut list, mut left_out): (Vec<Available>, Vec<LeftOut>) = (Vec::new(), Vec::new());
    for row in table() {
        let mut leave = |reason| left_out.push(LeftOut { id: row.id, reason });
        if row.role == Role::Oracle {
            leave("the oracle: exact and slow".to_string());
            continue;
        }
        if let Some(first) = list.iter().find(|a| a.row.family == row.family) {
            leave(format!("{} stands for its family", first.row.id));
            continue;
        }
        match (row.make)(cpu) {
            Err(refusal) => leave(refusal.to_string()),
            Ok(kernel) => match kernel.supports(problem) {
                Err(refusal) => leave(refusal.to_string()),
                Ok(()) => list.push(Available { row, kernel }),
            },
        }
    }
    (list, left_out)
}

/// Seconds of one candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Median.
    pub median: f64,
    /// First and third quartile.
    pub quartiles: [f64; 2],
    /// Smallest.
    pub fastest: f64,
    /// Runs.
    pub samples: usize,
}

impl Timing {
    /// Of at least one sample.
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |q: f64| sorted[((sorted.len() - 1) as f64 * q).round() as usize];
        Self { median: at(0.5), quartiles: [at(0.25), at(0.75)], fastest: sorted[0], samples: sorted.len() }
    }
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Timed to the end, or until it was clear that it loses.
    Timed {
        /// Its times.
        timing: Timing,
        /// It was dropped early.
        dropped: bool,
    },
    /// Its results are wrong; it is out.
    Wrong {
        /// Largest error.
        error: f64,
        /// What its numerics allow.
        tolerance: f64,
    },
}

/// One measured candidate.
#[derive(Clone)]
pub struct Measured {
    /// Its row.
    pub row: &'static Row,
    /// Its tuning.
    pub tuning: Tuning,
    /// The formats it was measured with.
    pub formats: Formats,
    /// Largest error over the largest output.
    pub relative_error: f64,
    /// Root mean square of the errors over that of the outputs.
    pub rms_error: f64,
    /// Bytes of packed weights.
    pub packed: usize,
    /// Bytes of scratch.
    pub scratch: usize,
    /// Multiply-adds that it executes.
    pub multiply_adds: u64,
    /// What became of it.
    pub outcome: Outcome,
}

impl Measured {
    /// Bytes of packed weights and scratch.
    pub fn bytes(&self) -> usize {
        self.packed + self.scratch
    }

    /// To run it.
    pub fn choice(&self) -> Choice {
        Choice { row: self.row, tuning: self.tuning.clone(), formats: self.formats }
    }

    /// Its times, if its results are right.
    pub fn timing(&self) -> Option<Timing> {
        match self.outcome {
            Outcome::Timed { timing, .. } => Some(timing),
            Outcome::Wrong { .. } => None,
        }
    }
}

/// All that was found out about a problem.
#[derive(Clone)]
pub struct Measurement {
    /// The problem.
    pub problem: Problem,
    /// Its candidates in the order of the table.
    pub candidates: Vec<Measured>,
    /// Rows without candidates.
    pub left_out: Vec<LeftOut>,
}

impl Measurement {
    /// Candidates whose results are right, the fastest first.
    pub fn ranking(&self) -> Vec<&Measured> {
        let mut list: Vec<&Measured> = self.candidates.iter().filter(|c| c.timing().is_some()).collect();
        let median = |c: &Measured| c.timing().map_or(f64::INFINITY, |t| t.median);
        list.sort_by(|a, b| median(a).total_cmp(&median(b)));
        list
    }
}

/// Memory and a prepared kernel, ready to be run again and again.
pub struct Bench {
    prepared: Box<dyn Prepared>,
    src: Tensor,
    dst: Vec<Tensor>,
    scratch: Buffer,
}

impl Bench {
    /// Lays out a prepared kernel's tensors.
    pub fn new(prepared: Box<dyn Prepared>, formats: &Formats, src: &[f32], workers: usize) -> Self {
        let bound = prepared.bound();
        let mut source = Tensor::of(bound.src, &formats.src);
        source.fill_nhwc(src);
        let dst = bound.dst.iter().map(|&shape| Tensor::of(shape, &formats.dst)).collect();
        let scratch = Buffer::zeroed(prepared.scratch().total(workers));
        Self { prepared, src: source, dst, scratch }
    }

    /// Runs it once on all threads, with cold weights; the seconds from when all are there to when all
    /// are done.
    pub fn run(&mut self, threads: &Threads, team: &mut Team) -> f64 {
        self.prepared.packed().into_iter().for_each(|weights| evict(weights.as_slice()));
        let io = Io::new(self.src.view(), self.dst.iter_mut().map(Tensor::view_mut));
        let (prepared, scratch) = (&self.prepared, &self.scratch);
        let nanoseconds = AtomicU64::new(0);
        threads.region(team, |member| {
            member.wait();
            let start = Instant::now();
            member.run(&**prepared, &io, scratch);
            if member.index() == 0 {
                nanoseconds.store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            }
        });
        nanoseconds.into_inner() as f64 * 1e-9
    }

    /// The problem and formats.
    pub fn bound(&self) -> &Bound {
        self.prepared.bound()
    }

    /// Outputs of a segment.
    pub fn output(&self, segment: usize) -> Vec<f32> {
        self.dst[segment].to_nhwc()
    }

    /// Bytes of packed weights, and of scratch.
    pub fn bytes(&self) -> [usize; 2] {
        [self.prepared.packed_bytes(), self.scratch.len() * size_of::<f32>()]
    }
}

/// How long to measure, and what to leave out.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Time for timing, checks and preparation apart.
    pub budget: Duration,
    /// Rounds at most.
    pub rounds: usize,
}

/// A candidate whose fastest run is this much slower than the leader's median is dropped after so many
/// rounds. Each pair of types has a leader of its own.
const DROP: [(usize, f64); 4] = [(1, 2.0), (2, 1.3), (4, 1.1), (8, 1.04)];

/// Share of the budget that the first formats of all tunings take where there are other formats.
const FIRST: f64 = 0.5;

/// Tunings of a kernel that are measured in its other formats: the fastest in its first.
const FINALISTS: usize = 2;

/// A candidate that is still measured.
struct Entrant {
    /// Its number among all.
    index: usize,
    bench: Bench,
    samples: Vec<f64>,
}

/// The candidates of a problem on their way.
struct Field<'a> {
    problem: &'a Problem,
    threads: &'a Threads,
    inputs: &'a Inputs,
    oracle: Oracle<'a>,
    team: Team,
    candidates: Vec<Measured>,
    left_out: Vec<LeftOut>,
    alive: Vec<Entrant>,
}

impl Field<'_> {
    /// Prepares candidates, checks them, and lets those that are right in.
    fn enter(&mut self, jobs: &[(&Available, Tuning, Formats)]) {
        let (problem, inputs) = (self.problem, self.inputs);
        let prepared = self.threads.map(jobs, |(available, tuning, formats)| {
            available.kernel.prepare(problem, tuning, formats, &inputs.filters)
        });
        for ((available, tuning, formats), prepared) in jobs.iter().zip(prepared) {
            let (row, kernel) = (available.row, &available.kernel);
            let prepared = match prepared {
                Ok(prepared) => prepared,
                Err(refusal) => {
                    self.left_out.push(LeftOut { id: row.id, reason: format!("{tuning}: {refusal}") });
                    continue;
                }
            };
            let mut bench = Bench::new(prepared, formats, &inputs.src, self.threads.count());
            let first = bench.run(self.threads, &mut self.team);
            let verdict = self.oracle.judge(&bench, &kernel.numerics(problem, tuning));
            let outcome = if verdict.holds() {
                Outcome::Timed { timing: Timing::of(&[first]), dropped: false }
            } else {
                let Comparison { error, tolerance, .. } = verdict.nearer();
                Outcome::Wrong { error, tolerance }
            };
            let [packed, scratch] = bench.bytes();
            self.candidates.push(Measured {
                row,
                tuning: tuning.clone(),
                formats: *formats,
                relative_error: verdict.given.relative(),
                rms_error: verdict.given.rms,
                packed,
                scratch,
                multiply_adds: kernel.multiply_adds(problem, tuning),
                outcome,
            });
            if verdict.holds() {
                let index = self.candidates.len() - 1;
                self.alive.push(Entrant { index, bench, samples: Vec::new() });
            }
        }
    }

    /// Times all that are left, round by round, and drops the clear losers.
    fn rounds(&mut self, effort: Effort, mut progress: impl FnMut(f64)) {
        let start = Instant::now();
        for round in 1..=effort.rounds {
            shuffle(&mut self.alive, round as u64);
            for entrant in &mut self.alive {
                entrant.samples.push(entrant.bench.run(self.threads, &mut self.team));
            }
            if let Some((_, factor)) = DROP.iter().rev().find(|(after, _)| round >= *after) {
                self.drop_losers(*factor);
            }
            let spent = start.elapsed().as_secs_f64() / effort.budget.as_secs_f64().max(1e-9);
            progress(spent.max(round as f64 / effort.rounds as f64).min(1.0));
            if spent >= 1.0 && round >= 3 {
                break;
            }
        }
        for Entrant { index, samples, .. } in self.alive.iter().filter(|e| !e.samples.is_empty()) {
            self.candidates[*index].outcome = Outcome::Timed { timing: Timing::of(samples), dropped: false };
        }
    }

    fn drop_losers(&mut self, factor: f64) {
        let candidates = &mut self.candidates;
        let mut leaders: Vec<([Dtype; 2], f64)> = Vec::new();
        for Entrant { index, samples, .. } in &self.alive {
            let (types, median) = (pair(&candidates[*index].formats), Timing::of(samples).median);
            match leaders.iter_mut().find(|(known, _)| *known == types) {
                Some((_, least)) => *least = least.min(median),
                None => leaders.push((types, median)),
            }
        }
        self.alive.retain(|Entrant { index, samples, .. }| {
            let candidate = &mut candidates[*index];
            let types = pair(&candidate.formats);
            let leader = leaders.iter().find(|(known, _)| *known == types).map_or(f64::INFINITY, |l| l.1);
            let timing = Timing::of(samples);
            let stays = timing.fastest <= leader * factor;
            if !stays {
                candidate.outcome = Outcome::Timed { timing, dropped: true };
            }
            stays
        });
    }

    /// The fastest tunings of a row.
    fn finalists(&self, row: &Row) -> Vec<Tuning> {
        let mut own: Vec<&Measured> =
            self.candidates.iter().filter(|c| c.row.id == row.id && c.timing().is_some()).collect();
        let median = |c: &Measured| c.timing().map_or(f64::INFINITY, |t| t.median);
        own.sort_by(|a, b| median(a).total_cmp(&median(b)));
        own.iter().take(FINALISTS).map(|c| c.tuning.clone()).collect()
    }
}

/// Checks and times all candidates of a problem of the given types: each tuning in its kernel's first formats,
/// then the best tunings in the others, together with those that were not dropped.
pub fn measure(
    problem: &Problem,
    cpu: &Cpu,
    threads: &Threads,
    types: Types,
    effort: Effort,
    mut progress: impl FnMut(f64),
) -> Measurement {
    let (kernels, left_out) = available(cpu, problem);
    let inputs = Inputs::synthetic(problem);
    let mut field = Field {
        problem,
        threads,
        inputs: &inputs,
        oracle: Oracle::new(problem, &inputs, sample_pixels(problem.dst()[0], 12)),
        team: Team::new(threads.count()),
        candidates: Vec::new(),
        left_out,
        alive: Vec::new(),
    };
    let mut jobs = Vec::new();
    for available in &kernels {
        let before = jobs.len();
        for tuning in available.kernel.tunings(problem) {
            let first = types.formats(&*available.kernel, problem, &tuning).first().copied();
            jobs.extend(first.map(|formats| (available, tuning, formats)));
        }
        if jobs.len() == before {
            let reason = "rounds to a lower precision, which is not asked for".to_string();
            field.left_out.push(LeftOut { id: available.row.id, reason });
        }
    }
    field.enter(&jobs);
    if types == Types::F32 {
        field.rounds(effort, progress);
    } else {
        let part = |share| Effort { budget: effort.budget.mul_f64(share), ..effort };
        field.rounds(part(FIRST), |done| progress(FIRST * done));
        let mut others = Vec::new();
        for available in &kernels {
            for tuning in field.finalists(available.row) {
                let formats = types.formats(&*available.kernel, problem, &tuning);
                others.extend(formats.into_iter().skip(1).map(|f| (available, tuning.clone(), f)));
            }
        }
        field.enter(&others);
        field.rounds(part(1.0 - FIRST), |done| progress(FIRST + (1.0 - FIRST) * done));
    }
    let Field { candidates, left_out, .. } = field;
    Measurement { problem: problem.clone(), candidates, left_out }
}

/// Fisher-Yates, the same order for the same seed.
fn shuffle<T>(items: &mut [T], seed: u64) {
    for i in (1..items.len()).rev() {
        items.swap(i, (unit(13, seed, i as u64) * (i + 1) as f64) as usize);
    }
}
