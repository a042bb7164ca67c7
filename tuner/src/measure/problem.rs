//! Measures the candidates of one problem: checked against the oracle first, then timed in
//! shuffled, interleaved rounds, the clear losers dropped early.

use std::time::Duration;

use engine::network::{Excluded, Precision, SupportedKernel, available};
use engine::plan::SearchRecord;
use kernels::{Problem, Team};

use crate::bench::{Inputs, POLICY, StageProgress};
use crate::log::History;
use crate::measure::race::Race;
use crate::measure::types::{MeasureBudget, MeasureContext, ProblemResult};

/// Checks and times candidates of a problem of the given types: tunings in their kernel's first
/// formats, found by a walk, then the best ones in the others, together with those that were not
/// dropped. It goes on from `before`, or from the log, where all is taken as it is that had as
/// large a share of the budget; but of a problem that was measured at high latency in more than
/// a tenth of the rounds, only the other rounds count, if the latency is low now.
pub fn measure(
    problem: &Problem,
    host: &MeasureContext,
    types: Precision,
    effort: MeasureBudget,
    before: Option<ProblemResult>,
    progress: StageProgress,
) -> ProblemResult {
    // Far rounds are forgotten only when nearer ones can follow.
    let was_far = before.as_ref().is_some_and(|before| before.conditions.is_far(host.distance));
    let is_anew = was_far && host.distance.is_near(host.threads, &mut Team::new(host.threads.count()));
    let is_done = |history: &History| history.done.is_some_and(|d| d.is_enough(effort.share.as_secs_f64()));
    let (history, conditions, refused) = match before {
        Some(before) if !is_anew && is_done(&before.history) => return before,
        Some(ProblemResult { mut history, left_out, .. }) if is_anew => {
            history.keep_near(host.distance.nearest_s().map(|seconds| seconds * 1e9));
            (Some(history), None, left_out)
        }
        Some(before) => (Some(before.history), Some(before.conditions), before.left_out),
        None => (host.log.and_then(|log| log.history(problem)).cloned(), None, Vec::new()),
    };
    let is_done = history.as_ref().is_some_and(is_done);
    let (kernels, left_out) = available(host.cpu, problem);
    let inputs = Inputs::synthetic(problem);
    let mut race = Race::new(problem, host, types, (&kernels, left_out), &inputs);
    race.conditions = conditions.unwrap_or(race.conditions);
    race.sample_peaks();
    let holds = history.is_some_and(|history| race.restore(history));
    let search = if holds && is_done {
        race.conclude();
        (race.search(), Duration::ZERO)
    } else {
        timed_search(&mut race, effort, progress)
    };
    exclude(&mut race, refused);
    race.into_measurement(search)
}

/// Checks and times candidates of some kernels, without a log: all tunings for which there is time.
pub fn measure_kernels(
    problem: &Problem,
    host: &MeasureContext,
    types: Precision,
    (kernels, left_out): (&[SupportedKernel], Vec<Excluded>),
    effort: MeasureBudget,
    progress: StageProgress,
) -> ProblemResult {
    let inputs = Inputs::synthetic(problem);
    let mut race = Race::new(problem, host, types, (kernels, left_out), &inputs);
    race.sample_peaks();
    let search = timed_search(&mut race, effort, progress);
    exclude(&mut race, Vec::new());
    race.into_measurement(search)
}

/// Finds tunings by a walk, and times the best in rounds.
fn timed_search(race: &mut Race, effort: MeasureBudget, progress: StageProgress) -> (SearchRecord, Duration) {
    let clock = race.host.distance.clock();
    race.revive();
    let mut complete = race.walk(effort.budget.mul_f64(POLICY.race.search_share), effort.deadline);
    let effort = MeasureBudget { budget: effort.budget.saturating_sub(clock()), ..effort };
    if race.types == Precision::F32 {
        complete &= race.rounds(effort, progress);
    } else {
        let part = |share| MeasureBudget { budget: effort.budget.mul_f64(share), ..effort };
        let first = POLICY.race.first_formats_share;
        complete &= race.rounds(part(first), progress.part(0.0, first));
        race.enter_others();
        complete &= race.rounds(part(1.0 - first), progress.part(first, 1.0));
    }
    let search = if effort.exhaustive { race.exhaust() } else { (race.search(), Duration::ZERO) };
    race.journal.done(effort.share, complete && effort.rounds >= POLICY.race.rounds);
    search
}

/// Keeps the earlier refusals, and gives a reason to each kernel without a candidate.
fn exclude(race: &mut Race, mut refused: Vec<Excluded>) {
    refused.retain(|refused| !race.left_out.contains(refused));
    race.left_out.extend(refused);
    for SupportedKernel { row, .. } in race.kernels {
        let is_there = race.results().any(|c| c.choice.row.id == row.id);
        if !is_there && !race.left_out.iter().any(|excluded| excluded.id == row.id) {
            let reason = "rounds to a lower precision, which is not asked for".to_string();
            race.left_out.push(Excluded { id: row.id, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use engine::plan::WeightResidency;
    use engine::runtime::Threads;
    use kernels::Cpu;

    use super::*;
    use crate::bench::progress::Silent;
    use crate::bench::{Conditions, CoreDistanceMonitor, Stage};

    #[test]
    fn what_was_far_is_measured_anew_under_its_numbers() {
        let threads = Threads::new(1).expect("a thread");
        let cpu = Cpu::detect();
        let problem = Problem::Conv("n1h5w5c8k8r3s3".parse().expect("a shape"));
        let distance = CoreDistanceMonitor::default();
        let host = MeasureContext {
            cpu: &cpu,
            threads: &threads,
            distance: &distance,
            tie: 0.01,
            cold: WeightResidency::Dram,
            log: None,
            progress: &Silent,
        };
        let progress = StageProgress::new(&Silent, Stage::Candidates);
        let second = Duration::from_secs(1);
        let effort = MeasureBudget {
            budget: second / 10,
            share: second,
            deadline: Instant::now() + 600 * second,
            rounds: 4,
            exhaustive: false,
        };
        let measured =
            |before| threads.install(|| measure(&problem, &host, Precision::F32, effort, before, progress));
        let first = measured(None);
        assert!(first.history.rounds.iter().map(|round| round.number).eq(1..=first.history.last_round));
        let count = first.history.candidates.len();
        assert_eq!(first.candidates.len(), count);

        // As if all but the last round had been at high latency.
        let last = first.history.last_round;
        let mut far = History { done: None, ..first.history.clone() };
        let mut conditions = Conditions::default();
        for round in &mut far.rounds {
            let ns = if round.number < last { 190.0 } else { 20.0 };
            round.core_to_core_ns = Some(ns);
            conditions.add_core_to_core(Some(ns * 1e-9));
        }
        distance.known(20e-9);
        let again = measured(Some(ProblemResult { history: far, conditions, ..first }));
        let rounds: Vec<usize> = again.history.rounds.iter().map(|round| round.number).collect();
        assert_eq!((rounds[0], rounds[1]), (last, last + 1));
        // Those that are measured again have their numbers again.
        let entries = &again.history.candidates;
        let twin = |one: usize| (0..one).any(|other| entries[one].is_same(&entries[other]));
        assert!(entries.len() >= count && !(0..entries.len()).any(twin));
        assert_eq!(again.candidates.len(), entries.len());
    }
}
