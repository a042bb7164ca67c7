//! What commands have in common: machine, model, weights, threads.

use std::path::PathBuf;
use std::time::Duration;

use engine::network::dtypes::{BF16_ERROR, F32_ERROR};
use engine::network::model::Model;
use engine::network::models::{input_arrays, networks_and_blocks};
use engine::plan::schema::{Bounds, PlanRequest};
use engine::runtime::threads::{Threads, available};
use engine::util::error::Failure;
use engine::weights::source::Weights;
use kernels::Tier;
use kernels::cpu::Cpu;
use kernels::problem::Conv;

use crate::autotune::error::TuneError;
use crate::autotune::options::Options;
use crate::bench::policy::POLICY;
use crate::cli::npy::load_npy;
use crate::cli::output::OutputArgs;

/// Arguments of `tune`.
#[derive(Clone, Debug, clap::Args)]
pub struct TuneArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub host: HostArgs,
    /// Convolutions instead of a model: a shape a line, how often it occurs as *N, comments behind #
    #[arg(long, visible_alias = "problems", value_name = "FILE", conflicts_with_all = ["model", "shape", "weights", "image", "input", "max_memory"])]
    pub shapes: Option<PathBuf>,
    /// What the error is measured on; three built-in images by default
    #[command(flatten)]
    pub images: ImageArgs,
    /// Seconds for all measuring; 100 by default
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub budget: Option<u32>,
    /// A budget of 14 seconds: a plan within some hundredths of the best
    #[arg(long, conflicts_with = "budget")]
    pub quick: bool,
    /// Bound on the memory of a process that runs the plan
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub max_memory: Option<u32>,
    /// Measure plans from the fastest to the most exact as well, which takes some seconds more
    #[arg(long, conflicts_with = "shapes")]
    pub pareto: bool,
    /// Try all tunings that the search has left out as well, which takes many minutes, and say what it has missed
    #[arg(long)]
    pub exhaustive: bool,
    /// Where to write the plan; a file for this model and machine under --results by default
    #[arg(long, value_name = "PLAN.json")]
    pub out: Option<PathBuf>,
    /// Measure all anew, and take nothing from the log of earlier measurements but how near the cores have been
    #[arg(long)]
    pub fresh: bool,
    /// Print all tables: each step, block variants, whole networks, rules
    #[arg(long)]
    pub verbose: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

impl TuneArgs {
    /// What a tuning of a network or a list is asked for.
    pub fn options(&self) -> Options {
        Options {
            cpu: self.host.cpu(),
            threads: self.host.thread_count(),
            bounds: Bounds { error: self.host.error_bound(), memory: self.max_memory },
            budget: Duration::from_secs(self.budget().into()),
            exhaustive: self.exhaustive,
            pareto: self.pareto,
            results: Some(self.host.results.clone()),
            fresh: self.fresh,
            ..Options::default()
        }
    }

    /// Seconds for all measuring.
    pub fn budget(&self) -> u32 {
        self.budget.unwrap_or(if self.quick { POLICY.stages.quick_s } else { POLICY.stages.budget_s })
    }
}

/// The most images of one inference.
const MAX_BATCH: usize = 1024;

/// PrecisionArg by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PrecisionArg {
    /// f32 arithmetic, features within 1e-5.
    F32,
    /// Features within 1e-2.
    Bf16,
}

/// Model and weights.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelArgs {
    /// Its name.
    #[arg(long, value_name = "MODEL", help = format!("{}, or conv2d_bn with --shape", networks_and_blocks()))]
    pub model: Option<String>,
    /// Shape of a conv2d_bn, like n1h17w17c768k192r1s7
    #[arg(long)]
    pub shape: Option<Conv>,
    /// Keras .h5 or .weights.h5, or torchvision .safetensors; synthetic weights without it
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Seed of synthetic weights
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Images.
#[derive(Clone, Debug, clap::Args)]
pub struct ImageArgs {
    /// JPEG or PNG images of any size
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "input")]
    pub image: Vec<PathBuf>,
    /// Preprocessed images.
    #[arg(long, value_name = "X.npy", help = format!("Preprocessed images: .npy of {}", input_arrays()))]
    pub input: Option<PathBuf>,
}

/// Images that have been read.
pub struct Images {
    /// `[n, h, w, c]`.
    pub values: Vec<f32>,
    /// What each is called.
    pub names: Vec<String>,
}

impl Images {
    /// The values `[h, w, c]` of each image.
    pub fn each(&self) -> Vec<Vec<f32>> {
        let size = self.values.len() / self.names.len().max(1);
        self.values.chunks(size.max(1)).map(<[f32]>::to_vec).collect()
    }
}

impl ImageArgs {
    /// The images; none if none are given.
    ///
    /// # Errors
    /// If one can't be read or does not fit the model.
    pub fn load(&self, model: &Model) -> Result<Option<Images>, Failure> {
        let [h, w, c] = model.input();
        if let Some(path) = &self.input {
            let tensor = load_npy(path, [h, w, c])?;
            let names = (0..tensor.dim().0).map(|n| format!("{}[{n}]", path.display())).collect();
            return Ok(Some(Images { values: tensor.into_iter().collect(), names }));
        }
        if self.image.is_empty() {
            return Ok(None);
        }
        if !model.takes_images() {
            return Err(format!("--image: {model} takes [{h}, {w}, {c}], not images; use --input").into());
        }
        let mut all = Vec::new();
        for path in &self.image {
            all.extend(engine::image::load(path, model)?);
        }
        let names = self.image.iter().map(|path| path.display().to_string()).collect();
        Ok(Some(Images { values: all, names }))
    }
}

/// Threads, batch, exactness and instruction set.
#[derive(Clone, Debug, clap::Args)]
pub struct HostArgs {
    /// Worker threads; the cores this process may use by default
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Images of one inference
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: Option<u16>,
    /// Bound on the relative L2 error of the pooled features; 1e-5 by default
    #[arg(long, value_name = "E", value_parser = positive)]
    pub max_rel_error: Option<f64>,
    /// The bound by name: f32 is 1e-5, bf16 is 1e-2
    #[arg(long, conflicts_with = "max_rel_error")]
    pub precision: Option<PrecisionArg>,
    /// Highest instruction tier to use: plain, avx2, avx512, avx512bf16 or amx
    #[arg(long, value_name = "TIER", env = "TUNER_ISA")]
    pub isa: Option<Tier>,
    /// Folder of results, one folder a machine inside
    #[arg(long, value_name = "DIR", env = "TUNER_RESULTS", default_value = "bench-results")]
    pub results: PathBuf,
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|e: &f64| *e > 0.0 && e.is_finite())
        .ok_or_else(|| "expected a number above 0".into())
}

impl HostArgs {
    /// The processor, limited as asked.
    pub fn cpu(&self) -> Cpu {
        cpu(self.isa)
    }

    /// Threads that were asked for, or the default.
    pub fn thread_count(&self) -> usize {
        self.threads.map_or_else(available, usize::from)
    }

    /// Bound on the error of the features.
    pub fn error_bound(&self) -> f64 {
        let named = match self.precision {
            Some(PrecisionArg::Bf16) => BF16_ERROR,
            _ => F32_ERROR,
        };
        self.max_rel_error.unwrap_or(named)
    }
}

impl ModelArgs {
    /// The name, or a failure that says what is expected.
    pub fn name(&self) -> Result<&str, Failure> {
        let missing = || format!("--model is missing, expected {}, or conv2d_bn", networks_and_blocks());
        self.model.as_deref().ok_or_else(|| missing().into())
    }

    /// Model and weights that fit together: the weights say how many classes there are.
    pub fn open(&self) -> Result<(Model, Weights), Failure> {
        if let Some(n) = self.shape.as_ref().map(|conv| conv.batch).filter(|&n| n > MAX_BATCH) {
            return Err(format!("--shape: n is {n}, expected at most {MAX_BATCH} images").into());
        }
        let bare = Model::by_name(self.name()?, self.shape.as_ref(), None)?;
        let weights = match &self.weights {
            Some(path) => Weights::open(path, &bare)?,
            None => Weights::synthetic(&bare, self.seed),
        };
        let model = Model::by_name(self.name()?, self.shape.as_ref(), weights.classes())?;
        Ok((model, weights))
    }

    /// Batch that was asked for: by `--batch`, or by a shape of more than one image.
    pub fn batch(&self, host: &HostArgs) -> Option<usize> {
        let of_shape = self.shape.as_ref().map(|conv| conv.batch).filter(|&n| n > 1);
        host.batch.map(usize::from).or(of_shape)
    }

    /// What a run asks of a plan.
    pub fn wanted(&self, threads: Option<usize>, batch: Option<usize>) -> Result<PlanRequest<'_>, Failure> {
        let shape = self.shape.as_ref().map(|conv| Conv { batch: 1, ..conv.clone() }.to_string());
        Ok(PlanRequest { model: self.name()?, shape, threads, batch })
    }
}

/// The processor, limited to a tier.
pub fn cpu(isa: Option<Tier>) -> Cpu {
    match isa {
        Some(tier) => Cpu::detect().limited_to(tier),
        None => Cpu::detect(),
    }
}

/// A pool of threads.
pub fn threads(count: usize) -> Result<Threads, TuneError> {
    Ok(Threads::new(count)?)
}
