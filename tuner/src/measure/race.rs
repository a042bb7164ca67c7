//! The candidates of one problem on their way: checked, timed in rounds, dropped; each step written to the log.

use std::sync::Arc;

use engine::network::{Choice, Excluded, Precision, StepFormats, SupportedKernel, tuning_to_json};
use engine::util::{Interval, Timing, shuffle};
use kernels::{Format, Formats, Kernel, KernelEntry, Prepared, Problem, Tensor, Tuning, Unsupported};

use crate::bench::{
    Bench, BenchContext, Comparison, Conditions, Inputs, Oracle, POLICY, Rounds, Run, Samples, StageProgress,
    each_in_turn, sample_pixels,
};
use crate::log::{History, Journal, LoggedCandidate, Time};
use crate::measure::types::{CandidateResult, MeasureBudget, MeasureContext, Outcome, ProblemResult, Search};

/// A candidate that is still measured.
pub(super) struct ActiveCandidate {
    pub(super) index: usize,
    /// None for one from the log that has not run yet.
    pub(super) bench: Option<Bench>,
}

/// The candidates of a problem on their way.
pub struct Race<'a> {
    pub problem: &'a Problem,
    pub host: &'a MeasureContext<'a>,
    pub types: Precision,
    pub kernels: &'a [SupportedKernel],
    pub(super) inputs: &'a Inputs,
    /// The source in each format that was asked for.
    pub(super) sources: Vec<(Format, Arc<Tensor>)>,
    pub(super) oracle: Oracle<'a>,
    pub(super) context: BenchContext,
    pub(super) journal: Journal<'a>,
    pub candidates: Vec<CandidateResult>,
    pub samples: Vec<Samples>,
    /// Of each candidate, its number in the log, where the next is `next`.
    pub(super) numbers: Vec<usize>,
    pub(super) next: usize,
    /// Those in the log that have no rounds left, by their numbers.
    pub(super) forgotten: Vec<(usize, LoggedCandidate)>,
    /// Rounds so far.
    pub(super) round: usize,
    /// Runs so far, and those of them that were disturbed.
    pub(super) runs: usize,
    pub(super) disturbed: usize,
    /// Rows without candidates, and tunings that were refused.
    pub left_out: Vec<Excluded>,
    /// What the cores do at their best meanwhile.
    pub conditions: Conditions,
    pub(super) alive: Vec<ActiveCandidate>,
}

impl<'a> Race<'a> {
    /// Without candidates.
    pub fn new(
        problem: &'a Problem,
        host: &'a MeasureContext<'a>,
        types: Precision,
        (kernels, left_out): (&'a [SupportedKernel], Vec<Excluded>),
        inputs: &'a Inputs,
    ) -> Self {
        Self {
            conditions: Conditions::new(host.cpu, types),
            problem,
            host,
            types,
            kernels,
            inputs,
            sources: Vec::new(),
            oracle: Oracle::new(problem, inputs, sample_pixels(problem.dst()[0], 12)),
            context: BenchContext::new(host.threads, host.cpu),
            journal: Journal::new(host.log, problem),
            candidates: Vec::new(),
            samples: Vec::new(),
            numbers: Vec::new(),
            next: 0,
            forgotten: Vec::new(),
            round: 0,
            runs: 0,
            disturbed: 0,
            left_out,
            alive: Vec::new(),
        }
    }

    /// Takes what was found out earlier and still holds; whether all of it does.
    pub fn restore(&mut self, history: History) -> bool {
        self.round = history.last_round;
        self.next = history.candidates.len();
        let last = history.rounds.last().map(|round| round.number);
        let mut stale = false;
        for (number, entry) in history.candidates.iter().enumerate() {
            let samples = history.samples(number);
            let Some(mut candidate) = self.known(entry) else {
                stale = true;
                continue;
            };
            let times = samples.seconds();
            candidate.outcome = match entry.wrong {
                Some([error, tolerance]) => Outcome::Wrong { error, tolerance },
                None if samples.is_empty() => {
                    stale = true;
                    self.forgotten.push((number, entry.clone()));
                    continue;
                }
                None => Outcome::Timed { timing: Timing::of(&times), dropped: true },
            };
            candidate.disturbed = history.disturbed(number);
            if entry.wrong.is_none() && samples.last_round() == last {
                self.alive.push(ActiveCandidate { index: self.candidates.len(), bench: None });
            }
            self.runs += times.len();
            self.disturbed += candidate.disturbed;
            self.candidates.push(candidate);
            self.samples.push(samples);
            self.numbers.push(number);
        }
        self.journal.resume(history);
        !stale
    }

    /// A candidate of the log, if a kernel still is what it was.
    fn known(&self, entry: &LoggedCandidate) -> Option<CandidateResult> {
        let SupportedKernel { row, kernel } = self.kernels.iter().find(|k| k.row.id == entry.id.kernel)?;
        let offered = kernel.tunings(self.problem);
        let tuning = offered.into_iter().find(|tuning| tuning_to_json(tuning) == entry.id.tuning)?;
        let offered = kernel.formats(self.problem, &tuning);
        let formats = offered.into_iter().find(|formats| StepFormats::of(formats) == entry.id.formats)?;
        (entry.code == row.code()).then(|| CandidateResult {
            relative_error: entry.rel_error,
            rms_error: entry.rms_error,
            packed: entry.packed,
            scratch: entry.scratch,
            multiply_adds: kernel.multiply_adds(self.problem, &tuning),
            choice: Choice { row, tuning, formats },
            versus: None,
            disturbed: 0,
            outcome: Outcome::Wrong { error: f64::INFINITY, tolerance: 0.0 },
        })
    }

    /// Lets the best of each row in again that is not much slower than the fastest: those that it was dropped for may be
    /// gone, or have been measured in another time.
    pub fn revive(&mut self) {
        let best: Vec<usize> =
            self.kernels.iter().flat_map(|kernel| self.best(kernel.row, POLICY.race.revived)).collect();
        let least = best.iter().map(|&index| self.candidates[index].seconds()).fold(f64::INFINITY, f64::min);
        for index in best {
            if self.candidates[index].seconds() <= POLICY.race.revived_ratio * least {
                self.let_in(index);
            }
        }
    }

    /// Prepares candidates, checks them, and lets those that are right in.
    pub fn enter(&mut self, choices: Vec<Choice>) {
        let threads = self.host.threads;
        let prepared = self.prepared(&choices);
        let first = self.candidates.len();
        for (choice, prepared) in choices.into_iter().zip(prepared) {
            let Choice { row, tuning, formats } = &choice;
            let prepared = match prepared {
                Ok(prepared) => prepared,
                Err(refusal) => {
                    self.left_out.push(Excluded { id: row.id, reason: format!("{tuning}: {refusal}") });
                    continue;
                }
            };
            let mut bench = self.bench(prepared, formats);
            let Run { seconds, .. } = bench.run(threads, &mut self.context);
            let kernel = self.kernel(row);
            let multiply_adds = kernel.multiply_adds(self.problem, tuning);
            let verdict = self.oracle.judge(&bench, &kernel.numerics(self.problem, tuning));
            let outcome = if verdict.holds() {
                Outcome::Timed { timing: Timing::of(&[seconds]), dropped: false }
            } else {
                let Comparison { error, tolerance, .. } = verdict.nearer();
                Outcome::Wrong { error, tolerance }
            };
            let [packed, scratch] = bench.bytes(threads.count());
            if verdict.holds() {
                self.alive.push(ActiveCandidate { index: self.candidates.len(), bench: Some(bench) });
            }
            self.candidates.push(CandidateResult {
                choice,
                relative_error: verdict.given.relative(),
                rms_error: verdict.given.rms,
                packed,
                scratch,
                multiply_adds,
                versus: None,
                disturbed: 0,
                outcome,
            });
            self.samples.push(Samples::default());
        }
        let mut new = Vec::new();
        for entry in self.candidates[first..].iter().map(log_entry) {
            let known = self.forgotten.iter().position(|(_, known)| known.is_same(&entry));
            let number = known.map(|at| self.forgotten.swap_remove(at).0).unwrap_or_else(|| {
                new.push(entry);
                self.next + new.len() - 1
            });
            self.numbers.push(number);
        }
        self.next += new.len();
        if !new.is_empty() {
            self.journal.candidates(self.next - new.len(), new);
        }
    }

    fn kernel(&self, row: &KernelEntry) -> &'a dyn Kernel {
        let of_row = self.kernels.iter().find(|k| k.row.id == row.id);
        &*of_row.expect("candidates are of kernels that take the problem").kernel
    }

    fn prepared(&self, choices: &[Choice]) -> Vec<Result<Box<dyn Prepared>, Unsupported>> {
        let (problem, filters) = (self.problem, &self.inputs.filters);
        let jobs: Vec<_> = choices.iter().map(|choice| (self.kernel(choice.row), choice)).collect();
        self.host
            .threads
            .map(&jobs, |(kernel, choice)| kernel.prepare(problem, &choice.tuning, &choice.formats, filters))
    }

    /// To time what was prepared; all in the same format share a source.
    fn bench(&mut self, prepared: Box<dyn Prepared>, formats: &Formats) -> Bench {
        let known = self.sources.iter().find(|(format, _)| *format == formats.src);
        let src = known.map(|(_, src)| Arc::clone(src)).unwrap_or_else(|| {
            let src = Bench::source(prepared.signature().src, &formats.src, &self.inputs.src);
            self.sources.push((formats.src, Arc::clone(&src)));
            src
        });
        Bench::new(prepared, formats, src, self.host.cold)
    }

    /// Prepares those of the log that are about to run; one that is refused now is out.
    fn prepare(&mut self) {
        let is_waiting = |entrant: &ActiveCandidate| entrant.bench.is_none();
        let waiting = self.alive.iter().filter(|entrant| is_waiting(entrant));
        let choices: Vec<Choice> = waiting.map(|e| self.candidates[e.index].choice.clone()).collect();
        let mut prepared = self.prepared(&choices).into_iter();
        let mut alive = std::mem::take(&mut self.alive);
        for (entrant, choice) in alive.iter_mut().filter(|entrant| is_waiting(entrant)).zip(&choices) {
            let prepared = prepared.next().and_then(Result::ok);
            entrant.bench = prepared.map(|prepared| self.bench(prepared, &choice.formats));
        }
        alive.retain(|entrant| !is_waiting(entrant));
        self.alive = alive;
    }

    /// Samples what the cores do at their best now.
    pub fn sample_peaks(&mut self) {
        self.conditions.sample(self.host.cpu, self.host.threads, &mut self.context.team);
    }

    /// Times all that are left once, in a shuffled order.
    fn time(&mut self) {
        self.prepare();
        let MeasureContext { threads, distance, .. } = *self.host;
        let core_to_core = distance.wait_until_near(threads, &mut self.context.team);
        self.sample_peaks();
        self.round += 1;
        shuffle(&mut self.alive, self.round as u64);
        // No more than one where most are disturbed all the same.
        let tries = if 2 * self.disturbed > self.runs { 1 } else { POLICY.contention.tries };
        let mut indices = Vec::new();
        let mut benches: Vec<&mut Bench> = Vec::new();
        for ActiveCandidate { index, bench } in &mut self.alive {
            if let Some(bench) = bench {
                indices.push(*index);
                benches.push(bench);
            }
        }
        let results = each_in_turn(&mut benches, tries, threads, &mut self.context);
        let mut times = Vec::with_capacity(indices.len());
        for (index, Run { seconds, disturbed }) in indices.into_iter().zip(results) {
            let time = Time::new(self.numbers[index], seconds, disturbed);
            self.samples[index].push(self.round, time.seconds());
            self.candidates[index].disturbed += usize::from(disturbed);
            self.runs += 1;
            self.disturbed += usize::from(disturbed);
            times.push(time);
        }
        self.conditions.add_core_to_core(core_to_core);
        self.journal.round(self.round, times, core_to_core);
    }

    /// Times all that are left once, and drops the clear losers.
    pub fn round(&mut self) {
        self.time();
        let tie = self.host.tie;
        self.drop(|candidate, own, leader| {
            match POLICY.race.drop.iter().rev().find(|(after, _)| own.len() >= *after) {
                _ if POLICY.race.decide.contains(&own.len()) => {
                    own.ratio(leader).is_some_and(|ratio| ratio.low > 1.0 + tie)
                }
                // The run that it was checked by too: a host may stop one for milliseconds, and nothing shows it.
                Some((_, factor)) if own.len() < POLICY.race.decide[0] => {
                    let checked = candidate.timing().map_or(f64::INFINITY, |timing| timing.fastest);
                    own.fastest().min(checked) > leader.median() * factor
                }
                _ => false,
            }
        });
        self.limit();
    }

    /// Rounds until the time is over or each leader has had its number of them, those of the log among them; whether it
    /// is their number.
    pub fn rounds(&mut self, effort: MeasureBudget, progress: StageProgress) -> bool {
        let before = self.leaders().iter().map(|(_, leader)| self.samples[*leader].len()).min().unwrap_or(0);
        let most = effort.rounds.saturating_sub(before).max(POLICY.race.least_rounds);
        let MeasureContext { threads, distance, .. } = *self.host;
        let (count, first) = ([POLICY.race.least_rounds, most], self.round);
        Rounds { threads, distance, progress, count, time: effort.budget, end: effort.deadline }
            .run(|_| self.round());
        let complete = self.round - first == most;
        self.conclude();
        if self.reinstate() {
            (0..POLICY.race.decide[0]).for_each(|_| self.round());
            self.conclude();
        }
        complete
    }

    /// Writes to the log that the problem is done, with the share of the budget it was given.
    pub fn done(&mut self, effort: &MeasureBudget, complete: bool) {
        self.journal.done(effort.share, complete);
    }

    /// How many times as long as the second the first of two takes, in rounds of their own beside all that are left, as
    /// they were found.
    pub fn duel(&mut self, pair: [usize; 2], rounds: usize) -> Option<Interval> {
        let from = self.round;
        pair.into_iter().for_each(|index| self.let_in(index));
        (0..rounds).for_each(|_| self.time());
        let [a, b] = pair.map(|index| self.samples[index].since(from));
        a.ratio(&b)
    }

    /// Lets the fastest tunings of each row in once more, in their other formats.
    pub fn enter_others(&mut self) {
        let mut others: Vec<Choice> = Vec::new();
        for SupportedKernel { row, kernel } in self.kernels {
            let mut tunings: Vec<&Tuning> = Vec::new();
            for index in self.best(row, usize::MAX) {
                let tuning = &self.candidates[index].choice.tuning;
                if !tunings.contains(&tuning) && tunings.len() < POLICY.race.finalists {
                    tunings.push(tuning);
                }
            }
            let choices = tunings.into_iter().flat_map(|tuning| {
                let formats = self.types.formats(&**kernel, self.problem, tuning).into_iter();
                formats.map(|formats| Choice { row, tuning: tuning.clone(), formats })
            });
            others.extend(choices.filter(|choice| !self.candidates.iter().any(|c| c.choice == *choice)));
        }
        if !others.is_empty() {
            self.enter(others);
        }
    }

    pub fn into_measurement(self, search: Search) -> ProblemResult {
        ProblemResult {
            problem: self.problem.clone(),
            candidates: self.candidates,
            left_out: self.left_out,
            tie: self.host.tie,
            search,
            conditions: self.conditions,
            history: self.journal.into_history(),
        }
    }

    /// The fastest candidates of a row, by their numbers.
    fn best(&self, row: &KernelEntry, count: usize) -> Vec<usize> {
        let is_own = |c: &CandidateResult| c.choice.row.id == row.id && c.timing().is_some();
        let mut own: Vec<usize> =
            (0..self.candidates.len()).filter(|&index| is_own(&self.candidates[index])).collect();
        own.sort_by(|&a, &b| self.candidates[a].seconds().total_cmp(&self.candidates[b].seconds()));
        own.truncate(count);
        own
    }
}

/// A candidate that was just checked, for the log.
fn log_entry(candidate: &CandidateResult) -> LoggedCandidate {
    LoggedCandidate {
        id: candidate.choice.id(),
        code: candidate.choice.row.code().to_string(),
        rel_error: candidate.relative_error,
        rms_error: candidate.rms_error,
        packed: candidate.packed,
        scratch: candidate.scratch,
        wrong: match candidate.outcome {
            Outcome::Wrong { error, tolerance } => Some([error, tolerance]),
            Outcome::Timed { .. } => None,
        },
    }
}
