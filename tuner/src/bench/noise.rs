//! By how much two series of times of one kernel differ on this machine now.

use engine::network::default_choice;
use engine::plan::{Noise, WeightResidency};
use engine::runtime::Threads;
use engine::util::{median, ratio};
use kernels::{Cpu, Problem};

use crate::bench::core_distance::CoreDistanceMonitor;
use crate::bench::inputs::Inputs;
use crate::bench::policy::POLICY;
use crate::bench::progress::StageProgress;
use crate::bench::rounds::Rounds;
use crate::bench::timer::{Bench, BenchContext, in_turn};

/// What is taken for a tie where the noise floor is so high.
pub fn tie(floor: f64) -> f64 {
    floor.clamp(POLICY.noise.least_tie, POLICY.noise.widest_tie)
}

/// Whether others had the cores for more than goes unnoticed while something was measured.
pub fn is_busy(noise: &Noise) -> bool {
    let others = noise.load.map_or(0.0, |load| load.meanwhile());
    let shares = [noise.disturbed, noise.disturbed_networks.unwrap_or(0.0), noise.steal_share, others];
    shares.iter().any(|&share| share > POLICY.contention.busy_share)
}

/// The noise floor: how far from 1 the median ratio of a kernel to a copy of itself may be, in 95
/// of 100 cases; the median over some of the convolutions, 0 if there are none.
pub fn floor(
    mut problems: Vec<Problem>,
    cpu: &Cpu,
    threads: &Threads,
    cold: WeightResidency,
    progress: StageProgress,
) -> f64 {
    problems.retain(|problem| matches!(problem, Problem::Conv(_)));
    problems.sort_by_key(Problem::flops);
    let some = POLICY.noise.problems.min(problems.len());
    let of = |i: usize| {
        let problem = &problems[(2 * i + 1) * problems.len() / (2 * some)];
        let part = progress.part(i as f64 / some as f64, (i + 1) as f64 / some as f64);
        let count = POLICY.pair_warm_up + POLICY.noise.rounds;
        // Waiting for near cores is left to what decides.
        let distance = CoreDistanceMonitor::default();
        of_problem(problem, cpu, cold, &Rounds::exactly(count, threads, &distance, part))
    };
    let floors: Vec<f64> = (0..some).filter_map(of).collect();
    progress.ended();
    median(&floors).unwrap_or(0.0)
}

fn of_problem(problem: &Problem, cpu: &Cpu, cold: WeightResidency, rounds: &Rounds) -> Option<f64> {
    let choice = default_choice(problem, cpu);
    let inputs = Inputs::synthetic(problem);
    let bench = || Bench::of(problem, &choice, &inputs, cpu, cold).ok();
    let (mut benches, mut place) = ([bench()?, bench()?], BenchContext::new(rounds.threads, cpu));
    let samples = in_turn(&mut benches, rounds, &mut place);
    let ratio = ratio(&samples[0], &samples[1])?;
    Some((ratio.high - 1.0).max(1.0 - ratio.low))
}
