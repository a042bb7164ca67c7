//! `tuner run`: the network on images, by a plan.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::network::candidates::default_choices;
use engine::network::choice::{Choice, multiply_adds};
use engine::network::graph::Graph;
use engine::network::model::Model;
use engine::plan::schema::Plan;
use engine::plan::store::newest;
use engine::runtime::load::graph;
use engine::runtime::machine::Machine;
use engine::runtime::memory::ensure_runs;
use engine::runtime::session::{Session, SessionError};
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
use serde_json::json;

use crate::bench::policy::POLICY;
use crate::cli::args::{HostArgs, ImageArgs, Images, ModelArgs, threads};
use crate::cli::labels::load_labels;
use crate::cli::npy::save_npy;
use crate::cli::print::{print_classes, summary};

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
    #[arg(long, value_name = "FILE")]
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
    /// Print one line of JSON with the latencies and nothing else
    #[arg(long, requires = "repeat")]
    json: bool,
    /// Print the time of each step: the median of --repeat, or of the latest inference
    #[arg(long, conflicts_with = "json")]
    profile: bool,
}

/// Runs the command.
pub fn run(args: &RunArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let cpu = args.host.cpu();
    let (model, weights) = args.model.open()?;
    if args.features && model.features.is_none() {
        return Err(format!("--features: {model} has no pooled features, only inception_v3 does").into());
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
    let Images { values: images, names } = images(args, &model)?;
    if let Some(path) = &args.output {
        check_writable(path)?;
    }
    let found = find_plan(args, &model, &weights, &cpu)?;
    ensure_runs(&model.to_string(), &found.graph)?;
    let Found { graph, choices, threads: count, plan } = found;
    let threads = threads(count)?;
    let (mut session, to_write) = session(args, graph, &choices, &weights, &cpu, &threads)?;
    threads.install(|| {
        let batch = session.graph().batch;
        let [h, w, c] = model.input();
        let size = h * w * c;
        let mut step_seconds = vec![Vec::new(); session.graph().steps.len()];
        if let Some(repeat) = args.repeat {
            let latencies =
                latencies(&mut session, &threads, &images, size, repeat as usize, &mut step_seconds);
            if args.json {
                let line = json!({
                    "latency_ms": latencies,
                    "threads": threads.count(),
                    "batch": batch,
                    "plan": plan,
                    "multiply_adds": multiply_adds(session.graph(), &choices, &cpu),
                });
                writeln!(out, "{line}")?;
                if args.output.is_none() {
                    return Ok(());
                }
            } else {
                let Timing { median, quartiles, fastest, samples } = Timing::of(&latencies);
                writeln!(
                    out,
                    "{samples} inferences of {batch}: median {median:.2} ms, quartiles {:.2} .. {:.2}, fastest {fastest:.2}",
                    quartiles[0], quartiles[1]
                )?;
            }
        }
        let mut results = Vec::new();
        for (index, chunk) in images.chunks(batch * size).enumerate() {
            let n = chunk.len() / size;
            session.run(&threads, chunk, n);
            results.extend(if args.features { session.features(n).unwrap_or_default() } else { session.output(n) });
            if !args.json {
                let names = &names[index * batch..index * batch + n];
                print_results(args.features, &model, &session, n, args.top, &labels, names, out)?;
            }
        }
        if args.profile {
            if args.repeat.is_none() {
                step_seconds = session.step_seconds().into_iter().map(|seconds| vec![seconds]).collect();
            }
            print_profile(&session, &choices, &step_seconds, out)?;
        }
        if let Some(path) = &args.output {
            let columns = results.len() / names.len();
            save_npy(path, &Array2::from_shape_vec((names.len(), columns), results)?)?;
        }
        Ok::<_, Failure>(())
    })?;
    if let (Some(path), Some(key)) = (&args.packed, to_write) {
        weight_cache::write(path, key, &session.packed())?;
    }
    Ok(())
}

/// The session, and the key under which its packed weights are to be written.
pub(crate) fn session(
    args: &RunArgs,
    graph: Graph,
    choices: &[Choice],
    weights: &Weights,
    cpu: &Cpu,
    threads: &Threads,
) -> Result<(Session, Option<String>), Failure> {
    let mut to_write = None;
    if let Some(path) = &args.packed {
        let key = weight_cache::key(args.model.weights.as_ref(), args.model.seed, &graph, choices)?;
        let session = match WeightCache::open(path, &key) {
            Ok(None) => None,
            Ok(Some(packed)) => {
                Some(Session::of_packed(graph.clone(), choices, &packed, weights, cpu, threads))
            }
            Err(error @ WeightCacheError::Other { .. }) => Some(Err(error.into())),
            Err(error) => return Err(error.into()),
        };
        match session {
            Some(Ok(session)) => return Ok((session, None)),
            Some(Err(SessionError::WeightCache(error))) => eprintln!("note: {error}; packed anew"),
            Some(Err(error)) => return Err(error.into()),
            None => {}
        }
        check_writable(path)?;
        to_write = Some(key);
    }
    Ok((Session::new(graph, choices, weights, cpu, threads)?, to_write))
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

/// The plan that was named, the newest valid one, or the built-in default.
fn find_plan(args: &RunArgs, model: &Model, weights: &Weights, cpu: &Cpu) -> Result<Found, Failure> {
    if let Some(path) = &args.plan {
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
        return Ok(Found { graph, choices, threads: plan.threads, plan: path.display().to_string() });
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
            Err(error) => eprintln!("note: {error}; using the built-in default choice"),
        }
    } else {
        eprintln!(
            "note: no plan for {model} with {threads} threads and batch {batch} in {}; using the built-in default choice (`tuner --model {model}` makes one)",
            folder.display()
        );
    }
    let choices = default_choices(&graph, cpu);
    Ok(Found { graph, choices, threads, plan: "default".to_string() })
}

fn note_stale(path: &Path, plan: &Plan, machine: &Machine) {
    if let Some(changes) = plan.stale(machine) {
        eprintln!("note: {}: {changes}", path.display());
    }
}

/// Milliseconds of inferences of a full batch, and the seconds of their steps; images repeat where there
/// are fewer.
fn latencies(
    session: &mut Session,
    threads: &Threads,
    images: &[f32],
    size: usize,
    repeat: usize,
    step_seconds: &mut [Vec<f64>],
) -> Vec<f64> {
    let batch = session.graph().batch;
    let full: Vec<f32> = images.chunks(size).cycle().take(batch).flatten().copied().collect();
    let mut list = Vec::with_capacity(repeat);
    for index in 0..POLICY.repeat.warm_up + repeat {
        let start = Instant::now();
        session.run(threads, &full, batch);
        if index >= POLICY.repeat.warm_up {
            list.push((start.elapsed().as_secs_f64() * 1e6).round() / 1e3);
            step_seconds
                .iter_mut()
                .zip(session.step_seconds())
                .for_each(|(list, seconds)| list.push(seconds));
        }
    }
    list
}

#[allow(clippy::too_many_arguments, reason = "one call, all of it what to print")]
fn print_results(
    features: bool,
    model: &Model,
    session: &Session,
    n: usize,
    top: usize,
    labels: &[String],
    names: &[String],
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if !features {
        return print_classes(model, session, n, top, labels, names, out);
    }
    let features = session.features(n).unwrap_or_default();
    for (name, features) in names.iter().zip(features.chunks(features.len() / n)) {
        summary(name, features, out)?;
    }
    Ok(())
}

fn print_profile(
    session: &Session,
    choices: &[Choice],
    step_seconds: &[Vec<f64>],
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let peak = kernels::peak::fma_peak(&Cpu::detect(), 20_000);
    writeln!(out, "FMA peak of one core now: {:.1} GFLOP/s", peak / 1e9)?;
    let mut table = crate::report::table::Table::new(&["layer", "problem", "kernel", "us", "GFLOP/s"]);
    let graph = session.graph();
    for (index, ((step, choice), seconds)) in graph.steps.iter().zip(choices).zip(step_seconds).enumerate() {
        let median = Timing::of(seconds).median;
        let flops = step.problem.flops() * graph.repeats(index) as u64;
        table.row([
            step.layers.join(" "),
            step.problem.to_string(),
            format!("{choice:?}"),
            format!("{:.1}", median * 1e6),
            format!("{:.1}", flops as f64 / median / 1e9),
        ]);
    }
    writeln!(out, "{table}")?;
    Ok(())
}
