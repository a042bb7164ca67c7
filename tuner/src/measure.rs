//! Measures the candidates of one problem: checked against the oracle first, then timed in shuffled,
//! interleaved rounds, the clear losers dropped early.

mod exhaust;
mod field;
mod samples;
mod walk;

use std::time::{Duration, Instant};

use kernels::cpu::Cpu;
use kernels::kernel::{Kernel, Tuning};
use kernels::problem::Problem;
use kernels::team::Team;
use kernels::tensor::Formats;
use kernels::{KernelEntry, Role, table};

use crate::apart::CoreDistanceMonitor;
use crate::cold::Cold;
use crate::log::{History, Log};
use crate::oracle::Inputs;
use crate::peak::Beside;
use crate::session::Choice;
use crate::stats::Interval;
use crate::threads::Threads;
use crate::types::Types;
use crate::weights::synthetic::unit;
use field::Field;

pub use exhaust::Search;
pub use samples::Samples;

/// Candidates of a problem that have memory of their own at a time, at most, where so many kernels take it: those that
/// are left, and some tunings more or the best of each kernel in all formats.
pub fn at_a_time(kernels: usize) -> usize {
    field::MOST + walk::AT_A_TIME.max(kernels * field::FINALISTS * Formats::ALL.len())
}

/// A kernel of the table that this machine can run, for one problem.
pub struct Available {
    /// Its row.
    pub row: &'static KernelEntry,
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
    /// The same for one that takes `factor` times as long.
    pub fn scaled(self, factor: f64) -> Self {
        let [low, high] = self.quartiles;
        Self {
            median: self.median * factor,
            quartiles: [low * factor, high * factor],
            fastest: self.fastest * factor,
            ..self
        }
    }

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
    pub row: &'static KernelEntry,
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
    /// Its time over that of the fastest candidate of the same types, in the rounds that both were in.
    pub versus: Option<Interval>,
    /// Of its runs, those that something else on the machine disturbed, however often they were repeated.
    pub disturbed: usize,
    /// What became of it.
    pub outcome: Outcome,
}

impl Measured {
    /// A candidate that takes so many seconds, to test what chooses.
    #[cfg(test)]
    pub fn taking(seconds: f64, id: &str, formats: Formats, tuning: Tuning) -> Self {
        Self {
            row: kernels::entry(id).expect("a row"),
            tuning,
            formats,
            relative_error: 0.0,
            rms_error: 0.0,
            packed: 0,
            scratch: 0,
            multiply_adds: 0,
            versus: None,
            disturbed: 0,
            outcome: Outcome::Timed { timing: Timing::of(&[seconds]), dropped: false },
        }
    }

    /// Bytes of packed weights and scratch.
    pub fn bytes(&self) -> usize {
        self.packed + self.scratch
    }

    /// To run it.
    pub fn choice(&self) -> Choice {
        Choice { row: self.row, tuning: self.tuning.clone(), formats: self.formats }
    }

    /// Its median time; infinite if its results are wrong.
    pub fn seconds(&self) -> f64 {
        self.timing().map_or(f64::INFINITY, |timing| timing.median)
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
    /// Times within this share of each other are ties.
    pub tie: f64,
    /// How far the search for tunings went.
    pub search: Search,
    /// What the cores did at their best meanwhile.
    pub beside: Beside,
    /// Round by round.
    pub history: History,
}

/// Times of whole networks within this share of each other are ties.
pub fn widest_tie(measurements: &[Measurement]) -> f64 {
    measurements.iter().map(|measurement| measurement.tie).fold(0.0, f64::max)
}

impl Measurement {
    /// Of candidates, to test what chooses.
    #[cfg(test)]
    pub fn of(problem: Problem, candidates: Vec<Measured>) -> Self {
        let (search, beside, history) = Default::default();
        Self { problem, candidates, left_out: Vec::new(), tie: 0.01, search, beside, history }
    }

    /// Candidates whose results are right, the fastest first.
    pub fn ranking(&self) -> Vec<&Measured> {
        let mut list: Vec<&Measured> = self.candidates.iter().filter(|c| c.timing().is_some()).collect();
        list.sort_by(|a, b| a.seconds().total_cmp(&b.seconds()));
        list
    }
}

/// How long to measure, and what to leave out.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Time for all of it; the default of each kernel has its turn however short it is.
    pub budget: Duration,
    /// Time that is its share of the budget until now, whatever other problems leave of theirs.
    pub share: Duration,
    /// When it must be over, however long rounds have waited.
    pub deadline: Instant,
    /// Rounds at most.
    pub rounds: usize,
    /// Try all other tunings after the search, whatever time that takes.
    pub exhaustive: bool,
}

/// Where it is measured.
pub struct Host<'a> {
    /// The processor.
    pub cpu: &'a Cpu,
    /// Worker threads.
    pub threads: &'a Threads,
    /// How far apart their cores are.
    pub distance: &'a CoreDistanceMonitor,
    /// Times within this share of each other are ties.
    pub tie: f64,
    /// Where weights are when a candidate is timed.
    pub cold: Cold,
    /// Where each round is written, and what earlier ones are taken from.
    pub log: Option<&'a Log>,
}

/// Share of the budget that goes into finding tunings.
const EXPLORED: f64 = 0.8;
/// Share of the budget that the first formats of all tunings take where there are other formats.
const FIRST: f64 = 0.5;
/// Rounds of a problem's candidates at most.
pub const ROUNDS: usize = 48;

/// Checks and times candidates of a problem of the given types: tunings in their kernel's first formats, found by
/// a walk, then the best ones in the others, together with those that were not dropped. It goes on from `before`,
/// or from the log, where all is taken as it is that had as large a share of the budget; but of a problem that was
/// measured on cores far apart in more than a tenth of the rounds, what was near alone, if they are near now.
pub fn measure(
    problem: &Problem,
    host: &Host,
    types: Types,
    effort: Effort,
    before: Option<Measurement>,
    mut progress: impl FnMut(f64),
) -> Measurement {
    // Far rounds are forgotten only when nearer ones can follow.
    let was_far = before.as_ref().is_some_and(|before| before.beside.is_far(host.distance));
    let is_anew = was_far && host.distance.is_near(host.threads, &mut Team::new(host.threads.count()));
    let is_done =
        |history: &History| history.done.is_some_and(|done| done.is_enough(effort.share.as_secs_f64()));
    let (mut beside, mut refused) = (None, Vec::new());
    let history = match before {
        Some(before) if !is_anew && is_done(&before.history) => return before,
        Some(before) => {
            let Measurement { mut history, left_out, .. } = before;
            if is_anew {
                history.keep_near(host.distance.near().map(|seconds| seconds * 1e9));
            } else {
                beside = Some(before.beside);
            }
            refused = left_out;
            Some(history)
        }
        None => host.log.and_then(|log| log.history(problem)).cloned(),
    };
    let is_done = history.as_ref().is_some_and(is_done);
    let (kernels, left_out) = available(host.cpu, problem);
    let inputs = Inputs::synthetic(problem);
    let mut field = Field::new(problem, host, types, (&kernels, left_out), &inputs);
    field.beside = beside.unwrap_or(field.beside);
    field.sample_peaks();
    let holds = history.is_some_and(|history| field.restore(history));
    let clock = host.distance.clock();
    let search;
    if holds && is_done {
        field.conclude();
        search = field.search(types);
    } else {
        field.revive();
        let mut complete = field.walk(types, effort.budget.mul_f64(EXPLORED), effort.deadline);
        let effort = Effort { budget: effort.budget.saturating_sub(clock.elapsed()), ..effort };
        if types == Types::F32 {
            complete &= field.rounds(effort, progress);
        } else {
            let part = |share| Effort { budget: effort.budget.mul_f64(share), ..effort };
            complete &= field.rounds(part(FIRST), |done| progress(FIRST * done));
            field.enter_others(types);
            complete &= field.rounds(part(1.0 - FIRST), |done| progress(FIRST + (1.0 - FIRST) * done));
        }
        search = if effort.exhaustive { field.exhaust(types) } else { field.search(types) };
        field.done(&effort, complete && effort.rounds >= ROUNDS);
    }
    refused.retain(|refused| !field.left_out.contains(refused));
    field.left_out.extend(refused);
    for available in &kernels {
        let is_there = field.candidates.iter().any(|c| c.row.id == available.row.id);
        if !is_there && !field.left_out.iter().any(|l| l.id == available.row.id) {
            let reason = "rounds to a lower precision, which is not asked for".to_string();
            field.left_out.push(LeftOut { id: available.row.id, reason });
        }
    }
    field.into_measurement(search)
}

/// Fisher-Yates, the same order for the same seed.
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    for i in (1..items.len()).rev() {
        items.swap(i, (unit(13, seed, i as u64) * (i + 1) as f64) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Line;

    #[test]
    fn what_was_far_is_measured_anew_under_its_numbers() {
        let threads = Threads::new(1).expect("a thread");
        let cpu = Cpu::detect();
        let problem = Problem::Conv("n1h5w5c8k8r3s3".parse().expect("a shape"));
        let distance = CoreDistanceMonitor::default();
        let host = Host {
            cpu: &cpu,
            threads: &threads,
            distance: &distance,
            tie: 0.01,
            cold: Cold::Memory,
            log: None,
        };
        let second = Duration::from_secs(1);
        let effort = Effort {
            budget: second / 10,
            share: second,
            deadline: Instant::now() + 600 * second,
            rounds: 4,
            exhaustive: false,
        };
        let measured =
            |before| threads.install(|| measure(&problem, &host, Types::F32, effort, before, |_| ()));
        let first = measured(None);
        assert!(first.history.rounds.iter().map(|round| round.number).eq(1..=first.history.last_round));
        let count = first.history.candidates.len();
        assert_eq!(first.candidates.len(), count);

        // As if all but the last round had been on cores far apart.
        let last = first.history.last_round;
        let mut far = History { candidates: first.history.candidates.clone(), ..History::default() };
        let mut beside = Beside::default();
        for number in 1..=last {
            let ns = if number < last { 190.0 } else { 20.0 };
            let times = first.history.times_of(number).to_vec();
            let (run, problem) = Default::default();
            far.add(Line::Round { run, problem, round: number, times, core_to_core_ns: Some(ns) });
            beside.apart(Some(ns * 1e-9));
        }
        distance.known(20e-9);
        let again = measured(Some(Measurement { history: far, beside, ..first }));
        let rounds: Vec<usize> = again.history.rounds.iter().map(|round| round.number).collect();
        assert_eq!((rounds[0], rounds[1]), (last, last + 1));
        // Those that are measured again have their numbers again.
        let entries = &again.history.candidates;
        let twin = |one: usize| (0..one).any(|other| entries[one].is_same(&entries[other]));
        assert!(entries.len() >= count && !(0..entries.len()).any(twin));
        assert_eq!(again.candidates.len(), entries.len());
    }
}
