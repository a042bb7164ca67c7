//! Whole networks, run in turn.

use std::time::Instant;

use engine::runtime::session::Session;
use engine::util::stats::{Timing, median, ratio};
use indicatif::{ProgressBar, ProgressStyle};
use kernels::team::Team;

use crate::bench::contention::RunQueueMonitor;
use crate::bench::policy::POLICY;
use crate::planner::context::{Network, built_in_images};

/// A whole network in the contest.
pub struct NetworkTime {
    /// How it was chosen.
    pub name: String,
    /// Of an inference.
    pub timing: Timing,
    /// Medians of its steps in seconds, and of the waiting behind each ([`Session::seconds`]); the least where others use
    /// the cores: the same step may be the one that waits in most of the runs.
    pub steps: Vec<f64>,
    /// Medians of the waiting behind each step.
    pub waits: Vec<f64>,
    /// Core-to-core latency in seconds beside all turns of the contest, the median.
    pub core_to_core: Option<f64>,
}

impl NetworkTime {
    /// Seconds of each step with the waiting behind it.
    pub fn with_waits(&self) -> Vec<f64> {
        self.steps.iter().zip(&self.waits).map(|(own, wait)| own + wait).collect()
    }
}

/// Whether others used the cores in so many of the runs that times say more about them than about the networks.
fn is_busy(disturbed: usize, runs: usize) -> bool {
    disturbed as f64 > POLICY.contention.busy_share * runs as f64
}

/// Runs whole networks in turn until the time is over; the first `rivals` of them in all rounds. The first network's times
/// are its own; another's are the first one's times what it takes in the rounds that both were in, so that a machine that
/// changes its pace favours neither.
pub fn contest(
    network: &Network,
    mut entries: Vec<(String, &mut Session)>,
    rivals: usize,
    end: Instant,
) -> Vec<NetworkTime> {
    let images = built_in_images(network.graph, network.graph.batch);
    let mut samples = vec![Vec::new(); entries.len()];
    let mut rounds = vec![Vec::new(); entries.len()];
    let (mut disturbed, mut apart) = (0, Vec::new());
    let watch = RunQueueMonitor::new(network.threads);
    let none = |(_, session): &(String, &mut Session)| {
        [(); 2].map(|()| vec![Vec::new(); session.graph().steps.len()])
    };
    let mut steps: Vec<[Vec<Vec<f64>>; 2]> = entries.iter().map(none).collect();
    let bar = ProgressBar::new(POLICY.networks.rounds[1] as u64);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {percent:>3}% {elapsed} whole networks").expect("a template"),
    );
    let mut team = Team::new(network.threads.count());
    for round in 0..POLICY.networks.rounds[1] {
        if round >= POLICY.networks.rounds[0] && Instant::now() >= end {
            break;
        }
        let count = if round < POLICY.networks.shown_rounds { entries.len() } else { rivals };
        let lists = samples.iter_mut().zip(&mut steps).zip(&mut rounds);
        for ((_, session), ((samples, steps), rounds)) in entries[..count].iter_mut().zip(lists) {
            apart.extend(network.distance.wait_until_near(network.threads, &mut team));
            let mut run = || {
                let timed = watch.sample(|| {
                    let start = Instant::now();
                    session.run(network.threads, &images, network.graph.batch);
                    start.elapsed().as_secs_f64()
                });
                (timed, session.seconds())
            };
            let start = Instant::now();
            while {
                run();
                start.elapsed() < POLICY.networks.warm_up
            } {}
            let start = Instant::now();
            let before = samples.len();
            for _ in 0..POLICY.networks.runs {
                let ((seconds, is_disturbed), own) = run();
                samples.push(seconds);
                disturbed += usize::from(is_disturbed);
                let (lists, own) = (steps.iter_mut().flatten(), own.into_iter().flatten());
                lists.zip(own).for_each(|(list, seconds)| list.push(seconds));
                if start.elapsed() > POLICY.networks.turn {
                    break;
                }
            }
            rounds.extend(median(&samples[before..]));
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let first = Timing::of(&samples[0]).median;
    let runs: usize = samples.iter().map(Vec::len).sum();
    let (is_busy, core_to_core) = (is_busy(disturbed, runs), median(&apart));
    let entry = |(index, (name, _)): (usize, (String, _))| {
        let timing = Timing::of(&samples[index]);
        let versus = ratio(&rounds[index], &rounds[0]).filter(|_| index > 0);
        let fair = versus.map_or(1.0, |versus| versus.value * first / timing.median);
        let typical = |samples: &Vec<f64>| match is_busy {
            true => samples.iter().copied().reduce(f64::min),
            false => median(samples),
        };
        let scaled = |samples: &Vec<f64>| typical(samples).map(|seconds| seconds * fair);
        let medians = |lists: &Vec<Vec<f64>>| lists.iter().filter_map(scaled).collect();
        let [steps, waits] = steps[index].each_ref().map(medians);
        NetworkTime { name, timing: timing.scaled(fair), steps, waits, core_to_core }
    };
    entries.into_iter().enumerate().map(entry).collect()
}

/// Whole networks by the winners on the plain graph.
pub const WITHOUT_REWRITES: &str = "tuned, without rewrites";

/// Whole networks before close candidates were settled in place.
pub const BY_TIMES_ALONE: &str = "by times alone";

/// Faster by more than the noise of both: each median lies outside the other's quartiles.
pub fn is_faster(a: &Timing, b: &Timing) -> bool {
    a.median < b.quartiles[0] && a.quartiles[1] < b.median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contest_is_busy_where_more_than_a_tenth_of_all_runs_were_disturbed() {
        assert!(!is_busy(0, 0));
        assert!(is_busy(1, 8));
        assert!(!is_busy(1, 16));
    }

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
