//! `tuner report`: draws a plan.

use std::io::Write;
use std::path::{Path, PathBuf};

use engine::Plan;
use engine::plan::store::in_folder;
use serde::Serialize;

use crate::cli::{Answer, Failure, OutputArgs, PlanArgs};
use crate::report::{Written, count, write};

#[derive(Clone, Debug, clap::Args)]
pub struct ReportArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// Folder to write index.html, the pictures and the numbers to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Drawn {
    page: String,
    plan: String,
    pictures: usize,
}

pub fn report(args: &ReportArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let (path, plan) = args.plan.read()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let others: Vec<Plan> = in_folder(folder).map(|(_, other)| other).collect();
    let Written { page, pictures } = write(&plan, &others, &args.out)?;
    let drawn = Drawn { page: page.display().to_string(), plan: path.display().to_string(), pictures };
    OutputArgs { json: args.json, wide: true }.print(&drawn, out)
}

impl Answer for Drawn {
    fn text(&self, _: usize) -> String {
        let Self { page, plan, pictures } = self;
        format!("{page}: the report on {plan}, with {}\n", count(*pictures, "picture"))
    }
}
