//! `tuner tune --shapes`: measures the convolutions of a list, without a network around them.

use std::io::Write;
use std::path::{Path, PathBuf};

use engine::network::choice::{StepFormats, TOOL, tuning_to_json};
use engine::network::dtypes::pair;
use engine::plan::records::{Noise, ProblemRecord, RuleRecord};
use engine::plan::step::{TimeUs, time_us};
use engine::runtime::machine::Machine;
use engine::util::error::Failure;
use engine::util::files::{check_writable, create_folder, now, write_text};
use serde::Serialize;

use crate::autotune::options::Options;
use crate::autotune::record::{gflops, record};
use crate::autotune::setup::Setup;
use crate::bench::progress::Progress;
use crate::cli::args::TuneArgs;
use crate::cli::print::{print_rules, print_search, warn_of_noise};
use crate::cli::progress::TerminalObserver;
use crate::cli::shape_list::{Listed, read};
use crate::measure::schedule::Job;
use crate::measure::types::{CandidateResult, ProblemResult};
use crate::planner::ranking::{is_eligible, winner};
use crate::planner::rules::costs;
use crate::report::table::Table;

/// Version of the format.
const SCHEMA: &str = "convolution-shapes-1";

/// The best for each convolution of a list.
#[derive(Debug, Serialize)]
struct Results {
    schema: &'static str,
    list: String,
    threads: usize,
    max_rel_error: f64,
    machine: Machine,
    tool: &'static str,
    created: u64,
    noise: Noise,
    /// Sum of the times of the best, each as often as it occurs.
    total_us: f64,
    rules: Vec<RuleRecord>,
    shapes: Vec<Best>,
    measurements: Vec<ProblemRecord>,
}

#[derive(Debug, Serialize)]
struct Best {
    problem: String,
    count: usize,
    kernel: String,
    tuning: serde_json::Map<String, serde_json::Value>,
    formats: StepFormats,
    time_us: Option<TimeUs>,
    gflops: Option<f64>,
}

/// Where the results are written: the given file, or one in the folder of this machine, which is made.
fn results_file(args: &TuneArgs, options: &Options, name: &str) -> Result<PathBuf, Failure> {
    if let Some(file) = &args.out {
        return Ok(file.clone());
    }
    let folder = Machine::of(&options.cpu).folder(&args.host.results);
    create_folder(&folder)?;
    let batch = args.host.batch.map_or(String::new(), |batch| format!("-b{batch}"));
    let (threads, bound) = (options.threads, options.bounds.error);
    Ok(folder.join(format!("shapes-{name}-t{threads}{batch}-e{bound:e}.json")))
}

/// Runs `tune --shapes`.
pub fn tune_shapes(args: &TuneArgs, path: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let list = read(path, args.host.batch.map(usize::from))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let options = args.options();
    let file = results_file(args, &options, &name)?;
    check_writable(&file)?;
    let progress = &mut TerminalObserver::default();
    let progress = Progress::new(progress);
    let work = list.iter().map(|listed| (listed.problem(), listed.count)).collect();
    let setup = Setup::new(&options, work, &progress)?;
    let job = |listed: &Listed| Job {
        problem: listed.problem(),
        count: listed.count,
        name: listed.conv.to_string(),
    };
    let jobs: Vec<Job> = list.iter().map(job).collect();
    let measured = setup.measure(&jobs, 1.0);
    let noise = setup.noise(&measured, None);
    let measurements = &measured.results;
    let (threads, bound) = (&setup.threads, options.bounds.error);
    warn_of_noise(&noise);
    let counted: Vec<(&ProblemResult, usize)> =
        measurements.iter().zip(&list).map(|(measurement, listed)| (measurement, listed.count)).collect();
    let rules = costs(&counted);
    let best: Vec<Option<&CandidateResult>> = measurements.iter().map(|m| winner(m, is_eligible)).collect();
    let total: f64 = best.iter().flatten().zip(&list).map(|(c, l)| c.seconds() * l.count as f64).sum();
    let rows = best.iter().zip(&counted).filter_map(|(best, (m, count))| Some(((*best)?, *m, *count)));
    let best_of = |(won, measurement, count): (&CandidateResult, &ProblemResult, usize)| Best {
        problem: measurement.problem.to_string(),
        count,
        kernel: won.row.id.to_string(),
        tuning: tuning_to_json(&won.tuning),
        formats: StepFormats::of(&won.formats),
        time_us: won.timing().as_ref().map(time_us),
        gflops: won.timing().map(|timing| gflops(&measurement.problem, 1, &timing)),
    };
    let results = Results {
        schema: SCHEMA,
        list: name,
        threads: threads.count(),
        max_rel_error: bound,
        machine: setup.machine.clone(),
        tool: TOOL,
        created: now(),
        noise,
        total_us: total * 1e6,
        shapes: rows.clone().map(best_of).collect(),
        measurements: measurements.iter().map(record).collect(),
        rules,
    };
    write_text(&file, &(serde_json::to_string_pretty(&results)? + "\n"))?;

    let mut table =
        Table::new(&["problem", "x", "kernel", "tuning", "us", "GFLOP/s", "share %", "runner-up", "+%"]);
    for (won, measurement, count) in rows {
        let alike = |c: &&CandidateResult| is_eligible(c) && pair(&c.formats) == pair(&won.formats);
        let second = measurement.ranking().into_iter().filter(alike).find(|c| !std::ptr::eq(*c, won));
        let timing = won.timing().filter(|timing| timing.median > 0.0);
        table.row([
            measurement.problem.to_string(),
            count.to_string(),
            won.row.id.to_string(),
            won.tuning.to_string(),
            format!("{:.1}", won.seconds() * 1e6),
            timing.map_or(String::new(), |t| format!("{:.1}", gflops(&measurement.problem, 1, &t))),
            format!("{:.1}", won.seconds() * count as f64 / total * 100.0),
            second.map_or(String::new(), |c| format!("{} [{}]", c.row.id, c.tuning)),
            second.map_or(String::new(), |c| format!("{:.1}", (c.seconds() / won.seconds() - 1.0) * 100.0)),
        ]);
    }
    writeln!(out, "{table}")?;
    let work: u64 = list.iter().map(|l| l.conv.multiply_adds() * l.count as u64).sum();
    let count: usize = list.iter().map(|listed| listed.count).sum();
    writeln!(
        out,
        "{count} convolutions, {} distinct, {:.1} M multiply-adds: {:.2} ms, {:.1} GFLOP/s on {} threads",
        list.len(),
        work as f64 / 1e6,
        total * 1e3,
        2.0 * work as f64 / total / 1e9,
        threads.count()
    )?;
    print_rules(&results.rules, out)?;
    print_search(&results.measurements, out)?;
    writeln!(out, "\nresults: {}", file.display())?;
    Ok(())
}
