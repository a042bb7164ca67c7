//! Two recordings compared: plans or logs, each with times of its own hour.
//!
//! Between the two, the machine may have changed its pace, and nothing tells that from kernels that
//! have changed all alike. What tells it are the candidates that both have: most of them are as
//! they were. The median of their ratios is the pace, and their spread about it the noise. An
//! interval of a row has room for the noise of its own runs, for that spread, and for the pace
//! whether it is the machine's or the kernels'. Small differences are for rounds in turn.

use std::collections::HashMap;

use engine::network::CandidateId;
use engine::util::{Interval, median};

use crate::compare::interval::normal_deviate;
use crate::compare::side::{Side, Times};
use crate::compare::{Comparison, ERROR, Pace, Row, Timed};

/// Candidates in common from which on their ratios tell the pace.
const COMMON: usize = 12;

/// The standard deviation of a normal distribution over its median absolute deviation.
const MAD: f64 = 1.4826;

/// Compares two recordings, of the names that are shown.
pub fn compare([a_name, b_name]: [String; 2], a: &Side, b: &Side) -> Comparison {
    let pace = pace(a, b);
    let (of_a, of_b) = (chosen(a), chosen(b));
    let by_name: HashMap<&str, &Chosen> = of_b.iter().map(|own| (own.problem, own)).collect();
    let names: Vec<&str> = of_a.iter().map(|own| own.problem).collect();
    let rows = of_a.len() + usize::from(a.network.is_some() && b.network.is_some());
    let noise = Noise::of(pace, a.noise_floor.max(b.noise_floor), ERROR / rows.max(1) as f64);
    let row = |a: &Chosen, b: &Chosen| {
        let sides = [a, b].map(|own| Timed { kernel: own.kernel.clone(), us: own.times.median * 1e6 });
        Row::new(a.problem.to_string(), a.count, sides, noise.ratio(&a.times, &b.times))
    };
    let both = of_a.iter().filter_map(|a| Some((a, *by_name.get(a.problem)?)));
    let network = a.network.zip(b.network).map(|(a, b)| {
        let sides = [a, b].map(|times| Timed { kernel: String::new(), us: times.median * 1e6 });
        Row::new("network".to_string(), 1, sides, noise.ratio(&a, &b))
    });
    let mut comparison = Comparison {
        a: a_name,
        b: b_name,
        rounds: None,
        pace,
        network,
        problems: both.map(|(a, b)| row(a, b)).collect(),
        only_a: names.iter().filter(|name| !by_name.contains_key(**name)).map(|n| n.to_string()).collect(),
        only_b: of_b.iter().filter(|b| !names.contains(&b.problem)).map(|b| b.problem.to_string()).collect(),
    };
    comparison.sort();
    comparison
}

/// What one side has chosen for a problem, in the mean of its steps.
struct Chosen<'a> {
    problem: &'a str,
    count: usize,
    kernel: String,
    times: Times,
}

/// A candidate, its times, and for how many steps it was chosen.
type Pick<'a> = (&'a CandidateId, Times, usize);

fn chosen(side: &Side) -> Vec<Chosen<'_>> {
    let mut all: Vec<(&str, Vec<Pick>)> = Vec::new();
    for (problem, count, id) in &side.choices {
        let own = side.candidates(problem).iter().find(|(other, _)| other == id);
        let Some((_, times)) = own else { continue };
        let entry = (id, *times, *count);
        match all.iter_mut().find(|(name, _)| name == problem) {
            Some((_, list)) => list.push(entry),
            None => all.push((problem, vec![entry])),
        }
    }
    all.into_iter().filter_map(|(problem, list)| Chosen::of(problem, &list)).collect()
}

impl<'a> Chosen<'a> {
    /// Of candidates, each chosen for so many steps.
    fn of(problem: &'a str, list: &[Pick]) -> Option<Self> {
        let times: Vec<(Times, usize)> = list.iter().map(|(_, times, count)| (*times, *count)).collect();
        let mut kernels: Vec<&str> = list.iter().map(|(id, ..)| id.kernel.as_str()).collect();
        kernels.dedup();
        let count = list.iter().fold(0usize, |sum, (.., count)| sum.saturating_add(*count));
        Some(Self { problem, count, kernel: kernels.join(" "), times: Times::mean(&times)? })
    }
}

/// The ratios of all candidates that both have; none of too few.
fn pace(a: &Side, b: &Side) -> Option<Pace> {
    let mut ratios = Vec::new();
    for (problem, list) in &a.times {
        let others: HashMap<&CandidateId, Times> =
            b.candidates(problem).iter().map(|(id, times)| (id, *times)).collect();
        let both = list.iter().filter_map(|(id, times)| Some((times, others.get(id)?)));
        ratios.extend(both.map(|(a, b)| (b.median / a.median).ln()).filter(|ratio| ratio.is_finite()));
    }
    let middle = median(&ratios).filter(|_| ratios.len() >= COMMON)?;
    let off: Vec<f64> = ratios.iter().map(|ratio| (ratio - middle).abs()).collect();
    Some(Pace { candidates: ratios.len(), ratio: middle.exp(), spread: MAD * median(&off)? })
}

/// How far ratios of two recordings may be off.
struct Noise {
    pace: f64,
    spread: f64,
    deviate: f64,
}

impl Noise {
    /// By the pace, or where that is not known by the noise floor, which holds in 95 of 100 cases.
    fn of(pace: Option<Pace>, floor: f64, error: f64) -> Self {
        let (pace, spread) = pace.map_or((1.0, floor / 1.96), |pace| (pace.ratio, pace.spread));
        Self { pace, spread, deviate: normal_deviate(error) }
    }

    /// B / A, with room for its own runs, for the spread, and for the pace. The deviation of a median
    /// by its quartiles is that of notches in box plots (R. McGill, J. W. Tukey and W. A. Larsen,
    /// "Variations of Box Plots", 1978).
    fn ratio(&self, a: &Times, b: &Times) -> Option<Interval> {
        let of_median = |times: &Times| {
            let [low, high] = times.quartiles;
            1.25 * (high - low) / (1.35 * (times.runs as f64).sqrt()) / times.median
        };
        let own = [a, b].map(of_median);
        let off = self.deviate * (own[0].powi(2) + own[1].powi(2) + self.spread.powi(2)).sqrt();
        let value = b.median / a.median;
        let paced = value / self.pace;
        let interval =
            Interval { value, low: value.min(paced) * (-off).exp(), high: value.max(paced) * off.exp() };
        [interval.low, interval.value, interval.high].iter().all(|v| v.is_finite()).then_some(interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Verdict;

    /// A side of ten problems of four candidates, with times that differ a little by `seed`.
    fn side(seed: u64, time: impl Fn(usize, usize) -> f64) -> Side {
        let id = |number: usize| CandidateId { kernel: format!("k{number}"), ..CandidateId::default() };
        let times = |problem: usize, number: usize| {
            let noise = 1.0 + 0.004 * (engine::util::unit(seed, problem as u64, number as u64) - 0.5);
            let median = time(problem, number) * noise;
            Times { median, quartiles: [0.998 * median, 1.002 * median], runs: 40 }
        };
        let list = |problem: usize| (0..4).map(|number| (id(number), times(problem, number))).collect();
        Side {
            setting: String::new(),
            choices: (0..10).map(|problem| (format!("p{problem}"), 1, id(0))).collect(),
            times: (0..10).map(|problem| (format!("p{problem}"), list(problem))).collect(),
            network: None,
            noise_floor: 0.01,
        }
    }

    fn of(a: &Side, b: &Side) -> Comparison {
        compare(["a", "b"].map(str::to_string), a, b)
    }

    #[test]
    fn one_kernel_that_got_slower_is_found_and_the_others_are_not() {
        let (a, b) = (side(1, |_, _| 1e-4), side(2, |p, k| if p == 3 && k == 0 { 1.1e-4 } else { 1e-4 }));
        let comparison = of(&a, &b);
        let slower = comparison.problems.iter().filter(|row| row.verdict == Verdict::Slower);
        assert_eq!(slower.map(|row| row.name.as_str()).collect::<Vec<_>>(), ["p3"]);
        assert!(comparison.problems[0].is_slower_by(0.05) && !comparison.problems[0].is_slower_by(0.15));
        assert_eq!(comparison.count(Verdict::Faster), 0);
        let pace = comparison.pace.expect("enough candidates");
        assert!((pace.ratio - 1.0).abs() < 2e-3 && pace.spread < 5e-3, "{pace:?}");
    }

    #[test]
    fn a_machine_that_got_slower_is_no_slower_kernel() {
        let comparison = of(&side(1, |_, _| 1e-4), &side(2, |_, _| 1.2e-4));
        assert!(comparison.rows().all(|row| row.verdict == Verdict::CannotTell));
        assert!(comparison.rows().all(|row| !row.is_slower_by(0.03)));
    }

    #[test]
    fn problems_of_one_side_alone_are_named() {
        let (a, mut b) = (side(1, |_, _| 1e-4), side(2, |_, _| 1e-4));
        b.choices.remove(0);
        b.choices.push(("q".to_string(), 1, CandidateId { kernel: "k0".to_string(), ..Default::default() }));
        b.times.push(("q".to_string(), b.times[1].1.clone()));
        let comparison = of(&a, &b);
        assert_eq!((comparison.only_a, comparison.only_b), (vec!["p0".to_string()], vec!["q".to_string()]));
        assert_eq!(comparison.problems.len(), 9);
    }
}
