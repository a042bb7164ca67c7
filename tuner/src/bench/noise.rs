//! How far apart this machine's times of the same thing are now: one kernel against a copy of itself.

use engine::network::candidates::default_choice;
use engine::plan::records::WeightResidency;
use engine::runtime::threads::Threads;
use engine::util::stats::{median, ratio};
use kernels::cpu::Cpu;
use kernels::problem::Problem;

use crate::bench::inputs::Inputs;
use crate::bench::timer::{Bench, BenchContext, in_turn};

/// Problems that are measured: a small, a middling and a large one.
const PROBLEMS: usize = 3;

/// Runs of each of the two.
const ROUNDS: usize = 24;

/// Times closer than this are one even on the quietest machine.
const LEAST: f64 = 0.01;

/// Times further apart than this are not ties even on the noisiest: what is settled by memory would cost as much.
const MOST: f64 = 0.02;

/// What is taken for a tie where the noise floor is so high.
pub fn tie(floor: f64) -> f64 {
    floor.clamp(LEAST, MOST)
}

/// The noise floor: how far from 1 the median ratio of a kernel to a copy of itself may be, in 95 of 100
/// cases; the median over some of the convolutions, 0 if there are none.
pub fn floor(mut problems: Vec<Problem>, cpu: &Cpu, threads: &Threads, cold: WeightResidency) -> f64 {
    problems.retain(|problem| matches!(problem, Problem::Conv(_)));
    problems.sort_by_key(Problem::flops);
    let some = PROBLEMS.min(problems.len());
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
    let samples = in_turn(&mut benches, ROUNDS, threads, &mut place);
    let ratio = ratio(&samples[0], &samples[1])?;
    Some((ratio.high - 1.0).max(1.0 - ratio.low))
}
