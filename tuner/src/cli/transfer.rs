//! `tuner transfer A B`: what one machine's choices cost on another.

use std::io::Write;
use std::path::{Path, PathBuf};

use engine::network::choice::CandidateId;
use engine::plan::error::PlanError;
use engine::plan::schema::Plan;
use engine::runtime::machine::Machine;
use engine::util::error::Failure;
use kernels::{Role, entry};
use serde::Serialize;
use serde_json::Value;

use crate::cli::output::{Answer, OutputArgs};
use crate::log::file::read;
use crate::log::history::{Histories, History, nearest};
use crate::log::schema::Run;
use crate::report::data::tuning_text;
use crate::report::table::{Table, wrap};
use crate::report::text::{count, more, short, time_text};

/// Arguments of `transfer`.
#[derive(Clone, Debug, clap::Args)]
pub struct TransferArgs {
    /// Whose choices: a plan, or a log of measurements
    #[arg(value_name = "A")]
    from: PathBuf,
    /// Whose times: a plan with its measurements, or a log of one machine or several
    #[arg(value_name = "B")]
    to: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// What the choices of A cost by the times of B, for each machine and number of threads in B.
#[derive(Debug, Serialize)]
struct Transfers {
    comparisons: Vec<Comparison>,
}

#[derive(Debug, Serialize)]
struct Comparison {
    a: String,
    b: String,
    /// Sums of isolated times on B, of the problems that have one for the choice of A: by A's choices, and by B's best.
    choices_us: f64,
    best_us: f64,
    /// Share of the time that A's choices cost more.
    regret: Option<f64>,
    /// The one that costs most first.
    problems: Vec<Transfer>,
}

/// A problem.
#[derive(Debug, Serialize)]
struct Transfer {
    problem: String,
    count: usize,
    choice: CandidateId,
    /// The tuning was not measured on B: the time is that of the nearest of the same family.
    nearest: bool,
    /// Null where B has measured none of the family.
    choice_us: Option<f64>,
    best: CandidateId,
    best_us: f64,
}

impl Transfer {
    fn lost_us(&self) -> f64 {
        self.choice_us.map_or(0.0, |own| (own - self.best_us) * self.count as f64)
    }
}

/// The family of a candidate's kernel.
fn family(id: &CandidateId) -> &str {
    entry(&id.kernel).map_or(id.kernel.as_str(), |row| row.family)
}

/// How many numbers of its tuning are not another's; none for another algorithm or other types.
fn distance(id: &CandidateId, other: &CandidateId) -> Option<usize> {
    let differs = |(name, value): &(&String, &Value)| other.tuning.get(*name) != Some(*value);
    (family(id) == family(other) && id.formats.types() == other.formats.types())
        .then(|| id.tuning.iter().filter(differs).count())
}

/// Choices and times of one machine with one number of threads.
struct Side {
    name: String,
    /// Problems, how often each occurs, and what was chosen.
    choices: Vec<(String, usize, CandidateId)>,
    /// Of each problem the candidates that may be chosen and their seconds.
    times: Vec<(String, Vec<(CandidateId, f64)>)>,
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
            "{}: found choices of {} settings ({}), expected those of one machine and one number of threads",
            args.from.display(),
            names.len(),
            names.join("; ")
        )
        .into());
    }
    let from = from.remove(0);
    let comparisons: Vec<Comparison> = sides(&args.to)?.iter().filter_map(|to| compare(&from, to)).collect();
    if comparisons.is_empty() {
        return Err(format!(
            "{}: found no problem in common with {}, expected measurements of the same model and batch",
            args.to.display(),
            args.from.display()
        )
        .into());
    }
    args.output.print(&Transfers { comparisons }, out)
}

/// What the choices of one cost by the times of the other; none where they have no problem in common.
fn compare(from: &Side, to: &Side) -> Option<Comparison> {
    let mut problems: Vec<Transfer> =
        from.choices.iter().filter_map(|(problem, count, pick)| price(problem, *count, pick, to)).collect();
    problems.sort_by(|a, b| b.lost_us().total_cmp(&a.lost_us()));
    let timed =
        || problems.iter().filter_map(|p| Some((p.choice_us? * p.count as f64, p.best_us * p.count as f64)));
    let (choices_us, best_us) = timed().fold((0.0, 0.0), |(a, b), (own, best)| (a + own, b + best));
    let regret = (best_us > 0.0).then(|| choices_us / best_us - 1.0);
    let is_any = !problems.is_empty();
    is_any.then(|| Comparison {
        a: from.name.clone(),
        b: to.name.clone(),
        choices_us,
        best_us,
        regret,
        problems,
    })
}

/// A choice of one problem by the times of the other; none where that has no times.
fn price(problem: &str, count: usize, pick: &CandidateId, to: &Side) -> Option<Transfer> {
    let (_, times) = to.times.iter().find(|(other, _)| other == problem)?;
    let (best, least) = times.iter().min_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let alike = times.iter().filter_map(|(other, seconds)| Some((distance(pick, other)?, *seconds)));
    let own = alike.min_by_key(|(distance, _)| *distance);
    Some(Transfer {
        problem: problem.to_string(),
        count,
        choice: pick.clone(),
        nearest: own.is_some_and(|(distance, _)| distance > 0),
        choice_us: own.map(|(_, seconds)| seconds * 1e6),
        best: best.clone(),
        best_us: least * 1e6,
    })
}

impl Answer for Transfers {
    fn text(&self, width: usize) -> String {
        self.comparisons.iter().map(|comparison| comparison.text(width) + "\n").collect()
    }
}

impl Comparison {
    fn text(&self, width: usize) -> String {
        let mut table = Table::new(&[
            "problem",
            "x",
            "choice of A",
            "tuning",
            "us on B",
            "best on B",
            "tuning",
            "us",
            "regret",
        ])
        .details(&["tuning"]);
        for t in &self.problems {
            let mark = if t.nearest { "~ " } else { "" };
            table.row([
                t.problem.clone(),
                t.count.to_string(),
                format!("{mark}{}", t.choice.kernel),
                tuning_text(&t.choice.tuning),
                t.choice_us.map_or("-".to_string(), short),
                t.best.kernel.clone(),
                tuning_text(&t.best.tuning),
                short(t.best_us),
                t.choice_us.map_or("-".to_string(), |own| more(own / t.best_us)),
            ]);
        }
        let nearest = self.problems.iter().filter(|t| t.nearest).count();
        let missing = self.problems.iter().filter(|t| t.choice_us.is_none()).count();
        let mut notes = Vec::new();
        if let Some(regret) = self.regret {
            let [own, best] = [self.choices_us, self.best_us].map(time_text);
            notes.push(format!(
                "by B's isolated times, A's choices take {own} and B's best {best}: a regret of {:.1}%",
                regret * 100.0
            ));
        }
        if nearest > 0 {
            let tunings = count(nearest, "tuning");
            notes
                .push(format!("~ not measured on B ({tunings}): the time of the nearest of the same family"));
        }
        if missing > 0 {
            let choices = count(missing, "choice");
            notes.push(format!("- no candidate of the family was measured on B ({choices}): not counted"));
        }
        let notes: String = notes.iter().map(|note| wrap(note, width, 2) + "\n").collect();
        let sides = [format!("A: {}", self.a), format!("B: {}", self.b)].map(|side| wrap(&side, width, 3));
        format!("{}\n{}\n\n{}\n{notes}", sides[0], sides[1], table.fold(width))
    }
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
                let name =
                    format!("{} ({}), {}, {types}", machine.cpu, machine.isa, count(threads, "thread"));
                of_log(name, &Histories::of(lines.clone(), nearest(&lines, like), like))
            };
            Ok(kinds.into_iter().map(of).filter(|side| !side.times.is_empty()).collect())
        }
        Err(error) => Err(error.into()),
    }
}

fn of_plan(plan: &Plan) -> Side {
    let mut choices: Vec<(String, usize, CandidateId)> = Vec::new();
    for step in &plan.steps {
        let pick = step.id();
        match choices.iter_mut().find(|(problem, _, known)| *problem == step.problem && *known == pick) {
            Some((_, count, _)) => *count += 1,
            None => choices.push((step.problem.clone(), 1, pick)),
        }
    }
    let times = plan.measurements.iter().map(|measured| {
        let timed = measured.candidates.iter().filter_map(|c| Some((c.id.clone(), c.time_us?.median * 1e-6)));
        (measured.problem.clone(), timed.filter(|(pick, _)| may_be_chosen(pick)).collect())
    });
    let name = format!("{} ({}), {}", plan.machine.cpu, plan.machine.isa, count(plan.threads, "thread"));
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
fn timed(history: &History) -> Vec<(CandidateId, f64)> {
    let samples: Vec<_> = (0..history.candidates.len()).map(|number| history.samples(number)).collect();
    let last = samples.iter().filter_map(|samples| samples.last_round()).max();
    let ended = samples.iter().filter(|samples| samples.last_round() == last && !samples.is_empty());
    let Some(leader) = ended.min_by(|a, b| a.median().total_cmp(&b.median())) else { return Vec::new() };
    let own = history.candidates.iter().zip(&samples).filter(|(_, samples)| !samples.is_empty());
    own.map(|(entry, samples)| (entry.id.clone(), samples.relative_to(leader).median))
        .filter(|(pick, _)| may_be_chosen(pick))
        .collect()
}

fn may_be_chosen(pick: &CandidateId) -> bool {
    entry(&pick.kernel).is_none_or(|row| row.role == Role::Candidate)
}
