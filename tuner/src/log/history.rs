//! What a log says about problems.

use std::collections::HashMap;

use engine::plan::is_far;

use crate::bench::{POLICY, Samples};
use crate::log::schema::{Done, Line, LoggedCandidate, Run, Time};

#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// Its number; they ascend.
    pub number: usize,
    times: Vec<Time>,
    pub core_to_core_ns: Option<f64>,
}

/// What one run, and those it resumed, found out about a problem.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub run: String,
    /// Candidates by number.
    pub candidates: Vec<LoggedCandidate>,
    pub rounds: Vec<Round>,
    pub last_round: usize,
    pub done: Option<Done>,
}

impl History {
    pub fn samples(&self, number: usize) -> Samples {
        let mut samples = Samples::default();
        for Round { number: round, times, .. } in &self.rounds {
            times.iter().filter(|t| t.0 == number).for_each(|t| samples.push(*round, t.seconds()));
        }
        samples
    }

    fn times(&self) -> impl Iterator<Item = &Time> {
        self.rounds.iter().flat_map(|round| &round.times)
    }

    /// How many of them were disturbed.
    pub fn disturbed(&self, number: usize) -> usize {
        self.times().filter(|time| time.0 == number && time.2 > 0).count()
    }

    /// Share of all runs that were disturbed.
    pub fn disturbed_share(&self) -> f64 {
        self.times().filter(|time| time.2 > 0).count() as f64 / self.times().count().max(1) as f64
    }

    /// Forgets the rounds at high latency, which `nearest` tells, and their share of the budget.
    pub fn keep_near(&mut self, nearest: Option<f64>) {
        let is_near = |round: &Round| match (round.core_to_core_ns, nearest) {
            (Some(own), Some(nearest)) => !is_far(own, nearest),
            _ => true,
        };
        let all = self.rounds.len();
        self.rounds.retain(is_near);
        let part = self.rounds.len() as f64 / all.max(1) as f64;
        self.done = self.done.map(|Done { share, complete }| Done {
            share: share * part,
            complete: complete && part >= Done::ENOUGH,
        });
    }

    /// Adds a line; one that does not follow from those before is passed over.
    pub fn add(&mut self, line: Line) {
        match line {
            Line::Candidates { first, list, .. } if first == self.candidates.len() => {
                self.candidates.extend(list);
            }
            Line::Round { round, times, core_to_core_ns, .. }
                if self.last_round < round && times.iter().all(|time| time.0 < self.candidates.len()) =>
            {
                self.rounds.push(Round { number: round, times, core_to_core_ns });
                self.last_round = round;
                self.done = None;
            }
            Line::Done { done, .. } => self.done = Some(done),
            _ => {}
        }
    }
}

#[derive(Debug, Default)]
pub struct Histories {
    pub runs: Vec<Run>,
    of: HashMap<(String, String), History>,
    pub problems: Vec<String>,
}

/// Core-to-core latency of near workers, in nanoseconds: of the last runs that `like` admits, that
/// of the run on the nearest.
pub fn nearest(lines: &[Line], like: impl Fn(&Run) -> bool) -> Option<f64> {
    let mut runs: Vec<(&str, Vec<f64>)> = Vec::new();
    for line in lines {
        match line {
            Line::Run(run) if like(run) => runs.push((&run.run, Vec::new())),
            Line::Round { run, core_to_core_ns: Some(ns), .. } => {
                let own = runs.iter_mut().rev().find(|(name, _)| name == run);
                own.into_iter().for_each(|(_, list)| list.push(*ns));
            }
            _ => {}
        }
    }
    let of_run = |(_, mut list): (&str, Vec<f64>)| {
        list.sort_by(f64::total_cmp);
        list.get(POLICY.log.near_rounds - 1).copied()
    };
    runs.into_iter().rev().filter_map(of_run).take(POLICY.log.runs).min_by(f64::total_cmp)
}

impl Histories {
    /// Of the runs that `like` admits, of a machine of that least core-to-core latency; without the
    /// rounds at high latency.
    pub fn of(lines: Vec<Line>, nearest: Option<f64>, like: impl Fn(&Run) -> bool) -> Self {
        let mut all = Self::default();
        for line in lines {
            let (run, problem) = match &line {
                Line::Run(run) => {
                    if like(run) && !all.is_of(&run.run) {
                        all.runs.push(run.clone());
                    }
                    continue;
                }
                Line::Candidates { run, problem, .. }
                | Line::Round { run, problem, .. }
                | Line::Resumes { run, problem, .. }
                | Line::Done { run, problem, .. } => (run.clone(), problem.clone()),
            };
            if !all.is_of(&run) {
                continue;
            }
            if !all.problems.contains(&problem) {
                all.problems.push(problem.clone());
            }
            let mut before = History::default();
            if let Line::Resumes { from, .. } = &line {
                before = all.of.get(&(from.clone(), problem.clone())).cloned().unwrap_or_default();
                before.keep_near(nearest);
            }
            let new = || History { run: run.clone(), ..before };
            all.of.entry((run.clone(), problem)).or_insert_with(new).add(line);
        }
        all.of.values_mut().for_each(|history| history.keep_near(nearest));
        all
    }

    fn is_of(&self, run: &str) -> bool {
        self.runs.iter().any(|known| known.run == run)
    }

    /// Of a problem's histories the newest of those that are done with the largest share of a
    /// budget, give or take a tenth; where none is done the one with the most rounds. Only those
    /// count of whose runs at most the given share was disturbed.
    pub fn furthest(&self, problem: &str, most: f64) -> Option<&History> {
        let own = || {
            let own = self.runs.iter().filter_map(|run| self.of.get(&(run.run.clone(), problem.to_string())));
            own.filter(|history| !history.rounds.is_empty() && history.disturbed_share() <= most)
        };
        let share = |history: &History| history.done.map_or(0.0, |done| done.share);
        let largest = own().map(share).fold(0.0, f64::max);
        own().max_by_key(|history| {
            (
                history.done.is_some() && share(history) >= Done::ENOUGH * largest,
                if history.done.is_some() { 0 } else { history.rounds.len() },
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str) -> Line {
        Line::Run(Run { run: name.to_string(), ..Run::default() })
    }

    fn p() -> String {
        "p".to_string()
    }

    fn candidates(run: &str, first: usize, count: usize) -> Line {
        let list = vec![LoggedCandidate::default(); count];
        Line::Candidates { run: run.to_string(), problem: p(), first, list }
    }

    fn round_of(run: &str, round: usize, times: Vec<Time>, core_to_core_ns: Option<f64>) -> Line {
        Line::Round { run: run.to_string(), problem: p(), round, times, core_to_core_ns }
    }

    fn round(run: &str, round: usize, numbers: &[usize]) -> Line {
        let times = numbers.iter().map(|&number| Time(number, 1000 * round as u64, 0)).collect();
        round_of(run, round, times, None)
    }

    /// A round of one candidate on cores of that core-to-core latency.
    fn round_at(run: &str, round: usize, ns: f64) -> Line {
        round_of(run, round, vec![Time(0, 1000, 0)], Some(ns))
    }

    fn resumes(run: &str, from: &str) -> Line {
        Line::Resumes { run: run.to_string(), problem: p(), from: from.to_string() }
    }

    fn done(run: &str, share: f64, complete: bool) -> Line {
        Line::Done { run: run.to_string(), problem: p(), done: Done { share, complete } }
    }

    fn furthest(lines: Vec<Line>) -> Option<History> {
        let nearest = nearest(&lines, |_| true);
        Histories::of(lines, nearest, |_| true).furthest("p", 0.5).cloned()
    }

    #[test]
    fn rounds_belong_to_the_candidates_before_them_and_what_does_not_follow_is_passed_over() {
        let history = furthest(vec![
            run("a"),
            candidates("a", 0, 2),
            round("a", 1, &[1, 0]),
            candidates("a", 5, 1),
            candidates("a", 2, 1),
            round("a", 2, &[2, 0]),
            round("a", 2, &[1]),
            round("a", 3, &[7]),
        ])
        .expect("a history");
        assert_eq!((history.candidates.len(), history.rounds.len()), (3, 2));
        assert_eq!(history.samples(0).seconds(), [1e-6, 2e-6]);
        assert_eq!(history.samples(1).last_round(), Some(1));
        assert_eq!(furthest(vec![run("a"), candidates("a", 0, 1)]), None);
        assert_eq!(furthest(vec![candidates("a", 0, 1), round("a", 1, &[0])]), None);
    }

    #[test]
    fn a_run_that_resumes_another_has_its_rounds_too() {
        let lines = vec![
            run("a"),
            candidates("a", 0, 1),
            round("a", 1, &[0]),
            run("b"),
            resumes("b", "a"),
            round("b", 2, &[0]),
            done("b", 1.0, false),
        ];
        let history = furthest(lines).expect("a history");
        assert_eq!((history.run.as_str(), history.rounds.len()), ("b", 2));
        assert_eq!(history.disturbed_share(), 0.0);
        assert!(history.done.is_some());
    }

    #[test]
    fn a_run_that_resumes_one_on_cores_far_apart_is_as_done_as_it_says() {
        let mut lines = vec![run("a"), candidates("a", 0, 1)];
        lines.extend((1..=8).map(|number| round_at("a", number, if number > 5 { 190.0 } else { 20.0 })));
        lines.push(done("a", 1.0, true));
        let of_a = furthest(lines.clone()).expect("a history");
        assert_eq!(of_a.done, Some(Done { share: 5.0 / 8.0, complete: false }));
        lines.extend([run("b"), resumes("b", "a"), round_at("b", 9, 20.0), done("b", 1.0, true)]);
        let of_b = furthest(lines).expect("a history");
        let numbers: Vec<usize> = of_b.rounds.iter().map(|round| round.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 9]);
        assert_eq!(of_b.done, Some(Done { share: 1.0, complete: true }));
    }

    #[test]
    fn a_busy_time_does_not_stand_before_a_quiet_one() {
        let with = |name: &str, disturbed: u8, share: f64| {
            let busy = round_of(name, 1, vec![Time(0, 1000, disturbed)], None);
            vec![run(name), candidates(name, 0, 1), busy, done(name, share, false)]
        };
        let quiet = furthest([with("a", 0, 1.0), with("b", 1, 5.0)].concat()).expect("a history");
        assert_eq!(quiet.run, "a");
        assert_eq!(furthest(with("b", 1, 5.0)), None);
    }

    #[test]
    fn a_time_on_cores_far_apart_does_not_stand_where_nearer_ones_are_known() {
        let with = |name: &str, ns: &[f64], share: f64| {
            let mut lines = vec![run(name), candidates(name, 0, 1)];
            lines.extend(ns.iter().zip(1..).map(|(ns, number)| round_at(name, number, *ns)));
            lines.push(done(name, share, false));
            lines
        };
        let near = furthest([with("a", &[20.0; 5], 1.0), with("b", &[190.0; 9], 5.0)].concat());
        assert_eq!(near.expect("a history").run, "a");
        let far = furthest(with("b", &[190.0; 9], 5.0)).expect("a history");
        assert_eq!(far.run, "b");
        // Near for few rounds says what near is, and that the others were not; fewer say nothing.
        let mixed = |near: usize| {
            let history =
                furthest(with("c", &[vec![190.0; 15], vec![20.0; near]].concat(), 1.0)).expect("one");
            (history.rounds.len(), history.last_round, history.done.map(|done| done.share))
        };
        assert_eq!(mixed(5), (5, 20, Some(0.25)));
        assert_eq!(mixed(4), (19, 19, Some(1.0)));
        // What was long ago is no matter.
        let later: Vec<Line> =
            (0..POLICY.log.runs).flat_map(|i| with(&format!("l{i}"), &[190.0 + i as f64; 9], 1.0)).collect();
        let all = |_: &Run| true;
        assert_eq!(nearest(&[with("a", &[20.0; 5], 1.0), later.clone()].concat(), all), Some(190.0));
        assert_eq!(nearest(&later, |run| run.run == "l3"), Some(193.0));
    }

    #[test]
    fn the_newest_of_those_with_the_largest_share_is_taken_before_any_that_is_not_done() {
        let of = |name: &str, rounds: usize, share: Option<f64>| {
            let rounds = (1..=rounds).map(|i| round(name, i, &[0]));
            let head = [run(name), candidates(name, 0, 1)];
            head.into_iter().chain(rounds).chain(share.map(|s| done(name, s, false))).collect::<Vec<_>>()
        };
        let name = |parts: Vec<Vec<Line>>| furthest(parts.concat()).expect("a history").run;
        assert_eq!(name(vec![of("a", 2, None), of("b", 5, None), of("c", 3, None)]), "b");
        assert_eq!(name(vec![of("a", 2, Some(1.0)), of("b", 5, None)]), "a");
        assert_eq!(name(vec![of("a", 2, Some(1.0)), of("b", 1, Some(0.95))]), "b");
        assert_eq!(name(vec![of("a", 2, Some(1.0)), of("b", 9, Some(0.2))]), "a");
    }
}
