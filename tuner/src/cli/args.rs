//! What commands have in common: machine, model, weights, threads.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::network::model::MAX_NORMS;
use engine::network::models::{input_arrays, is_network, networks_and_blocks};
use engine::network::{Activation, BF16_ERROR, F32_ERROR, INT8_ERROR};
use engine::plan::Bounds;
use engine::plan::store::plan_or_newest;
use engine::runtime::{Threads, available, expected_threads, most_threads, physical_cores};
use engine::util::create_folder;
use engine::util::files::{check_writable, resolved};
use engine::weights::HeadOptions;
use engine::{Machine, Model, ModelError, ModelShape, Plan, Weights};
use kernels::{Conv, Cpu, ShapeError, Tier};

use crate::autotune::error::TuneError;
pub use crate::autotune::file::results_folder;
use crate::autotune::options::Options;
use crate::bench::POLICY;
use crate::cli::image_paths::ImagePaths;
use crate::cli::preprocess::PreprocessArgs;
use crate::cli::{Failure, Images, OutputArgs, print_notes, stdin};
use crate::log::journal;
use crate::report::count;

#[derive(Clone, Debug, clap::Args)]
pub struct TuneArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub host: HostArgs,
    /// Convolutions instead of a model: a shape a line, how often it occurs as *N, comments after #
    #[arg(long, visible_alias = "problems", value_name = "FILE", value_parser = stdin::file(), conflicts_with_all = ["model", "shape", "batch_norms", "size", "weights", "head", "seed", "image", "input", "max_memory"])]
    pub shapes: Option<PathBuf>,
    /// What the error is measured on; three built-in images by default
    #[command(flatten)]
    pub images: ImageArgs,
    /// Seconds for all measuring; 33 by default. Each kernel's default tuning is measured whatever
    /// the budget, and large batches take longer; the summary says by how much
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub budget: Option<u32>,
    /// A budget of 14 seconds
    #[arg(long, conflicts_with_all = ["budget", "thorough"])]
    pub quick: bool,
    /// A budget of 100 seconds
    #[arg(long, conflicts_with = "budget")]
    pub thorough: bool,
    /// Bound on the memory of a process that runs the plan
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub max_memory: Option<u32>,
    /// Measure plans from the fastest to the most exact as well, which takes some seconds more
    #[arg(long, conflicts_with = "shapes")]
    pub pareto: bool,
    /// Try all tunings that the search has left out as well, which takes many minutes, and say what
    /// it has missed
    #[arg(long)]
    pub exhaustive: bool,
    /// Where to write the plan; a file for this model and machine under --results by default
    #[arg(long, value_name = "PLAN.json")]
    pub out: Option<PathBuf>,
    /// Measure all anew, and take nothing from the log of earlier measurements but how near the
    /// cores have been
    #[arg(long)]
    pub fresh: bool,
    /// Print all tables: each step, block variants, whole networks, rules
    #[arg(long)]
    pub verbose: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl TuneArgs {
    /// What is asked for of both, a network and a list.
    pub fn options(&self) -> Options {
        let stages = &POLICY.stages;
        let seconds = match (self.quick, self.thorough) {
            (true, _) => stages.quick_s,
            (_, true) => stages.thorough_s,
            _ => self.budget.unwrap_or(stages.budget_s),
        };
        Options {
            cpu: self.host.isa.cpu(),
            threads: self.host.thread_count(),
            bounds: Bounds { error: self.host.error_bound(), memory: self.max_memory },
            budget: Duration::from_secs(seconds.into()),
            exhaustive: self.exhaustive,
            pareto: self.pareto,
            results: Some(self.host.results.clone()),
            fresh: self.fresh,
            ..Options::default()
        }
    }

    /// Where to write: the given file, or one in the folder of this machine, which is made.
    pub fn output_file(&self, machine: &Machine, default: PathBuf) -> Result<PathBuf, Failure> {
        if self.out.as_deref() == Some(Path::new(stdin::DASH)) {
            return Err("--out -: standard output has the summary of the plan, expected a file".into());
        }
        let folder = machine.folder(&self.host.results);
        if self.out.is_none() {
            create_folder(&folder)?;
        }
        let path = self.out.clone().unwrap_or(default);
        if resolved(&path) == resolved(&folder.join(journal::FILE)) {
            return Err(
                format!("--out {}: is the log of measurements, expected another", path.display()).into()
            );
        }
        check_writable(&path)?;
        Ok(path)
    }

    /// What a signal leaves of a tuning.
    pub fn left(&self, machine: &Machine) -> String {
        let log = machine.folder(&self.host.results).join(journal::FILE);
        format!("what was measured is in {}, and the next tuning goes on from there", log.display())
    }
}

/// The most images of one inference.
const MAX_BATCH: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PrecisionArg {
    /// f32 arithmetic, features within 1e-5.
    F32,
    /// Features within 1e-2.
    Bf16,
    /// Features within 5e-2, by ranges of activations that are found on the images.
    Int8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum HeadArg {
    /// Probabilities that sum up to 1.
    Softmax,
    /// A probability for each output.
    Sigmoid,
    /// Nothing.
    Logits,
}

impl HeadArg {
    fn activation(self) -> Activation {
        match self {
            Self::Softmax => Activation::Softmax,
            Self::Sigmoid => Activation::Sigmoid,
            Self::Logits => Activation::None,
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct ModelArgs {
    #[arg(long, value_name = "MODEL", help = format!("{}, or conv2d_bn with --shape", networks_and_blocks()))]
    pub model: Option<String>,
    /// Shape of a conv2d_bn, like n1h17w17c768k192r1s7
    #[arg(long, conflicts_with = "size")]
    pub shape: Option<Conv>,
    /// BatchNorms between the convolution of a --shape and its ReLU: 1 or 2; 1 by default
    #[arg(long, value_name = "N", requires = "shape", value_parser = clap::value_parser!(u8).range(1..=MAX_NORMS as i64))]
    pub batch_norms: Option<u8>,
    /// Height and width of the images of a network, from 75 up; without it what the weights state,
    /// or else the usual size
    #[arg(long, value_name = "HxW", value_parser = size)]
    pub size: Option<ImageSize>,
    /// Keras .keras, .h5 or .weights.h5, PyTorch .pt, .pth or .safetensors (or the index of
    /// several); synthetic weights without it
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// What the classifier ends with; without it what the weights state, or else sigmoid for one
    /// output and softmax for more
    #[arg(long, requires = "weights")]
    pub head: Option<HeadArg>,
    /// Seed of synthetic weights
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Clone, Debug, clap::Args)]
pub struct ImageArgs {
    /// JPEG, PNG, WebP, BMP, TIFF or GIF images of any size: files, folders and all below them,
    /// patterns, or lists with a path a line (.txt; - is standard input)
    #[arg(long, value_name = "FILE|FOLDER|LIST.txt", num_args = 1.., value_parser = stdin::file(), conflicts_with = "input")]
    pub image: Vec<PathBuf>,
    #[arg(long, value_name = "X.npy", value_parser = stdin::file(), help = format!("Preprocessed images: .npy of {}", input_arrays()))]
    pub input: Option<PathBuf>,
    #[command(flatten)]
    pub preprocess: PreprocessArgs,
}

impl ImageArgs {
    /// The files to read, by their options.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Path)> {
        let images = self.image.iter().map(|path| ("--image", path.as_path()));
        images.chain(self.input.iter().map(|path| ("--input", path.as_path())))
    }

    /// The images, which fit the model; none if none are given.
    pub fn open<'a>(&'a self, model: &'a Model, weights: &Weights) -> Result<Option<Images<'a>>, Failure> {
        if let Some(path) = &self.input {
            return Images::npy(model, path).map(Some);
        }
        if self.image.is_empty() {
            return Ok(None);
        }
        if !model.takes_images() {
            let [h, w, c] = model.input();
            return Err(format!("--image: {model} takes [{h}, {w}, {c}], not images; use --input").into());
        }
        let preprocessing = self.preprocess.preprocessing(model, weights);
        Ok(Some(Images::files(model, ImagePaths::of(&self.image)?, preprocessing)))
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct HostArgs {
    /// Worker threads; the physical cores this process may use by default
    #[arg(long, value_parser = thread_count)]
    pub threads: Option<u16>,
    /// Images of one inference
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: Option<u16>,
    /// Bound on the relative L2 error of the pooled features; 1e-5 by default
    #[arg(long, value_name = "E", value_parser = positive)]
    pub max_rel_error: Option<f64>,
    /// The bound by name: f32 is 1e-5, bf16 is 1e-2, int8 is 5e-2
    #[arg(long, conflicts_with = "max_rel_error")]
    pub precision: Option<PrecisionArg>,
    #[command(flatten)]
    pub isa: IsaArgs,
    /// Folder of results, one folder a machine inside
    #[arg(long, value_name = "DIR", env = "TUNER_RESULTS", default_value_os_t = results_folder())]
    pub results: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
pub struct IsaArgs {
    /// Highest instruction tier to use: plain, avx2, avxvnni, avx512, avx512vnni, avx512bf16 or amx
    #[arg(long, value_name = "TIER", env = "TUNER_ISA")]
    isa: Option<Tier>,
}

impl IsaArgs {
    /// The tier that was asked for.
    pub fn limit(&self) -> Option<Tier> {
        self.isa
    }

    /// The processor, limited as asked.
    pub fn cpu(&self) -> Cpu {
        let cpu = Cpu::detect();
        if let Some(tier) = self.isa { cpu.limited_to(tier) } else { cpu }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    /// The plan; by default the newest of this machine, of those that the following options name
    #[arg(long, value_name = "PLAN.json", value_parser = stdin::file(), conflicts_with_all = ["model", "threads", "batch"])]
    pub plan: Option<PathBuf>,
    #[command(flatten)]
    pub of: PlanFilter,
    /// Folder of results, one folder a machine inside
    #[arg(long, value_name = "DIR", env = "TUNER_RESULTS", default_value_os_t = results_folder())]
    pub results: PathBuf,
}

/// Which plans are meant; all where nothing is said.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PlanFilter {
    /// Plans of this model, or of a list of convolutions: shapes:NAME
    #[arg(long)]
    model: Option<String>,
    /// Plans for so many threads
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Plans for so many images at once
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Option<u16>,
}

impl PlanFilter {
    pub fn takes(&self, plan: &Plan) -> bool {
        let is = |asked: Option<u16>, found: usize| asked.is_none_or(|asked| usize::from(asked) == found);
        self.model.as_ref().is_none_or(|model| *model == plan.model)
            && is(self.threads, plan.threads)
            && is(self.batch, plan.batch)
    }
}

impl PlanArgs {
    pub fn read(&self) -> Result<(PathBuf, Plan), Failure> {
        // A list of convolutions is meant only by its name.
        let is_meant = |plan: &Plan| self.of.takes(plan) && (self.of.model.is_some() || !plan.is_of_list());
        let path = plan_or_newest(self.plan.as_ref(), &self.results, is_meant)?;
        let plan = Plan::read(&path)?;
        print_notes(&plan.unknown_note(&path));
        if !plan.is_of_list() {
            planned_model(&path, &plan)?;
        }
        Ok((path, plan))
    }
}

/// Reads a number of threads to start.
pub fn thread_count(text: &str) -> Result<u16, String> {
    let count = text.parse().ok().filter(|&count: &u16| (1..=most_threads()).contains(&count.into()));
    count.ok_or_else(|| format!("expected {}", expected_threads()))
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|e: &f64| *e > 0.0 && e.is_finite());
    number.ok_or_else(|| "expected a number above 0".into())
}

impl HostArgs {
    pub fn thread_count(&self) -> usize {
        self.threads.map_or_else(physical_cores, usize::from)
    }

    pub fn error_bound(&self) -> f64 {
        self.stated_error_bound().unwrap_or(F32_ERROR)
    }

    /// The bound on the error, where the user has stated one.
    pub fn stated_error_bound(&self) -> Option<f64> {
        let of_precision = self.precision.map(|precision| match precision {
            PrecisionArg::F32 => F32_ERROR,
            PrecisionArg::Bf16 => BF16_ERROR,
            PrecisionArg::Int8 => INT8_ERROR,
        });
        self.max_rel_error.or(of_precision)
    }
}

impl ModelArgs {
    /// The name, or a failure that says what is expected.
    pub fn name(&self) -> Result<&str, Failure> {
        let missing = || format!("--model is missing, expected {}, or conv2d_bn", networks_and_blocks());
        self.model.as_deref().ok_or_else(|| missing().into())
    }

    /// Model and weights that fit together: the weights say what follows the features.
    pub fn open(&self, features_only: bool) -> Result<(Model, Weights), Failure> {
        if let Some(n) = self.shape.as_ref().map(|conv| conv.batch).filter(|&n| n > MAX_BATCH) {
            return Err(format!("--shape: n is {n}, expected at most {MAX_BATCH} images").into());
        }
        let bare = self.bare()?;
        let weights = match &self.weights {
            Some(path) => {
                let activation = self.head.map(HeadArg::activation);
                Weights::open_with(path, &bare, &HeadOptions { features_only, activation })?
            }
            None => Weights::synthetic(&bare, self.seed),
        };
        let mut notes = weights.notes();
        if let Some(assumed) = notes.last_mut().filter(|_| weights.assumed_head().is_some()) {
            assumed.push_str(" (--head says otherwise for its end)");
        }
        print_notes(&notes);
        Ok((self.fitted(&bare, &weights)?, weights))
    }

    /// The model by its name and options.
    fn bare(&self) -> Result<Model, Failure> {
        let norms = self.batch_norms.map_or(1, usize::from);
        let shape = self.shape.clone().map(|conv| ModelShape::Conv { conv, norms });
        Ok(of_size(Model::by_name(self.name()?, shape.as_ref(), None)?, self.size)?)
    }

    /// The model with head and channels of its weights and, where no size is asked for, with
    /// theirs.
    fn fitted(&self, bare: &Model, weights: &Weights) -> Result<Model, Failure> {
        let [h, w, c] = bare.input();
        let model = match (self.size, weights.image_size()) {
            (None, Some(size)) if bare.features.is_some() && size != [h, w] => {
                let sized = bare.with_input([size[0], size[1], c]);
                &sized.map_err(|error| format!("{}: {error}", weights.description()))?
            }
            _ => bare,
        };
        Ok(weights.fit(model))
    }

    /// Batch that was asked for: by `--batch`, or by a shape of more than one image.
    pub fn batch(&self, host: &HostArgs) -> Option<usize> {
        let of_shape = self.shape.as_ref().map(|conv| conv.batch).filter(|&n| n > 1);
        host.batch.map(usize::from).or(of_shape)
    }
}

/// The model of a plan.
pub fn planned_model(path: &Path, plan: &Plan) -> Result<Model, Failure> {
    let wrong = |error: &dyn std::error::Error| format!("{}: {error}", path.display());
    let parse = |text: &String| text.parse().map_err(|error: ShapeError| wrong(&error));
    let shape: Option<ModelShape> = plan.shape.as_ref().map(parse).transpose()?;
    Ok(Model::by_name(&plan.model, shape.as_ref(), None).map_err(|error| wrong(&error))?)
}

/// What follows the name of a model in texts: ` of 150x200`, or nothing where it is as usual.
pub fn at_size(model: &Model) -> String {
    model.shape.as_ref().map_or(String::new(), |shape| format!(" of {shape}"))
}

/// The output of a single convolution, like `9x9x24`; none of other models.
pub fn conv_output(model: &Model) -> Option<String> {
    let Some(ModelShape::Conv { .. }) = model.shape else { return None };
    let [h, w, channels] = model.nodes[model.output].shape;
    Some(format!("{h}x{w}x{channels}"))
}

/// The options of a model, as the command line takes them.
pub fn model_options(model: &Model) -> String {
    let usual = is_network(&model.name).then(|| Model::by_name(&model.name, None, None).ok()).flatten();
    let shape = match &model.shape {
        Some(ModelShape::Conv { conv, norms: 1 }) => format!(" --shape {conv}"),
        Some(ModelShape::Conv { conv, norms }) => format!(" --shape {conv} --batch-norms {norms}"),
        Some(ModelShape::Input([h, w, _])) if usual.is_none_or(|usual| usual.input()[..2] != [*h, *w]) => {
            format!(" --size {h}x{w}")
        }
        _ => String::new(),
    };
    format!("--model {model}{shape}")
}

/// Height and width. A type of its own, since clap takes an array for many values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageSize(pub [usize; 2]);

pub fn size(text: &str) -> Result<ImageSize, String> {
    let sides = text.split_once('x').and_then(|(h, w)| Some([h.parse().ok()?, w.parse().ok()?]));
    sides.map(ImageSize).ok_or_else(|| "expected height and width like 150x200".into())
}

/// A network for images of a height and width, where they are given.
pub fn of_size(model: Model, size: Option<ImageSize>) -> Result<Model, ModelError> {
    match size {
        Some(ImageSize([h, w])) => model.with_input([h, w, model.input()[2]]),
        None => Ok(model),
    }
}

/// A file and the option that names it; none where it was not given.
pub type FileOption<'a> = (&'a str, Option<&'a Path>);

/// The files of weights that an index names.
pub fn shards(weights: &Weights) -> Vec<FileOption<'_>> {
    weights.files().iter().map(|path| ("--weights", Some(path.as_path()))).collect()
}

/// Checks that no file to write is one to read, or is written twice.
pub fn check_distinct<'a>(
    written: &[FileOption<'a>],
    read: &[FileOption<'a>],
    images: &'a ImageArgs,
) -> Result<(), Failure> {
    let given = |&(option, path): &FileOption<'a>| Some((option, path?));
    let read = read.iter().filter_map(given).chain(images.files());
    let mut taken: HashMap<PathBuf, &str> = read.map(|(option, path)| (resolved(path), option)).collect();
    for (option, path) in written.iter().filter_map(given) {
        if let Some(other) = taken.insert(resolved(path), option) {
            return Err(
                format!("{option} {}: is the file of {other}, expected another", path.display()).into()
            );
        }
    }
    Ok(())
}

/// What to know of more threads than cores.
pub fn crowded(threads: usize) -> Option<String> {
    let cores = available();
    (threads > cores).then(|| {
        let cores = count(cores, "core");
        format!(
            "{threads} threads share the {cores} that this process may use, which is slower than one each"
        )
    })
}

/// The threads that the user asks for, or those of the machine.
pub fn threads(count: usize) -> Result<Threads, TuneError> {
    Ok(Threads::new(count)?)
}

/// The threads of a plan; `file` has it, unless it is the built-in choice.
pub fn threads_of(plan: &Plan, file: Option<&Path>) -> Result<Threads, Failure> {
    let Some(file) = file else { return Ok(threads(plan.threads)?) };
    plan.check_thread_count(file)?;
    Ok(Threads::new(plan.threads).map_err(|error| format!("{}: threads: {error}", file.display()))?)
}
