//! `tuner tune`: measures, plans, measures the plan, writes it.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};
use kernels::cpu::Cpu;
use kernels::problem::Problem;
use serde_json::Value;

use crate::bench::Watch;
use crate::choose::{Bounds, Chosen, Network, built_in_images, process_bytes};
use crate::exact::Exact;
use crate::graph::{Graph, Step};
use crate::input::check_writable;
use crate::machine::Machine;
use crate::measure::{Effort, Host, Measured, Measurement, Outcome, Timing, measure};
use crate::noise;
use crate::options::{Failure, HostArgs, ModelArgs, create_folder, graph, threads};
use crate::plan::{
    BlockRewrite, CandidateRecord, Contest, InPlace, MemoryBytes, Noise, Plan, PlanStep, ProblemRecord,
    RunnerUp, SCHEMA, StepFormats, TimeUs, file_name, problem_name, tuning_to_json,
};
use crate::planner::{choose_forms, default_choices, families, family, in_forms, is_eligible};
use crate::report::print_rewrites;
use crate::rewrite;
use crate::run::print_classes;
use crate::session::Session;
use crate::size::{ensure_measured, ensure_runs};
use crate::stats::median;
use crate::table::Table;
use crate::types::{Types, pair};

/// Arguments of `tune`.
#[derive(Clone, Debug, clap::Args)]
pub struct TuneArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    host: HostArgs,
    /// Seconds for all measuring
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
/// Shares of the budget for candidates alone, and for those of one form of the network in place; whole networks
/// take the rest.
const ALONE: f64 = 0.7;
const IN_PLACE: f64 = 0.06;
/// Rounds in which whole networks are measured in turn, at least and at most, and runs of each that count.
const CONTEST_ROUNDS: [usize; 2] = [4, 16];
const CONTEST_RUNS: usize = 2;

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
    let start = Instant::now();
    let end = start + budget;
    let watch = Watch::new(&threads);
    let stolen = watch.stolen();
    let (floor, measurements) = threads.install(|| {
        let floor = noise::floor(&graph, &cpu, &threads);
        let host = Host { cpu: &cpu, threads: &threads, tie: noise::tie(floor) };
        (floor, measure_all(&graph, &host, Types::within(bounds.error), start + budget.mul_f64(ALONE)))
    });
    for measurement in &measurements {
        for wrong in measurement.candidates.iter().filter(|c| c.timing().is_none()) {
            let Outcome::Wrong { error, tolerance } = wrong.outcome else { continue };
            eprintln!(
                "warning: {} [{}] is wrong on {}: error {error:.2e}, tolerance {tolerance:.2e}; left out",
                wrong.row.id, wrong.tuning, measurement.problem
            );
        }
    }
    let in_place = budget.mul_f64(IN_PLACE);
    let network = Network { graph: &graph, weights: &weights, cpu: &cpu, threads: &threads, in_place };
    let Planned { mut tuned, rewrites, contest, predicted } =
        threads.install(|| plan(&network, &measurements, &bounds, end))?;
    let noise = Noise::new(floor, &measurements, watch.stolen() - stolen, start.elapsed());

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
        predicted_ms: predicted.as_ref().map(|steps| steps.iter().sum::<f64>() * 1e3),
        measured_ms: Some(contest[0].timing.median * 1e3),
        noise: Some(noise),
        contest: contest
            .iter()
            .map(|entry| Contest { plan: entry.name.clone(), time_us: time_us(&entry.timing) })
            .collect(),
        rewrites,
        steps: tuned
            .graph
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| PlanStep {
                network_us: Some(us(contest[0].steps[index])),
                predicted_us: predicted.as_ref().map(|steps| us(steps[index])),
                ..plan_step(index, step, &tuned.chosen, &measurements, &cpu, threads.count())
            })
            .collect(),
        measurements: measurements.iter().map(record).collect(),
    };
    plan.write(&path)?;
    print_steps(&tuned, &measurements, out)?;
    print_rewrites(&plan, out)?;
    print_contest(&plan, out)?;
    if let Some(noise) = plan.noise.filter(|noise| noise.disturbed > BUSY) {
        eprintln!(
            "warning: busy: others used the cores in {:.0}% of the runs, so that the choice may not be the best",
            noise.disturbed * 100.0
        );
    }
    audit(&plan);
    writeln!(out, "\nplan: {}", path.display())?;

    let image = built_in_images(&graph, graph.batch);
    tuned.chosen.session.run(&threads, &image, graph.batch);
    writeln!(out, "\nbuilt-in image:")?;
    print_classes(&model, &tuned.chosen.session, 1, 5, &[], &["built-in".to_string()], out)?;
    Ok(())
}

/// Measures every distinct problem of the graph and of the other forms of its blocks, giving each a share of the budget by its work in the network.
fn measure_all(graph: &Graph, host: &Host, types: Types, deadline: Instant) -> Vec<Measurement> {
    let problems = rewrite::problems(graph);
    let total: f64 = problems.iter().map(|(p, steps)| weight(p, steps.len())).sum();
    let bar = ProgressBar::new(1000);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {percent:>3}% {elapsed} {msg}").expect("a template"),
    );
    let (mut done, mut list) = (0.0, Vec::new());
    for (problem, steps) in &problems {
        let own = weight(problem, steps.len());
        let left = deadline.saturating_duration_since(Instant::now());
        let budget = left.mul_f64((own / (total - done)).min(1.0));
        let effort = Effort { budget, rounds: ROUNDS };
        bar.set_message(steps[0].layers[0].clone());
        let progress = |part: f64| bar.set_position(((done + own * part) / total * 1e3) as u64);
        list.push(measure(problem, host, types, effort, progress));
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

/// A network in some form, and what was chosen for it.
struct Tuned<'a> {
    graph: Graph,
    chosen: Chosen<'a>,
}

/// What planning came to.
struct Planned<'a> {
    /// The best.
    tuned: Tuned<'a>,
    /// The forms of its blocks.
    rewrites: Vec<BlockRewrite>,
    /// Whole networks in turn, the best first.
    contest: Vec<Entry>,
    /// Seconds of the best's steps as they are predicted: those of the network by times alone in the contest, times
    /// what each step's candidate took for each second of that network's in place. Drift of the machine
    /// between the two stages does not show.
    predicted: Option<Vec<f64>>,
}

/// A whole network in the contest.
struct Entry {
    name: String,
    timing: Timing,
    /// Medians of its steps in seconds.
    steps: Vec<f64>,
}

/// Chooses forms and kernels within the bounds, and measures the network by them and by others.
fn plan<'a>(
    network: &Network,
    measurements: &'a [Measurement],
    bounds: &Bounds,
    end: Instant,
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
    let mut entries = Vec::new();
    let both = [("tuned", Some(&mut tuned)), (WITHOUT_REWRITES, plain.as_mut())];
    for (name, tuned) in both {
        let Some(Chosen { session, alone, .. }) = tuned.map(|tuned| &mut tuned.chosen) else { continue };
        entries.push((name.to_string(), session));
        entries.extend(alone.iter_mut().map(|alone| (format!("{name}, {BY_TIMES_ALONE}"), alone)));
    }
    entries.extend(others.iter_mut().map(|(name, session)| (name.clone(), session)));
    let mut contest = contest(network, entries, end);
    let other = contest.iter().position(|entry| entry.name == WITHOUT_REWRITES);
    let faster = other.filter(|&other| is_faster(&contest[other].timing, &contest[0].timing));
    if let Some((plain, other)) = plain.zip(faster) {
        tuned = plain;
        let replaced: Vec<Entry> = contest.drain(..other).collect();
        contest.iter_mut().for_each(|entry| entry.name = entry.name.replace(WITHOUT_REWRITES, "tuned"));
        let renamed =
            |entry: Entry| Entry { name: entry.name.replace("tuned", "tuned, with rewrites"), ..entry };
        contest.extend(replaced.into_iter().map(renamed));
        rewrites.iter_mut().for_each(BlockRewrite::overrule);
    }
    let alone = tuned.chosen.alone.is_some().then(|| &contest[1].steps);
    let predict = |(step, seconds): (usize, &f64)| seconds * tuned.chosen.against_alone(step);
    let predicted = alone.map(|steps| steps.iter().enumerate().map(predict).collect());
    Ok(Planned { tuned, rewrites, contest, predicted })
}

/// Runs whole networks in turn. The first of the runs of each turn finds the caches as another network has left
/// them, and is not counted.
fn contest(network: &Network, mut entries: Vec<(String, &mut Session)>, end: Instant) -> Vec<Entry> {
    let images = built_in_images(network.graph, network.graph.batch);
    let mut samples = vec![Vec::new(); entries.len()];
    let steps = |(_, session): &(String, &mut Session)| vec![Vec::new(); session.graph().steps.len()];
    let mut steps: Vec<Vec<Vec<f64>>> = entries.iter().map(steps).collect();
    let bar = ProgressBar::new(CONTEST_ROUNDS[1] as u64);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {percent:>3}% {elapsed} whole networks").expect("a template"),
    );
    for round in 0..CONTEST_ROUNDS[1] {
        if round >= CONTEST_ROUNDS[0] && Instant::now() >= end {
            break;
        }
        for (((_, session), samples), steps) in entries.iter_mut().zip(&mut samples).zip(&mut steps) {
            for run in 0..=CONTEST_RUNS {
                let start = Instant::now();
                session.run(network.threads, &images, network.graph.batch);
                let seconds = start.elapsed().as_secs_f64();
                if run > 0 {
                    samples.push(seconds);
                    steps.iter_mut().zip(session.step_seconds()).for_each(|(list, s)| list.push(s));
                }
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let entry = |(index, (name, _)): (usize, (String, _))| Entry {
        name,
        timing: Timing::of(&samples[index]),
        steps: steps[index].iter().filter_map(|samples| median(samples)).collect(),
    };
    entries.into_iter().enumerate().map(entry).collect()
}

fn memory_bytes(session: &Session) -> MemoryBytes {
    let [weights, activations, scratch] = session.memory();
    MemoryBytes { weights, activations, scratch }
}

/// Whole networks by the winners on the plain graph.
const WITHOUT_REWRITES: &str = "tuned, without rewrites";

/// Whole networks before close candidates were settled in place.
const BY_TIMES_ALONE: &str = "by times alone";

/// Faster by more than the noise of both: each median lies outside the other's quartiles.
fn is_faster(a: &Timing, b: &Timing) -> bool {
    a.median < b.quartiles[0] && a.quartiles[1] < b.median
}

fn us(seconds: f64) -> f64 {
    (seconds * 1e9).round() / 1e3
}

fn time_us(timing: &Timing) -> TimeUs {
    TimeUs { median: us(timing.median), low: us(timing.quartiles[0]), high: us(timing.quartiles[1]) }
}

fn gflops(problem: &Problem, timing: &Timing) -> f64 {
    problem.flops() as f64 / timing.median / 1e9
}

/// The fastest other candidate of the same types and its time: of those timed in place where there are any, else
/// of those timed alone.
fn runner_up<'a>(
    chosen: &Chosen<'a>,
    step: usize,
    measurement: &'a Measurement,
) -> Option<(&'a Measured, Timing)> {
    let won = chosen.winners[step]?;
    let in_place = chosen.settled.get(step).into_iter().flatten().filter(|(c, _)| !std::ptr::eq(*c, won));
    if let Some(second) = in_place.min_by(|(_, a), (_, b)| a.median.total_cmp(&b.median)) {
        return Some(*second);
    }
    let other =
        |c: &&Measured| is_eligible(c) && pair(&c.formats) == pair(&won.formats) && !std::ptr::eq(*c, won);
    let second = measurement.ranking().into_iter().find(other)?;
    // Both alone, and the winner's time in place.
    let factor = chosen.timing(step)?.median / won.timing()?.median;
    Some((second, second.timing()?.scaled(factor)))
}

fn plan_step(
    index: usize,
    step: &Step,
    chosen: &Chosen,
    measurements: &[Measurement],
    cpu: &Cpu,
    threads: usize,
) -> PlanStep {
    let (choice, won) = (&chosen.choices[index], chosen.winners[index]);
    let measurement = measurements.iter().find(|m| m.problem == step.problem);
    let timing = chosen.timing(index);
    let second = measurement.and_then(|measurement| runner_up(chosen, index, measurement));
    let tie = measurement.map_or(0.0, |m| m.tie);
    let reason = match (timing, second) {
        (Some(own), Some((_, other))) if other.median > own.median * (1.0 + tie) => {
            format!("{:.1}% faster than the runner-up", (other.median / own.median - 1.0) * 100.0)
        }
        (Some(own), Some((_, other))) if own.median > other.median * (1.0 + tie) => {
            let share = (own.median / other.median - 1.0) * 100.0;
            format!("{share:.1}% slower than the fastest, for less memory or a smaller error of the network")
        }
        (Some(_), Some(_)) => {
            "a tie with the runner-up, settled by memory, then error, then order".to_string()
        }
        (Some(_), None) => "the only candidate".to_string(),
        (None, _) => "not measured: fewest multiply-adds".to_string(),
    };
    let in_place = chosen.settled.get(index).into_iter().flatten().map(|(c, time)| InPlace {
        kernel: c.row.id.to_string(),
        tuning: tuning_to_json(&c.tuning),
        time_us: time_us(time),
    });
    PlanStep {
        layers: step.layers.clone(),
        problem: problem_name(step),
        kernel: choice.row.id.to_string(),
        tuning: tuning_to_json(&choice.tuning),
        formats: StepFormats::of(&choice.formats),
        threads,
        time_us: timing.as_ref().map(time_us),
        alone_us: won.and_then(Measured::timing).map(|t| us(t.median)),
        network_us: None,
        predicted_us: None,
        in_place: in_place.collect(),
        rel_error: won.map(|c| c.relative_error),
        gflops: timing.map(|t| gflops(&step.problem, &t)),
        multiply_adds: Some(choice.multiply_adds(&step.problem, cpu)),
        runner_up: second.map(|(c, timing)| RunnerUp {
            kernel: c.row.id.to_string(),
            tuning: tuning_to_json(&c.tuning),
            time_us: us(timing.median),
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
        versus: c.versus.map(|v| [v.value, v.low, v.high]),
        disturbed: c.disturbed,
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

fn print_steps(tuned: &Tuned, measurements: &[Measurement], out: &mut dyn Write) -> Result<(), Failure> {
    let (graph, chosen) = (&tuned.graph, &tuned.chosen);
    let winners = &chosen.winners;
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
        let Some((won, timing)) = won.and_then(|c| Some((c, chosen.timing(first)?))) else { continue };
        if steps[0] != first {
            continue;
        }
        let measurement = measurements.iter().find(|m| m.problem == *problem);
        let (name, more) = match measurement.and_then(|m| runner_up(chosen, first, m)) {
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
            "predicted {predicted:.2} ms, measured {measured:.2} ms ({:+.1}%); error against f64 {error:.1e}",
            (measured / predicted - 1.0) * 100.0
        )?;
    }
    let tie = plan.noise.map_or(0.0, |noise| noise.tie);
    let flips = plan.steps.iter().filter(|step| step.flips(tie)).count();
    let settled = plan.steps.iter().filter(|step| step.in_place.len() > 1).count();
    writeln!(
        out,
        "in place: {settled} steps had close candidates, {flips} chose another than when timed alone"
    )?;
    if let Some(noise) = plan.noise {
        writeln!(
            out,
            "noise: a kernel against itself differs by up to {:.1}%, ties are {:.1}%; {:.1}% of the runs were disturbed, the host took {:.1}% of the time",
            noise.floor * 100.0,
            noise.tie * 100.0,
            noise.disturbed * 100.0,
            noise.stolen * 100.0
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

/// A larger share of disturbed runs is reported.
const BUSY: f64 = 0.1;
/// A prediction further off than this is reported.
const OFF: f64 = 0.05;

/// Warns of a whole network that takes longer or shorter than predicted, and names the steps that are furthest off.
fn audit(plan: &Plan) {
    let (Some(predicted), Some(measured)) = (plan.predicted_ms, plan.measured_ms) else { return };
    if (measured / predicted - 1.0).abs() <= OFF {
        return;
    }
    let mut residuals: Vec<(f64, &str)> =
        plan.steps.iter().filter_map(|step| Some((step.residual_us()?, &step.layers[0][..]))).collect();
    residuals.sort_by(|(a, _), (b, _)| b.abs().total_cmp(&a.abs()));
    let list: Vec<String> =
        residuals.iter().take(3).map(|(us, layer)| format!("{layer} {us:+.0} µs")).collect();
    eprintln!(
        "warning: the network takes {measured:.2} ms, predicted were {predicted:.2} ms, {:+.1}%; furthest off: {}",
        (measured / predicted - 1.0) * 100.0,
        list.join(", ")
    );
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
