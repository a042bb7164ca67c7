//! `tuner report`: draws a plan.

use std::io::Write;
use std::path::PathBuf;

use engine::plan::schema::Plan;
use engine::plan::store::plan_or_newest;
use engine::util::error::Failure;
use serde::Serialize;

use crate::cli::output::print_json;
use crate::report::files::write;
use crate::report::text::count;

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
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

/// What was drawn.
#[derive(Debug, Serialize)]
struct Drawn {
    page: String,
    plan: String,
    pictures: usize,
}

/// Runs `report`: draws everything, then writes it.
pub fn report(args: &ReportArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let path = plan_or_newest(args.plan.as_ref(), &args.results)?;
    let (page, pictures) = write(&Plan::read(&path)?, &args.out)?;
    let drawn = Drawn { page: page.display().to_string(), plan: path.display().to_string(), pictures };
    if args.json {
        return print_json(&drawn, out);
    }
    let Drawn { page, plan, .. } = drawn;
    writeln!(out, "{page}: the report on {plan}, with {}", count(pictures, "picture"))?;
    Ok(())
}
