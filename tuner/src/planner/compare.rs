//! Whole networks, run in turn.

use std::time::Instant;

use engine::runtime::{PreparedNetwork, StepSeconds};
use engine::util::{Interval, Timing, median, ratio};

use crate::bench::{POLICY, RunCount, RunQueueMonitor, Stage, StageProgress};
use crate::planner::context::{Network, built_in_images};

pub struct NetworkTime {
    /// Of an inference.
    pub timing: Timing,
    /// The median of each round that it was in, from the first.
    pub rounds: Vec<f64>,
    /// Seconds of its steps: medians, or the least where others use the cores.
    pub steps: Vec<f64>,
    /// The same of the waiting behind each step ([`PreparedNetwork::seconds`]).
    pub waits: Vec<f64>,
    /// Core-to-core latency in seconds at all turns of the comparison, the median.
    pub core_to_core: Option<f64>,
}

impl NetworkTime {
    /// Of rounds with one run each.
    #[cfg(test)]
    pub fn of_rounds(rounds: &[f64]) -> Self {
        Self {
            timing: Timing::of(rounds),
            rounds: rounds.to_vec(),
            steps: Vec::new(),
            waits: Vec::new(),
            core_to_core: None,
        }
    }

    /// Its time over another's in the rounds that both were in, so that a machine that changes its
    /// pace favours neither.
    pub fn over(&self, other: &Self) -> Option<Interval> {
        ratio(&self.rounds, &other.rounds)
    }

    /// Whether it is faster than another by more than the noise: enough rounds say so, their interval
    /// is below 1, and it is no tie. Of two networks by the same choices, one may always be faster by
    /// where its memory lies.
    pub fn is_faster(&self, other: &Self, tie: f64) -> bool {
        let is_known = self.rounds.len().min(other.rounds.len()) >= POLICY.networks.deciding_rounds;
        is_known && self.over(other).is_some_and(|ratio| ratio.high < 1.0 && ratio.value * (1.0 + tie) < 1.0)
    }
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

    fn time(self, is_busy: bool, core_to_core: Option<f64>) -> NetworkTime {
        let typical = |samples: &Vec<f64>| match is_busy {
            true => samples.iter().copied().reduce(f64::min),
            false => median(samples),
        };
        let [steps, waits] = self.steps.each_ref().map(|lists| lists.iter().filter_map(typical).collect());
        NetworkTime { timing: Timing::of(&self.runs), rounds: self.rounds, steps, waits, core_to_core }
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

/// Networks that run in turn, and what was measured of them.
struct Turns<'a> {
    network: &'a Network<'a, 'a>,
    images: Vec<f32>,
    monitor: RunQueueMonitor,
    series: Vec<Series<'a>>,
    count: RunCount,
    core_to_core: Vec<f64>,
}

impl<'a> Turns<'a> {
    fn of(network: &'a Network<'a, 'a>, sessions: Vec<&'a mut PreparedNetwork>) -> Self {
        Self {
            network,
            images: built_in_images(network.graph, network.graph.batch),
            monitor: RunQueueMonitor::new(network.threads),
            series: sessions.into_iter().map(Series::new).collect(),
            count: RunCount::default(),
            core_to_core: Vec::new(),
        }
    }

    /// Rounds at least and at most, of those networks that `takes_part` names in the round.
    fn rounds(&mut self, count: [usize; 2], end: Instant, takes_part: impl Fn(&Self, usize, usize) -> bool) {
        let rounds = self.network.rounds(Stage::Networks, count, end);
        let core_to_core = rounds.run(|turn| {
            for index in (0..self.series.len())
                .filter(|&index| takes_part(self, turn.round, index))
                .collect::<Vec<_>>()
            {
                turn.wait_until_near();
                self.series[index].turn(self.network, &self.images, &self.monitor, &mut self.count);
            }
        });
        self.core_to_core.extend(core_to_core);
    }

    /// Whether a network is faster than the first so far.
    fn leads(&self, index: usize) -> bool {
        let ratio = ratio(&self.series[index].rounds, &self.series[0].rounds);
        ratio.is_some_and(|ratio| index > 0 && ratio.value < 1.0)
    }

    fn times(self) -> Vec<NetworkTime> {
        StageProgress::new(self.network.progress, Stage::Networks).ended();
        self.network.runs.add(self.count);
        let is_busy = self.count.is_busy(POLICY.contention.busy_share);
        let core_to_core = median(&self.core_to_core);
        self.series.into_iter().map(|series| series.time(is_busy, core_to_core)).collect()
    }
}

/// Runs whole networks in turn until the time is over.
pub fn compare<'a>(
    network: &'a Network<'a, 'a>,
    sessions: Vec<&'a mut PreparedNetwork>,
    end: Instant,
) -> Vec<NetworkTime> {
    let mut turns = Turns::of(network, sessions);
    turns.rounds(POLICY.networks.rounds, end, |_, _, _| true);
    turns.times()
}

/// Runs whole networks in turn until the time is over and it is known whether one is faster than the
/// first: the first `rivals` of them in all rounds, the others in some, and then as long as they are
/// faster.
pub fn contest<'a>(
    network: &'a Network<'a, 'a>,
    sessions: Vec<&'a mut PreparedNetwork>,
    rivals: usize,
    end: Instant,
) -> Vec<NetworkTime> {
    let policy = &POLICY.networks;
    let mut turns = Turns::of(network, sessions);
    turns.rounds(policy.rounds, end, |turns, round, index| {
        let is_shown = round < policy.rounds[0] || round < policy.shown_rounds && Instant::now() < end;
        is_shown || index < rivals || turns.leads(index)
    });
    while turns.series[0].rounds.len() < policy.deciding_rounds
        && (0..turns.series.len()).any(|index| turns.leads(index))
    {
        turns.rounds([1, 1], end, |turns, _, index| index == 0 || turns.leads(index));
    }
    turns.times()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faster_means_in_enough_rounds_and_by_more_than_their_noise() {
        let of = NetworkTime::of_rounds;
        // The machine gets slower, the second network does so alike.
        let slow = of(&[10.0, 11.0, 14.0, 18.0, 20.0]);
        let fast = of(&[9.5, 10.6, 13.0, 17.5, 19.0]);
        assert!(fast.is_faster(&slow, 0.01) && !slow.is_faster(&fast, 0.01));
        assert!(!slow.is_faster(&slow, 0.01));
        assert!(!fast.is_faster(&slow, 0.1), "a tie");
        assert!(!of(&fast.rounds[..2]).is_faster(&slow, 0.01), "two rounds prove nothing");
        assert!(!of(&[9.5, 12.0, 13.0, 19.0, 19.0]).is_faster(&slow, 0.01), "faster in some rounds only");
    }
}
