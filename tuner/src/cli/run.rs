//! `tuner run`: the network on images, by a plan.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::network::models::network_names;
use engine::network::{Choice, F32_ERROR, Graph, built_in, multiply_adds};
use engine::plan::Bounds;
use engine::plan::store::{nearest, newest};
use engine::runtime::prepared::PrepareOptions;
use engine::runtime::weight_cache::{self, WeightCache, WeightCacheError};
use engine::runtime::{PrepareError, PreparedNetwork, Threads, ensure_runs, graph};
use engine::util::Timing;
use engine::util::files::check_writable;
use engine::{Machine, Model, ModelShape, Plan, Weights};
use kernels::Cpu;
use serde::Serialize;

use crate::autotune::network::ensure_bound;
use crate::bench::{
    CoreDistanceMonitor, POLICY, Progress, Rounds, RunCount, RunQueueMonitor, Stage, StageProgress,
};
use crate::cli::classes::{ClassNames, Classes, not_finite};
use crate::cli::images::size_hint;
use crate::cli::npy::{NpyWriter, bytes, header};
use crate::cli::{
    Answer, Batch, Failure, FileOption, HostArgs, ImageArgs, Images, Meter, ModelArgs, OutputArgs, at_size,
    by_plan, check_distinct, crowded, model_options, print_notes, shards, stdin, threads,
};
use crate::report::{RUNS, Table, count, layers_text, percent, short, time_text, wrap};

#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    host: HostArgs,
    /// The plan; by default the newest valid one of this machine
    #[arg(long, value_name = "PLAN.json", value_parser = stdin::file())]
    plan: Option<PathBuf>,
    /// Take plans within this bound on the memory of the process; without it plans without a bound
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1 << 24), conflicts_with = "plan")]
    max_memory: Option<u32>,
    /// Fail where no plan is for this run, in place of one for another batch or the built-in choice
    #[arg(long, conflicts_with = "plan")]
    require_plan: bool,
    /// Take a plan that was made on another machine
    #[arg(long, requires = "plan")]
    any_machine: bool,
    #[command(flatten)]
    images: ImageArgs,
    /// Give the pooled features instead of probabilities
    #[arg(long)]
    features: bool,
    /// The features of an earlier layer, averaged over the image: 64, 192, 768 or 2048; the network
    /// ends there
    #[arg(long, value_name = "N", requires = "features")]
    dims: Option<usize>,
    /// Write the results as float32 .npy; - is standard output, which then has nothing else
    #[arg(long, value_name = "Y.npy")]
    output: Option<PathBuf>,
    /// Keep packed weights in this file: a start that finds its own there packs none
    #[arg(long, visible_alias = "weight-cache", value_name = "FILE")]
    packed: Option<PathBuf>,
    /// Names of the classes, one a line or in JSON; without it 1000 classes have ImageNet's names, and
    /// `none` leaves them out
    #[arg(long, value_name = "FILE|none", value_parser = stdin::file())]
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

impl RunArgs {
    /// Whether standard output has the results as an array, and no text.
    fn writes_to_stdout(&self) -> bool {
        self.output.as_deref() == Some(Path::new(stdin::DASH))
    }

    /// Whether results are printed as text.
    fn prints_text(&self) -> bool {
        !self.json && !self.writes_to_stdout()
    }

    /// The files to write, by their options.
    fn written(&self) -> [FileOption<'_>; 3] {
        let input = self.images.preprocess.write_input.as_ref();
        let output = self.output.as_ref().filter(|_| !self.writes_to_stdout());
        [("--output", output), ("--packed", self.packed.as_ref()), ("--write-input", input)]
    }
}

/// What the user has given.
struct Inputs<'a> {
    args: &'a RunArgs,
    cpu: Cpu,
    model: Model,
    weights: Weights,
    labels: ClassNames,
}

pub fn run(args: &RunArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let inputs = Inputs::read(args)?;
    let Found { graph, choices, threads: count, plan, notes } = inputs.find_plan()?;
    check_distinct(&args.written(), &[("the plan", plan.as_ref())], &args.images)?;
    ensure_runs(&inputs.model.to_string(), &graph)?;
    let threads = threads(count)?;
    // Photographs are decoded by one thread, and the network is prepared meanwhile.
    let batch = graph.batch;
    let (images, session) = std::thread::scope(|scope| {
        let images = scope.spawn(|| {
            let mut images = inputs.images()?;
            let first = images.next(batch)?;
            Ok::<_, Failure>((images, first))
        });
        let session = inputs.session(graph, &choices, &threads);
        (images.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), session)
    });
    let ((mut images, first), (session, to_write, cache_note)) = (images?, session?);
    print_notes(crowded(count).iter().chain(&notes).chain(&images.take_notes()).chain(&cache_note));
    let mut running = Running { inputs: &inputs, images, first, plan, choices, session };
    running.all(&threads, out)?;
    print_notes(&running.images.finish()?);
    if let (Some(path), Some(key)) = (&args.packed, to_write) {
        // The results are there; only the next start takes longer.
        if let Err(error) = weight_cache::write(path, key, &running.session.packed()) {
            print_notes(&[format!("{error}; the next start packs anew")]);
        }
    }
    Ok(())
}

/// A network that is ready to run.
struct Running<'a> {
    inputs: &'a Inputs<'a>,
    images: Images<'a>,
    /// The first batch of them.
    first: Batch,
    /// Its file; none for the built-in choice.
    plan: Option<PathBuf>,
    choices: Vec<Choice>,
    session: PreparedNetwork,
}

impl Running<'_> {
    /// Measures if that is asked for, then runs all images.
    fn all(&mut self, threads: &Threads, out: &mut dyn Write) -> Result<(), Failure> {
        let args = self.inputs.args;
        if args.prints_text() {
            let file = self.plan.as_ref().map(|path| path.display().to_string());
            writeln!(out, "plan: {}", stdin::shown(&file.unwrap_or_else(|| "built-in choice".to_string())))?;
        }
        let mut measured = None;
        if let Some(repeat) = args.repeat {
            let (latencies, steps) = threads.install(|| self.measure(threads, repeat as usize));
            measured = Some(steps);
            OutputArgs { json: args.json, wide: args.wide }.print(&latencies, out)?;
        }
        if !args.json || args.output.is_some() {
            self.infer(threads, out)?;
        }
        if args.profile {
            let once = || self.session.step_seconds().into_iter().map(|seconds| vec![seconds]).collect();
            let steps: Vec<Vec<f64>> = measured.unwrap_or_else(once);
            write!(out, "{}", self.profile(&steps))?;
        }
        Ok(())
    }

    /// The axes of an image's result: those of a block's output, as the next block reads them.
    fn result_shape(&self) -> Vec<usize> {
        let Model { nodes, features, output, .. } = &self.inputs.model;
        let node = features.filter(|_| self.inputs.args.features).unwrap_or(*output);
        match nodes[node].shape {
            [1, 1, channels] => vec![channels],
            shape => shape.to_vec(),
        }
    }

    /// Values of an image.
    fn size(&self) -> usize {
        self.inputs.model.input().iter().product()
    }

    /// Latencies of full batches, and the seconds of their steps; images repeat to fill a batch.
    fn measure(&mut self, threads: &Threads, repeat: usize) -> (Latencies, Vec<Vec<f64>>) {
        let (batch, size) = (self.session.graph().batch, self.size());
        let images = &self.first.values;
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
            shape: self.inputs.model.shape_text(),
            threads: threads.count(),
            batch,
            plan: self.plan.as_ref().map_or(BUILT_IN.to_string(), |path| path.display().to_string()),
            multiply_adds: multiply_adds(self.session.graph(), &self.choices, &self.inputs.cpu),
        };
        (latencies, steps)
    }

    /// Runs all images batch by batch, prints what they are, and writes the results.
    fn infer(&mut self, threads: &Threads, out: &mut dyn Write) -> Result<(), Failure> {
        let Inputs { args, model, labels: ClassNames { names: labels, note }, .. } = self.inputs;
        let top = (model.has_top() && !args.features).then_some(args.top);
        let shape = [&[self.images.count()], &self.result_shape()[..]].concat();
        let prints_text = args.prints_text() && top != Some(0);
        let file = args.output.as_ref().filter(|_| !args.writes_to_stdout());
        let mut results = file.map(|path| NpyWriter::create(path, &shape)).transpose()?;
        if args.writes_to_stdout() {
            out.write_all(&header(&shape)).map_err(standard_output)?;
        }
        print_notes(note.iter().filter(|_| top.is_some() && prints_text));
        let mut images = std::mem::take(&mut self.first);
        while !images.names.is_empty() {
            let Batch { values, names } = &images;
            let n = names.len();
            let session = &mut self.session;
            let checked = threads.install(|| {
                session.run(threads, values, n);
                session.check_finite(threads, values, n)
            });
            checked.map_err(|error| not_finite(&error, names))?;
            let output = match args.features {
                true => self.session.features(n).unwrap_or_default(),
                false => self.session.output(n),
            };
            if prints_text {
                let (shape, activation) = (&self.result_shape()[..], model.activation());
                Classes { labels, top, shape, activation }.print(&output, names, out)?;
            }
            results.as_mut().map_or(Ok(()), |results| results.write(&output))?;
            if args.writes_to_stdout() {
                out.write_all(&bytes(&output)).map_err(standard_output)?;
            }
            drop((std::mem::take(&mut images), output));
            images = self.images.next(self.session.graph().batch)?;
            print_notes(&self.images.take_notes());
        }
        Ok(results.map_or(Ok(()), NpyWriter::finish)?)
    }

    /// The time of each step.
    fn profile(&self, step_seconds: &[Vec<f64>]) -> String {
        let peak = kernels::peak::fma_peak(&Cpu::detect(), 20_000);
        let graph = self.session.graph();
        let medians: Vec<f64> = step_seconds.iter().map(|seconds| Timing::of(seconds).median * 1e6).collect();
        let total: f64 = medians.iter().sum();
        let mut table = Table::new("layer | (problem) | kernel | (tuning) | us | share | (GFLOP/s)");
        for (index, ((step, choice), us)) in graph.steps.iter().zip(&self.choices).zip(&medians).enumerate() {
            let flops = step.problem.flops() * graph.repeats(index) as u64;
            let (layers, kernel, tuning) = (layers_text(&step.layers), choice.row.id, &choice.tuning);
            let (share, speed) = (percent(*us, total), short(flops as f64 / us / 1e3));
            table.row(&[&layers, &step.problem, &kernel, tuning, &short(*us), &share, &speed]);
        }
        let args = self.inputs.args;
        let table = table.fold(OutputArgs { json: args.json, wide: args.wide }.width());
        let (peak, sum) = (short(peak / 1e9), time_text(total));
        format!("FMA peak of one core now: {peak} GFLOP/s\n{table}sum of the steps: {sum}\n")
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
    /// [`Plan::shape`]
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<String>,
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
        let (images, rate) = (count(self.batch, "image"), short(self.images_per_second));
        let text = format!(
            "{inferences} of {images}: median {median} {unit}, quartiles {quartiles}, fastest {fastest}, {rate} images \
             a second; {} disturbed",
            self.disturbed
        );
        wrap(&text, width, 2) + "\n"
    }
}

/// A network with its choices, on so many threads.
struct Found {
    graph: Graph,
    choices: Vec<Choice>,
    threads: usize,
    /// The plan's file; none for the built-in choice.
    plan: Option<PathBuf>,
    /// What to know of it.
    notes: Vec<String>,
}

/// What [`Latencies::plan`] is without a plan.
const BUILT_IN: &str = "default";

impl<'a> Inputs<'a> {
    /// Reads and checks everything that the user has given.
    fn read(args: &'a RunArgs) -> Result<Self, Failure> {
        let RunArgs { images, plan, labels, .. } = args;
        for (option, path) in args.written() {
            if path.is_some_and(|path| path == Path::new(stdin::DASH)) {
                return Err(
                    format!("{option} -: only --output can be standard output, expected a file").into()
                );
            }
        }
        if args.writes_to_stdout() && (args.repeat.is_some() || args.profile) {
            return Err(
                "--output -: standard output has the array, expected no --repeat and no --profile".into()
            );
        }
        let weights = args.model.weights.as_ref();
        let read = [("--weights", weights), ("--plan", plan.as_ref()), ("--labels", labels.as_ref())];
        check_distinct(&args.written(), &read, images)?;
        let (model, weights) = args.model.open(args.features)?;
        check_distinct(&args.written(), &shards(&weights), images)?;
        if args.features && model.features.is_none() {
            let networks = network_names();
            return Err(
                format!("--features: {model} has no pooled features, expected one of {networks}").into()
            );
        }
        let model = match args.dims {
            Some(dims) => model.with_dims(dims).map_err(|error| format!("--dims: {error}"))?,
            None => model,
        };
        let prints_classes = model.has_top() && !args.features && args.prints_text();
        let labels = match prints_classes || args.labels.is_some() {
            true => ClassNames::of(args.labels.as_deref(), &model, &weights)?,
            false => ClassNames::default(),
        };
        let batch = args.model.batch(&args.host).unwrap_or(1);
        ensure_runs(&model.to_string(), &graph(&model, &weights, batch))?;
        if let Some(path) = args.output.as_ref().filter(|_| !args.writes_to_stdout()) {
            check_writable(path)?;
        }
        Ok(Self { args, cpu: args.host.isa.cpu(), model, weights, labels })
    }

    /// The images that are given, or as many built-in ones as a batch has.
    fn images(&self) -> Result<Images<'_>, Failure> {
        let Self { args, model, weights, .. } = self;
        let built_in = || Images::built_in(model, args.model.batch(&args.host).unwrap_or(1));
        Ok(args.images.open(model, weights)?.unwrap_or_else(built_in))
    }

    /// The plan that was named, the newest valid one, or the built-in choice.
    fn find_plan(&self) -> Result<Found, Failure> {
        let Self { args, cpu, model, .. } = self;
        if let Some(path) = &args.plan {
            return self.named_plan(path);
        }
        let (threads, batch) = (args.host.thread_count(), args.model.batch(&args.host).unwrap_or(1));
        let wanted = ModelArgs::wanted(model, Some(threads), Some(batch));
        let machine = Machine::of(cpu);
        let folder = machine.folder(&args.host.results);
        let graph = graph(model, &self.weights, batch);
        let bounds = Bounds { error: args.host.error_bound(), memory: args.max_memory };
        let mut unusable = String::new();
        if let Some((path, plan)) = newest(&folder, &wanted, &bounds, &machine) {
            match by_plan(&path, &plan, &graph, cpu, model) {
                Ok((graph, choices)) => {
                    let notes = notes(&path, &plan, Some(&machine));
                    return Ok(Found { graph, choices, threads, plan: Some(path), notes });
                }
                Err(error) => unusable = format!("{error}; "),
            }
        }
        ensure_bound(&graph, threads, &bounds)?;
        let command = self.tuning_command();
        let asked = format!("{model}{} with {} and batch {batch}", at_size(model), count(threads, "thread"));
        let missing = format!("{unusable}no plan for {asked} in {}", folder.display());
        if args.require_plan {
            return Err(format!("{missing}, expected one as `{command}` makes").into());
        }
        let nearest = nearest(&folder, &wanted, &bounds, &machine);
        let adapted = nearest.and_then(|(path, plan)| Some((path, plan.adapted(&graph, cpu)?, plan)));
        if let Some((path, (graph, choices), plan)) = adapted {
            let (of, batch) = (count(plan.threads, "thread"), plan.batch);
            let note = format!("{missing}; using the one for {of} and batch {batch} (`{command}` makes one)");
            return Ok(Found { graph, choices, threads, plan: Some(path), notes: vec![note] });
        }
        if self.states_bounds() && (bounds.error < F32_ERROR || bounds.memory.is_some()) {
            let expected = "the built-in choice keeps no such bound";
            return Err(format!("{missing} within the bounds, and {expected}; `{command}` makes one").into());
        }
        let note = format!("{missing}; using the built-in choice (`{command}` makes one)");
        let (graph, choices) = built_in(&graph, cpu);
        Ok(Found { choices, graph, threads, plan: None, notes: vec![note] })
    }

    /// The command that makes the plan that is missing.
    fn tuning_command(&self) -> String {
        let RunArgs { host, max_memory, model, .. } = self.args;
        let options = [
            ("weights", model.weights.as_ref().map(|path| path.display().to_string())),
            ("threads", host.threads.map(|threads| threads.to_string())),
            ("batch", model.batch(host).map(|batch| batch.to_string())),
            ("max-rel-error", (host.error_bound() != F32_ERROR).then(|| format!("{:e}", host.error_bound()))),
            ("max-memory", max_memory.map(|mib| mib.to_string())),
            ("isa", host.isa.limit().map(|tier| tier.to_string())),
        ];
        let words = options.into_iter().filter_map(|(name, value)| Some(format!(" --{name} {}", value?)));
        format!("tuner {}{}", model_options(&self.model), words.collect::<String>())
    }

    /// Whether the user has stated a bound on the error or the memory.
    fn states_bounds(&self) -> bool {
        let HostArgs { max_rel_error, precision, .. } = &self.args.host;
        max_rel_error.is_some() || precision.is_some() || self.args.max_memory.is_some()
    }

    fn named_plan(&self, path: &Path) -> Result<Found, Failure> {
        let Self { args, cpu, model, weights, .. } = self;
        let (threads, batch) = (args.host.threads.map(usize::from), args.model.batch(&args.host));
        let wanted = ModelArgs::wanted(model, threads, batch);
        let plan = Plan::read_steps(path)?;
        plan.check_wanted(path, &wanted).map_err(|error| match plan.shape.as_deref().map(str::parse) {
            Some(Ok(ModelShape::Input([h, w, _])))
                if plan.model == model.name && plan.shape != wanted.shape =>
            {
                format!("{error}{}", size_hint(model, [h, w])).into()
            }
            _ => Failure::from(error),
        })?;
        let machine = Machine::of(cpu);
        if !args.any_machine {
            plan.check_machine(path, &machine)?;
        }
        if self.states_bounds() && plan.max_rel_error > args.host.error_bound() {
            let (file, found, bound) = (path.display(), plan.max_rel_error, args.host.error_bound());
            return Err(format!("{file}: max_rel_error is {found:e}, expected at most {bound:e}").into());
        }
        let (graph, choices) = by_plan(path, &plan, &graph(model, weights, plan.batch), cpu, model)?;
        let notes = notes(path, &plan, Some(&machine).filter(|_| !args.any_machine));
        Ok(Found { graph, choices, threads: plan.threads, plan: Some(path.to_owned()), notes })
    }

    /// The session, the key under which its packed weights are to be written, and what to know of
    /// the file of packed weights.
    fn session(
        &self,
        graph: Graph,
        choices: &[Choice],
        threads: &Threads,
    ) -> Result<(PreparedNetwork, Option<String>, Option<String>), Failure> {
        let Self { args, cpu, weights, .. } = self;
        let (mut to_write, mut note) = (None, None);
        if let Some(path) = &args.packed {
            let key = weight_cache::key(weights, &graph, choices, threads)?;
            let anew = |error: WeightCacheError| Some(format!("{error}; packed anew"));
            let packed = match WeightCache::open(path, &key) {
                Err(error @ WeightCacheError::Other { .. }) => {
                    note = anew(error);
                    None
                }
                packed => packed?,
            };
            if let Some(packed) = packed {
                let options = PrepareOptions { packed: Some(&packed), ..Default::default() };
                match PreparedNetwork::with_options(graph.clone(), choices, weights, cpu, threads, options) {
                    Err(PrepareError::WeightCache(error)) => note = anew(error),
                    session => return Ok((session?, None, None)),
                }
            }
            check_writable(path)?;
            to_write = Some(key);
        }
        Ok((PreparedNetwork::new(graph, choices, weights, cpu, threads)?, to_write, note))
    }
}

fn standard_output(error: std::io::Error) -> Failure {
    format!("standard output: cannot write: {error}").into()
}

/// What to know of a plan: what has changed since it was made, where that is asked, and what is not
/// taken from it.
fn notes(path: &Path, plan: &Plan, machine: Option<&Machine>) -> Vec<String> {
    let changes = machine.and_then(|machine| plan.stale(machine));
    let stale = changes.map(|changes| format!("{}: {changes}", path.display()));
    stale.into_iter().chain(plan.unknown_note(path)).collect()
}
