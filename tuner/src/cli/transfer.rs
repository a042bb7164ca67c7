//! `tuner transfer A B`: what one machine's choices cost on another.

use std::io::Write;
use std::path::PathBuf;

use engine::network::{CandidateId, tuning_text};
use kernels::entry;
use serde::Serialize;
use serde_json::Value;

use crate::cli::{Answer, Failure, OutputArgs};
use crate::compare::side::{Side, sides};
use crate::report::{Table, count, more, paragraphs, percent, short, time_text};

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
    /// Sums of isolated times on B, where A's choice has one: by A's choices, and by B's best.
    choices_us: f64,
    best_us: f64,
    /// Share of the time that A's choices cost more.
    regret: Option<f64>,
    /// The one that costs most first.
    problems: Vec<Transfer>,
}

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

/// How many numbers of its tuning are not another's; none for another algorithm or other types.
fn distance(id: &CandidateId, other: &CandidateId) -> Option<usize> {
    let differs = |(name, value): &(&String, &Value)| other.tuning.get(*name) != Some(*value);
    let family = |id: &CandidateId| entry(&id.kernel).map_or(id.kernel.clone(), |row| row.family.to_string());
    let is_alike = family(id) == family(other) && id.formats.types() == other.formats.types();
    is_alike.then(|| id.tuning.iter().filter(differs).count())
}

pub fn transfer(args: &TransferArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut from = sides(&args.from)?;
    if from.len() != 1 {
        let names: Vec<&str> = from.iter().map(|side| side.setting.as_str()).collect();
        let (file, n, names) = (args.from.display(), names.len(), names.join("; "));
        let expected = "expected those of one machine and one number of threads";
        return Err(format!("{file}: found choices of {n} settings ({names}), {expected}").into());
    }
    let from = from.remove(0);
    let comparisons: Vec<Comparison> = sides(&args.to)?.iter().filter_map(|to| compare(&from, to)).collect();
    if comparisons.is_empty() {
        let (to, from) = (args.to.display(), args.from.display());
        let expected = "expected measurements of the same model and batch";
        return Err(format!("{to}: found no problem in common with {from}, {expected}").into());
    }
    args.output.print(&Transfers { comparisons }, out)
}

/// What the choices of one cost by the times of the other; none without a problem in common.
fn compare(from: &Side, to: &Side) -> Option<Comparison> {
    let priced = from.choices.iter().filter_map(|(problem, count, pick)| price(problem, *count, pick, to));
    let mut problems: Vec<Transfer> = priced.collect();
    let lost_us = |t: &Transfer| t.choice_us.map_or(0.0, |us| (us - t.best_us) * t.count as f64);
    problems.sort_by(|a, b| lost_us(b).total_cmp(&lost_us(a)));
    let (mut choices_us, mut best_us) = (0.0, 0.0);
    for problem in &problems {
        let Some(choice_us) = problem.choice_us else { continue };
        choices_us += choice_us * problem.count as f64;
        best_us += problem.best_us * problem.count as f64;
    }
    let regret = (best_us > 0.0).then(|| choices_us / best_us - 1.0);
    let (a, b) = (from.setting.clone(), to.setting.clone());
    (!problems.is_empty()).then(|| Comparison { a, b, choices_us, best_us, regret, problems })
}

/// A choice of one problem by the times of the other; none where that has no times.
fn price(problem: &str, count: usize, pick: &CandidateId, to: &Side) -> Option<Transfer> {
    let times = to.candidates(problem);
    let (best, least) = times.iter().min_by(|(_, a), (_, b)| a.median.total_cmp(&b.median))?;
    let alike = times.iter().filter_map(|(other, own)| Some((distance(pick, other)?, own.median)));
    let choice = alike.min_by_key(|(distance, _)| *distance);
    Some(Transfer {
        problem: problem.to_string(),
        count,
        choice: pick.clone(),
        nearest: choice.is_some_and(|(distance, _)| distance > 0),
        choice_us: choice.map(|(_, seconds)| seconds * 1e6),
        best: best.clone(),
        best_us: least.median * 1e6,
    })
}

impl Answer for Transfers {
    fn text(&self, width: usize) -> String {
        self.comparisons.iter().map(|comparison| comparison.text(width) + "\n").collect()
    }
}

impl Comparison {
    fn text(&self, width: usize) -> String {
        let mut table =
            Table::new("problem | x | choice of A | (tuning) | us on B | best on B | (tuning) | us | regret");
        for Transfer { problem, count: n, choice, nearest, choice_us, best, best_us } in &self.problems {
            let kernel = format!("{}{}", if *nearest { "~ " } else { "" }, choice.kernel);
            let [tuning, best_tuning] = [choice, best].map(|id| tuning_text(&id.tuning));
            let us = choice_us.map_or("-".to_string(), short);
            let regret = choice_us.map_or("-".to_string(), |us| more(us / best_us));
            let best_us = short(*best_us);
            table.row(&[problem, n, &kernel, &tuning, &us, &best.kernel, &best_tuning, &best_us, &regret]);
        }
        let nearest = self.problems.iter().filter(|t| t.nearest).count();
        let missing = self.problems.iter().filter(|t| t.choice_us.is_none()).count();
        let mut notes = Vec::new();
        if let Some(regret) = self.regret {
            let [choices, best] = [self.choices_us, self.best_us].map(time_text);
            let regret = percent(regret, 1.0);
            notes.push(format!(
                "by B's isolated times, A's choices take {choices} and B's best {best}: a regret of {regret}"
            ));
        }
        if nearest > 0 {
            let n = count(nearest, "tuning");
            notes.push(format!("~ not measured on B ({n}): the time of the nearest of the same family"));
        }
        if missing > 0 {
            let n = count(missing, "choice");
            notes.push(format!("- no candidate of the family was measured on B ({n}): not counted"));
        }
        let sides = paragraphs([format!("A: {}", self.a), format!("B: {}", self.b)], width, 3);
        format!("{sides}\n{}\n{}", table.fold(width), paragraphs(notes, width, 2))
    }
}
