//! Candidates that are close by isolated times are timed in the running network, where caches,
//! neighbours and memory are what they will be.
//!
//! One run of the network times one candidate of every step, since each step's time is taken by
//! itself; so as many runs as the longest list has candidates are a round in which all steps time
//! all of theirs, and rounds compare in pairs as elsewhere.

use std::sync::Arc;
use std::time::Instant;

use engine::network::{Choice, Step};
use engine::runtime::{PrepareError, PrepareOptions, PreparedNetwork};
use engine::util::{Interval, Timing, median, ratio, shuffle};
use kernels::{Format, Formats, Padding, Prepared};

use crate::bench::{POLICY, RunCount, RunQueueMonitor, Stage, undisturbed};
use crate::measure::{CandidateResult, widest_tie};
use crate::planner::context::Network;

/// The options of a step that are worth a try there, the chosen one first. One that needs a
/// wider halo than the network has would change other readers of its source, and stays out if there
/// are any.
pub fn finalists(
    session: &PreparedNetwork,
    step: usize,
    options: &[&CandidateResult],
    pick: usize,
) -> Vec<usize> {
    let Some(chosen) = options.get(pick) else { return Vec::new() };
    let mut order: Vec<usize> = (0..options.len()).filter(|&option| option != pick).collect();
    order.sort_by(|&a, &b| options[a].seconds().total_cmp(&options[b].seconds()));
    let steps = &session.graph().steps;
    let is_alike = |other: &&Step| other.src.tensor == steps[step].src.tensor;
    let is_only = steps.iter().filter(is_alike).count() == 1;
    let fits = |formats: &Formats| {
        let wide = Formats { src: Format { halo: Padding::default(), ..formats.src }, ..*formats };
        session.takes(step, if is_only { &wide } else { formats })
    };
    let mut families = vec![chosen.choice.row.family];
    let mut list = vec![pick];
    for option in order {
        let c = options[option];
        let is_new = !families.contains(&c.choice.row.family);
        let [other, same] = POLICY.in_network.slower.map(|ratio| c.seconds() <= ratio * chosen.seconds());
        if (same || is_new && other) && fits(&c.choice.formats) && list.len() < POLICY.in_network.candidates {
            families.push(c.choice.row.family);
            list.push(option);
        }
    }
    list
}

/// Seconds that are missing to time the finalists of every step; none where there are enough.
pub fn missing_time(
    network: &Network,
    session: &mut PreparedNetwork,
    finalists: &[Vec<&CandidateResult>],
    images: &[f32],
    end: Instant,
) -> Option<f64> {
    let turns = finalists.iter().map(Vec::len).max().unwrap_or(1).max(1);
    session.run(network.threads, images, network.graph.batch);
    let a_round = turns as f64 * session.step_seconds().iter().sum::<f64>();
    let left = end.saturating_duration_since(Instant::now()).as_secs_f64();
    let needed = a_round * POLICY.in_network.rounds[0] as f64 / POLICY.in_network.short;
    (needed > left).then_some(needed - left)
}

/// A network with the halos that all finalists want; none where the session has them.
pub fn with_room(
    network: &Network,
    session: &PreparedNetwork,
    choices: &[Choice],
    finalists: &[Vec<&CandidateResult>],
) -> Result<Option<PreparedNetwork>, PrepareError> {
    let mut halos: Vec<Padding> = session.tensors().iter().map(|at| at.halo).collect();
    for (step, list) in session.graph().steps.iter().zip(finalists) {
        let halo = &mut halos[step.src.tensor];
        *halo = list.iter().fold(*halo, |halo, candidate| halo.with(candidate.choice.formats.src.halo));
    }
    let has_room = session.tensors().iter().zip(&halos).all(|(at, halo)| at.halo == *halo);
    let &Network { graph, calibration, weights, cpu, threads, .. } = network;
    let options = PrepareOptions { halos: &halos, calibration, ..Default::default() };
    let widened = || PreparedNetwork::with_options(graph.clone(), choices, weights, cpu, threads, options);
    Ok(if has_room { None } else { Some(widened()?) })
}

/// Times the finalists of every step in a network that runs the first of each, until `end`.
pub fn time_in_network(
    network: &Network,
    session: &mut PreparedNetwork,
    finalists: &[Vec<&CandidateResult>],
    images: &[f32],
    end: Instant,
) -> Result<Vec<Vec<InNetworkTime>>, PrepareError> {
    let mut bench = NetworkBench {
        alternatives: alternatives(network, session, finalists)?,
        monitor: RunQueueMonitor::new(network.threads),
        network,
        session,
        images,
        count: RunCount::default(),
    };
    let mut samples = bench.empty();
    let rounds = network.rounds(Stage::InNetwork, POLICY.in_network.rounds, end);
    rounds.run(|turn| {
        turn.wait_until_near();
        let medians = bench.round(turn.round);
        // The first round finds memory that nobody has touched.
        if turn.round > 0 {
            samples.iter_mut().flatten().zip(medians).for_each(|(list, median)| list.extend(median));
        }
    });
    rounds.progress.ended();
    network.runs.add(bench.count);
    let is_busy = bench.count.is_busy(POLICY.in_network.busy_share);
    let judge = if is_busy { by_quartiles } else { by_medians };
    let tie = widest_tie(network.measurements);
    Ok(samples.iter().map(|candidates| judge(candidates, tie)).collect())
}

/// Kernels that can take the place of a step's own, one a finalist after the first; none while it
/// is in the network.
type Alternatives = Vec<Vec<Option<Arc<dyn Prepared>>>>;

/// Prepares all finalists but the first of each step, on all threads.
fn alternatives(
    network: &Network,
    session: &PreparedNetwork,
    finalists: &[Vec<&CandidateResult>],
) -> Result<Alternatives, PrepareError> {
    let rest = |(step, list): (usize, &Vec<&CandidateResult>)| {
        let choices = list.iter().skip(1).map(|candidate| (step, candidate.choice.clone()));
        choices.collect::<Vec<_>>()
    };
    let jobs: Vec<(usize, Choice)> = finalists.iter().enumerate().flat_map(rest).collect();
    let prepared = network
        .threads
        .map(&jobs, |(step, choice)| session.alternative(*step, choice, network.weights, network.cpu));
    let mut list: Alternatives = finalists.iter().map(|_| Vec::new()).collect();
    for ((step, _), prepared) in jobs.iter().zip(prepared) {
        list[*step].push(Some(prepared?));
    }
    Ok(list)
}

/// A running network in which finalists change places.
struct NetworkBench<'a> {
    network: &'a Network<'a, 'a>,
    session: &'a mut PreparedNetwork,
    images: &'a [f32],
    alternatives: Alternatives,
    monitor: RunQueueMonitor,
    count: RunCount,
}

impl NetworkBench<'_> {
    /// An empty list for each finalist of each step.
    fn empty(&self) -> Vec<Vec<Vec<f64>>> {
        self.alternatives.iter().map(|others| vec![Vec::new(); others.len() + 1]).collect()
    }

    /// Runs the network until each step has timed its finalists in shuffled orders: all medians.
    fn round(&mut self, round: usize) -> Vec<Option<f64>> {
        let steps = self.alternatives.len();
        let order = |(step, others): (usize, &Vec<_>)| {
            let mut order: Vec<usize> = (0..=others.len()).collect();
            shuffle(&mut order, (round * steps + step) as u64);
            order
        };
        let orders: Vec<Vec<usize>> = self.alternatives.iter().enumerate().map(order).collect();
        let mut seconds = self.empty();
        for turn in 0..orders.iter().map(Vec::len).max().unwrap_or(1) {
            let now: Vec<usize> = orders.iter().map(|order| order[turn % order.len()]).collect();
            let times = self.time(&now);
            for ((seconds, &finalist), time) in seconds.iter_mut().zip(&now).zip(times) {
                seconds[finalist].push(time);
            }
        }
        seconds.iter().flatten().map(|seconds| median(seconds)).collect()
    }

    /// Seconds of each step with one finalist of each in its place.
    fn time(&mut self, finalists: &[usize]) -> Vec<f64> {
        self.exchange(finalists);
        let Self { network, session, images, monitor, .. } = self;
        let mut seconds = Vec::new();
        let run = undisturbed(POLICY.in_network.tries, || {
            monitor.sample(|| {
                session.run(network.threads, images, network.graph.batch);
                seconds = session.step_seconds();
                seconds.iter().sum()
            })
        });
        self.count.add(run);
        self.exchange(finalists);
        seconds
    }

    /// Puts finalists in the place of their steps' own; the second time, those back.
    fn exchange(&mut self, finalists: &[usize]) {
        for (step, &finalist) in finalists.iter().enumerate().filter(|(_, finalist)| **finalist > 0) {
            let place = &mut self.alternatives[step][finalist - 1];
            *place = place.take().map(|prepared| self.session.replace(step, prepared));
        }
    }
}

/// The times of one step's candidates, from samples of the same rounds.
fn by_medians(candidates: &[Vec<f64>], tie: f64) -> Vec<InNetworkTime> {
    let first = Timing::of(&candidates[0]);
    let fair = |own: &Vec<f64>| {
        let timing = Timing::of(own);
        let paired = ratio(own, &candidates[0]).map_or(1.0, |ratio| ratio.value);
        timing.scaled(paired * first.median / timing.median)
    };
    let timings: Vec<Timing> = candidates.iter().map(fair).collect();
    let fastest =
        (0..timings.len()).min_by(|&a, &b| timings[a].median.total_cmp(&timings[b].median)).unwrap_or(0);
    // The medians that are shown must agree with the interval.
    let near = timings[fastest].median * (1.0 + tie);
    let tied = |timing: &Timing, own: &Vec<f64>| {
        let equal = |v: Interval| v.value <= 1.0 + POLICY.in_network.equal || v.low <= 1.0;
        timing.median <= near && ratio(own, &candidates[fastest]).is_some_and(equal)
    };
    let all = timings.iter().zip(candidates);
    all.map(|(timing, own)| InNetworkTime { timing: *timing, tied: tied(timing, own) }).collect()
}

/// The same by first quartiles, where most runs were disturbed.
fn by_quartiles(candidates: &[Vec<f64>], tie: f64) -> Vec<InNetworkTime> {
    let timings: Vec<Timing> = candidates.iter().map(|own| Timing::of(own)).collect();
    let least = timings.iter().map(|t| t.quartiles[0]).fold(f64::INFINITY, f64::min);
    let fair = |timing: &Timing| InNetworkTime {
        timing: timing.scaled(timing.quartiles[0] / timing.median),
        tied: timing.quartiles[0] <= least * (1.0 + tie),
    };
    timings.iter().map(fair).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InNetworkTime {
    pub timing: Timing,
    /// As fast as the fastest, as far as can be told.
    pub tied: bool,
}

#[cfg(test)]
mod tests {
    use engine::util::unit;

    use super::*;

    #[test]
    fn what_is_slower_in_nearly_every_round_is_no_tie_and_what_may_be_equal_is() {
        let times = |stream: u64, scale: f64, noise: f64| -> Vec<f64> {
            let load = |round: u64| 1.0 + 0.5 * unit(31, 0, round);
            (0..20).map(|r| scale * load(r) * (1.0 + noise * (unit(31, stream, r) - 0.5))).collect()
        };
        let tied = |noise: f64| -> Vec<bool> {
            let candidates = [1.0, 1.003, 1.015, 1.1].into_iter().enumerate();
            let all: Vec<Vec<f64>> = candidates.map(|(i, scale)| times(i as u64 + 1, scale, noise)).collect();
            by_medians(&all, 0.02).into_iter().map(|time| time.tied).collect()
        };
        assert_eq!(tied(0.001), [true, true, false, false]);
        assert!(!tied(0.04)[3]);
        // Most rounds are disturbed, and none of the first quartile.
        let disturb = |mut times: Vec<f64>| {
            times.iter_mut().enumerate().filter(|(i, _)| i % 3 > 0).for_each(|(i, t)| *t *= 2.0 + i as f64);
            times
        };
        let all = [disturb(times(1, 1.0, 0.0)), disturb(times(1, 1.1, 0.0))];
        let tied = by_quartiles(&all, 0.02);
        assert!(tied[0].tied && !tied[1].tied, "{tied:?}");
        let ratio = |a: &InNetworkTime, b: &InNetworkTime| a.timing.median / b.timing.median;
        let both = by_medians(&[times(1, 1.0, 0.001), times(2, 1.2, 0.001)], 0.02);
        assert!((ratio(&both[1], &both[0]) - 1.2).abs() < 0.01, "{both:?}");
    }
}
