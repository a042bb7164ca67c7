//! `tuner tune --shapes`: measures the convolutions of a list, without a network around them.

use std::io::Write;
use std::path::Path;

use engine::Machine;
use engine::network::{CandidateId, TOOL, pair, tuning_text};
use engine::plan::{Noise, ProblemRecord, RuleRecord, RunnerUp, TimeUs, time_us};
use engine::util::files::{path_id, write_atomically};
use engine::util::{now, us};
use serde::Serialize;

use crate::autotune::record::{gflops, record};
use crate::autotune::setup::{Measured, Setup};
use crate::bench::Progress;
use crate::cli::shape_list::{Listed, read};
use crate::cli::warnings::warn_of_noise;
use crate::cli::{Answer, Failure, Meter, TuneArgs, detail};
use crate::measure::{CandidateResult, Job, ProblemResult};
use crate::planner::ranking::winner;
use crate::planner::{costs, is_eligible};
use crate::report::{Table, count, more, percent, sections, short, time_text, wrap};

const SCHEMA: &str = "convolution-shapes-2";

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
    #[serde(flatten)]
    id: CandidateId,
    time_us: Option<TimeUs>,
    gflops: Option<f64>,
    runner_up: Option<RunnerUp>,
}

/// What is printed of [`Results`].
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    results: String,
    list: &'a str,
    threads: usize,
    convolutions: usize,
    multiply_adds: u64,
    total_us: f64,
    gflops: f64,
    shapes: &'a [Best],
    rules: &'a [RuleRecord],
    #[serde(skip)]
    measurements: &'a [ProblemRecord],
}

impl Answer for Outcome<'_> {
    fn text(&self, width: usize) -> String {
        let mut table =
            Table::new("problem | x | kernel | tuning | us | (GFLOP/s) | share | (runner-up) | takes");
        for Best { problem, count, id, time_us, gflops, runner_up } in self.shapes {
            let us = time_us.map_or(0.0, |time| time.median);
            let (tuning, speed) = (tuning_text(&id.tuning), gflops.map_or(String::new(), short));
            let share = percent(us * *count as f64, self.total_us);
            let second = runner_up.as_ref().map_or(String::new(), |c| c.id.to_string());
            let takes = runner_up.as_ref().map_or(String::new(), |c| more(c.time_us / us));
            let us = short(us);
            table.row(&[problem, count, &id.kernel, &tuning, &us, &speed, &share, &second, &takes]);
        }
        let (all, distinct) = (count(self.convolutions, "convolution"), self.shapes.len());
        let (work, time) = (self.multiply_adds as f64 / 1e6, time_text(self.total_us));
        let (gflops, threads) = (short(self.gflops), count(self.threads, "thread"));
        let sum = format!(
            "{all}, {distinct} distinct, {work:.1} M multiply-adds: isolated times {time}, {gflops} GFLOP/s on {threads}"
        );
        sections([
            table.fold(width) + &wrap(&sum, width, 2) + "\n",
            detail::rules(self.rules, width),
            detail::search(self.measurements, width),
            detail::search_sentence(self.measurements, width),
            format!("results: {}\n", self.results),
        ])
    }
}

pub fn tune_shapes(args: &TuneArgs, path: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let list = read(path, args.host.batch.map(usize::from))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let options = args.options();
    let batch = args.host.batch.map_or(String::new(), |batch| format!("-b{batch}"));
    // Lists of one name may lie in several folders.
    let list_id = path_id(path);
    let default =
        format!("shapes-{name}-{list_id}-t{}{batch}-e{:e}.json", options.threads, options.bounds.error);
    let file = args.output_file(&Machine::of(&options.cpu), &default)?;
    let mut meter = Meter::default();
    let progress = Progress::new(&mut meter);
    let work = list.iter().map(|listed| (listed.problem(), listed.count)).collect();
    let setup = Setup::new(&options, work, &progress)?;
    let job = |l: &Listed| Job { problem: l.problem(), count: l.count, name: l.conv.to_string() };
    let jobs: Vec<Job> = list.iter().map(job).collect();
    let measured = setup.measure(&jobs, 1.0);
    let results = results(name, &list, &setup, &measured);
    warn_of_noise(&results.noise);
    write_atomically(&file, serde_json::to_string_pretty(&results)? + "\n")?;
    let multiply_adds = list.iter().map(|l| l.conv.multiply_adds() * l.count as u64).sum();
    let outcome = Outcome {
        results: file.display().to_string(),
        list: &results.list,
        threads: results.threads,
        convolutions: list.iter().map(|listed| listed.count).sum(),
        multiply_adds,
        total_us: results.total_us,
        gflops: 2.0 * multiply_adds as f64 / results.total_us / 1e3,
        shapes: &results.shapes,
        rules: &results.rules,
        measurements: &results.measurements,
    };
    args.output.print(&outcome, out)
}

/// The best for each convolution of a list.
fn results(list_name: String, list: &[Listed], setup: &Setup, measured: &Measured) -> Results {
    let counted: Vec<(&ProblemResult, usize)> =
        measured.results.iter().zip(list).map(|(result, listed)| (result, listed.count)).collect();
    let best =
        counted.iter().filter_map(|&(result, count)| Some((winner(result, is_eligible)?, result, count)));
    let total: f64 = best.clone().map(|(won, _, count)| won.seconds() * count as f64).sum();
    let best_of = |(won, result, count): (&CandidateResult, &ProblemResult, usize)| Best {
        problem: result.problem.to_string(),
        count,
        id: won.choice.id(),
        time_us: won.timing().as_ref().map(time_us),
        gflops: won.timing().map(|timing| gflops(&result.problem, 1, &timing)),
        runner_up: runner_up(won, result),
    };
    Results {
        schema: SCHEMA,
        list: list_name,
        threads: setup.threads.count(),
        max_rel_error: setup.options.bounds.error,
        machine: setup.machine.clone(),
        tool: TOOL,
        created: now(),
        noise: setup.noise(measured, None),
        total_us: total * 1e6,
        shapes: best.map(best_of).collect(),
        measurements: measured.results.iter().map(record).collect(),
        rules: costs(&counted),
    }
}

/// The fastest other candidate of the same types.
fn runner_up(won: &CandidateResult, measurement: &ProblemResult) -> Option<RunnerUp> {
    let alike = |c: &&CandidateResult| is_eligible(c) && pair(&c.choice.formats) == pair(&won.choice.formats);
    let second = measurement.ranking().into_iter().filter(alike).find(|c| c.choice != won.choice)?;
    Some(RunnerUp { id: second.choice.id(), time_us: us(second.seconds()) })
}
