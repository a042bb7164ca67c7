//! Rounds: contenders take turns in each, so that what slows the machine slows them alike.
//!
//! All that is timed is timed by this: isolated candidates, candidates in the running network,
//! whole networks, pairs of candidates and repeated inferences. What a turn is differs; when rounds
//! end, when a run counts as disturbed and what is reported meanwhile does not.

use std::time::{Duration, Instant};

use engine::runtime::Threads;
use kernels::Team;

use crate::bench::core_distance::CoreDistanceMonitor;
use crate::bench::progress::StageProgress;

pub struct Rounds<'a> {
    pub threads: &'a Threads,
    pub distance: &'a CoreDistanceMonitor,
    pub progress: StageProgress<'a>,
    /// Rounds at least and at most.
    pub count: [usize; 2],
    /// Their time, in which rounds do not wait for near cores. After the least number of rounds,
    /// none begins later.
    pub time: Duration,
    /// Nor does any begin later than this.
    pub end: Instant,
}

pub struct Turn<'a> {
    /// Number of the round, from 0.
    pub round: usize,
    rounds: &'a Rounds<'a>,
    team: &'a mut Team,
    core_to_core: &'a mut Vec<f64>,
}

impl Turn<'_> {
    /// Waits until the workers' cores are near, as long as there is patience.
    pub fn wait_until_near(&mut self) {
        let Rounds { threads, distance, .. } = self.rounds;
        self.core_to_core.extend(distance.wait_until_near(threads, self.team));
    }
}

impl<'a> Rounds<'a> {
    /// So many rounds, whatever time they take.
    pub fn exactly(
        count: usize,
        threads: &'a Threads,
        distance: &'a CoreDistanceMonitor,
        progress: StageProgress<'a>,
    ) -> Self {
        Self { threads, distance, progress, count: [count; 2], time: Duration::ZERO, end: Instant::now() }
    }

    /// Runs the rounds: core-to-core latencies in seconds, one each time that cores were awaited.
    pub fn run(&self, mut round: impl FnMut(&mut Turn)) -> Vec<f64> {
        let [least, most] = self.count;
        let mut team = Team::new(self.threads.count());
        let mut latencies = Vec::new();
        let clock = self.distance.clock();
        for number in 0..most {
            let elapsed = clock();
            if number >= least && (elapsed >= self.time || Instant::now() >= self.end) {
                break;
            }
            self.progress.done(self.done(number, elapsed));
            round(&mut Turn { round: number, rounds: self, team: &mut team, core_to_core: &mut latencies });
        }
        latencies
    }

    /// The share of the rounds that is done, by number or by time.
    fn done(&self, rounds: usize, elapsed: Duration) -> f64 {
        let [least, most] = self.count;
        let by_number = rounds as f64 / most as f64;
        let by_time = elapsed.as_secs_f64() / self.time.as_secs_f64().max(1e-9);
        by_number.max(by_time.min(rounds as f64 / least.max(1) as f64)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::progress::{Silent, Stage};

    fn rounds(count: [usize; 2], time: Duration, end: Duration) -> usize {
        let threads = Threads::new(1).expect("a thread");
        let distance = CoreDistanceMonitor::default();
        let progress = StageProgress::new(&Silent, Stage::Networks);
        let end = Instant::now() + end;
        let rounds = Rounds { threads: &threads, distance: &distance, progress, count, time, end };
        let mut done = 0;
        rounds.run(|turn| {
            assert_eq!(turn.round, done);
            done += 1;
        });
        done
    }

    #[test]
    fn rounds_end_with_the_time_but_not_before_their_least_number() {
        let (none, hour) = (Duration::ZERO, Duration::from_secs(3600));
        assert_eq!(rounds([3, 8], none, hour), 3);
        assert_eq!(rounds([3, 8], hour, none), 3);
        assert_eq!(rounds([0, 8], none, none), 0);
        assert_eq!(rounds([3, 8], hour, hour), 8);
    }
}
