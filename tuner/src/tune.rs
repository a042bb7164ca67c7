//! `tuner tune`: measures, plans, measures the plan, writes it.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use kernels::cpu::Cpu;
use kernels::problem::Problem;
use serde_json::Value;

use crate::choose::{Bounds, Chosen, Network, process_bytes};
use crate::exact::Exact;
use crate::graph::{Graph, Step};
use crate::input::check_writable;
use crate::machine::Machine;
use crate::measure::{Effort, Measured, Measurement, Outcome, Timing, measure};
use crate::options::{Failure, HostArgs, ModelArgs, create_folder, graph, threads};
use crate::plan::{
    BlockRewrite, CandidateRecord, Contest, MemoryBytes, Plan, PlanStep, ProblemRecord, RunnerUp, SCHEMA,
    StepFormats, TimeUs, file_name, problem_name, tuning_to_json,
};
use crate::planner::{choose_forms, default_choices, families, family, in_forms, is_eligible};
use crate::report::print_rewrites;
use crate::rewrite;
use crate::run::print_classes;
use crate::session::{Choice, Session};
use crate::size::{ensure_measured, ensure_runs};
use crate::table::Table;
use crate::threads::Threads;
use crate::types::{Types, pair};
use crate::weights::synthetic;

/// Arguments of `tune`.
#[derive(Clone, Debug, clap::Args)]
pub struct TuneArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    host: HostArgs,
    /// Seconds for measuring candidates
    #[arg(long, value_name = "SECONDS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    budget: u32,
    /// Bound on the memory of a process that runs the plan
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    max_memory: Option<u32>,
    /// Where to write the plan; a file for this model and machine under --results by default
    #[arg(long, value_name = "PLAN.json")]
    out: Option<PathBuf>,
    /// Ignore earlier measurements; tune takes all of them anew anyway
    #[arg(long)]
    fresh: bool,
}

/// Rounds of a problem's candidates at most.
const ROUNDS: usize = 30;
/// Rounds in which whole networks are measured in turn.
const CONTEST_ROUNDS: usize = 12;

/// Runs the command.
pub fn tune(args: &TuneArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let cpu = args.host.cpu();
    let (model, weights) = args.model.open()?;
    let threads = threads(args.host.thread_count())?;
    let graph = graph(&model, &weights, args.model.batch(&args.host).unwrap_or(1));
    ensure_runs(&model.to_string(), &graph)?;
    ensure_measured(graph.problems().iter().map(|(problem, _)| problem), &cpu)?;
    let bounds = Bounds { error: args.host.error_bound(), memory: args.max_memory };
    let machine = Machine::of(&cpu);
    let wanted = args.model.wanted(Some(threads.count()), Some(graph.batch))?;
    let path = match &args.out {
        Some(path) => path.clone(),
        None => {
            let folder = machine.folder(&args.host.results);
            create_folder(&folder)?;
            let shape = wanted.shape.as_deref();
            folder.join(file_name(wanted.model, shape, threads.count(), graph.batch, &bounds))
        }
    };
    check_writable(&path)?;
    writeln!(
        out,
        "{model}: {} steps, batch {}, {} on {} ({}), weights {}",
        graph.steps.len(),
        graph.batch,
        if threads.count() == 1 { "1 thread".to_string() } else { format!("{} threads", threads.count()) },
        machine.cpu,
        machine.isa,
        weights.description()
    )?;
    let budget = Duration::from_secs(args.budget.into());
    let measurements =
        threads.install(|| measure_all(&graph, &cpu, &threads, Types::within(bounds.error), budget));
    for measurement in &measurements {
        for wrong in measurement.candidates.iter().filter(|c| c.timing().is_none()) {
            let Outcome::Wrong { error, tolerance } = wrong.outcome else { continue };
            eprintln!(
                "warning: {} [{}] is wrong on {}: error {error:.2e}, tolerance {tolerance:.2e}; left out",
                wrong.row.id, wrong.tuning, measurement.problem
            );
        }
    }
    let network = Network { graph: &graph, weights: &weights, cpu: &cpu, threads: &threads };
    let Planned { mut tuned, rewrites, contest } =
        threads.install(|| plan(&network, &measurements, &bounds))?;

    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let plan = Plan {
        schema: SCHEMA.to_string(),
        model: wanted.model.to_string(),
        shape: wanted.shape.clone(),
        batch: graph.batch,
        threads: threads.count(),
        max_rel_error: bounds.error,
        rel_error: Some(tuned.chosen.error),
        max_memory_mib: bounds.memory,
        memory_bytes: Some(memory_bytes(&tuned.chosen.session)),
        machine,
        tool: concat!("tuner ", env!("CARGO_PKG_VERSION")).to_string(),
        created,
        predicted_ms: Some(tuned.predicted() * 1e3),
        measured_ms: Some(contest[0].1.median * 1e3),
        contest: contest
            .iter()
            .map(|(name, timing)| Contest { plan: name.clone(), time_us: time_us(timing) })
            .collect(),
        rewrites,
        steps: tuned
            .graph
            .steps
            .iter()
            .zip(tuned.chosen.choices.iter().zip(&tuned.chosen.winners))
            .map(|(step, (choice, won))| plan_step(step, choice, *won, &measurements, &cpu, threads.count()))
            .collect(),
        measurements: measurements.iter().map(record).collect(),
    };
    plan.write(&path)?;
    print_steps(&tuned.graph, &measurements, &tuned.chosen.winners, out)?;
    print_rewrites(&plan, out)?;
    print_contest(&plan, out)?;
    writeln!(out, "\nplan: {}", path.display())?;

    let image = images(&graph);
    tuned.chosen.session.run(&threads, &image, graph.batch);
    writeln!(out, "\nbuilt-in image:")?;
    print_classes(&model, &tuned.chosen.session, 1, 5, &[], &["built-in".to_string()], out)?;
    Ok(())
}

/// Measures every distinct problem of the graph and of the other forms of its blocks, giving each a share of the budget by its work in the network.
fn measure_all(
    graph: &Graph,
    cpu: &Cpu,
    threads: &Threads,
    types: Types,
    budget: Duration,
) -> Vec<Measurement> {
    let problems = rewrite::problems(graph);
    let total: f64 = problems.iter().map(|(p, steps)| weight(p, steps.len())).sum();
    let bar = ProgressBar::new(1000);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {percent:>3}% {elapsed} {msg}").expect("a template"),
    );
    let deadline = Instant::now() + budget;
    let (mut done, mut list) = (0.0, Vec::new());
    for (problem, steps) in &problems {
        let own = weight(problem, steps.len());
        let left = deadline.saturating_duration_since(Instant::now());
        let effort = Effort { budget: left.mul_f64((own / (total - done)).min(1.0)), rounds: ROUNDS };
        bar.set_message(steps[0].layers[0].clone());
        let progress = |part: f64| bar.set_position(((done + own * part) / total * 1e3) as u64);
        list.push(measure(problem, cpu, threads, types, effort, progress));
        done += own;
    }
    bar.finish_and_clear();
    list
}

/// Share of a problem in the budget: its work, and something for having candidates at all.
fn weight(problem: &Problem, steps: usize) -> f64 {
    let work = problem.flops() as f64 * (steps as f64).sqrt();
    match problem {
        Problem::Conv(_) => work + 5e7,
        _ => 10.0 * work + 1e6,
    }
}

/// The built-in images of a whole batch.
fn images(graph: &Graph) -> Vec<f32> {
    let input = graph.tensors[0];
    synthetic::image(input.n, input.h, input.w, input.c, 0)
}

/// A network in some form, and what was chosen for it.
struct Tuned<'a> {
    graph: Graph,
    chosen: Chosen<'a>,
}

impl Tuned<'_> {
    /// Sum of the steps' medians in seconds.
    fn predicted(&self) -> f64 {
        self.chosen.winners.iter().flatten().filter_map(|c| c.timing()).map(|t| t.median).sum()
    }
}

/// What planning came to.
struct Planned<'a> {
    /// The best.
    tuned: Tuned<'a>,
    /// The forms of its blocks.
    rewrites: Vec<BlockRewrite>,
    /// Whole networks in turn, the best first.
    contest: Vec<(String, Timing)>,
}

/// Chooses forms and kernels within the bounds, and measures the network by them and by others.
fn plan<'a>(
    network: &Network,
    measurements: &'a [Measurement],
    bounds: &Bounds,
) -> Result<Planned<'a>, Failure> {
    let exact = Exact::new(network.graph, network.weights, network.threads)?;
    let choose = |graph: Graph| {
        let chosen = Network { graph: &graph, ..*network }.choose(measurements, bounds, &exact)?;
        Ok::<_, Failure>(Tuned { graph, chosen })
    };
    let forms = choose_forms(network.graph, measurements, is_eligible);
    let mut rewrites: Vec<BlockRewrite> = forms.iter().map(BlockRewrite::new).collect();
    let rewritten = in_forms(network.graph, &forms);
    let mut plain = None;
    let mut tuned = if rewritten == *network.graph {
        choose(rewritten)?
    } else {
        plain = choose(network.graph.clone()).ok();
        match (choose(rewritten), plain.take()) {
            (Ok(tuned), kept) => {
                plain = kept;
                tuned
            }
            (Err(failure), Some(plain)) => {
                eprintln!("the plan with rewrites is left out: {failure}");
                rewrites.iter_mut().for_each(BlockRewrite::overrule);
                plain
            }
            (Err(failure), None) => return Err(failure),
        }
    };

    let default = network.session(&default_choices(network.graph, network.cpu))?;
    let mut others = vec![("default".to_string(), default)];
    let by_family = families(measurements)
        .into_iter()
        .map(|name| (name, family(network.graph, measurements, name, network.cpu)));
    let best = by_family.min_by(|(_, (_, a)), (_, (_, b))| a.total_cmp(b));
    if let Some((name, (choices, _))) = best {
        others.push((format!("best single family: {name}"), network.session(&choices)?));
    }
    if !others.iter().any(|(name, _)| name.ends_with("direct")) {
        let (choices, _) = family(network.graph, measurements, "direct", network.cpu);
        others.push(("direct everywhere".to_string(), network.session(&choices)?));
    }
    let mut entries = vec![("tuned".to_string(), &mut tuned.chosen.session)];
    entries.extend(plain.iter_mut().map(|plain| (WITHOUT_REWRITES.to_string(), &mut plain.chosen.session)));
    entries.extend(others.iter_mut().map(|(name, session)| (name.clone(), session)));
    let mut contest = contest(network, entries);
    if let Some(plain) = plain.filter(|_| is_faster(&contest[1].1, &contest[0].1)) {
        tuned = plain;
        contest.swap(0, 1);
        contest[0].0 = "tuned".to_string();
        contest[1].0 = "tuned, with rewrites".to_string();
        rewrites.iter_mut().for_each(BlockRewrite::overrule);
    }
    Ok(Planned { tuned, rewrites, contest })
}

/// Runs whole networks in turn; two warm-up rounds are not counted.
fn contest(network: &Network, mut entries: Vec<(String, &mut Session)>) -> Vec<(String, Timing)> {
    let images = images(network.graph);
    let mut samples = vec![Vec::new(); entries.len()];
    let bar = ProgressBar::new(CONTEST_ROUNDS as u64 + 2);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {percent:>3}% {elapsed} whole networks").expect("a template"),
    );
    for round in 0..CONTEST_ROUNDS + 2 {
        for ((_, session), samples) in entries.iter_mut().zip(&mut samples) {
            for _ in 0..2 {
                let start = Instant::now();
                session.run(network.threads, &images, network.graph.batch);
                let seconds = start.elapsed().as_secs_f64();
                if round >= 2 {
                    samples.push(seconds);
                }
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let timing = |((name, _), samples): ((String, _), &Vec<f64>)| (name, Timing::of(samples));
    entries.into_iter().zip(&samples).map(timing).collect()
}

fn memory_bytes(session: &Session) -> MemoryBytes {
    let [weights, activations, scratch] = session.memory();
    MemoryBytes { weights, activations, scratch }
}

/// Whole networks by the winners on the plain graph.
const WITHOUT_REWRITES: &str = "tuned, without rewrites";

/// Faster by more than the noise of both: each median lies outside the other's quartiles.
fn is_faster(a: &Timing, b: &Timing) -> bool {
    a.median < b.quartiles[0] && a.quartiles[1] < b.median
}

fn time_us(timing: &Timing) -> TimeUs {
    let us = |seconds: f64| (seconds * 1e9).round() / 1e3;
    TimeUs { median: us(timing.median), low: us(timing.quartiles[0]), high: us(timing.quartiles[1]) }
}

fn gflops(problem: &Problem, timing: &Timing) -> f64 {
    problem.flops() as f64 / timing.median / 1e9
}

/// The fastest candidate of the same types that is not the winner.
fn runner_up<'a>(measurement: &'a Measurement, won: &Measured) -> Option<&'a Measured> {
    let other = |c: &&Measured| {
        is_eligible(c)
            && pair(&c.formats) == pair(&won.formats)
            && (c.row.id != won.row.id || c.tuning != won.tuning)
    };
    measurement.ranking().into_iter().find(other)
}

fn plan_step(
    step: &Step,
    choice: &Choice,
    won: Option<&Measured>,
    measurements: &[Measurement],
    cpu: &Cpu,
    threads: usize,
) -> PlanStep {
    let measurement = measurements.iter().find(|m| m.problem == step.problem);
    let timing = won.and_then(Measured::timing);
    let second = won.zip(measurement).and_then(|(won, m)| runner_up(m, won));
    let reason = match (timing, second.and_then(Measured::timing)) {
        (Some(own), Some(other)) if other.median > own.median * 1.01 => {
            format!("{:.1}% faster than the runner-up", (other.median / own.median - 1.0) * 100.0)
        }
        (Some(own), Some(other)) if own.median > other.median * 1.01 => {
            let share = (own.median / other.median - 1.0) * 100.0;
            format!("{share:.1}% slower than the fastest, for less memory or a smaller error of the network")
        }
        (Some(_), Some(_)) => {
            "a tie with the runner-up, settled by memory, then error, then order".to_string()
        }
        (Some(_), None) => "the only candidate".to_string(),
        (None, _) => "not measured: fewest multiply-adds".to_string(),
    };
    PlanStep {
        layers: step.layers.clone(),
        problem: problem_name(step),
        kernel: choice.row.id.to_string(),
        tuning: tuning_to_json(&choice.tuning),
        formats: StepFormats::of(&choice.formats),
        threads,
        time_us: timing.as_ref().map(time_us),
        rel_error: won.map(|c| c.relative_error),
        gflops: timing.map(|t| gflops(&step.problem, &t)),
        multiply_adds: Some(choice.multiply_adds(&step.problem, cpu)),
        runner_up: second.and_then(|c| {
            Some(RunnerUp {
                kernel: c.row.id.to_string(),
                tuning: tuning_to_json(&c.tuning),
                time_us: time_us(&c.timing()?).median,
            })
        }),
        reason,
    }
}

fn record(measurement: &Measurement) -> ProblemRecord {
    let wrong = measurement.candidates.iter().filter(|c| c.timing().is_none());
    let candidate = |c: &Measured| CandidateRecord {
        kernel: c.row.id.to_string(),
        tuning: tuning_to_json(&c.tuning),
        formats: Some(StepFormats::of(&c.formats)),
        time_us: c.timing().as_ref().map(time_us),
        samples: c.timing().map_or(0, |t| t.samples),
        rel_error: c.relative_error,
        rms_error: Some(c.rms_error),
        bytes: c.bytes(),
        multiply_adds: c.multiply_adds,
        outcome: match c.outcome {
            Outcome::Timed { dropped: false, .. } => "measured".to_string(),
            Outcome::Timed { dropped: true, .. } => "dropped early".to_string(),
            Outcome::Wrong { error, tolerance } => {
                format!("wrong: error {error:.2e}, tolerance {tolerance:.2e}")
            }
        },
    };
    ProblemRecord {
        problem: measurement.problem.to_string(),
        candidates: measurement.ranking().into_iter().chain(wrong).map(candidate).collect(),
        left_out: measurement
            .left_out
            .iter()
            .map(|l| (l.id.to_string(), Value::from(l.reason.as_str())))
            .collect(),
    }
}

fn print_steps(
    graph: &Graph,
    measurements: &[Measurement],
    winners: &[Option<&Measured>],
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut table = Table::new(&[
        "layer",
        "x",
        "problem",
        "kernel",
        "tuning",
        "types",
        "us",
        "GFLOP/s",
        "runner-up",
        "+%",
    ]);
    for (first, won) in winners.iter().enumerate() {
        let problem = &graph.steps[first].problem;
        // One line for all steps with the same problem and the same candidate.
        let same = |step: &usize| winners[*step].zip(*won).is_some_and(|(a, b)| std::ptr::eq(a, b));
        let steps = (0..winners.len()).filter(same).collect::<Vec<_>>();
        let Some((won, timing)) = won.and_then(|c| Some((c, c.timing()?))) else { continue };
        if steps[0] != first {
            continue;
        }
        let measurement = measurements.iter().find(|m| m.problem == *problem);
        let second = measurement.and_then(|m| runner_up(m, won));
        let (name, more) = match second.and_then(|c| Some((c, c.timing()?))) {
            Some((c, t)) => {
                let more = format!("{:.1}", (t.median / timing.median - 1.0) * 100.0);
                (format!("{} [{}]", c.row.id, c.tuning), more)
            }
            None => (String::new(), String::new()),
        };
        table.row([
            graph.steps[first].layers.join(" "),
            steps.len().to_string(),
            problem.to_string(),
            won.row.id.to_string(),
            won.tuning.to_string(),
            StepFormats::of(&won.formats).types(),
            format!("{:.1}", timing.median * 1e6),
            format!("{:.1}", gflops(problem, &timing)),
            name,
            more,
        ]);
    }
    writeln!(out, "\n{table}")?;
    Ok(())
}

fn print_contest(plan: &Plan, out: &mut dyn Write) -> Result<(), Failure> {
    let mut table = Table::new(&["whole network", "ms", "quartiles", "vs tuned"]);
    for entry in &plan.contest {
        let (t, own) = (entry.time_us, plan.contest[0].time_us);
        table.row([
            entry.plan.clone(),
            format!("{:.2}", t.median / 1e3),
            format!("{:.2} .. {:.2}", t.low / 1e3, t.high / 1e3),
            format!("{:.2}x", t.median / own.median),
        ]);
    }
    writeln!(out, "{table}")?;
    if let (Some(predicted), Some(measured), Some(error)) =
        (plan.predicted_ms, plan.measured_ms, plan.rel_error)
    {
        writeln!(
            out,
            "sum of steps {predicted:.2} ms, measured {measured:.2} ms; error against f64 {error:.1e}"
        )?;
    }
    if let Some(MemoryBytes { weights, activations, scratch }) = plan.memory_bytes {
        let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
        writeln!(
            out,
            "memory: weights {:.1}, activations {:.1}, scratch {:.1} MiB; a process takes up to {:.0}",
            mib(weights),
            mib(activations),
            mib(scratch),
            mib(weights + activations + scratch + process_bytes(plan.threads)).ceil()
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faster_means_by_more_than_the_noise_of_both() {
        let timing = |[low, median, high]: [f64; 3]| Timing::of(&[low, low, median, high, high]);
        let slow = timing([10.0, 11.0, 12.0]);
        assert!(is_faster(&timing([8.0, 9.0, 9.5]), &slow));
        assert!(!is_faster(&timing([8.0, 10.5, 10.8]), &slow));
        assert!(!is_faster(&timing([8.0, 9.0, 11.5]), &slow));
        assert!(!is_faster(&slow, &slow));
    }
}
