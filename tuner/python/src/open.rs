//! Model, weights and plan that fit together.

use std::path::PathBuf;
use std::time::Duration;

use engine::network::{BF16_ERROR, F32_ERROR, INT8_ERROR};
use engine::plan::Bounds;
use engine::runtime::physical_cores;
use engine::weights::HeadOptions;
use engine::{Machine, Model, Plan, PlanChoice, PlanOrigin, Request, Weights};
use kernels::Cpu;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tuner::{Options, TuningLock, plan_file};

use crate::errors::Raised;
use crate::tuning::{self, Listener};

/// What a session or a tuning is for.
#[derive(Clone, Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub struct Target {
    /// Synthetic ones without it.
    weights: Option<PathBuf>,
    model: String,
    /// Height and width of an image.
    size: Option<[usize; 2]>,
    /// Take no classifier from the weights.
    features_only: bool,
    /// Features of an earlier layer, as FID has them.
    dims: Option<usize>,
    threads: Option<usize>,
    batch: Option<usize>,
    /// By name: f32, bf16 or int8.
    precision: Option<String>,
    /// A folder with a folder a machine.
    pub results: PathBuf,
    /// Seconds of a tuning.
    budget: Option<f64>,
}

/// The most threads, and the most images of one inference.
const MOST: usize = 1024;

impl Target {
    /// Numbers in their bounds.
    pub fn check(&self) -> PyResult<()> {
        for (name, value) in [("threads", self.threads), ("batch", self.batch)] {
            if let Some(found) = value.filter(|value| !(1..=MOST).contains(value)) {
                let text = format!("{name} is {found}, expected a number from 1 to {MOST}");
                return Err(PyValueError::new_err(text));
            }
        }
        if let Some(found) = self.budget.filter(|budget| !(*budget > 0.0 && *budget <= 1e6)) {
            let text = format!("budget is {found}, expected seconds above 0, at most 1e6");
            return Err(PyValueError::new_err(text));
        }
        match self.precision.as_deref() {
            None | Some("f32" | "bf16" | "int8") => Ok(()),
            Some(other) => {
                Err(PyValueError::new_err(format!("precision is `{other}`, expected f32, bf16 or int8")))
            }
        }
    }

    fn max_rel_error(&self) -> f64 {
        match self.precision.as_deref() {
            Some("bf16") => BF16_ERROR,
            Some("int8") => INT8_ERROR,
            _ => F32_ERROR,
        }
    }

    /// What a tuning for it is asked for.
    pub fn options(&self, fresh: bool) -> Options {
        let default = Options::default();
        Options {
            threads: self.threads.unwrap_or_else(physical_cores),
            batch: self.batch.unwrap_or(1),
            bounds: Bounds { error: self.max_rel_error(), memory: None },
            budget: self.budget.map_or(default.budget, Duration::from_secs_f64),
            results: Some(self.results.clone()),
            fresh,
            ..default
        }
    }

    fn request<'a>(&self, model: &'a Model) -> Request<'a> {
        let bound = self.precision.is_some().then(|| self.max_rel_error());
        Request::new(model).threads(self.threads).batch(self.batch).max_rel_error(bound)
    }
}

/// A model and the weights that it has its head and its sizes of.
pub struct Network {
    pub model: Model,
    pub weights: Weights,
    /// What to know of the weights, a line each.
    pub notes: Vec<String>,
}

/// Synthetic weights are those of the command line.
const SEED: u64 = 1;

impl Network {
    pub fn open(target: &Target) -> PyResult<Self> {
        let named = Model::by_name(&target.model, None, None).map_err(Raised::raised)?;
        let sized = |model: &Model, [height, width]: [usize; 2]| {
            model.with_input([height, width, model.input()[2]]).map_err(Raised::raised)
        };
        let bare = match target.size {
            Some(size) => sized(&named, size)?,
            None => named,
        };
        let Some(path) = &target.weights else {
            let weights = Weights::synthetic(&bare, SEED);
            let model = cut(weights.fit(&bare), target.dims)?;
            return Ok(Self { model, weights, notes: Vec::new() });
        };
        let head = HeadOptions { features_only: target.features_only, ..HeadOptions::default() };
        let weights = Weights::open_with(path, &bare, &head).map_err(Raised::raised)?;
        let trained = weights.image_size().filter(|_| target.size.is_none() && bare.features.is_some());
        let model = match trained.filter(|size| bare.input()[..2] != size[..]) {
            Some(size) => sized(&bare, size)?,
            None => bare,
        };
        let model = cut(weights.fit(&model), target.dims)?;
        Ok(Self { model, notes: weights.notes(), weights })
    }
}

/// A network up to the layer that has so many features.
fn cut(model: Model, dims: Option<usize>) -> PyResult<Model> {
    match dims {
        Some(dims) => model.with_dims(dims).map_err(Raised::raised),
        None => Ok(model),
    }
}

/// Which plan a session takes.
#[derive(Clone, Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub struct PlanArgs {
    /// This file. None of the others counts then.
    file: Option<PathBuf>,
    /// The newest or the nearest of this machine, or one that is tuned now if there is a budget.
    auto: bool,
    /// That of the same bits on all processors.
    reproducible: bool,
}

/// A plan, and its file where it has one.
pub struct Chosen {
    pub plan: Plan,
    pub file: Option<PathBuf>,
    pub notes: Vec<String>,
}

impl From<PlanChoice> for Chosen {
    fn from(PlanChoice { plan, origin, notes, .. }: PlanChoice) -> Self {
        Self { plan, file: origin.file().map(ToOwned::to_owned), notes }
    }
}

impl PlanArgs {
    /// Called without the GIL.
    pub fn choose(&self, target: &Target, network: &Network, listener: &Listener) -> PyResult<Chosen> {
        let (request, Network { model, weights, .. }) = (target.request(&network.model), network);
        if let Some(file) = &self.file {
            return Ok(request.read(file, weights).map_err(Raised::raised)?.into());
        }
        if self.reproducible {
            return Ok(request.reproducible(weights).map_err(Raised::raised)?.into());
        }
        if !self.auto {
            return Ok(Chosen { plan: request.untuned(), file: None, notes: Vec::new() });
        }
        let mut found = request.find(&target.results, weights).map_err(Raised::raised)?;
        match &found.origin {
            PlanOrigin::BuiltIn if target.budget.is_some() => {
                return tuned_once(target, network, listener);
            }
            PlanOrigin::BuiltIn => {
                let Plan { threads, batch, .. } = found.plan;
                let folder = Machine::of(&Cpu::detect()).folder(&target.results);
                found.notes.push(format!(
                    "no plan for {model} with threads={threads} and batch={batch} in {}; using the \
                     built-in choice (inception_tuner.tune makes one)",
                    folder.display()
                ));
            }
            PlanOrigin::Nearest { file, threads, batch } => {
                let file = file.display();
                found
                    .notes
                    .push(format!("{file}: made for threads={threads} and batch={batch}, the nearest plan"));
            }
            PlanOrigin::Named(_) | PlanOrigin::Newest(_) | PlanOrigin::Reproducible => {}
        }
        Ok(found.into())
    }
}

/// How long a process sleeps while another of this machine tunes.
const WAIT: Duration = Duration::from_millis(300);

/// The plan that one process of this machine makes while the others wait for it.
fn tuned_once(target: &Target, network: &Network, listener: &Listener) -> PyResult<Chosen> {
    let options = target.options(false);
    loop {
        let lock = TuningLock::try_acquire(&target.results, &options).map_err(Raised::raised)?;
        // The one that had the lock has left its plan.
        let found = target.request(&network.model).find(&target.results, &network.weights);
        let found = found.map_err(Raised::raised)?;
        if found.origin != PlanOrigin::BuiltIn {
            return Ok(found.into());
        }
        if lock.is_some() {
            let file = plan_file(&target.results, &network.model, &network.weights, &options);
            let plan = tuning::tuned(&file, network, &options, listener)?;
            return Ok(Chosen { plan, file: Some(file), notes: Vec::new() });
        }
        std::thread::sleep(WAIT);
        Python::attach(|py| py.check_signals())?;
    }
}
