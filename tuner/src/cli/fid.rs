//! `tuner fid`: the Fréchet Inception Distance of two sets of images.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use engine::image::Preprocessing;
use engine::network::models::FID;
use engine::network::{Choice, Graph, built_in};
use engine::plan::Bounds;
use engine::plan::store::{nearest, newest};
use engine::runtime::{PreparedNetwork, Threads, ensure_runs, graph};
use engine::util::files::{check_writable, resolved};
use engine::weights::HeadOptions;
use engine::{Machine, Model, Plan, Weights};
use serde::Serialize;

use crate::autotune::network::ensure_bound;
use crate::cli::classes::not_finite;
use crate::cli::folder::{ImagePaths, has_extension, image_paths};
use crate::cli::preprocess::{preset, preset_help, usual};
use crate::cli::{
    Answer, Batch, Failure, HostArgs, Images, Meter, ModelArgs, OutputArgs, by_plan, crowded, print_notes,
    threads,
};
use crate::fid::{FidStatistics, KernelDistance, KernelDistanceOptions, frechet_distance, kernel_distance};
use crate::report::count;

/// Features of an image where nothing else is asked for.
const DIMS: usize = 2048;

/// Images of one inference where nothing else is asked for.
const BATCH: usize = 8;

/// Images of a subset for the Kernel Inception Distance, as torch-fidelity and clean-fid.
const KID_SIZE: &str = "1000";

/// How the name of a file of statistics ends.
const STATISTICS: &str = "npz";

/// Where the weights are published.
const WEIGHTS: &str = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/\
                       pt_inception-2015-12-05-6726825d.pth";

#[derive(Clone, Debug, clap::Args)]
pub struct FidArgs {
    /// The real images: a folder, a list of paths (.txt), or their statistics (.npz)
    #[arg(value_name = "REAL")]
    real: PathBuf,
    /// The others, in the same ways
    #[arg(value_name = "FAKE", required_unless_present = "save_stats")]
    fake: Option<PathBuf>,
    /// Write the statistics of REAL to this file instead: mu and sigma, as pytorch-fid has them
    #[arg(long, value_name = "OUT.npz", conflicts_with = "fake")]
    save_stats: Option<PathBuf>,
    /// Weights of TensorFlow's Inception of 2015: .pth of pytorch-fid, or .safetensors
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Synthetic weights of this seed in place of a file: the distance means nothing
    #[arg(long, conflicts_with = "weights")]
    seed: Option<u64>,
    /// Features of an image: 64, 192, 768 or 2048; by default those of the statistics, or else 2048
    #[arg(long, value_name = "N")]
    dims: Option<usize>,
    /// The Kernel Inception Distance as well, by subsets of 1000 images, or of as many as are asked for
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true, default_missing_value = KID_SIZE, value_parser = clap::value_parser!(u32).range(2..=100_000), conflicts_with = "save_stats")]
    kid: Option<u32>,
    #[command(flatten)]
    host: HostArgs,
    /// The plan; by default the newest valid one of this machine
    #[arg(long, value_name = "PLAN.json")]
    plan: Option<PathBuf>,
    #[arg(long, value_name = "PRESET", value_parser = preset, help = preset_help())]
    preprocess: Option<Preprocessing>,
    #[command(flatten)]
    output: OutputArgs,
}

/// One of the two sides.
struct Side<'a> {
    path: &'a Path,
    of: Of,
}

enum Of {
    Statistics(FidStatistics),
    Images(ImagePaths),
}

pub fn fid(args: &FidArgs, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    args.check_files()?;
    let paths = std::iter::once(&args.real).chain(&args.fake);
    let sides = paths.map(|path| Side::open(path)).collect::<Result<Vec<_>, Failure>>()?;
    let given = sides.iter().find_map(Side::given_dims);
    let dims = args.dims.or(given).unwrap_or(DIMS);
    sides.iter().try_for_each(|side| side.check_dims(dims))?;
    if let Some(side) = sides.iter().find(|side| args.kid.is_some() && side.given_dims().is_some()) {
        return Err(format!("{}: statistics have no KID, expected images", side.path.display()).into());
    }
    let mut network = match sides.iter().any(|side| matches!(side.of, Of::Images(_))) {
        true => Some(Network::open(args, dims)?),
        false => None,
    };
    let mut sets = Vec::new();
    for Side { path, of } in sides {
        sets.push(match (of, &mut network) {
            (Of::Images(images), Some(network)) => network.set(path, &images.paths, args.kid.is_some())?,
            (Of::Statistics(given), _) => Set { statistics: given, features: Vec::new() },
            (Of::Images(_), None) => Set { statistics: FidStatistics::new(dims), features: Vec::new() },
        });
    }
    args.answer(&sets, network.as_ref(), out)
}

/// What is known of the images of a side.
struct Set {
    statistics: FidStatistics,
    /// `[n, dims]`; empty where they are not needed.
    features: Vec<f32>,
}

impl FidArgs {
    /// Checks that the file to write can be written and is none of those that are read.
    fn check_files(&self) -> Result<(), Failure> {
        let Some(path) = &self.save_stats else { return Ok(()) };
        let read = [Some(&self.real), self.weights.as_ref(), self.plan.as_ref()];
        if read.into_iter().flatten().any(|read| resolved(read) == resolved(path)) {
            let path = path.display();
            return Err(format!("--save-stats {path}: is a file that is read, expected another").into());
        }
        Ok(check_writable(path)?)
    }

    /// Prints the distance, or writes the statistics.
    fn answer(&self, sets: &[Set], network: Option<&Network>, out: &mut dyn Write) -> Result<(), Failure> {
        let paths = std::iter::once(&self.real).chain(&self.fake);
        for (path, set) in paths.zip(sets) {
            print_notes(&singular(path, &set.statistics));
        }
        let of = |path: &Path, set: &Set| {
            let (path, images) = (path.display().to_string(), set.statistics.count());
            ImageSet { path, images }
        };
        let preprocess = network.map(|network| network.preprocessing.name().unwrap_or("other").to_owned());
        let plan = network.and_then(|network| network.plan.as_ref()).map(|path| path.display().to_string());
        match (sets, &self.save_stats, &self.fake) {
            ([a, b], _, Some(fake)) => {
                let fid = frechet_distance(&a.statistics, &b.statistics)?;
                let (dims, kid) = (a.statistics.dims(), self.kid(a, b)?);
                let (real, fake) = (of(&self.real, a), of(fake, b));
                self.output.print(&Distance { fid, kid, dims, preprocess, plan, real, fake }, out)
            }
            ([set], Some(path), _) => {
                set.statistics.write(path)?;
                let (images, dims) = (of(&self.real, set), set.statistics.dims());
                let statistics = path.display().to_string();
                self.output.print(&Saved { statistics, dims, preprocess, plan, images }, out)
            }
            _ => Ok(()),
        }
    }

    /// The Kernel Inception Distance, where it is asked for.
    fn kid(&self, real: &Set, fake: &Set) -> Result<Option<Kid>, Failure> {
        let Some(size) = self.kid else { return Ok(None) };
        let options = KernelDistanceOptions { size: size as usize, ..Default::default() };
        let dims = real.statistics.dims();
        let KernelDistance { mean, deviation, size } =
            kernel_distance(&real.features, &fake.features, dims, &options)?;
        if size < options.size {
            print_notes(&[format!("KID is by subsets of {size} images, since one side has no more")]);
        }
        Ok(Some(Kid { mean, deviation, subset: size }))
    }
}

/// What to know of a covariance of fewer images than features.
fn singular(path: &Path, statistics: &FidStatistics) -> Option<String> {
    let (images, dims) = (statistics.count()?, statistics.dims());
    (images <= dims as u64).then(|| {
        format!(
            "{}: {images} images have a singular covariance of {dims} features, and their FID is biased: \
             compare it with FIDs of as many images only",
            path.display()
        )
    })
}

impl<'a> Side<'a> {
    fn open(path: &'a Path) -> Result<Self, Failure> {
        if has_extension(path, &[STATISTICS]) {
            return Ok(Self { path, of: Of::Statistics(FidStatistics::read(path)?) });
        }
        let images = image_paths(path)?;
        let (found, inside) = (images.paths.len(), images.in_subfolders);
        if found < 2 {
            return Err(
                format!("{}: found {}, expected at least 2", path.display(), count(found, "image")).into()
            );
        }
        if inside > 0 {
            let path = path.display();
            print_notes(&[format!(
                "{path}: {inside} of {found} images are in folders inside it, which pytorch-fid leaves out"
            )]);
        }
        Ok(Self { path, of: Of::Images(images) })
    }

    /// The features of statistics.
    fn given_dims(&self) -> Option<usize> {
        match &self.of {
            Of::Statistics(statistics) => Some(statistics.dims()),
            Of::Images(_) => None,
        }
    }

    fn check_dims(&self, dims: usize) -> Result<(), Failure> {
        match self.given_dims() {
            Some(found) if found != dims => {
                let path = self.path.display();
                Err(format!("{path}: found statistics of {found} features, expected {dims}").into())
            }
            _ => Ok(()),
        }
    }
}

/// A network that gives features.
struct Network {
    model: Model,
    preprocessing: Preprocessing,
    /// Its file; none for the built-in choice.
    plan: Option<PathBuf>,
    threads: Threads,
    session: PreparedNetwork,
    /// Notes that were printed.
    noted: HashSet<String>,
}

impl Network {
    fn open(args: &FidArgs, dims: usize) -> Result<Self, Failure> {
        let bare = Model::by_name(FID, None, None)?;
        let cut = |model: Model| model.with_dims(dims).map_err(|error| format!("--dims: {error}"));
        cut(bare.clone())?;
        let weights = match (&args.weights, args.seed) {
            (Some(path), _) => {
                let options = HeadOptions { features_only: true, activation: None };
                Weights::open_with(path, &bare, &options)?
            }
            (None, Some(seed)) => {
                print_notes(&["the weights are synthetic, so that the distance means nothing".to_owned()]);
                Weights::synthetic(&bare, seed)
            }
            (None, None) => {
                return Err(format!(
                    "--weights is missing, expected those of TensorFlow's Inception of 2015, as \
                     `curl -LO {WEIGHTS}` gets them"
                )
                .into());
            }
        };
        let variant = weights.variant();
        print_notes(
            &variant.map(|text| format!("{}: by their number of classes, {text}", weights.description())),
        );
        let model = cut(weights.fit(&bare))?;
        let Found { graph, choices, threads: number, plan, note } = find_plan(args, &model, &weights)?;
        ensure_runs(&model.name, &graph)?;
        print_notes(crowded(number).iter().chain(&note));
        let (threads, cpu) = (threads(number)?, args.host.isa.cpu());
        let session = PreparedNetwork::new(graph, &choices, &weights, &cpu, &threads)?;
        let preprocessing = args.preprocess.unwrap_or_else(|| usual(&model, &weights));
        Ok(Self { model, preprocessing, plan, threads, session, noted: HashSet::new() })
    }

    /// The statistics of images, and their features where these are needed.
    fn set(&mut self, path: &Path, images: &[PathBuf], keeps_features: bool) -> Result<Set, Failure> {
        let (mut meter, what) = (Meter::default(), format!("features of {}", path.display()));
        let dims = self.model.nodes[self.model.output].shape[2];
        let (mut statistics, mut features, mut done) = (FidStatistics::new(dims), Vec::new(), 0);
        let notes = features_of(self, images, &mut |rows| {
            done += rows.len() / dims;
            meter.show(&what, done as f64 / images.len() as f64, "");
            if keeps_features {
                features.extend_from_slice(rows);
            }
            Ok(statistics.add(rows)?)
        })?;
        print_notes(notes.iter().filter(|note| self.noted.insert((*note).clone())));
        Ok(Set { statistics, features })
    }
}

/// The features of images in order, `[n, dims]` of some images at a time, and what to know of the
/// images.
fn features_of(
    network: &mut Network,
    paths: &[PathBuf],
    each: &mut dyn FnMut(&[f32]) -> Result<(), Failure>,
) -> Result<Vec<String>, Failure> {
    let Network { model, preprocessing, threads, session, .. } = network;
    let mut images = Images::files(model, paths, *preprocessing, None)?;
    loop {
        let Batch { values, names } = images.next(session.graph().batch)?;
        let n = names.len();
        if n == 0 {
            return images.finish();
        }
        let checked = threads.install(|| {
            session.run(threads, &values, n);
            session.check_finite(threads, &values, n)
        });
        checked.map_err(|error| not_finite(&error, &names))?;
        each(&session.features(n).unwrap_or_default())?;
    }
}

/// A network with its choices, on so many threads.
struct Found {
    graph: Graph,
    choices: Vec<Choice>,
    threads: usize,
    plan: Option<PathBuf>,
    note: Option<String>,
}

/// The plan that was named, the newest valid one, or the built-in choice. A plan of the whole network
/// serves one that is cut.
fn find_plan(args: &FidArgs, model: &Model, weights: &Weights) -> Result<Found, Failure> {
    let (cpu, host) = (args.host.isa.cpu(), &args.host);
    let machine = Machine::of(&cpu);
    if let Some(path) = &args.plan {
        let plan = Plan::read_steps(path)?;
        let asked = ModelArgs::wanted(model, host.threads.map(usize::from), host.batch.map(usize::from));
        plan.check_wanted(path, &asked)?;
        plan.check_machine(path, &machine)?;
        let graph = graph(model, weights, plan.batch);
        let (graph, choices) = by_plan(path, &plan, &graph, &cpu, model)?;
        return Ok(Found { graph, choices, threads: plan.threads, plan: Some(path.clone()), note: None });
    }
    let (threads, batch) = (host.thread_count(), host.batch.map_or(BATCH, usize::from));
    let asked = ModelArgs::wanted(model, Some(threads), Some(batch));
    let bounds = Bounds { error: host.error_bound(), memory: None };
    let (folder, graph) = (machine.folder(&host.results), graph(model, weights, batch));
    let exact = newest(&folder, &asked, &bounds, &machine);
    let exact = exact.and_then(|(path, plan)| Some((by_plan(&path, &plan, &graph, &cpu, model).ok()?, path)));
    if let Some(((graph, choices), path)) = exact {
        return Ok(Found { graph, choices, threads, plan: Some(path), note: None });
    }
    ensure_bound(&graph, threads, &bounds)?;
    let command = format!("tuner --model {model} --threads {threads} --batch {batch}");
    let missing = format!(
        "no plan for {model} with {} and batch {batch} in {}",
        count(threads, "thread"),
        folder.display()
    );
    let near = nearest(&folder, &asked, &bounds, &machine);
    let near = near.and_then(|(path, plan)| Some((plan.adapted(&graph, &cpu)?, path, plan)));
    if let Some(((graph, choices), path, plan)) = near {
        let (of, batch) = (count(plan.threads, "thread"), plan.batch);
        let note = format!("{missing}; using the one for {of} and batch {batch} (`{command}` makes one)");
        return Ok(Found { graph, choices, threads, plan: Some(path), note: Some(note) });
    }
    let note = format!("{missing}; using the built-in choice (`{command}` makes one)");
    let (graph, choices) = built_in(&graph, &cpu);
    Ok(Found { graph, choices, threads, plan: None, note: Some(note) })
}

/// Images of one side.
#[derive(Debug, Serialize)]
struct ImageSet {
    path: String,
    /// How many; null where statistics do not state it.
    images: Option<u64>,
}

impl ImageSet {
    fn text(&self) -> String {
        match self.images {
            Some(images) => format!("{}, {}", self.path, count(images as usize, "image")),
            None => format!("{}, images not stated", self.path),
        }
    }
}

#[derive(Debug, Serialize)]
struct Distance {
    fid: f64,
    /// Where it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<Kid>,
    /// Features of an image.
    dims: usize,
    /// The preset by which images were preprocessed; null where none were.
    preprocess: Option<String>,
    /// The plan's file; null for the built-in choice.
    plan: Option<String>,
    real: ImageSet,
    fake: ImageSet,
}

/// The Kernel Inception Distance.
#[derive(Debug, Serialize)]
struct Kid {
    mean: f64,
    /// Standard deviation between subsets.
    deviation: f64,
    /// Images of a subset.
    subset: usize,
}

impl Answer for Distance {
    fn text(&self, _: usize) -> String {
        let Self { fid, kid, dims, real, fake, .. } = self;
        let kid = kid.as_ref().map_or(String::new(), |Kid { mean, deviation, subset }| {
            format!("KID {mean:.8} ± {deviation:.8} by subsets of {}\n", count(*subset, "image"))
        });
        format!("FID {fid:.6} by {dims} features\n{kid}real: {}\nfake: {}\n", real.text(), fake.text())
    }
}

#[derive(Debug, Serialize)]
struct Saved {
    /// The file that was written.
    statistics: String,
    dims: usize,
    preprocess: Option<String>,
    plan: Option<String>,
    #[serde(flatten)]
    images: ImageSet,
}

impl Answer for Saved {
    fn text(&self, _: usize) -> String {
        let Self { statistics, dims, images, .. } = self;
        format!("{statistics}: statistics of {dims} features of {}\n", images.text())
    }
}
