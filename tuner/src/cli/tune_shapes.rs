//! `tuner tune --shapes`: measures the convolutions of a list, without a network around them.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use engine::network::choice::{StepFormats, TOOL, tuning_to_json};
use engine::network::dtypes::{Precision, pair};
use engine::plan::records::{Noise, ProblemRecord, RuleRecord};
use engine::plan::step::{TimeUs, time_us};
use engine::runtime::machine::Machine;
use engine::util::error::Failure;
use engine::util::files::{check_writable, create_folder, now, write_text};
use serde::Serialize;

use crate::autotune::record::{gflops, noise_record, record};
use crate::autotune::stages::monitor;
use crate::bench::contention::RunQueueMonitor;
use crate::bench::noise;
use crate::bench::residency::{weight_bytes, weights_come_from};
use crate::cli::args::{TuneArgs, threads};
use crate::cli::logging::open_log;
use crate::cli::print::{print_rules, print_search, warn_of_noise, warn_of_wrong};
use crate::cli::shape_list::{Listed, read};
use crate::measure::memory::ensure_measured;
use crate::measure::schedule::{Job, measure_all};
use crate::measure::types::{CandidateResult, MeasureContext, ProblemResult};
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

/// Runs `tune --shapes`.
pub fn tune_shapes(args: &TuneArgs, path: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let cpu = args.host.cpu();
    let list = read(path, args.host.batch.map(usize::from))?;
    let problems: Vec<_> = list.iter().map(Listed::problem).collect();
    ensure_measured(&problems, &cpu)?;
    let threads = threads(args.host.thread_count())?;
    let (machine, bound) = (Machine::of(&cpu), args.host.error_bound());
    let types = Precision::within(bound);
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file = match &args.out {
        Some(file) => file.clone(),
        None => {
            let folder = machine.folder(&args.host.results);
            create_folder(&folder)?;
            let batch = args.host.batch.map_or(String::new(), |batch| format!("-b{batch}"));
            folder.join(format!("shapes-{name}-t{}{batch}-e{bound:e}.json", threads.count()))
        }
    };
    check_writable(&file)?;
    let work = problems.iter().zip(list.iter().map(|listed| listed.count));
    let cold = weights_come_from(weight_bytes(work, types), &cpu);
    let log = open_log(&machine, args, threads.count(), types, cold)?;
    let jobs: Vec<Job> = list
        .iter()
        .map(|listed| Job { problem: listed.problem(), count: listed.count, name: listed.conv.to_string() })
        .collect();
    let (start, budget) = (Instant::now(), Duration::from_secs(args.budget().into()));
    let watch = RunQueueMonitor::new(&threads);
    let stolen = watch.stolen();
    let monitor = monitor(budget, log.as_ref());
    let (floor, measurements) = threads.install(|| {
        let floor = noise::floor(problems, &cpu, &threads, cold);
        let host = MeasureContext {
            cpu: &cpu,
            threads: &threads,
            distance: &monitor,
            tie: noise::tie(floor),
            cold,
            log: log.as_ref(),
        };
        (floor, measure_all(&jobs, &host, types, (start, budget), args.exhaustive))
    });
    warn_of_wrong(&measurements);
    let meanwhile = (watch.stolen() - stolen, monitor.distance());
    let noise = noise_record(floor, cold, &measurements, meanwhile, start.elapsed());
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
        machine,
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
