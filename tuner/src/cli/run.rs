//! `tuner run`: the network on images, by a plan.

use std::cell::RefCell;
use std::io::Write;
use std::path::{Path, PathBuf};

use engine::network::models::network_names;
use engine::network::{Calibration, Choice, Graph};
use engine::runtime::prepared::PrepareOptions;
use engine::runtime::weight_cache::{self, WeightCache, WeightCacheError};
use engine::runtime::{PrepareError, PreparedNetwork, Stream, Threads, ensure_network, ensure_runs, graph};
use engine::util::files::{check_writable, text_id};
use engine::{Model, Plan, PlanChoice, Weights};
use kernels::Cpu;

use crate::cli::classes::ClassNames;
use crate::cli::images::{Image, Seen};
use crate::cli::infer::{Inference, Output, StreamsArg, Way};
use crate::cli::latency::Measured;
use crate::cli::plan_choice::{PlanChoiceArgs, PlanChoiceFor};
use crate::cli::results::Place;
use crate::cli::{
    Failure, FileOption, HostArgs, ImageArgs, Images, ModelArgs, OutputArgs, check_distinct, crowded,
    print_notes, results, shards, stdin, threads, threads_of,
};

#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    plan: PlanChoiceArgs,
    #[command(flatten)]
    images: ImageArgs,
    /// Give the pooled features instead of probabilities
    #[arg(long)]
    features: bool,
    /// The features of an earlier layer, averaged over the image: 64, 192, 768 or 2048; the network
    /// ends there
    #[arg(long, value_name = "N", requires = "features")]
    dims: Option<usize>,
    /// Write the results as they come: float32 .npy, or .csv, .jsonl and .parquet with the names of
    /// the images; - is standard output, which then has the array and nothing else
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Go on behind the results that an earlier run has left, of the same images in the same order
    #[arg(long, requires = "output", conflicts_with = "write_input")]
    resume: bool,
    /// Skip images that cannot be read: their rows have no numbers
    #[arg(long, conflicts_with = "write_input")]
    skip_bad: bool,
    /// Inferences at the same time: auto or a number. Each has a share of the threads
    #[arg(long, value_name = "auto|N", default_value = "auto", value_parser = StreamsArg::parse, conflicts_with = "profile")]
    streams: StreamsArg,
    /// Keep packed weights in this file: a start that finds its own there packs none
    #[arg(long, visible_alias = "weight-cache", value_name = "FILE")]
    packed: Option<PathBuf>,
    /// Names of the classes, one a line or in JSON; without it 1000 classes have ImageNet's names,
    /// and `none` leaves them out
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
    #[arg(long)]
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

    /// Whether nothing is asked for but latencies.
    fn writes_nothing_else(&self) -> bool {
        self.json && self.output.is_none() && self.images.preprocess.write_input.is_none()
    }

    /// The files to write, by their options.
    fn written(&self) -> [FileOption<'_>; 3] {
        let input = self.images.preprocess.write_input.as_deref();
        let output = self.output.as_deref().filter(|_| !self.writes_to_stdout());
        [("--output", output), ("--packed", self.packed.as_deref()), ("--write-input", input)]
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
    let PlanChoice { plan, graph, choices, origin, notes } = inputs.plan_choice().find()?;
    let (count, file) = (plan.threads, origin.file());
    check_distinct(&args.written(), &[("the plan", file)], &args.images)?;
    if let Some(path) = args.output.as_ref().filter(|_| !args.writes_to_stdout()) {
        results::check(path)?;
    }
    let batch = graph.batch;
    let measured = Measured { model: &inputs.model, choices: &choices, plan: file, cpu: &inputs.cpu };
    let images = inputs.images()?;
    let mut seen = Seen::new(&images, args.images.preprocess.write_input.as_ref())?;
    let asked = if args.profile { StreamsArg::Count(1) } else { args.streams };
    let way = Way::of(&images, &plan, asked, args.plan.max_memory.is_some());
    ensure_network(&inputs.model.to_string(), &graph, &choices, &inputs.cpu, way.running(count, &images))?;
    let id = inputs.result_id(&plan)?;
    let inference = inputs.inference(&images, &id);
    // The key of packed weights that are to be written, and what to know of those that are there.
    let cache = RefCell::new((None, None));
    let prepare = || {
        let threads = threads_of(&plan, file)?;
        let (network, key, note) = inputs.session(graph, &choices, plan.calibration.as_ref(), &threads)?;
        *cache.borrow_mut() = (key, note);
        Ok::<_, Failure>(Stream { threads, network })
    };
    let begin = |out: &mut dyn Write| {
        let cache = cache.borrow();
        let notes = crowded(count).into_iter().chain(notes).chain(images.notes.iter().cloned());
        print_notes(&notes.chain(cache.1.clone()).collect::<Vec<_>>());
        if args.prints_text() {
            let without = if args.plan.reproducible { "reproducible choice" } else { "built-in choice" };
            let file = file.map_or_else(|| without.to_owned(), |path| path.display().to_string());
            writeln!(out, "plan: {}", stdin::shown(&file))?;
        }
        Ok(())
    };
    let output = OutputArgs { json: args.json, wide: args.wide };
    let mut steps = None;
    let streams = match args.repeat {
        None => inference.run(way, seen, || way.split(prepare()?), begin, out)?,
        Some(repeat) => {
            let first: Vec<Image> =
                (0..batch.min(images.count())).map(|number| images.load(number)).collect();
            first.iter().try_for_each(|image| seen.add(image))?;
            let values: Vec<Vec<f32>> =
                first.into_iter().map(|image| image.values).collect::<Result<_, _>>()?;
            let mut stream = prepare()?;
            begin(out)?;
            let (latencies, seconds) =
                measured.measure(&mut stream, &values.concat(), repeat as usize, args.profile);
            output.print(&latencies, out)?;
            steps = Some(seconds);
            if args.writes_nothing_else() {
                print_notes(&seen.finish(&images)?);
                vec![stream]
            } else {
                let seen = Seen::new(&images, args.images.preprocess.write_input.as_ref())?;
                inference.run(way, seen, || way.split(stream), |_| Ok(()), out)?
            }
        }
    };
    let network = &streams[0].network;
    if args.profile && !args.json {
        let once = || network.step_seconds().into_iter().map(|seconds| vec![seconds]).collect();
        write!(out, "{}", measured.profile(network, &steps.unwrap_or_else(once), output.width()))?;
    }
    if let (Some(path), Some(key)) = (&args.packed, cache.into_inner().0) {
        // The results are there; only the next start takes longer.
        if let Err(error) = weight_cache::write(path, key, &network.packed()) {
            print_notes(&[format!("{error}; the next start packs anew")]);
        }
    }
    Ok(())
}

impl<'a> Inputs<'a> {
    /// Reads and checks everything that the user has given.
    fn read(args: &'a RunArgs) -> Result<Self, Failure> {
        let RunArgs { images, labels, .. } = args;
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
        let weights = args.model.weights.as_deref();
        let read =
            [("--weights", weights), ("--plan", args.plan.plan.as_deref()), ("--labels", labels.as_deref())];
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
        let writes_text = args.output.is_some() && !args.writes_to_stdout();
        let prints_classes = model.has_top() && !args.features && (args.prints_text() || writes_text);
        let labels = match prints_classes || args.labels.is_some() {
            true => ClassNames::of(args.labels.as_deref(), &model, &weights)?,
            false => ClassNames::default(),
        };
        let batch = args.model.batch(&args.host).unwrap_or(1);
        ensure_runs(&model.to_string(), &graph(&model, &weights, batch))?;
        Ok(Self { args, cpu: args.host.isa.cpu(), model, weights, labels })
    }

    fn plan_choice(&self) -> PlanChoiceFor<'_> {
        let Self { args, cpu, model, weights, .. } = self;
        let (weights_file, batch) = (args.model.weights.as_deref(), args.model.batch(&args.host));
        PlanChoiceFor { args: &args.plan, weights_file, batch, host: &args.host, cpu, model, weights }
    }

    /// The images that are given, or as many built-in ones as a batch has.
    fn images(&self) -> Result<Images<'_>, Failure> {
        let Self { args, model, weights, .. } = self;
        let built_in = || Images::built_in(model, args.model.batch(&args.host).unwrap_or(1));
        Ok(args.images.open(model, weights)?.unwrap_or_else(built_in))
    }

    /// Tells runs whose results may be in one file: eight digits.
    fn result_id(&self, plan: &Plan) -> Result<String, Failure> {
        let Self { args, model, weights, .. } = self;
        if args.output.is_none() || args.writes_to_stdout() {
            return Ok(String::new());
        }
        let content = weight_cache::content(weights, &threads(1)?)?;
        let preprocessing = args.images.preprocess.preprocessing(model, weights);
        let of_classes = (model.has_top() && !args.features).then_some(args.top);
        let shape = model.nodes[model.output].shape;
        let what =
            format!("{model} {:?} {shape:?} {of_classes:?} {:e}", model.shape_text(), plan.max_rel_error);
        let made_up = weights.is_synthetic().then(|| weights.description());
        let bits = if args.plan.reproducible { " reproducible" } else { "" };
        Ok(text_id(&format!("{what} {content:?} {made_up:?} {preprocessing:?}{bits}")))
    }

    fn inference<'b>(&'b self, images: &'b Images<'b>, id: &'b str) -> Inference<'b> {
        let Self { args, model, labels: ClassNames { names: labels, note }, .. } = self;
        let output = match &args.output {
            None => Output::None,
            Some(_) if args.writes_to_stdout() => Output::Stdout,
            Some(path) => Output::File(Place { path, id, resume: args.resume }),
        };
        let &RunArgs { features, top, skip_bad, .. } = *args;
        let prints_text = args.prints_text();
        let labels_note = note.as_deref().filter(|_| model.has_top() && !features && top > 0 && prints_text);
        Inference { model, images, labels, labels_note, features, top, prints_text, output, skip_bad }
    }

    /// The session, the key under which its packed weights are to be written, and what to know of
    /// the file of packed weights.
    fn session(
        &self,
        graph: Graph,
        choices: &[Choice],
        calibration: Option<&Calibration>,
        threads: &Threads,
    ) -> Result<(PreparedNetwork, Option<String>, Option<String>), Failure> {
        let Self { args, cpu, weights, .. } = self;
        let (mut to_write, mut note) = (None, None);
        if let Some(path) = &args.packed {
            let key = weight_cache::key(weights, &graph, choices, calibration, threads)?;
            let anew = |error: WeightCacheError| Some(format!("{error}; packed anew"));
            let packed = match WeightCache::open(path, &key) {
                Err(error @ WeightCacheError::Other { .. }) => {
                    note = anew(error);
                    None
                }
                packed => packed?,
            };
            if let Some(packed) = packed {
                let options = PrepareOptions { packed: Some(&packed), calibration, ..Default::default() };
                match PreparedNetwork::with_options(graph.clone(), choices, weights, cpu, threads, options) {
                    Err(PrepareError::WeightCache(error)) => note = anew(error),
                    session => return Ok((session?, None, None)),
                }
            }
            check_writable(path)?;
            to_write = Some(key);
        }
        Ok((PreparedNetwork::new(graph, choices, calibration, weights, cpu, threads)?, to_write, note))
    }
}
