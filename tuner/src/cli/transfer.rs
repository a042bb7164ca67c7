//! `tuner transfer A B`: what one machine's choices cost on another.

use std::io::Write;
use std::path::{Path, PathBuf};

use engine::network::choice::StepFormats;
use engine::plan::error::PlanError;
use engine::plan::schema::Plan;
use engine::runtime::machine::Machine;
use engine::util::error::Failure;
use kernels::{Role, entry};
use serde_json::{Map, Value};

use crate::log::file::read;
use crate::log::history::{Histories, History, nearest};
use crate::log::schema::{LoggedCandidate, Run};
use crate::report::table::Table;

/// Arguments of `transfer`.
#[derive(Clone, Debug, clap::Args)]
pub struct TransferArgs {
    /// Whose choices: a plan, or a log of measurements
    #[arg(value_name = "A")]
    from: PathBuf,
    /// Whose times: a plan with its measurements, or a log of one machine or several
    #[arg(value_name = "B")]
    to: PathBuf,
}

/// A kernel with its tuning and formats.
#[derive(Clone, Debug, PartialEq)]
struct Pick {
    kernel: String,
    tuning: Map<String, Value>,
    formats: Option<StepFormats>,
}

impl Pick {
    fn family(&self) -> &str {
        entry(&self.kernel).map_or(self.kernel.as_str(), |row| row.family)
    }

    fn types(&self) -> Option<String> {
        self.formats.as_ref().map(StepFormats::types)
    }

    /// How many numbers of its tuning are not another's; none for another algorithm or other types.
    fn distance(&self, other: &Self) -> Option<usize> {
        let differs = |(name, value): &(&String, &Value)| other.tuning.get(*name) != Some(*value);
        (self.family() == other.family() && self.types() == other.types())
            .then(|| self.tuning.iter().filter(differs).count())
    }

    fn text(&self) -> String {
        let parts: Vec<String> = self.tuning.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} [{}]", self.kernel, if parts.is_empty() { "-".to_string() } else { parts.join(",") })
    }
}

/// Choices and times of one machine with one number of threads.
struct Side {
    name: String,
    /// Problems, how often each occurs, and what was chosen.
    choices: Vec<(String, usize, Pick)>,
    /// Of each problem the candidates that may be chosen and their seconds.
    times: Vec<(String, Vec<(Pick, f64)>)>,
}

/// Runs the command.
///
/// # Errors
/// If a file can't be read, A is not of one machine, or they have no problem in common.
pub fn transfer(args: &TransferArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut from = sides(&args.from)?;
    if from.len() != 1 {
        let names: Vec<&str> = from.iter().map(|side| side.name.as_str()).collect();
        return Err(format!(
            "{}: found {} ways to choose ({}), expected those of one machine and one number of threads",
            args.from.display(),
            names.len(),
            names.join("; ")
        )
        .into());
    }
    let from = from.remove(0);
    let mut is_any = false;
    for to in sides(&args.to)? {
        is_any |= compare(&from, &to, out)?;
    }
    match is_any {
        true => Ok(()),
        false => Err(format!(
            "{}: found no problem in common with {}, expected measurements of the same model and batch",
            args.to.display(),
            args.from.display()
        )
        .into()),
    }
}

/// Prints what the choices of one cost by the times of the other; whether they have a problem in common.
fn compare(from: &Side, to: &Side, out: &mut dyn Write) -> Result<bool, Failure> {
    let mut table = Table::new(&["problem", "x", "choice of A", "us on B", "best on B", "us", "regret %"]);
    let (mut own, mut best_sum, mut near, mut missing) = (0.0, 0.0, 0, 0);
    let mut is_any = false;
    for (problem, count, pick) in &from.choices {
        let Some((_, times)) = to.times.iter().find(|(other, _)| other == problem) else { continue };
        let Some((best, least)) = times.iter().min_by(|(_, a), (_, b)| a.total_cmp(b)) else { continue };
        is_any = true;
        let alike = times.iter().filter_map(|(other, seconds)| Some((pick.distance(other)?, *seconds)));
        let us = |seconds: f64| format!("{:.1}", seconds * 1e6);
        let (text, time, regret) = match alike.min_by_key(|(distance, _)| *distance) {
            Some((distance, seconds)) => {
                own += seconds * *count as f64;
                best_sum += least * *count as f64;
                near += usize::from(distance > 0);
                let mark = if distance > 0 { "~ " } else { "" };
                (
                    format!("{mark}{}", pick.text()),
                    us(seconds),
                    format!("{:.1}", (seconds / least - 1.0) * 100.0),
                )
            }
            None => {
                missing += 1;
                (pick.text(), "not measured".to_string(), String::new())
            }
        };
        table.row([problem.clone(), count.to_string(), text, time, best.text(), us(*least), regret]);
    }
    if !is_any {
        return Ok(false);
    }
    writeln!(out, "A: {}\nB: {}\n\n{table}", from.name, to.name)?;
    if best_sum > 0.0 {
        writeln!(
            out,
            "by B's times alone, A's choices take {:.2} ms and B's best {:.2} ms: a regret of {:.1}%",
            own * 1e3,
            best_sum * 1e3,
            (own / best_sum - 1.0) * 100.0
        )?;
    }
    if near > 0 {
        writeln!(out, "~ {near} of the tunings were not measured on B: the nearest of the same family")?;
    }
    if missing > 0 {
        writeln!(
            out,
            "{missing} choices have no measured candidate of their family on B and are not counted"
        )?;
    }
    writeln!(out)?;
    Ok(true)
}

/// What a file has: a plan is one, a log one for each machine, number of threads and set of types.
fn sides(path: &Path) -> Result<Vec<Side>, Failure> {
    match Plan::read(path) {
        Ok(plan) => Ok(vec![of_plan(&plan)]),
        Err(PlanError::Json { field, .. }) if field == "plan" => {
            let (lines, _) = read(path)?;
            let mut kinds = Vec::new();
            for run in &Histories::of(lines.clone(), None, |_| true).runs {
                let kind = (run.machine.clone(), run.threads, run.types.clone());
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
            let of = |(machine, threads, types): (Machine, usize, String)| {
                let like = |run: &Run| (&run.machine, run.threads, &run.types) == (&machine, threads, &types);
                let name = format!("{} ({}), {threads} threads, {types}", machine.cpu, machine.isa);
                of_log(name, &Histories::of(lines.clone(), nearest(&lines, like), like))
            };
            Ok(kinds.into_iter().map(of).filter(|side| !side.times.is_empty()).collect())
        }
        Err(error) => Err(error.into()),
    }
}

fn of_plan(plan: &Plan) -> Side {
    let mut choices: Vec<(String, usize, Pick)> = Vec::new();
    for step in &plan.steps {
        let pick = Pick {
            kernel: step.kernel.clone(),
            tuning: step.tuning.clone(),
            formats: Some(step.formats.clone()),
        };
        match choices.iter_mut().find(|(problem, _, known)| *problem == step.problem && *known == pick) {
            Some((_, count, _)) => *count += 1,
            None => choices.push((step.problem.clone(), 1, pick)),
        }
    }
    let times = plan.measurements.iter().map(|measured| {
        let timed = measured.candidates.iter().filter_map(|c| {
            let pick =
                Pick { kernel: c.kernel.clone(), tuning: c.tuning.clone(), formats: c.formats.clone() };
            Some((pick, c.time_us?.median * 1e-6))
        });
        (measured.problem.clone(), timed.filter(|(pick, _)| may_be_chosen(pick)).collect())
    });
    let name = format!("{} ({}), {} threads", plan.machine.cpu, plan.machine.isa, plan.threads);
    Side { name, choices, times: times.collect() }
}

fn of_log(name: String, histories: &Histories) -> Side {
    let (mut choices, mut times) = (Vec::new(), Vec::new());
    for problem in &histories.problems {
        let Some(history) = histories.furthest(problem, 1.0) else { continue };
        let timed = timed(history);
        let Some((best, _)) = timed.iter().min_by(|(_, a), (_, b)| a.total_cmp(b)) else { continue };
        choices.push((problem.clone(), 1, best.clone()));
        times.push((problem.clone(), timed));
    }
    Side { name, choices, times }
}

/// Candidates that may be chosen, as fast as they were beside the fastest that was timed to the end.
fn timed(history: &History) -> Vec<(Pick, f64)> {
    let pick = |entry: &LoggedCandidate| Pick {
        kernel: entry.kernel.clone(),
        tuning: entry.tuning.clone(),
        formats: Some(entry.formats.clone()),
    };
    let samples: Vec<_> = (0..history.candidates.len()).map(|number| history.samples(number)).collect();
    let last = samples.iter().filter_map(|samples| samples.last_round()).max();
    let ended = samples.iter().filter(|samples| samples.last_round() == last && !samples.is_empty());
    let Some(leader) = ended.min_by(|a, b| a.median().total_cmp(&b.median())) else { return Vec::new() };
    let own = history.candidates.iter().zip(&samples).filter(|(_, samples)| !samples.is_empty());
    own.map(|(entry, samples)| (pick(entry), samples.beside(leader).median))
        .filter(|(pick, _)| may_be_chosen(pick))
        .collect()
}

fn may_be_chosen(pick: &Pick) -> bool {
    entry(&pick.kernel).is_none_or(|row| row.role == Role::Candidate)
}
