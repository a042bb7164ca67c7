//! `tuner fid`: the Fréchet Inception Distance of two sets of images.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use engine::image::Preprocessing;
use engine::network::models::FID;
use engine::runtime::{PreparedNetwork, Ran, Stream, Work, ensure_network};
use engine::util::files::{check_writable, resolved};
use engine::weights::HeadOptions;
use engine::{Model, PlanChoice, Weights};
use serde::Serialize;

use crate::cli::classes::NotFinite;
use crate::cli::image_paths::ImagePaths;
use crate::cli::images::{Image, Seen};
use crate::cli::infer::{Rate, StreamsArg, Way};
use crate::cli::interrupt::Interrupt;
use crate::cli::plan_choice::{PlanChoiceArgs, PlanChoiceFor};
use crate::cli::preprocess::{preset, preset_help};
use crate::cli::{Answer, Failure, HostArgs, Images, OutputArgs, crowded, print_notes, stdin, threads_of};
use crate::fid::{FidStatistics, KernelDistance, KernelDistanceOptions, frechet_distance, kernel_distance};
use crate::report::count;

/// Features of an image where nothing else is asked for.
const DIMS: usize = 2048;

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
    /// The Kernel Inception Distance as well, by subsets of 1000 images, or of as many as are asked
    /// for
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true, default_missing_value = KID_SIZE, value_parser = clap::value_parser!(u32).range(2..=100_000), conflicts_with = "save_stats")]
    kid: Option<u32>,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    plan: PlanChoiceArgs,
    /// Inferences at the same time: auto or a number. Each has a share of the threads
    #[arg(long, value_name = "auto|N", default_value = "auto", value_parser = StreamsArg::parse)]
    streams: StreamsArg,
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
            (Of::Images(images), Some(network)) => network.set(path, images, args.kid.is_some())?,
            (Of::Statistics(given), network) => {
                // A file has neither weights nor preprocessing, which move the distance.
                let unknown = network.as_ref().map(|network| {
                    let (file, own) = (path.display(), network.preset());
                    format!(
                        "{file}: does not state its weights and preprocessing, which must be those of the \
                         images: {own}"
                    )
                });
                print_notes(&unknown);
                Set { statistics: given, features: Vec::new() }
            }
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
        if path == Path::new(stdin::DASH) {
            return Err("--save-stats -: statistics are an archive, expected a file".into());
        }
        let read = [Some(&self.real), self.weights.as_ref(), self.plan.plan.as_ref()];
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
        let preprocess = network.map(|network| network.preset().to_owned());
        let file = network.and_then(|network| network.choice.origin.file());
        let plan = file.map(|path| path.display().to_string());
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
        if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case(STATISTICS)) {
            return Ok(Self { path, of: Of::Statistics(FidStatistics::read(path)?) });
        }
        let images = ImagePaths::several(path, "a folder of images, a list (.txt) or statistics (.npz)")?;
        let inside =
            images.paths.iter().filter(|image| path.is_dir() && image.parent() != Some(path)).count();
        let found = images.paths.len();
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
struct Network<'a> {
    args: &'a FidArgs,
    model: Model,
    weights: Weights,
    preprocessing: Preprocessing,
    choice: PlanChoice,
    /// Those of the side that has run.
    streams: Option<(Way, Vec<Stream>)>,
    /// Notes that were printed.
    noted: HashSet<String>,
}

impl<'a> Network<'a> {
    fn open(args: &'a FidArgs, dims: usize) -> Result<Self, Failure> {
        let bare = Model::by_name(FID, None, None)?;
        let cut = |model: Model| model.with_dims(dims).map_err(|error| format!("--dims: {error}"));
        cut(bare.clone())?;
        let weights = match (&args.weights, args.seed) {
            (Some(path), _) => {
                let options = HeadOptions { features_only: true, activation: None };
                Weights::open_with(path, &bare, &options)?
            }
            (None, Some(seed)) => Weights::synthetic(&bare, seed),
            (None, None) => {
                return Err(format!(
                    "--weights is missing, expected those of TensorFlow's Inception of 2015, as \
                     `curl -LO {WEIGHTS}` gets them"
                )
                .into());
            }
        };
        let (model, cpu, host) = (cut(weights.fit(&bare))?, args.host.isa.cpu(), &args.host);
        let (weights_file, batch) = (args.weights.as_deref(), host.batch.map(usize::from));
        let wanted = PlanChoiceFor {
            args: &args.plan,
            weights_file,
            batch,
            host,
            cpu: &cpu,
            model: &model,
            weights: &weights,
        };
        let choice = wanted.find()?;
        let synthetic = "the weights are synthetic, so that the distance means nothing".to_owned();
        print_notes(&weights.is_synthetic().then_some(synthetic));
        print_notes(&weights.notes());
        print_notes(crowded(choice.plan.threads).iter().chain(&choice.notes));
        let preprocessing = args.preprocess.unwrap_or_else(|| Preprocessing::usual(&model, &weights));
        Ok(Self { args, model, weights, preprocessing, choice, streams: None, noted: HashSet::new() })
    }

    /// The name of the preprocessing.
    fn preset(&self) -> &'static str {
        self.preprocessing.name().unwrap_or("other")
    }

    /// The statistics of images, and their features where these are needed.
    fn set(&mut self, path: &Path, paths: ImagePaths, keeps_features: bool) -> Result<Set, Failure> {
        let model = self.model.clone();
        let images = Images::files(&model, paths, self.preprocessing);
        let dims = model.nodes[model.output].shape[2];
        let (mut statistics, mut features) = (FidStatistics::new(dims), Vec::new());
        let mut rate = Rate::new(format!("features of {}", path.display()), images.count());
        let notes = self.features_of(&images, &mut |rows| {
            rate.add(rows.len() / dims);
            if keeps_features {
                features.extend_from_slice(rows);
            }
            Ok(statistics.add(rows)?)
        })?;
        print_notes(notes.iter().filter(|note| self.noted.insert((*note).clone())));
        Ok(Set { statistics, features })
    }

    /// The features of images in order, `[n, dims]` of some images at a time, and what to know of
    /// the images.
    fn features_of(
        &mut self,
        images: &Images,
        each: &mut dyn FnMut(&[f32]) -> Result<(), Failure>,
    ) -> Result<Vec<String>, Failure> {
        let mut seen = Seen::new(images, None)?;
        let is_bounded = self.args.plan.max_memory.is_some();
        let way = Way::of(images, &self.choice.plan, self.args.streams, is_bounded);
        let same = |of: &Way| (of.streams, of.threads) == (way.streams, way.threads);
        let ready = self.streams.take().filter(|(of, _)| same(of));
        if ready.is_none() {
            let PlanChoice { plan, graph, choices, .. } = &self.choice;
            let (name, cpu) = (&self.model.name, self.args.host.isa.cpu());
            ensure_network(name, graph, choices, &cpu, way.running(plan.threads, images))?;
        }
        let prepare = || {
            if let Some((_, streams)) = ready {
                return Ok(streams);
            }
            let PlanChoice { plan, graph, choices, origin, .. } = &self.choice;
            let (cpu, threads) = (self.args.host.isa.cpu(), threads_of(plan, origin.file())?);
            let calibration = plan.calibration.as_ref();
            let network =
                PreparedNetwork::new(graph.clone(), choices, calibration, &self.weights, &cpu, &threads)?;
            way.split(Stream { threads, network })
        };
        let each = |Ran { images, features, checked, .. }: Ran<Image>| {
            images.iter().try_for_each(|image| seen.add(image))?;
            let names: Vec<String> = images.iter().map(|image| image.name.clone()).collect();
            images.into_iter().try_for_each(|image| image.values.map(drop))?;
            checked.map_err(|error| NotFinite::of(&error, &names[error.image]))?;
            each(&features.unwrap_or_default())
        };
        let (loaders, batch, streams) = (way.loaders, way.batch, way.streams);
        let work = Work { images: images.count(), loaders, batch, streams };
        let interrupt = Interrupt::watch();
        let streams = work.run(interrupt.flag(), |number| images.load(number), prepare, each)?;
        interrupt.check()?;
        self.streams = Some((way, streams));
        Ok(images.notes.iter().cloned().chain(seen.finish(images)?).collect())
    }
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
