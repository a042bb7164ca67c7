//! `tuner report` and `tuner explain`: what a plan chose and why.
//!
//! [`data`] reads the plan with every time checked; [`bars`] and [`strip`] draw it on a [`canvas`];
//! [`page`] writes the Markdown around the pictures; [`mod@explain`] is the text for one layer.

mod bars;
mod canvas;
mod charts;
mod data;
mod explain;
mod page;
mod rewrites;
mod strip;

use std::io::Write;
use std::path::PathBuf;

pub use self::data::{convolution, tuning_text};
pub use self::explain::{ExplainArgs, explain};
pub use self::rewrites::print_rewrites;
use crate::cli::plan_or_newest;
use crate::options::{Failure, create_folder, write_text};
use crate::plan::Plan;

/// Arguments of `report`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReportArgs {
    /// The plan; by default the newest of this machine
    #[arg(long, value_name = "PLAN.json")]
    plan: Option<PathBuf>,
    /// Folder to write the pictures and the page to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Folder of results, one folder a machine inside
    #[arg(long, value_name = "DIR", env = "TUNER_RESULTS", default_value = "bench-results")]
    results: PathBuf,
}

/// Runs `report`: draws everything, then writes it.
pub fn report(args: &ReportArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let path = plan_or_newest(args.plan.as_ref(), &args.results)?;
    let files = files(&Plan::read(&path)?)?;
    create_folder(&args.out)?;
    for (name, text) in &files {
        write_text(&args.out.join(name), text)?;
    }
    let page = args.out.join(PAGE);
    writeln!(out, "{}: the report on {}, with {} pictures", page.display(), path.display(), files.len() - 1)?;
    Ok(())
}

/// The Markdown page.
const PAGE: &str = "report.md";

/// All files of a report: names and contents, the page last.
fn files(plan: &Plan) -> Result<Vec<(String, String)>, Failure> {
    let steps = data::steps(plan);
    let problems = data::convolutions(plan);
    let mut files = vec![
        (page::NETWORK.to_string(), strip::network(plan, &steps)?),
        (page::CONTEST.to_string(), charts::contest(plan)?),
    ];
    for problem in problems.iter().filter(|p| !p.rows().is_empty()) {
        files.push((problem.file.clone(), charts::problem(problem)?));
    }
    files.push((PAGE.to_string(), page::page(plan, &steps, &problems)));
    Ok(files)
}

#[cfg(test)]
mod tests;
