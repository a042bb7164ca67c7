//! `tuner compare A B`: whether B is faster or slower than A, problem by problem.

use std::io::Write;
use std::path::{Path, PathBuf};

use engine::Plan;
use engine::plan::store::in_folder;
use serde::Serialize;

use crate::cli::{Answer, Failure, Meter, OutputArgs, model_options, planned_model, thread_count};
use crate::compare::live::{Contender, is_program};
use crate::compare::side::{Side, of_plan, sides};
use crate::compare::{Comparison, live, page, recorded};
use crate::log::journal;
use crate::report::{count, paragraphs, percent};

#[derive(Clone, Debug, clap::Args)]
pub struct CompareArgs {
    /// A plan, a log of measurements, or a folder of results; with --live a plan or a program
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The same kind, which is compared with it
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Run both in turn, now: two plans by this program, or two builds of this program
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    of: LiveArgs,
    /// Exit status 1 if the network or a problem is slower by more than this, beyond the noise
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    fail_above: Option<f64>,
    /// Write a page with a chart of the ratios
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What programs that run in turn run.
#[derive(Clone, Debug, clap::Args)]
struct LiveArgs {
    /// Turns of each
    #[arg(long, value_name = "N", requires = "live", default_value_t = 20, value_parser = clap::value_parser!(u16).range(12..=1000))]
    rounds: u16,
    /// The plan of both programs; without it the one that `run` takes
    #[arg(long, value_name = "PLAN.json", requires = "live")]
    plan: Option<PathBuf>,
    /// The model of both programs; that of the plan by default, or inception_v3
    #[arg(long, requires = "live")]
    model: Option<String>,
    /// The threads of both programs
    #[arg(long, requires = "live", conflicts_with = "plan", value_parser = thread_count)]
    threads: Option<u16>,
    /// The images of an inference of both programs
    #[arg(long, requires = "live", conflicts_with = "plan", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Option<u16>,
    /// The weights; synthetic ones by default
    #[arg(long, value_name = "FILE", requires = "live")]
    weights: Option<PathBuf>,
}

/// A share, from `3%` or `3`.
fn share(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').trim().parse().ok();
    let percent = percent.filter(|percent: &f64| (0.0..=1000.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| "expected a percentage like 3%".into())
}

#[derive(Debug, Serialize)]
struct Compared {
    comparisons: Vec<Comparison>,
    /// The share that was given, and whether it was exceeded.
    fail_above: Option<f64>,
    is_slower: bool,
    page: Option<String>,
    #[serde(skip)]
    notes: Vec<String>,
}

/// False if B is slower by more than is allowed.
pub fn compare(args: &CompareArgs, out: &mut dyn Write) -> Result<bool, Failure> {
    let mut notes = Vec::new();
    let comparisons = match args.live {
        true => vec![run_in_turn(args)?],
        false => recorded_pairs(&args.a, &args.b, &mut notes)?,
    };
    let is_slower = args.fail_above.is_some_and(|share| comparisons.iter().any(|c| c.is_slower_by(share)));
    if let Some(path) = &args.html {
        page::write(&comparisons, path)?;
    }
    let written = args.html.as_ref().map(|path| path.display().to_string());
    let answer = Compared { comparisons, fail_above: args.fail_above, is_slower, page: written, notes };
    args.output.print(&answer, out)?;
    Ok(!is_slower)
}

fn run_in_turn(args: &CompareArgs) -> Result<Comparison, Failure> {
    let (a, b) = (is_program(&args.a), is_program(&args.b));
    if a != b {
        let (program, other) = if a { (&args.a, &args.b) } else { (&args.b, &args.a) };
        let (program, other) = (program.display(), other.display());
        return Err(format!("{other}: found no program, expected one as {program} is, or two plans").into());
    }
    let contender = |path: &Path| match a {
        true => program(path, &args.of),
        false => planned(path, &args.of),
    };
    let sides = [contender(&args.a)?, contender(&args.b)?];
    let mut meter = Meter::default();
    let rounds = args.of.rounds.into();
    Ok(live::compare(&sides, rounds, &mut |done| meter.show("rounds", done, ""))?)
}

/// A build of this program, with the options of both.
fn program(path: &Path, of: &LiveArgs) -> Result<Contender, Failure> {
    let mut options = match &of.plan {
        Some(plan) => plan_options(plan)?,
        None => vec!["--model".into(), of.model.as_deref().unwrap_or("inception_v3").into()],
    };
    for (name, value) in [("--threads", of.threads), ("--batch", of.batch)] {
        options.extend(value.into_iter().flat_map(|value| [name.into(), value.to_string().into()]));
    }
    options.extend(of.weights.iter().flat_map(|path| ["--weights".into(), path.into()]));
    // A name without a folder is looked for in PATH.
    let program = std::path::absolute(path)?;
    Ok(Contender { name: path.display().to_string(), program, options })
}

/// This program by a plan.
fn planned(path: &Path, of: &LiveArgs) -> Result<Contender, Failure> {
    let given = [("--plan", of.plan.is_some()), ("--model", of.model.is_some())];
    let threads = [("--threads", of.threads.is_some()), ("--batch", of.batch.is_some())];
    if let Some((name, _)) = given.into_iter().chain(threads).find(|(_, is_given)| *is_given) {
        return Err(format!("{name}: the plans have their own, expected it with two programs").into());
    }
    let mut options = plan_options(path)?;
    options.extend(of.weights.iter().flat_map(|path| ["--weights".into(), path.into()]));
    Ok(Contender { name: path.display().to_string(), program: std::env::current_exe()?, options })
}

/// The options of `run` for a plan.
fn plan_options(path: &Path) -> Result<Vec<std::ffi::OsString>, Failure> {
    let plan = Plan::read_steps(path)?;
    if plan.is_of_list() {
        let expected = "expected the plan of a network";
        return Err(format!("{}: model is {}, {expected}", path.display(), plan.model).into());
    }
    let model = model_options(&planned_model(path, &plan)?);
    let words = model.split_whitespace().map(Into::into);
    Ok(words.chain(["--plan".into(), path.into()]).collect())
}

/// What two files, or the files of two folders that belong together, compare to.
fn recorded_pairs(a: &Path, b: &Path, notes: &mut Vec<String>) -> Result<Vec<Comparison>, Failure> {
    match (a.is_dir(), b.is_dir()) {
        (true, true) => folders(a, b, notes),
        (false, false) => files(a, b),
        (is_folder, _) => {
            let (folder, file) = if is_folder { (a, b) } else { (b, a) };
            let (folder, file) = (folder.display(), file.display());
            Err(format!("{file}: is a file, expected a folder as {folder} is").into())
        }
    }
}

fn files(a: &Path, b: &Path) -> Result<Vec<Comparison>, Failure> {
    for path in [a, b] {
        if is_program(path) && Plan::read_steps(path).is_err() {
            return Err(format!("{}: is a program, which --live runs", path.display()).into());
        }
    }
    let (of_a, of_b) = (sides(a)?, sides(b)?);
    let name = |path: &Path, side: &Side| format!("{}: {}", path.display(), side.setting);
    let pairs: Vec<(&Side, &Side)> = match (&of_a[..], &of_b[..]) {
        ([a], [b]) => vec![(a, b)],
        _ => {
            let alike = |a: &'_ Side| of_b.iter().find(|b| b.setting == a.setting);
            of_a.iter().filter_map(|own| Some((own, alike(own)?))).collect()
        }
    };
    let all =
        pairs.into_iter().map(|(own, other)| recorded::compare([name(a, own), name(b, other)], own, other));
    let all: Vec<Comparison> = all.filter(|comparison| comparison.rows().next().is_some()).collect();
    if all.is_empty() {
        let (a, b) = (a.display(), b.display());
        let expected = "expected measurements of the same model, batch and threads";
        return Err(format!("{b}: found no problem in common with {a}, {expected}").into());
    }
    Ok(all)
}

/// What tells plans that belong together.
fn key(plan: &Plan) -> String {
    let Plan { model, shape, batch, threads, max_rel_error, max_memory_mib, .. } = plan;
    let shape = shape.as_ref().map_or(String::new(), |shape| format!(" of {shape}"));
    let memory = max_memory_mib.map_or(String::new(), |mib| format!(", {mib} MiB"));
    format!("{model}{shape}, {}, batch {batch}, error {max_rel_error:e}{memory}", count(*threads, "thread"))
}

/// The newest plan of each kind.
fn newest(folder: &Path) -> Vec<(String, PathBuf, u64)> {
    let mut list: Vec<(String, PathBuf, u64)> = Vec::new();
    for (path, plan) in in_folder(folder) {
        let key = key(&plan);
        match list.iter_mut().find(|(known, ..)| *known == key) {
            Some(entry) if entry.2 >= plan.created => {}
            Some(entry) => *entry = (key, path, plan.created),
            None => list.push((key, path, plan.created)),
        }
    }
    list.sort();
    list
}

/// The plans of two folders that are for the same; without any their logs, and without these the
/// folders in them that have the same name.
fn folders(a: &Path, b: &Path, notes: &mut Vec<String>) -> Result<Vec<Comparison>, Failure> {
    let (of_a, of_b) = (newest(a), newest(b));
    let mut all = Vec::new();
    for (key, path, _) in &of_a {
        let Some((_, other, _)) = of_b.iter().find(|(other, ..)| other == key) else {
            notes.push(format!("{}: B has no plan for {key}", path.display()));
            continue;
        };
        let [own, theirs] = [path, other].map(|path| Plan::read(path).map(|plan| of_plan(&plan)));
        let names = [path, other].map(|path| format!("{}: {key}", path.display()));
        all.push(recorded::compare(names, &own?, &theirs?));
    }
    let is_alone = |key: &str| of_a.iter().all(|(other, ..)| other != key);
    let alone = of_b.iter().filter(|(key, ..)| is_alone(key));
    notes.extend(alone.map(|(key, path, _)| format!("{}: A has no plan for {key}", path.display())));
    let logs = [a, b].map(|folder| folder.join(journal::FILE));
    if all.is_empty() && logs.iter().all(|log| log.is_file()) {
        return files(&logs[0], &logs[1]);
    }
    if all.is_empty() {
        let inner = std::fs::read_dir(a)?.filter_map(|entry| Some(entry.ok()?.path())).filter(|p| p.is_dir());
        let mut names: Vec<_> = inner.filter_map(|path| path.file_name().map(ToOwned::to_owned)).collect();
        names.sort();
        for name in names {
            let other = b.join(&name);
            if other.is_dir() {
                all.extend(folders(&a.join(&name), &other, notes).unwrap_or_default());
            }
        }
    }
    match all.is_empty() {
        true => {
            let (a, b) = (a.display(), b.display());
            Err(format!("{b}: found no plan and no log as {a} has, expected results of the same model")
                .into())
        }
        false => Ok(all),
    }
}

impl Answer for Compared {
    fn text(&self, width: usize) -> String {
        let parts: Vec<String> =
            self.comparisons.iter().map(|comparison| page::text(comparison, width)).collect();
        let mut last = self.notes.clone();
        last.extend(self.page.as_ref().map(|page| format!("page: {page}")));
        if let Some(share) = self.fail_above {
            let above = if self.is_slower { "is slower" } else { "is not slower" };
            last.push(format!("B {above} by more than {}, beyond the noise", percent(share, 1.0)));
        }
        [parts.join("\n"), paragraphs(last, width, 2)].join("\n").trim_end().to_string() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages() {
        assert_eq!(share("3%"), Ok(0.03));
        assert_eq!(share("0.5"), Ok(0.005));
        for wrong in ["", "%", "-1%", "x", "3%x", "NaN"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
