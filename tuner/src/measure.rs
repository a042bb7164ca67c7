//! Measures the candidates of one problem: checked against the oracle first, then timed in shuffled,
//! interleaved rounds, the clear losers dropped early.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::cpu::Cpu;
use kernels::kernel::{Kernel, Role, Row, Tuning, table};
use kernels::problem::Problem;
use kernels::team::Team;
use kernels::tensor::{Dtype, Format, Formats, Tensor};

use crate::bench::{Bench, undisturbed};
use crate::oracle::{Comparison, Inputs, Oracle, sample_pixels};
use crate::session::Choice;
use crate::stats::{Interval, median, ratio};
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
    /// Its time over that of the fastest candidate of the same types, in the rounds that both were in.
    pub versus: Option<Interval>,
    /// Of its runs, those that something else on the machine disturbed, however often they were repeated.
    pub disturbed: usize,
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
}

impl Measurement {
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
    /// Time for all of it; the walk through tunings is never cut short.
    pub budget: Duration,
    /// Rounds at most.
    pub rounds: usize,
}

/// Where it is measured.
pub struct Host<'a> {
    /// The processor.
    pub cpu: &'a Cpu,
    /// Worker threads.
    pub threads: &'a Threads,
    /// Times within this share of each other are ties.
    pub tie: f64,
}

/// A candidate whose fastest run is this much slower than the leader's median is dropped after so many
/// rounds, while they are too few for intervals. Each pair of types has a leader of its own.
const DROP: [(usize, f64); 3] = [(1, 2.0), (2, 1.3), (4, 1.1)];

/// Rounds after which a candidate is dropped whose interval lies wholly above the leader's time and a tie with it.
const DECIDE: [usize; 5] = [7, 10, 14, 19, 25];

/// Tries of a run that is disturbed, as long as no more than half of a problem's runs are disturbed all the same.
const TRIES: usize = 3;

/// Steps of the walk through tunings at most, and the rounds of each.
const SWEEPS: usize = 4;
const SWEEP_ROUNDS: usize = 2;
/// Share of the budget that may go into tunings far from the fastest, and how many are tried at a time.
const EXPLORED: f64 = 0.5;
const WIDE: usize = 8;
/// The walk goes on from tunings of a kernel that is at most so many times as slow as the fastest.
const HOPE: f64 = 1.3;
/// Rounds after the walk at least.
const LEAST_ROUNDS: usize = 2;

/// Share of the budget that the first formats of all tunings take where there are other formats.
const FIRST: f64 = 0.5;

/// Tunings of a kernel that are measured in its other formats: the fastest in its first.
const FINALISTS: usize = 2;

/// A candidate that is still measured.
struct Entrant {
    /// Its number among all.
    index: usize,
    bench: Bench,
}

/// A candidate's times.
#[derive(Default)]
struct Samples {
    /// The round of the first one; the others followed.
    first: usize,
    seconds: Vec<f64>,
}

impl Samples {
    /// `self / other` in the rounds that both were in.
    fn ratio(&self, other: &Self) -> Option<Interval> {
        let from = self.first.max(other.first);
        let shared = |s: &Self| s.seconds.get(from - s.first..).unwrap_or_default().to_vec();
        ratio(&shared(self), &shared(other))
    }
}

/// The candidates of a problem on their way.
struct Field<'a> {
    problem: &'a Problem,
    threads: &'a Threads,
    inputs: &'a Inputs,
    /// The source in each format that was asked for.
    sources: Vec<(Format, Arc<Tensor>)>,
    oracle: Oracle<'a>,
    team: Team,
    tie: f64,
    candidates: Vec<Measured>,
    /// Of each candidate.
    samples: Vec<Samples>,
    /// Rounds so far.
    round: usize,
    /// Runs so far, and those of them that were disturbed.
    runs: usize,
    disturbed: usize,
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
            let shape = prepared.bound().src;
            let known = self.sources.iter().find(|(format, _)| *format == formats.src);
            let src = known.map(|(_, src)| Arc::clone(src)).unwrap_or_else(|| {
                let src = Bench::source(shape, &formats.src, &inputs.src);
                self.sources.push((formats.src, Arc::clone(&src)));
                src
            });
            let mut bench = Bench::new(prepared, formats, src, self.threads.count());
            let (first, _) = bench.run(self.threads, &mut self.team);
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
                versus: None,
                disturbed: 0,
                outcome,
            });
            self.samples.push(Samples { first: self.round, ..Samples::default() });
            if verdict.holds() {
                let index = self.candidates.len() - 1;
                self.alive.push(Entrant { index, bench });
            }
        }
    }

    /// Times all that are left once, in a shuffled order, and drops the clear losers.
    fn round(&mut self) {
        self.round += 1;
        shuffle(&mut self.alive, self.round as u64);
        for Entrant { index, bench } in &mut self.alive {
            let run = || bench.run(self.threads, &mut self.team);
            let tries = if 2 * self.disturbed > self.runs { 1 } else { TRIES };
            let (seconds, disturbed) = undisturbed(tries, run);
            self.samples[*index].seconds.push(seconds);
            self.candidates[*index].disturbed += usize::from(disturbed);
            self.runs += 1;
            self.disturbed += usize::from(disturbed);
        }
        let tie = self.tie;
        self.drop(|own, leader| match DROP.iter().rev().find(|(after, _)| own.seconds.len() >= *after) {
            _ if DECIDE.contains(&own.seconds.len()) => {
                own.ratio(leader).is_some_and(|ratio| ratio.low > 1.0 + tie)
            }
            Some((_, factor)) if own.seconds.len() < DECIDE[0] => {
                let fastest = own.seconds.iter().copied().min_by(f64::total_cmp);
                fastest > median(&leader.seconds).map(|leader| leader * factor)
            }
            _ => false,
        });
    }

    /// Rounds until the time or their number has been used.
    fn rounds(&mut self, effort: Effort, mut progress: impl FnMut(f64)) {
        let start = Instant::now();
        for round in 1..=effort.rounds {
            self.round();
            let spent = start.elapsed().as_secs_f64() / effort.budget.as_secs_f64().max(1e-9);
            progress(spent.max(round as f64 / effort.rounds as f64).min(1.0));
            if spent >= 1.0 && round >= LEAST_ROUNDS {
                break;
            }
        }
        self.conclude();
    }

    /// Walks through the tunings of each kernel: the default and all that differ from it by one number, then those
    /// that differ so from the fastest, for as long as that becomes another. After that, and until `wide` is over,
    /// all others of the kernels that are near the fastest, those that differ least first.
    fn walk<'k>(&mut self, kernels: &'k [Available], types: Types, wide: Instant) {
        let spaces: Vec<Vec<Tuning>> = kernels.iter().map(|a| a.kernel.tunings(self.problem)).collect();
        let mut tried: Vec<Vec<Tuning>> = vec![Vec::new(); kernels.len()];
        let mut centres: Vec<Option<Tuning>> = spaces.iter().map(|space| space.first().cloned()).collect();
        for sweep in 0.. {
            let is_wide = sweep >= SWEEPS;
            let mut steps: Vec<(usize, usize, &Tuning)> = Vec::new();
            for (index, centre) in centres.iter().enumerate() {
                let Some(centre) = centre else { continue };
                let others = spaces[index].iter().filter(|tuning| !tried[index].contains(tuning));
                let reach = if is_wide { usize::MAX } else { 1 };
                let steps_from = others.map(|tuning| (tuning.distance(centre), index, tuning));
                steps.extend(steps_from.filter(|(distance, ..)| *distance <= reach));
            }
            if is_wide {
                steps.sort_by_key(|(distance, ..)| *distance);
                steps.truncate(WIDE);
            }
            if is_wide && (steps.is_empty() || Instant::now() >= wide) {
                return;
            }
            let mut jobs: Vec<(&'k Available, Tuning, Formats)> = Vec::new();
            for (_, index, tuning) in steps {
                tried[index].push(tuning.clone());
                let available = &kernels[index];
                let first = types.formats(&*available.kernel, self.problem, tuning).first().copied();
                jobs.extend(first.map(|formats| (available, tuning.clone(), formats)));
            }
            if jobs.is_empty() {
                continue;
            }
            self.enter(&jobs);
            (0..SWEEP_ROUNDS).for_each(|_| self.round());
            let leaders = self.leaders();
            let times = leaders.iter().filter_map(|(_, leader)| median(&self.samples[*leader].seconds));
            let least = times.fold(f64::INFINITY, f64::min);
            for (available, centre) in kernels.iter().zip(&mut centres) {
                let best = self.fastest(available.row);
                *centre = best.filter(|(_, seconds)| *seconds <= least * HOPE).map(|(tuning, _)| tuning);
            }
        }
    }

    /// The fastest tuning of a row so far.
    fn fastest(&self, row: &Row) -> Option<(Tuning, f64)> {
        let own = self.candidates.iter().zip(&self.samples).filter(|(c, _)| c.row.id == row.id);
        let timed = own.filter_map(|(c, samples)| Some((c, median(&samples.seconds)?)));
        timed.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(c, seconds)| (c.tuning.clone(), seconds))
    }

    /// Of those still measured, the fastest of each pair of types.
    fn leaders(&self) -> Vec<([Dtype; 2], usize)> {
        let median = |index: usize| median(&self.samples[index].seconds).unwrap_or(f64::INFINITY);
        let mut leaders: Vec<([Dtype; 2], usize)> = Vec::new();
        for &Entrant { index, .. } in &self.alive {
            let types = pair(&self.candidates[index].formats);
            match leaders.iter_mut().find(|(known, _)| *known == types) {
                Some((_, first)) if median(index) < median(*first) => *first = index,
                Some(_) => {}
                None => leaders.push((types, index)),
            }
        }
        leaders
    }

    /// Drops those that lose to the leader of their types.
    fn drop(&mut self, loses: impl Fn(&Samples, &Samples) -> bool) {
        let leaders = self.leaders();
        let (candidates, samples) = (&mut self.candidates, &self.samples);
        self.alive.retain(|&Entrant { index, .. }| {
            let candidate = &mut candidates[index];
            let types = pair(&candidate.formats);
            let leader = leaders.iter().find(|(known, _)| *known == types).map_or(index, |(_, first)| *first);
            let stays = leader == index || !loses(&samples[index], &samples[leader]);
            if !stays {
                candidate.outcome =
                    Outcome::Timed { timing: Timing::of(&samples[index].seconds), dropped: true };
            }
            stays
        });
    }

    /// The times of all: the leaders' own, and for the others the leader's times what they took in the rounds
    /// that both were in, so that drift of the machine does not favour those that left early.
    fn conclude(&mut self) {
        let leaders = self.leaders();
        let is_alive = |index| self.alive.iter().any(|entrant| entrant.index == index);
        for (index, candidate) in self.candidates.iter_mut().enumerate() {
            let Outcome::Timed { dropped, .. } = candidate.outcome else { continue };
            let own = &self.samples[index];
            let types = pair(&candidate.formats);
            let leader = leaders.iter().find(|(known, _)| *known == types).map(|(_, l)| &self.samples[*l]);
            let (Some(leader), false) = (leader, own.seconds.is_empty()) else { continue };
            candidate.versus = own.ratio(leader);
            let timing = Timing::of(&own.seconds);
            let fair = candidate.versus.map(|v| v.value * Timing::of(&leader.seconds).median / timing.median);
            let timing = timing.scaled(fair.unwrap_or(1.0));
            candidate.outcome = Outcome::Timed { timing, dropped: dropped && !is_alive(index) };
        }
    }

    /// The fastest tunings of a row.
    fn finalists(&self, row: &Row) -> Vec<Tuning> {
        let mut own: Vec<&Measured> =
            self.candidates.iter().filter(|c| c.row.id == row.id && c.timing().is_some()).collect();
        own.sort_by(|a, b| a.seconds().total_cmp(&b.seconds()));
        own.iter().take(FINALISTS).map(|c| c.tuning.clone()).collect()
    }
}

/// Checks and times candidates of a problem of the given types: tunings in their kernel's first formats, found by
/// a walk, then the best ones in the others, together with those that were not dropped.
pub fn measure(
    problem: &Problem,
    host: &Host,
    types: Types,
    effort: Effort,
    mut progress: impl FnMut(f64),
) -> Measurement {
    let Host { cpu, threads, tie } = *host;
    let (kernels, left_out) = available(cpu, problem);
    let inputs = Inputs::synthetic(problem);
    let mut field = Field {
        problem,
        threads,
        inputs: &inputs,
        sources: Vec::new(),
        oracle: Oracle::new(problem, &inputs, sample_pixels(problem.dst()[0], 12)),
        team: Team::new(threads.count()),
        tie,
        candidates: Vec::new(),
        samples: Vec::new(),
        round: 0,
        runs: 0,
        disturbed: 0,
        left_out,
        alive: Vec::new(),
    };
    let start = Instant::now();
    field.walk(&kernels, types, start + effort.budget.mul_f64(EXPLORED));
    for available in &kernels {
        let is_there = field.candidates.iter().any(|c| c.row.id == available.row.id);
        if !is_there && !field.left_out.iter().any(|l| l.id == available.row.id) {
            let reason = "rounds to a lower precision, which is not asked for".to_string();
            field.left_out.push(LeftOut { id: available.row.id, reason });
        }
    }
    let effort = Effort { budget: effort.budget.saturating_sub(start.elapsed()), ..effort };
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
    Measurement { problem: problem.clone(), candidates, left_out, tie }
}

/// Fisher-Yates, the same order for the same seed.
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    for i in (1..items.len()).rev() {
        items.swap(i, (unit(13, seed, i as u64) * (i + 1) as f64) as usize);
    }
}
