//! `tuner tune --shapes`: measures the convolutions of a list, without a network around them.

use std::io::Write;
use std::path::Path;

use engine::network::{CandidateId, Graph, Step, TOOL, tuning_text};
use engine::plan::list::model_of_list;
use engine::plan::{PlanStep, ProblemRecord, RuleRecord, RunnerUp, SCHEMA, StepReason, TimeUs, time_us};
use engine::runtime::available;
use engine::util::files::{one_line, path_id};
use engine::util::{now, us};
use engine::{Machine, Plan};
use serde::Serialize;

use crate::autotune::commit::commit;
use crate::autotune::file::{place, write};
use crate::autotune::record::{gflops, lead, record};
use crate::autotune::setup::{Measured, Setup};
use crate::bench::Progress;
use crate::cli::shape_list::{Listed, read};
use crate::cli::warnings::warn_of_noise;
use crate::cli::{Answer, Failure, Meter, TuneArgs, detail, interrupt, stdin};
use crate::measure::{CandidateResult, Job, ProblemResult};
use crate::planner::ranking::winner;
use crate::planner::{costs, is_eligible};
use crate::report::{Table, convolution, count, more, percent, sections, short, time_text, wrap};

/// What is printed of a plan of a list.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    results: String,
    list: &'a str,
    threads: usize,
    convolutions: usize,
    multiply_adds: u64,
    total_us: f64,
    gflops: f64,
    shapes: Vec<Best<'a>>,
    rules: &'a [RuleRecord],
    #[serde(skip)]
    measurements: &'a [ProblemRecord],
}

/// The best for a convolution; times are of one, however often it occurs.
#[derive(Debug, Serialize)]
struct Best<'a> {
    problem: &'a str,
    count: usize,
    #[serde(flatten)]
    id: CandidateId,
    time_us: Option<TimeUs>,
    gflops: Option<f64>,
    runner_up: Option<RunnerUp>,
}

impl<'a> Best<'a> {
    fn of(step: &'a PlanStep) -> Self {
        let one = |time: f64| us(time * 1e-6 / step.repeats as f64);
        let time =
            |time: TimeUs| TimeUs { median: one(time.median), low: one(time.low), high: one(time.high) };
        let second = |second: &RunnerUp| RunnerUp { id: second.id.clone(), time_us: one(second.time_us) };
        Self {
            problem: &step.problem,
            count: step.repeats,
            id: step.id(),
            time_us: step.time_us.map(time),
            gflops: step.gflops,
            runner_up: step.runner_up.as_ref().map(second),
        }
    }
}

impl Answer for Outcome<'_> {
    fn text(&self, width: usize) -> String {
        let mut table = Table::new(
            "problem | (output) | x | kernel | tuning | us | (GFLOP/s) | share | (runner-up) | takes",
        );
        for Best { problem, count, id, time_us, gflops, runner_up } in &self.shapes {
            let us = time_us.map_or(0.0, |time| time.median);
            let (tuning, speed) = (tuning_text(&id.tuning), gflops.map_or(String::new(), short));
            let share = percent(us * *count as f64, self.total_us);
            let second = runner_up.as_ref().map_or(String::new(), |c| c.id.to_string());
            let takes = runner_up.as_ref().map_or(String::new(), |c| more(c.time_us / us));
            let us = short(us);
            let output = convolution(problem).map_or(String::new(), |conv| {
                let [h, w] = conv.output();
                format!("{h}x{w}x{}", conv.filters())
            });
            table.row(&[problem, &output, count, &id.kernel, &tuning, &us, &speed, &share, &second, &takes]);
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
    let name = one_line(&path.file_stem().unwrap_or_default().to_string_lossy());
    let options = args.options();
    let batch = args.host.batch.map_or(String::new(), |batch| format!("-b{batch}"));
    // Lists of one name may lie in several folders.
    let list_id = path_id(if stdin::is_stdin(path) { Path::new(stdin::DASH) } else { path });
    let default =
        format!("shapes-{name}-{list_id}-t{}{batch}-e{:e}.json", options.threads, options.bounds.error);
    let machine = Machine::of(&options.cpu);
    let file = args.output_file(&machine, machine.folder(&args.host.results).join(default))?;
    interrupt::tell_what_is_left(args.left(&machine));
    let mut meter = Meter::default();
    let progress = Progress::new(&mut meter);
    let work = list.iter().map(|listed| (listed.problem(), listed.count)).collect();
    let setup = Setup::new(&options, work, &progress)?;
    let job = |l: &Listed| Job { problem: l.problem(), count: l.count, name: l.conv.to_string() };
    let jobs: Vec<Job> = list.iter().map(job).collect();
    let measured = setup.measure(&jobs, 1.0);
    let plan = plan(model_of_list(&name), &list, &setup, &measured);
    plan.noise.iter().for_each(warn_of_noise);
    let written = write(&plan, &file);
    let file = place(file, &written);
    let multiply_adds = list.iter().map(|l| l.conv.multiply_adds() * l.count as u64).sum();
    let total_us = total_us(&plan.steps);
    let outcome = Outcome {
        results: file.display().to_string(),
        list: &name,
        threads: plan.threads,
        convolutions: list.iter().map(|listed| listed.count).sum(),
        multiply_adds,
        total_us,
        gflops: 2.0 * multiply_adds as f64 / total_us / 1e3,
        shapes: plan.steps.iter().map(Best::of).collect(),
        rules: &plan.rules,
        measurements: &plan.measurements,
    };
    args.output.print(&outcome, out)?;
    Ok(written?)
}

/// Sum of the isolated times, each as often as it occurs.
fn total_us(steps: &[PlanStep]) -> f64 {
    steps.iter().filter_map(|step| step.isolated_us).sum()
}

/// The best for each convolution of a list.
fn plan(model: String, list: &[Listed], setup: &Setup, measured: &Measured) -> Plan {
    let graph = Graph::separate(list.iter().map(|listed| listed.conv.clone()).collect());
    let counts = || list.iter().map(|listed| listed.count);
    let counted: Vec<(&ProblemResult, usize)> = measured.results.iter().zip(counts()).collect();
    let threads = setup.threads.count();
    let measured_steps = graph.steps.iter().zip(&counted);
    let steps: Vec<PlanStep> = measured_steps
        .filter_map(|(step, (result, count))| plan_step(step, result, *count, threads))
        .collect();
    Plan {
        schema: SCHEMA.to_string(),
        model,
        batch: list[0].conv.batch,
        threads,
        max_rel_error: setup.options.bounds.error,
        machine: setup.machine.clone(),
        cores_allowed: Some(available()),
        tool: TOOL.to_string(),
        commit: commit(),
        created: now(),
        predicted_ms: Some(total_us(&steps) / 1e3),
        bandwidth: Some(setup.bandwidth()),
        budget_s: Some(setup.options.budget.as_secs_f64()),
        measuring_s: Some(setup.seconds()),
        noise: Some(setup.noise(measured, None)),
        rules: costs(&counted),
        steps,
        measurements: measured.results.iter().map(record).collect(),
        ..Plan::default()
    }
}

/// The best for a convolution that occurs so many times; none where none has right results.
fn plan_step(step: &Step, result: &ProblemResult, count: usize, threads: usize) -> Option<PlanStep> {
    let won = winner(result, is_eligible)?;
    let timing = won.timing()?.scaled(count as f64);
    let is_second =
        |c: &&CandidateResult| is_eligible(c) && c.types() == won.types() && c.choice != won.choice;
    let second = result.ranking().into_iter().find(is_second);
    let second = second.and_then(|c| Some((c, c.timing()?.scaled(count as f64))));
    let reason = match second {
        Some((_, other)) => lead(&timing, &other, result.tie).unwrap_or(StepReason::Tie),
        None => StepReason::Only,
    };
    Some(PlanStep {
        repeats: count,
        time_us: Some(time_us(&timing)),
        isolated_us: Some(us(timing.median)),
        rel_error: Some(won.checked.rel_error),
        gflops: Some(gflops(&result.problem, count, &timing)),
        multiply_adds: Some(won.multiply_adds * count as u64),
        runner_up: second.map(|(c, timing)| RunnerUp { id: c.choice.id(), time_us: us(timing.median) }),
        reason,
        ..PlanStep::unmeasured(step, &won.choice, threads)
    })
}
