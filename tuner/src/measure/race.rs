//! The candidates of one problem on their way: checked, timed in rounds, dropped, logged.

use std::sync::Arc;
use std::time::Duration;

use engine::network::{Choice, Excluded, Precision, StepFormats, SupportedKernel, tuning_to_json};
use engine::plan::SearchRecord;
use engine::util::{Interval, Timing, shuffle};
use kernels::{Dtype, Format, Formats, Kernel, KernelEntry, Prepared, Problem, Tensor, Tuning, Unsupported};

use crate::bench::{
    Bench, BenchContext, Comparison, Conditions, Inputs, Oracle, POLICY, Rounds, RunCount, Samples,
    StageProgress, each_in_turn, sample_pixels,
};
use crate::log::{Checked, History, Journal, LoggedCandidate, Time};
use crate::measure::types::{CandidateResult, MeasureBudget, MeasureContext, Outcome, ProblemResult};

/// A candidate of a problem, with its times.
pub struct Entrant {
    pub result: CandidateResult,
    pub samples: Samples,
    /// Its number in the log.
    number: usize,
}

/// A candidate that is still measured.
pub struct ActiveCandidate {
    /// Its place among the entrants.
    pub index: usize,
    /// None for one from the log that has not run yet.
    pub bench: Option<Bench>,
}

/// The candidates of a problem on their way.
pub struct Race<'a> {
    pub problem: &'a Problem,
    pub host: &'a MeasureContext<'a>,
    pub types: Precision,
    /// The kernels that take the problem.
    pub kernels: &'a [SupportedKernel],
    /// The source in each format that was asked for, and for what is written.
    sources: Vec<(Format, Dtype, Arc<Tensor>)>,
    oracle: Oracle<'a>,
    context: BenchContext,
    pub journal: Journal<'a>,
    /// All candidates, in the order they came.
    pub entrants: Vec<Entrant>,
    pub alive: Vec<ActiveCandidate>,
    /// Those in the log that have no rounds left, by their numbers.
    forgotten: Vec<(usize, LoggedCandidate)>,
    runs: RunCount,
    /// Rows without candidates, and tunings that were refused.
    pub left_out: Vec<Excluded>,
    pub conditions: Conditions,
}

impl<'a> Race<'a> {
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
            sources: Vec::new(),
            oracle: Oracle::new(problem, inputs, sample_pixels(problem.dst()[0], 12)),
            context: BenchContext::new(host.threads, host.cpu),
            journal: Journal::new(host.log, problem),
            entrants: Vec::new(),
            alive: Vec::new(),
            forgotten: Vec::new(),
            runs: RunCount::default(),
            left_out,
        }
    }

    /// Takes what was found out earlier and still holds; whether all of it does.
    pub fn restore(&mut self, history: History) -> bool {
        let last = history.rounds.last().map(|round| round.number);
        let mut stale = false;
        for (number, entry) in history.candidates.iter().enumerate() {
            let samples = history.samples(number);
            let Some(choice) = self.known(entry) else {
                stale = true;
                continue;
            };
            let outcome = match entry.wrong {
                Some([error, tolerance]) => Outcome::Wrong { error, tolerance },
                None if samples.is_empty() => {
                    stale = true;
                    self.forgotten.push((number, entry.clone()));
                    continue;
                }
                None => Outcome::Timed { timing: Timing::of(&samples.seconds()), dropped: true },
            };
            if entry.wrong.is_none() && samples.last_round() == last {
                self.alive.push(ActiveCandidate { index: self.entrants.len(), bench: None });
            }
            let result = CandidateResult {
                checked: entry.checked,
                multiply_adds: self.kernel(choice.row).multiply_adds(self.problem, &choice.tuning),
                choice,
                versus: None,
                disturbed: history.disturbed(number),
                outcome,
            };
            self.runs.runs += samples.len();
            self.runs.disturbed += result.disturbed;
            self.entrants.push(Entrant { result, samples, number });
        }
        self.journal.history = history;
        !stale
    }

    /// The choice of a candidate of the log, if its kernel still is what it was.
    fn known(&self, entry: &LoggedCandidate) -> Option<Choice> {
        let SupportedKernel { row, kernel } = self.kernels.iter().find(|k| k.row.id == entry.id.kernel)?;
        let offered = kernel.tunings(self.problem);
        let tuning = offered.into_iter().find(|tuning| tuning_to_json(tuning) == entry.id.tuning)?;
        let offered = self.types.formats(&**kernel, self.problem, &tuning);
        let formats = offered.into_iter().find(|formats| StepFormats::of(formats) == entry.id.formats)?;
        (entry.code == row.code()).then_some(Choice { row, tuning, formats })
    }

    /// Lets the best of each row in again that is not much slower than the fastest: those that it
    /// was dropped for may be gone, or have been measured in another time.
    pub fn revive(&mut self) {
        let best: Vec<usize> =
            self.kernels.iter().flat_map(|kernel| self.best(kernel.row, POLICY.race.revived)).collect();
        let seconds = |race: &Self, index: usize| race.entrants[index].result.seconds();
        let least = best.iter().map(|&index| seconds(self, index)).fold(f64::INFINITY, f64::min);
        for index in best {
            if seconds(self, index) <= POLICY.race.revived_ratio * least {
                self.let_in(index);
            }
        }
    }

    /// Prepares candidates, checks them, and lets those that are right in.
    pub fn enter(&mut self, choices: Vec<Choice>) {
        let prepared = self.prepared(&choices);
        let (first, mut new) = (self.journal.history.candidates.len(), Vec::new());
        for (choice, prepared) in choices.into_iter().zip(prepared) {
            let prepared = match prepared {
                Ok(prepared) => prepared,
                Err(refusal) => {
                    let reason = format!("{}: {refusal}", choice.tuning);
                    self.left_out.push(Excluded { id: choice.row.id, reason });
                    continue;
                }
            };
            let mut bench = self.bench(prepared, &choice.formats);
            let result = self.check(choice, &mut bench);
            if result.timing().is_some() {
                self.alive.push(ActiveCandidate { index: self.entrants.len(), bench: Some(bench) });
            }
            let entry = log_entry(&result);
            let known = self.forgotten.iter().position(|(_, known)| known.is_same(&entry));
            let number = known.map(|at| self.forgotten.swap_remove(at).0).unwrap_or_else(|| {
                new.push(entry);
                first + new.len() - 1
            });
            self.entrants.push(Entrant { result, samples: Samples::default(), number });
        }
        if !new.is_empty() {
            self.journal.candidates(new);
        }
    }

    /// Runs a candidate once and compares its results with the oracle's.
    fn check(&mut self, choice: Choice, bench: &mut Bench) -> CandidateResult {
        let threads = self.host.threads;
        let seconds = bench.run(threads, &mut self.context).seconds;
        let kernel = self.kernel(choice.row);
        let verdict = self.oracle.judge(bench, &kernel.numerics(self.problem, &choice.tuning));
        let [packed, scratch] = bench.bytes(threads.count());
        let (rel_error, rms_error) = (verdict.given.relative(), verdict.given.rms);
        CandidateResult {
            checked: Checked { rel_error, rms_error, packed, scratch },
            multiply_adds: kernel.multiply_adds(self.problem, &choice.tuning),
            choice,
            versus: None,
            disturbed: 0,
            outcome: if verdict.holds() {
                Outcome::Timed { timing: Timing::of(&[seconds]), dropped: false }
            } else {
                let Comparison { error, tolerance, .. } = verdict.nearer();
                Outcome::Wrong { error, tolerance }
            },
        }
    }

    fn kernel(&self, row: &KernelEntry) -> &'a dyn Kernel {
        let of_row = self.kernels.iter().find(|k| k.row.id == row.id);
        &*of_row.expect("candidates are of kernels that take the problem").kernel
    }

    fn prepared<'c>(&'c self, choices: &'c [Choice]) -> Vec<Result<Box<dyn Prepared>, Unsupported>> {
        let job = |choice: &'c Choice| {
            (self.kernel(choice.row), choice, &self.oracle.inputs(&choice.formats).filters[..])
        };
        let (problem, jobs): (_, Vec<_>) = (self.problem, choices.iter().map(job).collect());
        let threads = self.host.threads;
        threads.map(&jobs, |(kernel, c, filters)| kernel.prepare(problem, &c.tuning, &c.formats, filters))
    }

    /// To time what was prepared; all in the same format share a source.
    fn bench(&mut self, prepared: Box<dyn Prepared>, formats: &Formats) -> Bench {
        let own = (formats.src, formats.dst.dtype);
        let known = self.sources.iter().find(|(src, dst, _)| (*src, *dst) == own);
        let src = known.map(|(.., src)| Arc::clone(src)).unwrap_or_else(|| {
            let values = &self.oracle.inputs(formats).src;
            let src = Bench::source(prepared.signature().src, &formats.src, values);
            self.sources.push((own.0, own.1, Arc::clone(&src)));
            src
        });
        Bench::new(prepared, formats, src, self.host.cold)
    }

    /// Prepares those of the log that are about to run; one that is refused now is out.
    fn prepare(&mut self) {
        let is_waiting = |active: &ActiveCandidate| active.bench.is_none();
        let waiting = self.alive.iter().filter(|active| is_waiting(active));
        let choices: Vec<Choice> = waiting.map(|a| self.entrants[a.index].result.choice.clone()).collect();
        let prepared = choices.iter().zip(self.prepared(&choices));
        let mut alive = std::mem::take(&mut self.alive);
        for (active, (choice, prepared)) in alive.iter_mut().filter(|a| is_waiting(a)).zip(prepared) {
            active.bench = prepared.ok().map(|prepared| self.bench(prepared, &choice.formats));
        }
        alive.retain(|active| !is_waiting(active));
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
        let round = self.journal.history.last_round + 1;
        shuffle(&mut self.alive, round as u64);
        // No more than one where most are disturbed all the same.
        let tries = if self.runs.is_busy(0.5) { 1 } else { POLICY.contention.tries };
        let active = self.alive.iter_mut().filter_map(|active| Some((active.index, active.bench.as_mut()?)));
        let (indices, mut benches): (Vec<usize>, Vec<&mut Bench>) = active.unzip();
        let results = each_in_turn(&mut benches, tries, threads, &mut self.context);
        let mut times = Vec::with_capacity(indices.len());
        for (index, run) in indices.into_iter().zip(results) {
            let Entrant { result, samples, number } = &mut self.entrants[index];
            let time = Time::new(*number, run.seconds, run.disturbed);
            samples.push(round, time.seconds());
            result.disturbed += usize::from(run.disturbed);
            self.runs.add(run);
            times.push(time);
        }
        self.conditions.add_core_to_core(core_to_core);
        self.journal.round(times, core_to_core);
    }

    /// Times all that are left once, and drops the clear losers.
    pub fn round(&mut self) {
        self.time();
        let tie = self.host.tie;
        self.drop(|Entrant { result, samples, .. }, leader| {
            match POLICY.race.drop.iter().rev().find(|(after, _)| samples.len() >= *after) {
                _ if POLICY.race.decide.contains(&samples.len()) => {
                    samples.ratio(leader).is_some_and(|ratio| ratio.low > 1.0 + tie)
                }
                // The run that it was checked by too: a host may stop one for milliseconds, and
                // nothing shows it.
                Some((_, factor)) if samples.len() < POLICY.race.decide[0] => {
                    let checked = result.timing().map_or(f64::INFINITY, |timing| timing.fastest);
                    samples.fastest().min(checked) > leader.median() * factor
                }
                _ => false,
            }
        });
        self.limit();
    }

    /// Rounds until the time is over or each leader has had all of its own, those of the log among
    /// them; whether it has.
    pub fn rounds(&mut self, effort: MeasureBudget, progress: StageProgress) -> bool {
        let had = self.leaders().into_iter().map(|(_, leader)| self.entrants[leader].samples.len());
        let before = had.min().unwrap_or(0);
        let most = effort.rounds.saturating_sub(before).max(POLICY.race.least_rounds);
        let MeasureContext { threads, distance, .. } = *self.host;
        let (count, first) = ([POLICY.race.least_rounds, most], self.journal.history.last_round);
        Rounds { threads, distance, progress, count, time: effort.budget, end: effort.deadline }
            .run(|_| self.round());
        let complete = self.journal.history.last_round - first == most;
        self.conclude();
        if self.reinstate() {
            (0..POLICY.race.decide[0]).for_each(|_| self.round());
            self.conclude();
        }
        complete
    }

    /// The ratio of the times of two in new rounds of all that are left.
    pub fn duel(&mut self, pair: [usize; 2], rounds: usize) -> Option<Interval> {
        let from = self.journal.history.last_round;
        pair.into_iter().for_each(|index| self.let_in(index));
        (0..rounds).for_each(|_| self.time());
        let [a, b] = pair.map(|index| self.entrants[index].samples.since(from));
        a.ratio(&b)
    }

    /// Lets the fastest tunings of each row in once more, in their other formats.
    pub fn enter_others(&mut self) {
        let mut others: Vec<Choice> = Vec::new();
        for SupportedKernel { row, kernel } in self.kernels {
            let mut tunings: Vec<&Tuning> = Vec::new();
            for index in self.best(row, usize::MAX) {
                let tuning = &self.entrants[index].result.choice.tuning;
                if !tunings.contains(&tuning) && tunings.len() < POLICY.race.finalists {
                    tunings.push(tuning);
                }
            }
            let choices = tunings.into_iter().flat_map(|tuning| {
                let formats = self.types.formats(&**kernel, self.problem, tuning).into_iter();
                formats.map(|formats| Choice { row, tuning: tuning.clone(), formats })
            });
            others.extend(choices.filter(|choice| !self.results().any(|c| c.choice == *choice)));
        }
        if !others.is_empty() {
            self.enter(others);
        }
    }

    pub fn into_measurement(self, (search, exhausted): (SearchRecord, Duration)) -> ProblemResult {
        ProblemResult {
            problem: self.problem.clone(),
            candidates: self.entrants.into_iter().map(|entrant| entrant.result).collect(),
            left_out: self.left_out,
            tie: self.host.tie,
            search,
            exhausted,
            conditions: self.conditions,
            history: self.journal.history,
        }
    }

    /// The fastest candidates of a row, by their numbers.
    fn best(&self, row: &KernelEntry, count: usize) -> Vec<usize> {
        let all = self.results().enumerate();
        let mut timed: Vec<(usize, f64)> = all
            .filter(|(_, c)| c.choice.row.id == row.id && c.timing().is_some())
            .map(|(index, c)| (index, c.seconds()))
            .collect();
        timed.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        timed.into_iter().take(count).map(|(index, _)| index).collect()
    }

    pub fn results(&self) -> impl Iterator<Item = &CandidateResult> {
        self.entrants.iter().map(|entrant| &entrant.result)
    }
}

/// A candidate that was just checked, for the log.
fn log_entry(candidate: &CandidateResult) -> LoggedCandidate {
    LoggedCandidate {
        id: candidate.choice.id(),
        code: candidate.choice.row.code().to_string(),
        checked: candidate.checked,
        wrong: match candidate.outcome {
            Outcome::Wrong { error, tolerance } => Some([error, tolerance]),
            Outcome::Timed { .. } => None,
        },
    }
}
