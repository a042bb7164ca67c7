//! How far apart this machine's times of the same thing are now: one kernel against a copy of itself.

use engine::network::default_choice;
use engine::plan::WeightResidency;
use engine::runtime::Threads;
use engine::util::{median, ratio};
use kernels::{Cpu, Problem};

use crate::bench::inputs::Inputs;
use crate::bench::policy::POLICY;
use crate::bench::timer::{Bench, BenchContext, in_turn};

/// What is taken for a tie where the noise floor is so high.
pub fn tie(floor: f64) -> f64 {
    floor.clamp(POLICY.noise.least_tie, POLICY.noise.widest_tie)
}

/// The noise floor: how far from 1 the median ratio of a kernel to a copy of itself may be, in 95 of 100
/// cases; the median over some of the convolutions, 0 if there are none.
pub fn floor(mut problems: Vec<Problem>, cpu: &Cpu, threads: &Threads, cold: WeightResidency) -> f64 {
    problems.retain(|problem| matches!(problem, Problem::Conv(_)));
    problems.sort_by_key(Problem::flops);
    let some = POLICY.noise.problems.min(problems.len());
    let floors: Vec<f64> = (0..some)
        .filter_map(|i| of_problem(&problems[(2 * i + 1) * problems.len() / (2 * some)], cpu, threads, cold))
        .collect();
    median(&floors).unwrap_or(0.0)
}

fn of_problem(problem: &Problem, cpu: &Cpu, threads: &Threads, cold: WeightResidency) -> Option<f64> {
    let choice = default_choice(problem, cpu);
    let inputs = Inputs::synthetic(problem);
    let bench = || Bench::of(problem, &choice, &inputs, cpu, cold).ok();
    let (mut benches, mut place) = ([bench()?, bench()?], BenchContext::new(threads, cpu));
    let samples = in_turn(&mut benches, POLICY.noise.rounds, threads, &mut place);
    let ratio = ratio(&samples[0], &samples[1])?;
    Some((ratio.high - 1.0).max(1.0 - ratio.low))
}
