//! Whole networks, run in turn.

use std::time::Instant;

use engine::runtime::{PreparedNetwork, StepSeconds};
use engine::util::{Timing, median, ratio};

use crate::bench::{POLICY, RunCount, RunQueueMonitor, Stage};
use crate::planner::context::{Network, built_in_images};

pub struct NetworkTime {
    /// Of an inference.
    pub timing: Timing,
    /// Seconds of its steps: medians, or the least where others use the cores.
    pub steps: Vec<f64>,
    /// The same of the waiting behind each step ([`PreparedNetwork::seconds`]).
    pub waits: Vec<f64>,
    /// Core-to-core latency in seconds at all turns of the comparison, the median.
    pub core_to_core: Option<f64>,
}

/// A network with what was measured of it.
struct Series<'a> {
    session: &'a mut PreparedNetwork,
    /// Seconds of its runs.
    runs: Vec<f64>,
    /// The median of each round.
    rounds: Vec<f64>,
    /// Of each step, its seconds and those of the waiting behind it, run by run.
    steps: [Vec<Vec<f64>>; 2],
}

impl<'a> Series<'a> {
    fn new(session: &'a mut PreparedNetwork) -> Self {
        let steps = [(); 2].map(|()| vec![Vec::new(); session.graph().steps.len()]);
        Self { session, runs: Vec::new(), rounds: Vec::new(), steps }
    }

    /// Its times, a round's share of the first network's: `factor` times what was measured.
    fn time(&self, factor: f64, is_busy: bool, core_to_core: Option<f64>) -> NetworkTime {
        let typical = |samples: &Vec<f64>| match is_busy {
            true => samples.iter().copied().reduce(f64::min),
            false => median(samples),
        };
        let scaled = |samples: &Vec<f64>| typical(samples).map(|seconds| seconds * factor);
        let [steps, waits] = self.steps.each_ref().map(|lists| lists.iter().filter_map(scaled).collect());
        NetworkTime { timing: Timing::of(&self.runs).scaled(factor), steps, waits, core_to_core }
    }

    /// Its turn in a round: runs to warm up, then runs that count.
    fn turn(&mut self, network: &Network, images: &[f32], monitor: &RunQueueMonitor, count: &mut RunCount) {
        let policy = &POLICY.networks;
        let run = |session: &mut PreparedNetwork| {
            monitor.sample(|| {
                let start = Instant::now();
                session.run(network.threads, images, network.graph.batch);
                start.elapsed().as_secs_f64()
            })
        };
        let start = Instant::now();
        run(self.session);
        while start.elapsed() < policy.warm_up {
            run(self.session);
        }
        let (start, before) = (Instant::now(), self.runs.len());
        for _ in 0..policy.runs {
            let run = run(self.session);
            count.add(run);
            self.runs.push(run.seconds);
            let StepSeconds { computing, waiting } = self.session.seconds();
            let seconds = computing.into_iter().chain(waiting);
            self.steps.iter_mut().flatten().zip(seconds).for_each(|(list, seconds)| list.push(seconds));
            if start.elapsed() > policy.turn {
                break;
            }
        }
        self.rounds.extend(median(&self.runs[before..]));
    }
}

/// Runs whole networks in turn until the time is over; the first `rivals` of them in all rounds.
/// The first network's times are its own. Another's are the first one's times the ratio in the
/// rounds that both were in, so that a machine that changes its pace favours neither.
pub fn compare(
    network: &Network,
    sessions: Vec<&mut PreparedNetwork>,
    rivals: usize,
    end: Instant,
) -> Vec<NetworkTime> {
    let images = built_in_images(network.graph, network.graph.batch);
    let monitor = RunQueueMonitor::new(network.threads);
    let mut series: Vec<Series> = sessions.into_iter().map(Series::new).collect();
    let mut count = RunCount::default();
    let rounds = network.rounds(Stage::Networks, POLICY.networks.rounds, end);
    let core_to_core = rounds.run(|turn| {
        let all = turn.round < POLICY.networks.shown_rounds;
        let contenders = if all { series.len() } else { rivals };
        for series in &mut series[..contenders] {
            turn.wait_until_near();
            series.turn(network, &images, &monitor, &mut count);
        }
    });
    rounds.progress.ended();
    let (is_busy, core_to_core) = (count.is_busy(POLICY.contention.busy_share), median(&core_to_core));
    let first = Timing::of(&series[0].runs).median;
    let fair = |(index, own): (usize, &Series)| {
        let versus = ratio(&own.rounds, &series[0].rounds).filter(|_| index > 0);
        let factor = versus.map_or(1.0, |versus| versus.value * first / Timing::of(&own.runs).median);
        own.time(factor, is_busy, core_to_core)
    };
    series.iter().enumerate().map(fair).collect()
}

/// Faster by more than the noise of both: each median lies outside the other's quartiles.
pub fn is_faster(a: &Timing, b: &Timing) -> bool {
    a.median < b.quartiles[0] && a.quartiles[1] < b.median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faster_means_by_more_than_the_noise_of_both() {
        let timing = |[low, median, high]: [f64; 3]| Timing::of(&[low, low, median, high, high]);
        let slow = timing([10.0, 11.0, 12.0]);
        assert!(is_faster(&timing([8.0, 9.0, 9.5]), &slow));
        assert!(!is_faster(&timing([8.0, 10.5, 10.8]), &slow));
        assert!(!is_faster(&timing([8.0, 9.0, 11.5]), &slow));
        assert!(!is_faster(&slow, &slow));
    }
}
