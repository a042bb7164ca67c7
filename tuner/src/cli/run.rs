//! `tuner run`: the network on images, by a plan.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::network::candidates::default_choices;
use engine::network::choice::{Choice, multiply_adds};
use engine::network::graph::Graph;
use engine::network::model::Model;
use engine::network::models::network_names;
use engine::plan::schema::Plan;
use engine::plan::store::newest;
use engine::runtime::load::graph;
use engine::runtime::machine::Machine;
use engine::runtime::memory::ensure_runs;
use engine::runtime::prepared::{PrepareError, PrepareOptions, PreparedNetwork};
use engine::runtime::threads::Threads;
use engine::runtime::weight_cache;
use engine::runtime::weight_cache::{WeightCache, WeightCacheError};
use engine::util::error::Failure;
use engine::util::files::check_writable;
use engine::util::stats::Timing;
use engine::weights::source::Weights;
use engine::weights::synthetic;
use kernels::cpu::Cpu;
use ndarray::Array2;
use serde::Serialize;

use crate::bench::{
    CoreDistanceMonitor, POLICY, Progress, Rounds, RunCount, RunQueueMonitor, Stage, StageProgress,
};
use crate::cli::args::{HostArgs, ImageArgs, Images, ModelArgs, threads};
use crate::cli::classes::{Classes, print_tensor};
use crate::cli::labels::load_labels;
use crate::cli::npy::save_npy;
use crate::cli::output::{Answer, OutputArgs, print_json};
use crate::cli::progress::Meter;
use crate::report::data::percent;
use crate::report::table::{Table, layers_text, wrap};
use crate::report::text::{RUNS, count, short, time_text};

/// Arguments of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    host: HostArgs,
    /// The plan; by default the newest valid one of this machine
    #[arg(long, value_name = "PLAN.json")]
    plan: Option<PathBuf>,
    /// Take a plan that was made on another machine
    #[arg(long, requires = "plan")]
    any_machine: bool,
    #[command(flatten)]
    images: ImageArgs,
    /// Give the pooled features instead of probabilities
    #[arg(long)]
    features: bool,
    /// Write the results as float32 .npy
    #[arg(long, value_name = "Y.npy")]
    output: Option<PathBuf>,
    /// Keep packed weights in this file: a start that finds its own there packs none
    #[arg(long, visible_alias = "weight-cache", value_name = "FILE")]
    packed: Option<PathBuf>,
    /// Names of the classes, one a line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Classes to print of each image
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,
    /// Measure N inferences of a full batch, after warm-up
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    repeat: Option<u32>,
    /// Print one JSON object with the latencies and nothing else
    #[arg(long, requires = "repeat")]
    json: bool,
    /// Print the time of each step: the median of --repeat, or of the latest inference
    #[arg(long, conflicts_with = "json")]
    profile: bool,
    /// Print tables as wide as they are, whatever the width of the terminal
    #[arg(long)]
    wide: bool,
}

/// What is run, and on what.
struct Inputs {
    cpu: Cpu,
    model: Model,
    weights: Weights,
    labels: Vec<String>,
    images: Images,
}

/// Runs the command.
pub fn run(args: &RunArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let inputs = inputs(args)?;
    let Inputs { cpu, model, weights, .. } = &inputs;
    let found = find_plan(args, model, weights, cpu)?;
    ensure_runs(&model.to_string(), &found.graph)?;
    let Found { graph, choices, threads: count, plan } = found;
    let threads = threads(count)?;
    let (session, to_write) = session(args, graph, &choices, weights, cpu, &threads)?;
    let mut running = Running { args, inputs: &inputs, plan, choices, session };
    threads.install(|| running.all(&threads, out))?;
    if let (Some(path), Some(key)) = (&args.packed, to_write) {
        weight_cache::write(path, key, &running.session.packed())?;
    }
    Ok(())
}

/// Reads and checks everything that the user has given.
fn inputs(args: &RunArgs) -> Result<Inputs, Failure> {
    let cpu = args.host.cpu();
    let (model, weights) = args.model.open()?;
    if args.features && model.features.is_none() {
        let networks = network_names();
        return Err(format!("--features: {model} has no pooled features, only {networks} does").into());
    }
    let labels = match (&args.labels, weights.classes()) {
        (Some(path), Some(classes)) => load_labels(path, classes)?,
        (Some(path), None) => {
            return Err(format!("--labels {}: the weights have no classes to name", path.display()).into());
        }
        (None, _) => Vec::new(),
    };
    let batch = args.model.batch(&args.host).unwrap_or(1);
    ensure_runs(&model.to_string(), &graph(&model, &weights, batch))?;
    let images = images(args, &model)?;
    if let Some(path) = &args.output {
        check_writable(path)?;
    }
    Ok(Inputs { cpu, model, weights, labels, images })
}

/// A network that is ready to run.
struct Running<'a> {
    args: &'a RunArgs,
    inputs: &'a Inputs,
    plan: String,
    choices: Vec<Choice>,
    session: PreparedNetwork,
}

impl Running<'_> {
    /// Measures if that is asked for, then runs all images.
    fn all(&mut self, threads: &Threads, out: &mut dyn Write) -> Result<(), Failure> {
        let args = self.args;
        if !args.json {
            let plan = if self.plan == BUILT_IN { "built-in choice" } else { &self.plan };
            writeln!(out, "plan: {plan}")?;
        }
        let mut measured = None;
        if let Some(repeat) = args.repeat {
            let (latencies, steps) = self.measure(threads, repeat as usize);
            measured = Some(steps);
            if args.json {
                print_json(&latencies, out)?;
            } else {
                write!(out, "{}", latencies.text(self.width()))?;
            }
        }
        if !args.json || args.output.is_some() {
            let results = self.infer(threads, out)?;
            self.write(results)?;
        }
        if args.profile {
            let once = || self.session.step_seconds().into_iter().map(|seconds| vec![seconds]).collect();
            let steps: Vec<Vec<f64>> = measured.unwrap_or_else(once);
            write!(out, "{}", self.profile(&steps))?;
        }
        Ok(())
    }

    fn width(&self) -> usize {
        OutputArgs { json: self.args.json, wide: self.args.wide }.width()
    }

    /// Values of an image.
    fn size(&self) -> usize {
        self.inputs.model.input().iter().product()
    }

    /// Latencies of full batches, and the seconds of their steps; images repeat where there are fewer.
    fn measure(&mut self, threads: &Threads, repeat: usize) -> (Latencies, Vec<Vec<f64>>) {
        let (batch, size) = (self.session.graph().batch, self.size());
        let images = &self.inputs.images.values;
        let full: Vec<f32> = images.chunks(size).cycle().take(batch).flatten().copied().collect();
        let mut steps = vec![Vec::new(); self.session.graph().steps.len()];
        let (mut latency_ms, mut runs) = (Vec::with_capacity(repeat), RunCount::default());
        let (monitor, distance) = (RunQueueMonitor::new(threads), CoreDistanceMonitor::default());
        let (mut meter, rounds) = (Meter::default(), POLICY.repeat_warm_up + repeat);
        let progress = Progress::new(&mut meter);
        let stage = StageProgress::new(&progress, Stage::Inferences);
        Rounds::exactly(rounds, threads, &distance, stage).run(|turn| {
            let run = monitor.sample(|| {
                let start = Instant::now();
                self.session.run(threads, &full, batch);
                start.elapsed().as_secs_f64()
            });
            if turn.round >= POLICY.repeat_warm_up {
                runs.add(run);
                latency_ms.push((run.seconds * 1e6).round() / 1e3);
                let seconds = self.session.step_seconds();
                steps.iter_mut().zip(seconds).for_each(|(list, seconds)| list.push(seconds));
            }
        });
        let median_ms = Timing::of(&latency_ms).median;
        let latencies = Latencies {
            latency_ms,
            disturbed: runs.disturbed,
            median_ms,
            images_per_second: batch as f64 * 1e3 / median_ms,
            model: self.inputs.model.to_string(),
            threads: threads.count(),
            batch,
            plan: self.plan.clone(),
            multiply_adds: multiply_adds(self.session.graph(), &self.choices, &self.inputs.cpu),
        };
        (latencies, steps)
    }

    /// Runs all images, prints what they are, and gives the results of all.
    fn infer(&mut self, threads: &Threads, out: &mut dyn Write) -> Result<Vec<f32>, Failure> {
        let Inputs { model, labels, images, .. } = self.inputs;
        let (batch, size) = (self.session.graph().batch, self.size());
        let classes = Classes { model, labels, top: self.args.top };
        let mut results = Vec::new();
        for (chunk, names) in images.values.chunks(batch * size).zip(images.names.chunks(batch)) {
            let n = names.len();
            self.session.run(threads, chunk, n);
            let own = match self.args.features {
                true => self.session.features(n).unwrap_or_default(),
                false => self.session.output(n),
            };
            if !self.args.json && self.args.features {
                for (name, features) in names.iter().zip(own.chunks(own.len() / n)) {
                    print_tensor(name, features, out)?;
                }
            } else if !self.args.json {
                classes.print(&own, names, out)?;
            }
            results.extend(own);
        }
        Ok(results)
    }

    /// Writes the results where the user wants them.
    fn write(&self, results: Vec<f32>) -> Result<(), Failure> {
        let Some(path) = &self.args.output else { return Ok(()) };
        let rows = self.inputs.images.names.len();
        let columns = results.len() / rows;
        Ok(save_npy(path, &Array2::from_shape_vec((rows, columns), results)?)?)
    }

    /// The time of each step.
    fn profile(&self, step_seconds: &[Vec<f64>]) -> String {
        let peak = kernels::peak::fma_peak(&Cpu::detect(), 20_000);
        let graph = self.session.graph();
        let medians: Vec<f64> = step_seconds.iter().map(|seconds| Timing::of(seconds).median * 1e6).collect();
        let total: f64 = medians.iter().sum();
        let mut table = Table::new(&["layer", "problem", "kernel", "tuning", "us", "share", "GFLOP/s"])
            .details(&["tuning", "problem", "GFLOP/s"]);
        for (index, ((step, choice), us)) in graph.steps.iter().zip(&self.choices).zip(&medians).enumerate() {
            let flops = step.problem.flops() * graph.repeats(index) as u64;
            table.row([
                layers_text(&step.layers),
                step.problem.to_string(),
                choice.row.id.to_string(),
                choice.tuning.to_string(),
                short(*us),
                percent(*us, total),
                short(flops as f64 / us / 1e3),
            ]);
        }
        format!(
            "FMA peak of one core now: {} GFLOP/s\n{}sum of the steps: {}\n",
            short(peak / 1e9),
            table.fold(self.width()),
            time_text(total)
        )
    }
}

/// Inferences of full batches.
#[derive(Debug, Serialize)]
struct Latencies {
    latency_ms: Vec<f64>,
    /// Of the inferences, those that something else on the machine disturbed.
    disturbed: usize,
    median_ms: f64,
    images_per_second: f64,
    model: String,
    threads: usize,
    batch: usize,
    /// The plan's file, or `default`.
    plan: String,
    /// That an inference executes.
    multiply_adds: u64,
}

impl Answer for Latencies {
    fn text(&self, width: usize) -> String {
        let Timing { median, quartiles: [low, high], fastest, samples } = Timing::of(&self.latency_ms);
        let inferences = count(samples, "inference");
        let (unit, scale) = if median < 1.0 { ("µs", 1e3) } else { ("ms", 1.0) };
        let [median, low, high, fastest] = [median, low, high, fastest].map(|ms| short(ms * scale));
        let quartiles = if samples < RUNS { "-".to_string() } else { format!("{low} .. {high}") };
        let disturbed =
            if self.disturbed > 0 { format!(", {} disturbed", self.disturbed) } else { String::new() };
        let text = format!(
            "{inferences} of {}{disturbed}: median {median} {unit}, quartiles {quartiles}, fastest {fastest}, {} images a second",
            count(self.batch, "image"),
            short(self.images_per_second)
        );
        wrap(&text, width, 2) + "\n"
    }
}

/// The session, and the key under which its packed weights are to be written.
pub(crate) fn session(
    args: &RunArgs,
    graph: Graph,
    choices: &[Choice],
    weights: &Weights,
    cpu: &Cpu,
    threads: &Threads,
) -> Result<(PreparedNetwork, Option<String>), Failure> {
    let mut to_write = None;
    if let Some(path) = &args.packed {
        let key = weight_cache::key(args.model.weights.as_ref(), args.model.seed, &graph, choices)?;
        let session = match WeightCache::open(path, &key) {
            Ok(None) => None,
            Ok(Some(packed)) => {
                let options = PrepareOptions { packed: Some(&packed), ..Default::default() };
                Some(PreparedNetwork::with_options(graph.clone(), choices, weights, cpu, threads, options))
            }
            Err(error @ WeightCacheError::Other { .. }) => Some(Err(error.into())),
            Err(error) => return Err(error.into()),
        };
        match session {
            Some(Ok(session)) => return Ok((session, None)),
            Some(Err(PrepareError::WeightCache(error))) => eprintln!("note: {error}; packed anew"),
            Some(Err(error)) => return Err(error.into()),
            None => {}
        }
        check_writable(path)?;
        to_write = Some(key);
    }
    Ok((PreparedNetwork::new(graph, choices, weights, cpu, threads)?, to_write))
}

/// All images, one after the other, and what they are called.
fn images(args: &RunArgs, model: &Model) -> Result<Images, Failure> {
    if let Some(given) = args.images.load(model)? {
        return Ok(given);
    }
    let [h, w, c] = model.input();
    let n = args.model.batch(&args.host).unwrap_or(1);
    let names = (0..n).map(|n| format!("built-in image {n}")).collect();
    Ok(Images { values: synthetic::image(n, h, w, c, 0), names })
}

struct Found {
    graph: Graph,
    choices: Vec<Choice>,
    threads: usize,
    /// The plan's file, or `default`.
    plan: String,
}

/// What [`Found::plan`] is without a plan.
const BUILT_IN: &str = "default";

/// The plan that was named, the newest valid one, or the built-in choice.
fn find_plan(args: &RunArgs, model: &Model, weights: &Weights, cpu: &Cpu) -> Result<Found, Failure> {
    if let Some(path) = &args.plan {
        return named_plan(args, path, model, weights, cpu);
    }
    let (threads, batch) = (args.host.thread_count(), args.model.batch(&args.host).unwrap_or(1));
    let wanted = args.model.wanted(Some(threads), Some(batch))?;
    let machine = Machine::of(cpu);
    let folder = machine.folder(&args.host.results);
    let graph = graph(model, weights, batch);
    if let Some((path, plan)) = newest(&folder, &wanted, args.host.error_bound(), &machine) {
        match plan.network(&path, &graph, cpu) {
            Ok((graph, choices)) => {
                note_stale(&path, &plan, &machine);
                return Ok(Found { graph, choices, threads, plan: path.display().to_string() });
            }
            Err(error) => eprintln!("note: {error}; using the built-in choice"),
        }
    } else {
        eprintln!(
            "note: no plan for {model} with {} and batch {batch} in {}; using the built-in choice (`tuner --model {model}` makes one)",
            count(threads, "thread"),
            folder.display()
        );
    }
    let choices = default_choices(&graph, cpu);
    Ok(Found { graph, choices, threads, plan: BUILT_IN.to_string() })
}

fn named_plan(
    args: &RunArgs,
    path: &Path,
    model: &Model,
    weights: &Weights,
    cpu: &Cpu,
) -> Result<Found, Failure> {
    let wanted = args.model.wanted(args.host.threads.map(usize::from), args.model.batch(&args.host))?;
    let plan = Plan::read_steps(path)?;
    plan.check_wanted(path, &wanted)?;
    let machine = Machine::of(cpu);
    if !args.any_machine {
        plan.check_machine(path, &machine)?;
    }
    let stated = args.host.max_rel_error.is_some() || args.host.precision.is_some();
    if stated && plan.max_rel_error > args.host.error_bound() {
        let (file, found, bound) = (path.display(), plan.max_rel_error, args.host.error_bound());
        return Err(format!("{file}: max_rel_error is {found:e}, expected at most {bound:e}").into());
    }
    let (graph, choices) = plan.network(path, &graph(model, weights, plan.batch), cpu)?;
    if !args.any_machine {
        note_stale(path, &plan, &machine);
    }
    Ok(Found { graph, choices, threads: plan.threads, plan: path.display().to_string() })
}

fn note_stale(path: &Path, plan: &Plan, machine: &Machine) {
    if let Some(changes) = plan.stale(machine) {
        eprintln!("note: {}: {changes}", path.display());
    }
}
