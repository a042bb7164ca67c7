//! Whole networks, run in turn.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::choose::{Network, built_in_images};
use crate::measure::Timing;
use crate::session::Session;
use crate::stats::median;

/// Rounds in which whole networks are measured in turn, at least and at most, and runs of each that count.
const ROUNDS: [usize; 2] = [4, 16];
const RUNS: usize = 2;

/// A whole network in the contest.
pub struct Entry {
    /// How it was chosen.
    pub name: String,
    /// Of an inference.
    pub timing: Timing,
    /// Medians of its steps in seconds.
    pub steps: Vec<f64>,
}

/// Runs whole networks in turn. The first of the runs of each turn finds the caches as another network has left
/// them, and is not counted.
pub fn contest(network: &Network, mut entries: Vec<(String, &mut Session)>, end: Instant) -> Vec<Entry> {
    let images = built_in_images(network.graph, network.graph.batch);
    let mut samples = vec![Vec::new(); entries.len()];
    let steps = |(_, session): &(String, &mut Session)| vec![Vec::new(); session.graph().steps.len()];
    let mut steps: Vec<Vec<Vec<f64>>> = entries.iter().map(steps).collect();
    let bar = ProgressBar::new(ROUNDS[1] as u64);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {percent:>3}% {elapsed} whole networks").expect("a template"),
    );
    for round in 0..ROUNDS[1] {
        if round >= ROUNDS[0] && Instant::now() >= end {
            break;
        }
        for (((_, session), samples), steps) in entries.iter_mut().zip(&mut samples).zip(&mut steps) {
            for run in 0..=RUNS {
                let start = Instant::now();
                session.run(network.threads, &images, network.graph.batch);
                let seconds = start.elapsed().as_secs_f64();
                if run > 0 {
                    samples.push(seconds);
                    steps.iter_mut().zip(session.step_seconds()).for_each(|(list, s)| list.push(s));
                }
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let entry = |(index, (name, _)): (usize, (String, _))| Entry {
        name,
        timing: Timing::of(&samples[index]),
        steps: steps[index].iter().filter_map(|samples| median(samples)).collect(),
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
    fn faster_means_by_more_than_the_noise_of_both() {
        let timing = |[low, median, high]: [f64; 3]| Timing::of(&[low, low, median, high, high]);
        let slow = timing([10.0, 11.0, 12.0]);
        assert!(is_faster(&timing([8.0, 9.0, 9.5]), &slow));
        assert!(!is_faster(&timing([8.0, 10.5, 10.8]), &slow));
        assert!(!is_faster(&timing([8.0, 9.0, 11.5]), &slow));
        assert!(!is_faster(&slow, &slow));
    }
}
