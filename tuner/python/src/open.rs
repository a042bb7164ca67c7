//! Model, weights and plan that fit together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::network::{BF16_ERROR, F32_ERROR};
use engine::plan::Bounds;
use engine::plan::schema::PlanRequest;
use engine::runtime::{graph, physical_cores};
use engine::weights::HeadOptions;
use engine::{Machine, Model, Plan, PlanOrigin, Request, Weights};
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
    /// By name: f32 or bf16.
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
            None | Some("f32" | "bf16") => Ok(()),
            Some(other) => {
                Err(PyValueError::new_err(format!("precision is `{other}`, expected f32 or bf16")))
            }
        }
    }

    fn max_rel_error(&self) -> f64 {
        if self.precision.as_deref() == Some("bf16") { BF16_ERROR } else { F32_ERROR }
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
        let Options { threads, batch, bounds, .. } = self.options(false);
        Request::new(model).threads(threads).batch(batch).max_rel_error(bounds.error)
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
        let file = weights.description();
        let notes = [
            weights.variant().map(|variant| format!("{file}: by their number of classes, {variant}")),
            weights.note().map(|note| format!("{file}: {note}")),
            weights.assumed_head().map(|head| {
                format!("{file} does not state the activations of its classifier; assumed: {head}")
            }),
        ];
        let model = cut(weights.fit(&model), target.dims)?;
        Ok(Self { model, weights, notes: notes.into_iter().flatten().collect() })
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
}

/// A plan, and its file where it has one.
pub struct Chosen {
    pub plan: Plan,
    pub file: Option<PathBuf>,
    pub notes: Vec<String>,
}

impl PlanArgs {
    /// Called without the GIL.
    pub fn choose(&self, target: &Target, network: &Network, listener: &Listener) -> PyResult<Chosen> {
        if let Some(file) = &self.file {
            return named(file, target, network);
        }
        let untuned = |notes| Chosen { plan: target.request(&network.model).untuned(), file: None, notes };
        if !self.auto {
            return Ok(untuned(Vec::new()));
        }
        if let Some(chosen) = found(target, network)? {
            return Ok(chosen);
        }
        if target.budget.is_some() {
            return tuned_once(target, network, listener);
        }
        let Options { threads, batch, .. } = target.options(false);
        let folder = Machine::of(&Cpu::detect()).folder(&target.results);
        Ok(untuned(vec![format!(
            "no plan for {} with threads={threads} and batch={batch} in {}; using the built-in choice \
             (inception_tuner.tune makes one)",
            network.model,
            folder.display()
        )]))
    }
}

/// The newest plan of this machine, or the nearest.
fn found(target: &Target, Network { model, weights, .. }: &Network) -> PyResult<Option<Chosen>> {
    let request = target.request(model);
    let choice = request.find(&target.results, weights).map_err(Raised::raised)?;
    Ok(choice.map(|choice| {
        let mut notes = choice.notes;
        if let PlanOrigin::Nearest { file, threads, batch } = &choice.origin {
            let file = file.display();
            notes.push(format!("{file}: made for threads={threads} and batch={batch}, the nearest plan"));
        }
        Chosen { plan: choice.plan, file: Some(choice.origin.file().to_owned()), notes }
    }))
}

/// The plan of a file, which must be for what is asked.
fn named(file: &Path, target: &Target, Network { model, weights, .. }: &Network) -> PyResult<Chosen> {
    let plan = Plan::read_steps(file).map_err(Raised::raised)?;
    let Target { threads, batch, .. } = *target;
    let wanted = PlanRequest { model: &model.name, shape: model.shape_text(), threads, batch };
    let (cpu, path) = (Cpu::detect(), file);
    let machine = Machine::of(&cpu);
    let checked = plan.check_wanted(path, &wanted).and_then(|()| plan.check_machine(path, &machine));
    checked.map_err(Raised::raised)?;
    if target.precision.is_some() && plan.max_rel_error > target.max_rel_error() {
        let (found, bound) = (plan.max_rel_error, target.max_rel_error());
        let text = format!("{}: max_rel_error is {found:e}, expected at most {bound:e}", file.display());
        return Err(crate::errors::PlanError::new_err(text));
    }
    plan.network(path, &graph(model, weights, plan.batch), &cpu).map_err(Raised::raised)?;
    let notes = plan.notes(path, Some(&machine));
    Ok(Chosen { plan, file: Some(file.to_owned()), notes })
}

/// How long a process sleeps while another of this machine tunes.
const WAIT: Duration = Duration::from_millis(300);

/// The plan that one process of this machine makes while the others wait for it.
fn tuned_once(target: &Target, network: &Network, listener: &Listener) -> PyResult<Chosen> {
    let options = target.options(false);
    loop {
        let lock = TuningLock::try_acquire(&target.results, &options).map_err(Raised::raised)?;
        // The one that had the lock has left its plan.
        if let Some(chosen) = found(target, network)? {
            return Ok(chosen);
        }
        if lock.is_some() {
            let file = plan_file(&target.results, &network.model, &options);
            let plan = tuning::tuned(&file, network, &options, listener)?;
            return Ok(Chosen { plan, file: Some(file), notes: Vec::new() });
        }
        std::thread::sleep(WAIT);
        Python::attach(|py| py.check_signals())?;
    }
}
