//! Two plans or two programs, run in turn.
//!
//! Each turn is a process of its own: `PROGRAM run --repeat`, which a build of any age has. Where
//! memory happens to lie makes a network faster or slower by some percent for as long as a process
//! lives; in new processes it is chance, which the intervals have room for.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use engine::util::median;
use serde::Deserialize;

use crate::bench::POLICY;
use crate::compare::interval::median_interval;
use crate::compare::{CompareError, Comparison, ERROR, Row, Timed};

/// A side: a program, and the options with which it runs.
pub struct Contender {
    pub name: String,
    pub program: PathBuf,
    pub options: Vec<OsString>,
}

/// What `run --repeat --profile --json` prints; older programs have no times of steps.
#[derive(Debug, Deserialize)]
struct Answer {
    latency_ms: Vec<f64>,
    disturbed: usize,
    model: String,
    #[serde(default)]
    shape: Option<String>,
    batch: usize,
    #[serde(default)]
    steps: Vec<StepTimes>,
}

#[derive(Debug, Deserialize)]
struct StepTimes {
    problem: String,
    kernel: String,
    time_us: Quartiles,
}

/// Of the times of a step.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Quartiles {
    median: f64,
    low: f64,
}

/// Seconds for the inferences of a turn.
const TURN_S: f64 = 0.4;

/// Inferences of a turn, at least and at most.
const INFERENCES: [f64; 2] = [3.0, 200.0];

impl Contender {
    /// One turn of so many inferences.
    fn run(&self, inferences: usize, with_steps: bool) -> Result<Answer, CompareError> {
        let wrong = |what: String| CompareError::Input(format!("{}: {what}", self.name));
        let mut command = Command::new(&self.program);
        command.arg("run").args(&self.options).args(["--repeat", &inferences.to_string(), "--json"]);
        if with_steps {
            command.arg("--profile");
        }
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| wrong(format!("cannot run: {error}")))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text.lines().rev().find(|line| !line.trim().is_empty());
            let last = last.unwrap_or_default().trim_start_matches("error: ");
            return Err(wrong(format!("ended with {}: {last}", output.status)));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let answer: Answer = serde_json::from_str(&text).map_err(|error| {
            wrong(format!("found another output than that of run --repeat --json: {error}"))
        })?;
        match answer.latency_ms.is_empty() {
            true => Err(wrong("found no latency, expected one an inference".to_string())),
            false => Ok(answer),
        }
    }

    /// The same, where it can be with the times of steps; whether it can.
    fn first(&self) -> Result<(Answer, bool), CompareError> {
        match self.run(INFERENCES[0] as usize, true) {
            Ok(answer) => Ok((answer, true)),
            Err(error) => self.run(INFERENCES[0] as usize, false).map(|a| (a, false)).map_err(|_| error),
        }
    }
}

impl Answer {
    fn is_busy(&self) -> bool {
        self.disturbed as f64 > POLICY.in_network.busy_share * self.latency_ms.len() as f64
    }

    /// Microseconds of an inference: the median, or the first quartile where others had the cores.
    fn network_us(&self, is_busy: bool) -> f64 {
        let timing = engine::util::Timing::of(&self.latency_ms);
        1e3 * if is_busy { timing.quartiles[0] } else { timing.median }
    }

    /// Of each problem how many steps have it, microseconds of one of them, and their kernels.
    fn problems(&self, is_busy: bool) -> Vec<(&str, usize, f64, Vec<&str>)> {
        let mut list: Vec<(&str, usize, f64, Vec<&str>)> = Vec::new();
        for StepTimes { problem, kernel, time_us } in &self.steps {
            let us = if is_busy { time_us.low } else { time_us.median };
            match list.iter_mut().find(|(name, ..)| name == problem) {
                Some((_, count, sum, kernels)) => {
                    (*count, *sum) = (*count + 1, *sum + us);
                    if !kernels.contains(&kernel.as_str()) {
                        kernels.push(kernel);
                    }
                }
                None => list.push((problem, 1, us, vec![kernel])),
            }
        }
        list.into_iter()
            .map(|(name, count, sum, kernels)| (name, count, sum / count as f64, kernels))
            .collect()
    }
}

/// The times of one name in all rounds, A's and B's.
#[derive(Default)]
struct Rounds {
    count: usize,
    kernels: [String; 2],
    us: [Vec<f64>; 2],
}

impl Rounds {
    fn row(&self, name: &str, error: f64) -> Option<Row> {
        let ratios: Vec<f64> = self.us[0].iter().zip(&self.us[1]).map(|(a, b)| b / a).collect();
        let of =
            |side: usize| Some(Timed { kernel: self.kernels[side].clone(), us: median(&self.us[side])? });
        Some(Row::new(name.to_string(), self.count, [of(0)?, of(1)?], median_interval(&ratios, error)))
    }
}

/// The whole network's name among the problems.
const NETWORK: &str = "network";

/// Runs both in turn, `rounds` times each; `progress` hears how far it is, from 0 to 1.
///
/// # Errors
/// If one does not run, or they run different networks.
pub fn compare(
    sides: &[Contender; 2],
    rounds: usize,
    progress: &mut dyn FnMut(f64),
) -> Result<Comparison, CompareError> {
    progress(0.0);
    let [(a, a_steps), (b, b_steps)] = [sides[0].first()?, sides[1].first()?];
    let what = |answer: &Answer| (answer.model.clone(), answer.shape.clone(), answer.batch);
    if what(&a) != what(&b) {
        let text = |answer: &Answer| {
            let shape = answer.shape.as_ref().map_or(String::new(), |shape| format!(" of {shape}"));
            format!("{}{shape} with batch {}", answer.model, answer.batch)
        };
        let [a, b] = [&a, &b].map(text);
        let name = &sides[1].name;
        return Err(CompareError::Input(format!("{name}: found {b}, expected {a} as A has")));
    }
    let with_steps = a_steps && b_steps;
    let slowest = a.network_us(false).max(b.network_us(false)) * 1e-6;
    let inferences = (TURN_S / slowest).clamp(INFERENCES[0], INFERENCES[1]) as usize;

    let mut names: Vec<String> = vec![NETWORK.to_string()];
    let mut times: HashMap<String, Rounds> = HashMap::new();
    let mut alone: [Vec<String>; 2] = Default::default();
    for round in 0..rounds {
        progress(round as f64 / rounds as f64);
        let run = |side: usize| sides[side].run(inferences, with_steps);
        // A then B, B then A: what drifts favours neither.
        let [a, b] = if round % 2 == 0 {
            let a = run(0)?;
            [a, run(1)?]
        } else {
            let b = run(1)?;
            [run(0)?, b]
        };
        let is_busy = a.is_busy() || b.is_busy();
        let network = times.entry(NETWORK.to_string()).or_default();
        network.count = 1;
        [&a, &b]
            .into_iter()
            .zip(&mut network.us)
            .for_each(|(answer, us)| us.push(answer.network_us(is_busy)));
        let (of_a, of_b) = (a.problems(is_busy), b.problems(is_busy));
        alone = [(&of_a, &of_b), (&of_b, &of_a)].map(|(own, other)| {
            let is_alone = |name: &str| other.iter().all(|(known, ..)| *known != name);
            own.iter().filter(|(name, ..)| is_alone(name)).map(|(name, ..)| name.to_string()).collect()
        });
        for (name, count, us, kernels) in of_a {
            let Some((_, _, b_us, b_kernels)) = of_b.iter().find(|(other, ..)| *other == name) else {
                continue;
            };
            let entry = times.entry(name.to_string()).or_insert_with(|| {
                names.push(name.to_string());
                Rounds { count, kernels: [kernels.join(" "), b_kernels.join(" ")], us: Default::default() }
            });
            entry.us[0].push(us);
            entry.us[1].push(*b_us);
        }
    }
    let error = ERROR / names.len() as f64;
    let mut rows = names.iter().filter_map(|name| times.get(name)?.row(name, error));
    let [only_a, only_b] = alone;
    let mut comparison = Comparison {
        a: sides[0].name.clone(),
        b: sides[1].name.clone(),
        rounds: Some(rounds),
        pace: None,
        network: rows.next(),
        problems: rows.collect(),
        only_a,
        only_b,
    };
    comparison.sort();
    Ok(comparison)
}

/// Whether a file is a program that can be run.
pub fn is_program(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let is_json = path.extension().is_some_and(|ending| ending == "json");
        !is_json && path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    }
    #[cfg(not(unix))]
    {
        path.extension().is_some_and(|ending| ending == "exe")
    }
}
