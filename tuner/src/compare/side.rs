//! What a plan or a log of measurements says: choices, and the times of all candidates.

use std::path::Path;

use engine::network::CandidateId;
use engine::plan::TimeUs;
use engine::util::Timing;
use engine::{Machine, Plan, PlanError};
use kernels::{Role, entry};

use crate::compare::CompareError;
use crate::log::History;
use crate::log::file::read;
use crate::log::history::{Histories, nearest};
use crate::log::schema::Run;

/// A median and its quartiles in seconds, of so many runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    pub median: f64,
    pub quartiles: [f64; 2],
    pub runs: usize,
}

impl Times {
    pub fn of(time: TimeUs, runs: usize) -> Self {
        let [median, low, high] = [time.median, time.low, time.high].map(|us| us * 1e-6);
        Self { median, quartiles: [low, high], runs }
    }

    /// The mean of times, each so many times; none of none.
    pub fn mean(all: &[(Self, usize)]) -> Option<Self> {
        let count: usize = all.iter().map(|(_, n)| n).sum();
        let runs = all.iter().map(|(times, _)| times.runs).min()?;
        let mean = |of: fn(&Self) -> f64| {
            all.iter().map(|(times, n)| of(times) * *n as f64).sum::<f64>() / count.max(1) as f64
        };
        let quartiles = [mean(|times| times.quartiles[0]), mean(|times| times.quartiles[1])];
        Some(Self { median: mean(|times| times.median), quartiles, runs })
    }
}

impl From<Timing> for Times {
    fn from(Timing { median, quartiles, samples, .. }: Timing) -> Self {
        Self { median, quartiles, runs: samples }
    }
}

/// Choices and times of one machine with one number of threads.
pub struct Side {
    /// The machine, and the number of threads.
    pub setting: String,
    /// Problems, how often each occurs, and what was chosen.
    pub choices: Vec<(String, usize, CandidateId)>,
    /// Of each problem the candidates that may be chosen, and their times.
    pub times: Vec<(String, Vec<(CandidateId, Times)>)>,
    /// The whole network, where it was measured.
    pub network: Option<Times>,
    /// How far from 1 the ratio of a kernel's times to a copy's may be; 0 where that is not known.
    pub noise_floor: f64,
}

impl Side {
    /// The candidates of a problem.
    pub fn candidates(&self, problem: &str) -> &[(CandidateId, Times)] {
        self.times.iter().find(|(name, _)| name == problem).map_or(&[], |(_, list)| list)
    }
}

/// What a file has: a plan is one, a log one for each machine, number of threads and set of types.
pub fn sides(path: &Path) -> Result<Vec<Side>, CompareError> {
    match Plan::read(path) {
        Ok(plan) => Ok(vec![of_plan(&plan)]),
        Err(PlanError::NoPlan { .. }) => {
            let (lines, _) = read(path)?;
            let runs = Histories::of(lines.clone(), None, |_| true).runs;
            let mut kinds: Vec<(&Machine, usize, &String)> = Vec::new();
            for run in &runs {
                let kind = (&run.machine, run.threads, &run.types);
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
            let of = |kind: (&Machine, usize, &String)| {
                let like = |run: &Run| (&run.machine, run.threads, &run.types) == kind;
                let name = format!("{}, {}", setting(kind.0, kind.1), kind.2);
                of_log(name, &Histories::of(lines.clone(), nearest(&lines, like), like))
            };
            Ok(kinds.into_iter().map(of).filter(|side| !side.times.is_empty()).collect())
        }
        Err(error) => Err(error.into()),
    }
}

fn setting(machine: &Machine, threads: usize) -> String {
    let plural = if threads == 1 { "" } else { "s" };
    format!("{} ({}), {threads} thread{plural}", machine.cpu, machine.isa)
}

fn may_be_chosen(id: &CandidateId) -> bool {
    entry(&id.kernel).is_none_or(|row| row.role == Role::Candidate)
}

pub fn of_plan(plan: &Plan) -> Side {
    let mut choices: Vec<(String, usize, CandidateId)> = Vec::new();
    for step in &plan.steps {
        let id = step.id();
        match choices.iter_mut().find(|(problem, _, own)| *problem == step.problem && *own == id) {
            // An edited plan may state any number.
            Some((_, count, _)) => *count = count.saturating_add(step.repeats),
            None => choices.push((step.problem.clone(), step.repeats, id)),
        }
    }
    let times = plan.measurements.iter().map(|measured| {
        let timed =
            measured.candidates.iter().filter_map(|c| Some((c.id.clone(), Times::of(c.time_us?, c.samples))));
        (measured.problem.clone(), timed.filter(|(id, _)| may_be_chosen(id)).collect())
    });
    let network = plan.networks.first().and_then(|record| Some(Times::of(record.time_us, record.runs?)));
    Side {
        setting: setting(&plan.machine, plan.threads),
        choices,
        times: times.collect(),
        network,
        noise_floor: plan.noise.map_or(0.0, |noise| noise.noise_floor),
    }
}

fn of_log(setting: String, histories: &Histories) -> Side {
    let (mut choices, mut times) = (Vec::new(), Vec::new());
    for problem in &histories.problems {
        let Some(history) = histories.furthest(problem, 1.0) else { continue };
        let timed = timed(history);
        let best = timed.iter().min_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
        let Some((best, _)) = best else { continue };
        choices.push((problem.clone(), 1, best.clone()));
        times.push((problem.clone(), timed));
    }
    Side { setting, choices, times, network: None, noise_floor: 0.0 }
}

/// Candidates that may be chosen, by times relative to the fastest that was timed to the end.
fn timed(history: &History) -> Vec<(CandidateId, Times)> {
    let samples: Vec<_> = (0..history.candidates.len()).map(|number| history.samples(number)).collect();
    let last = samples.iter().filter_map(|samples| samples.last_round()).max();
    let ended = samples.iter().filter(|samples| samples.last_round() == last && !samples.is_empty());
    let Some(leader) = ended.min_by(|a, b| a.median().total_cmp(&b.median())) else { return Vec::new() };
    let measured = history.candidates.iter().zip(&samples).filter(|(_, samples)| !samples.is_empty());
    let timed = measured.map(|(c, samples)| (c.id.clone(), Times::from(samples.relative_to(leader))));
    timed.filter(|(id, _)| may_be_chosen(id)).collect()
}
