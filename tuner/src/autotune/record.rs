//! What was measured and chosen, as a plan states it.

use engine::network::{BlockVariant, Excluded};
use engine::plan::{
    Alternative, BlockVariantRecord, CandidateOutcome, CandidateRecord, InNetwork, PlanStep, ProblemRecord,
    RunnerUp, StepReason, VariantReason, time_us,
};
use engine::util::{Timing, us};
use kernels::{Cpu, Problem};
use serde_json::Value;

use crate::measure::{CandidateResult, Outcome, ProblemResult, of_step, widest_tie};
use crate::planner::{BlockChoice, Chosen, RULES, Rule, is_eligible, is_f32};

/// Of a problem that is taken so many times.
pub fn gflops(problem: &Problem, turns: usize, timing: &Timing) -> f64 {
    (problem.flops() * turns as u64) as f64 / timing.median / 1e9
}

/// The fastest other candidate of the same types, and its time in the network or else isolated.
pub fn runner_up<'a>(
    chosen: &Chosen<'a>,
    step: usize,
    measurement: &'a ProblemResult,
) -> Option<(&'a CandidateResult, Timing)> {
    let won = chosen.winners[step]?;
    let in_network = chosen.in_network[step].iter().filter(|(c, _)| c.choice != won.choice);
    if let Some(second) = in_network.min_by(|(_, a), (_, b)| a.median.total_cmp(&b.median)) {
        return Some(*second);
    }
    let other = |c: &&CandidateResult| is_eligible(c) && c.types() == won.types() && c.choice != won.choice;
    let second = measurement.ranking().into_iter().find(other)?;
    // Both isolated, scaled by the winner's time in the network.
    let factor = chosen.timing(step)?.median / won.timing()?.median;
    Some((second, second.timing()?.scaled(factor)))
}

/// By how much the slower takes longer.
fn percent(slower: &Timing, faster: &Timing) -> f64 {
    (slower.median / faster.median - 1.0) * 100.0
}

/// That a choice is faster than another by more than a tie; none where it is not.
pub fn lead(own: &Timing, other: &Timing, tie: f64) -> Option<StepReason> {
    let percent = percent(other, own);
    (percent > tie * 100.0).then_some(StepReason::Faster { percent })
}

pub fn plan_step(
    index: usize,
    chosen: &Chosen,
    measurements: &[ProblemResult],
    cpu: &Cpu,
    threads: usize,
) -> PlanStep {
    let graph = chosen.session.graph();
    let step = &graph.steps[index];
    let (choice, won) = (&chosen.choices[index], chosen.winners[index]);
    let measurement = of_step(measurements, step);
    let turns = graph.repeats(index);
    let timing = chosen.timing(index);
    let second = measurement.and_then(|measurement| runner_up(chosen, index, measurement));
    let is_timed_there = chosen.in_network[index].len() > 1;
    let tie = if is_timed_there { widest_tie(measurements) } else { measurement.map_or(0.0, |m| m.tie) };
    let reason = match (timing, second) {
        (Some(own), Some((second, other))) if own.median > other.median * (1.0 + tie) => StepReason::Slower {
            percent: percent(&own, &other),
            us: Some(us(own.median - other.median)),
            saved_bytes: won.map(|won| second.bytes() as i64 - won.bytes() as i64),
        },
        (Some(own), Some((_, other))) => lead(&own, &other, tie).unwrap_or(StepReason::Tie),
        (Some(_), None) => StepReason::Only,
        (None, _) => StepReason::NotMeasured,
    };
    let timed = |(c, t): &(&CandidateResult, Timing)| InNetwork { id: c.choice.id(), time_us: time_us(t) };
    let step_threads = if graph.is_per_worker(index) { 1 } else { threads };
    PlanStep {
        repeats: turns,
        time_us: timing.as_ref().map(time_us),
        isolated_us: won.and_then(CandidateResult::timing).map(|t| us(t.median * turns as f64)),
        in_network: chosen.in_network[index].iter().map(timed).collect(),
        rel_error: won.map(|c| c.checked.rel_error),
        gflops: timing.map(|t| gflops(&step.problem, turns, &t)),
        multiply_adds: Some(choice.multiply_adds(&step.problem, cpu) * turns as u64),
        runner_up: second.map(|(c, timing)| RunnerUp { id: c.choice.id(), time_us: us(timing.median) }),
        reason,
        ..PlanStep::unmeasured(step, choice, step_threads)
    }
}

pub fn record(measurement: &ProblemResult) -> ProblemRecord {
    let wrong = measurement.candidates.iter().filter(|c| c.timing().is_none());
    let candidate = |c: &CandidateResult| CandidateRecord {
        id: c.choice.id(),
        time_us: c.timing().as_ref().map(time_us),
        samples: c.timing().map_or(0, |t| t.samples),
        ratio_ci95: c.versus.map(|v| [v.value, v.low, v.high]),
        disturbed: c.disturbed,
        rel_error: c.checked.rel_error,
        rms_error: Some(c.checked.rms_error),
        bytes: c.bytes(),
        multiply_adds: c.multiply_adds,
        outcome: match c.outcome {
            Outcome::Timed { dropped: false, .. } => CandidateOutcome::Measured,
            Outcome::Timed { dropped: true, .. } => CandidateOutcome::DroppedEarly,
            Outcome::Wrong { error, tolerance } => {
                let number = |value: f64| Some(value).filter(|value| value.is_finite());
                CandidateOutcome::Wrong { error: number(error), tolerance: number(tolerance) }
            }
        },
    };
    let ranking = measurement.ranking();
    let number = |rule: &Rule| {
        let own = rule.pick(measurement, is_f32)?;
        let place = ranking.iter().position(|c| c.choice == own.choice)?;
        Some((rule.name.to_string(), place))
    };
    let excluded = |row: &Excluded| (row.id.to_string(), Value::from(row.reason.as_str()));
    ProblemRecord {
        problem: measurement.problem.to_string(),
        rules: RULES.iter().filter_map(number).collect(),
        candidates: ranking.iter().copied().chain(wrong).map(candidate).collect(),
        excluded: measurement.left_out.iter().map(excluded).collect(),
        conditions: measurement.conditions.record(),
        search: Some(measurement.search),
    }
}

pub fn block_variant_record(choice: &BlockChoice) -> BlockVariantRecord {
    let alternative = |(rewrite, cost): &(BlockVariant, Option<f64>)| Alternative {
        variant: rewrite.to_string(),
        time_us: cost.map(us),
    };
    let mut record = BlockVariantRecord {
        block: choice.block.to_string(),
        variant: choice.variant.to_string(),
        alternatives: choice.costs.iter().map(alternative).collect(),
        reason: VariantReason::NotMeasured,
    };
    record.reason = match record.gain_us() {
        Some([plain, own]) if choice.variant != BlockVariant::PLAIN => {
            VariantReason::Saves { percent: (1.0 - own / plain) * 100.0 }
        }
        Some(_) => VariantReason::Tie,
        None => VariantReason::NotMeasured,
    };
    record
}
