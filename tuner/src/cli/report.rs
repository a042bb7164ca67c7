//! `tuner report`: draws a plan.

use std::io::Write;
use std::path::PathBuf;

use engine::plan::schema::Plan;
use engine::plan::store::plan_or_newest;
use engine::util::error::Failure;

use crate::report::files::write;

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
    let (page, pictures) = write(&Plan::read(&path)?, &args.out)?;
    writeln!(out, "{}: the report on {}, with {pictures} pictures", page.display(), path.display())?;
    Ok(())
}
