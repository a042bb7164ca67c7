//! Measures all problems within a budget.

use std::collections::HashSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use engine::network::{Graph, Precision, Step, block_variant};
use kernels::Problem;

use crate::bench::{POLICY, Stage, StageProgress};
use crate::measure::problem::measure;
use crate::measure::types::{MeasureBudget, MeasureContext, ProblemResult};

pub struct Job {
    pub problem: Problem,
    /// How many steps have it.
    pub count: usize,
    /// The first of them.
    pub name: String,
}

/// Every distinct problem of graphs and of the other forms of their blocks.
pub fn jobs(graphs: &[Graph]) -> Vec<Job> {
    let mut seen = HashSet::new();
    let job = |(problem, steps): (Problem, Vec<Step>)| Job {
        problem,
        count: steps.len(),
        name: steps[0].layers[0].clone(),
    };
    let all = graphs.iter().flat_map(block_variant::problems).map(job);
    all.filter(|job| seen.insert(job.problem.to_string())).collect()
}

/// Measures problems, giving each a share, by its work, of the time since the start; trying what
/// the search has left out, if that is asked for, is not part of it. Where there is time, each is
/// visited twice, 18 to 42 seconds apart in the default budget: what disturbs for a second or two,
/// and does not show, spoils no more than one of two visits.
pub fn measure_all(
    jobs: &[Job],
    host: &MeasureContext,
    types: Precision,
    (start, time): (Instant, Duration),
    exhaustive: bool,
) -> Vec<ProblemResult> {
    let weights: Vec<f64> = jobs.iter().map(|job| weight(&job.problem, job.count)).collect();
    let total: f64 = weights.iter().sum();
    let stage = StageProgress::new(host.progress, Stage::Candidates);
    let mut list: Vec<Option<ProblemResult>> = jobs.iter().map(|_| None).collect();
    // Visits problems, each with its weight in this, in that part of the time; who has been
    // visited, only if some is left.
    let visit = |list: &mut [Option<ProblemResult>], visits: &[(usize, f64)], part: Range<f64>| {
        let mut deadline = start + time.mul_f64(part.end);
        let all: f64 = visits.iter().map(|(_, own)| own).sum();
        let mut left = all;
        for &(index, own) in visits {
            let Job { problem, name, .. } = &jobs[index];
            let time_left = deadline.saturating_duration_since(Instant::now());
            let exhaustive = exhaustive && part.end == 1.0;
            if time_left.is_zero() && list[index].is_some() && !exhaustive {
                continue;
            }
            // What is left behind is for the other problems, wherever the cores are.
            host.distance.wait_until(Instant::now() + time_left / 2);
            let effort = MeasureBudget {
                budget: time_left.mul_f64((own / left).min(1.0)),
                share: time.mul_f64(part.end * weights[index] / total),
                deadline,
                rounds: if part.end == 1.0 { POLICY.race.rounds } else { POLICY.race.rounds / 2 },
                exhaustive,
            };
            let progress = stage.part(part.start, part.end).part(1.0 - left / all, 1.0 - (left - own) / all);
            let before = list[index].take();
            let measurement = measure(problem, host, types, effort, before, progress.detail(name));
            deadline += measurement.exhausted;
            list[index] = Some(measurement);
            left -= own;
        }
    };
    let is_twice = time.as_secs_f64() >= POLICY.schedule.twice_s * jobs.len() as f64;
    let first = if is_twice { POLICY.schedule.first_share } else { 1.0 };
    let all: Vec<(usize, f64)> = weights.iter().copied().enumerate().collect();
    visit(&mut list, &all, 0.0..first);
    let is_far = |measurement: &ProblemResult| measurement.conditions.is_far(host.distance);
    let is_far: Vec<bool> = list.iter().map(|measured| measured.as_ref().is_some_and(is_far)).collect();
    visit(&mut list, &second_visits(all, &is_far, is_twice), first..1.0);
    stage.ended();
    list.into_iter().flatten().collect()
}

/// The problems of the first visits that have a second, with their weights: those that were
/// measured at high latency come first and weigh more, and where there is little time they are
/// all.
fn second_visits(mut visits: Vec<(usize, f64)>, is_far: &[bool], is_twice: bool) -> Vec<(usize, f64)> {
    for (_, weight) in visits.iter_mut().filter(|(index, _)| is_far[*index]) {
        *weight *= POLICY.schedule.again_weight;
    }
    visits.sort_by_key(|(index, _)| !is_far[*index]);
    visits.retain(|(index, _)| is_twice || is_far[*index]);
    visits
}

/// Share of a problem in the budget: its work, and something for having candidates at all.
fn weight(problem: &Problem, steps: usize) -> f64 {
    let work = problem.flops() as f64 * (steps as f64).sqrt();
    match problem {
        Problem::Conv(_) => work + 5e7,
        _ => 10.0 * work + 1e6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_far_apart_is_visited_again_first_and_longer() {
        let visits = vec![(0, 1.0), (1, 2.0), (2, 4.0)];
        let of = |is_far: [bool; 3], is_twice| second_visits(visits.clone(), &is_far, is_twice);
        assert_eq!(of([false; 3], true), visits);
        assert_eq!(of([false; 3], false), []);
        assert_eq!(of([false, true, false], true), [(1, 6.0), (0, 1.0), (2, 4.0)]);
        assert_eq!(of([true, false, true], false), [(0, 3.0), (2, 12.0)]);
    }
}
