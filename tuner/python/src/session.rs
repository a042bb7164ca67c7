//! A network that is ready to run.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use engine::{Batch, Model, Plan, Preprocessing, ThreadsError};
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{NotFiniteError, Raised};
use crate::images::{Given, Loader};
use crate::open::{Chosen, Network, PlanArgs, Target};
use crate::preprocess::PreprocessArgs;
use crate::tuning::Listener;

/// How often a thread that waits or computes hears of signals.
const POLL: Duration = Duration::from_millis(50);

/// A network that is ready to run. Calls from several threads take turns.
#[pyclass(frozen, module = "inception_tuner._native")]
pub struct Session {
    /// Only held without the GIL.
    session: Mutex<engine::Session>,
    facts: Facts,
}

/// What a session is made of.
#[derive(Clone)]
struct Facts {
    model: Model,
    preprocessing: Preprocessing,
    plan: Plan,
    file: Option<PathBuf>,
    notes: Vec<String>,
    streams: usize,
    features: Option<usize>,
    has_classes: bool,
}

/// What the network makes of images.
type Results<'py> = (Bound<'py, PyArrayDyn<f32>>, Option<Bound<'py, PyArrayDyn<f32>>>, Bound<'py, PyDict>);

/// Results as they come; images that could not be read have NaN.
struct Collected {
    values: Vec<f32>,
    features: Vec<f32>,
    images: usize,
    /// By the number of the image.
    bad: Vec<(usize, PyErr)>,
}

/// Hears of signals, not too often: it takes the GIL.
struct Signals(Instant);

impl Signals {
    fn check(&mut self) -> PyResult<()> {
        if self.0.elapsed() < POLL {
            return Ok(());
        }
        self.0 = Instant::now();
        Python::attach(|py| py.check_signals())
    }
}

#[pymethods]
impl Session {
    /// Opens weights, chooses a plan, and packs the weights.
    #[new]
    #[pyo3(signature = (target, plan, preprocess, streams, note))]
    fn new(
        py: Python<'_>,
        target: Target,
        plan: PlanArgs,
        preprocess: PreprocessArgs,
        streams: Option<usize>,
        note: Py<PyAny>,
    ) -> PyResult<Self> {
        target.check()?;
        let listener = Listener { progress: None, note };
        py.detach(|| {
            let network = Network::open(&target)?;
            let preprocessing = preprocess.preprocessing(&network.model, &network.weights)?;
            let Chosen { plan, file, notes } = plan.choose(&target, &network, &listener)?;
            let Network { model, weights, notes: of_weights } = network;
            if let Some(found) = streams.filter(|streams| !(1..=plan.threads).contains(streams)) {
                let text =
                    format!("streams is {found}, expected a number from 1 to threads, {}", plan.threads);
                return Err(PyValueError::new_err(text));
            }
            // Without a measurement, one thread each.
            let fastest = plan.fastest_streams().map(|fastest| fastest.streams);
            let streams = streams.or(fastest).unwrap_or(plan.threads);
            let session = engine::Session::builder(&model, &weights).plan(&plan).streams(streams).build();
            let session = session.map_err(Raised::raised)?;
            let facts = Facts {
                streams: session.streams(),
                features: session.features(),
                has_classes: session.has_classes(),
                notes: of_weights.into_iter().chain(notes).collect(),
                model,
                preprocessing,
                plan,
                file,
            };
            Ok(Self { session: Mutex::new(session), facts })
        })
    }

    /// Another session on the same packed weights; none while this one is at work.
    fn fork(&self, py: Python<'_>) -> PyResult<Option<Self>> {
        let forked = py.detach(|| match self.session.try_lock() {
            Ok(session) => session.fork().map(Some),
            Err(_) => Ok(None),
        });
        let forked = forked.map_err(<ThreadsError as Raised>::raised)?;
        Ok(forked.map(|session| Self { session: Mutex::new(session), facts: self.facts.clone() }))
    }

    /// Runs preprocessed images, `[n, height, width, channels]`: the last output and the features.
    fn run<'py>(&self, py: Python<'py>, images: PyReadonlyArrayDyn<'py, f32>) -> PyResult<Results<'py>> {
        let expected = self.facts.model.input();
        let (shape, values) = (images.shape(), images.as_slice()?);
        if shape.len() != 4 || shape[1..] != expected {
            let [height, width, channels] = expected;
            let text = format!(
                "images: found float32 of shape {shape:?}, expected [N, {height}, {width}, {channels}]"
            );
            return Err(PyValueError::new_err(text));
        }
        let (count, size) = (shape[0], expected.iter().product::<usize>());
        let load = |number: usize| Ok(&values[number * size..][..size]);
        let collected = py.detach(|| self.collect(0..count, 1, load, false))?;
        self.results(py, collected)
    }

    /// Loads images on several threads and runs them meanwhile. `decode` makes arrays of what is
    /// neither a path nor an array. Bad images end the run, or have NaN and their exception, by
    /// number. Where `unit` is, float32 is pixels from 0 to 1. `first` is the number of the first.
    #[pyo3(signature = (images, decode, skip_bad, unit, first))]
    fn run_each<'py>(
        &self,
        py: Python<'py>,
        images: Vec<Given<'py>>,
        decode: Py<PyAny>,
        skip_bad: bool,
        unit: bool,
        first: usize,
    ) -> PyResult<Results<'py>> {
        let Facts { model, preprocessing, plan, .. } = &self.facts;
        let sources = images.iter().zip(first..).map(|(given, number)| given.source(number, model, unit));
        let sources = sources.collect::<PyResult<_>>()?;
        let loader = Loader { sources, first, decode, model, preprocessing };
        let count = images.len();
        let loaders = if loader.is_work() { plan.threads.min(count) } else { 1 };
        let collected = py
            .detach(|| self.collect(first..first + count, loaders, |number| loader.load(number), skip_bad))?;
        self.results(py, collected)
    }

    #[getter]
    fn model(&self) -> String {
        self.facts.model.to_string()
    }

    #[getter]
    fn threads(&self) -> usize {
        self.facts.plan.threads
    }

    #[getter]
    fn streams(&self) -> usize {
        self.facts.streams
    }

    #[getter]
    fn batch(&self) -> usize {
        self.facts.plan.batch
    }

    /// Height, width and channels.
    #[getter]
    fn input_shape(&self) -> (usize, usize, usize) {
        self.facts.model.input().into()
    }

    /// None where the weights have no classifier.
    #[getter]
    fn classes(&self) -> Option<usize> {
        let Facts { model, has_classes, .. } = &self.facts;
        has_classes.then(|| model.nodes[model.output].shape[2])
    }

    /// A name each, where they are known.
    #[getter]
    fn labels(&self) -> Option<Vec<&'static str>> {
        let (top, classes) = (self.facts.model.info.top?, self.classes()?);
        (classes == top.classes).then(|| top.class_names.lines().collect())
    }

    /// The plan's file.
    #[getter]
    fn plan(&self) -> Option<PathBuf> {
        self.facts.file.clone()
    }

    #[getter]
    fn plan_json(&self) -> PyResult<String> {
        self.facts.plan.to_json().map_err(|error| PyRuntimeError::new_err(error.to_string()))
    }

    /// What images are preprocessed by, in words.
    #[getter]
    fn preprocess(&self) -> String {
        let Facts { preprocessing, model, .. } = &self.facts;
        let name = preprocessing.name().map(|name| format!("{name}: ")).unwrap_or_default();
        let [height, width, _] = model.input();
        name + &preprocessing.describe([height, width])
    }

    /// What a user should know of weights and plan, a line each.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.facts.notes.clone()
    }
}

impl Session {
    /// Waits until no other thread runs it. Called without the GIL.
    fn lock(&self, signals: &mut Signals) -> PyResult<MutexGuard<'_, engine::Session>> {
        loop {
            match self.session.try_lock() {
                Ok(session) => return Ok(session),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            }
            signals.check()?;
        }
    }

    /// Runs images of these numbers, which are loaded by their place among them. Called without the
    /// GIL.
    fn collect<I: engine::Loaded>(
        &self,
        numbers: Range<usize>,
        loaders: usize,
        load: impl Fn(usize) -> PyResult<I> + Sync,
        skip_bad: bool,
    ) -> PyResult<Collected> {
        let (count, mut signals) = (numbers.len(), Signals(Instant::now()));
        let mut session = self.lock(&mut signals)?;
        let (output, features) =
            (session.output().iter().product::<usize>(), session.features().unwrap_or(0));
        let mut all = Collected {
            values: Vec::with_capacity(count * output),
            features: Vec::with_capacity(count * features),
            images: 0,
            bad: Vec::new(),
        };
        session.run_each(count, loaders, load, |Batch { images, output: ran }| {
            signals.check()?;
            let first = numbers.start + all.images;
            let there: Vec<usize> = (0..images.len()).filter(|&at| images[at].is_ok()).collect();
            let ran = ran.map_err(|error| match error {
                engine::RunError::NotFinite(error) => {
                    let number = first + there.get(error.image).copied().unwrap_or_default();
                    NotFiniteError::new_err(format!("images[{number}]: {}", error.output))
                }
                other => other.raised(),
            })?;
            let mut rows = ran.values().chunks_exact(output.max(1));
            let mut of_features = ran.features().unwrap_or_default().chunks_exact(features.max(1));
            for image in images {
                match image {
                    Ok(_) => {
                        all.values.extend_from_slice(rows.next().unwrap_or_default());
                        all.features.extend_from_slice(of_features.next().unwrap_or_default());
                    }
                    Err(error) if skip_bad => {
                        all.values.extend(std::iter::repeat_n(f32::NAN, output));
                        all.features.extend(std::iter::repeat_n(f32::NAN, features));
                        all.bad.push((numbers.start + all.images, error));
                    }
                    Err(error) => return Err(error),
                }
                all.images += 1;
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// Arrays that have what was collected, without a copy.
    fn results<'py>(&self, py: Python<'py>, all: Collected) -> PyResult<Results<'py>> {
        let Facts { model, features, .. } = &self.facts;
        let Collected { values, features: of_features, images, bad } = all;
        let shape = match model.nodes[model.output].shape {
            [1, 1, channels] => vec![images, channels],
            [height, width, channels] => vec![images, height, width, channels],
        };
        let array = |values: Vec<f32>, shape: Vec<usize>| PyArray1::from_vec(py, values).reshape(shape);
        let of_features = features.map(|count| array(of_features, vec![images, count])).transpose()?;
        let errors = PyDict::new(py);
        bad.into_iter().try_for_each(|(number, error)| errors.set_item(number, error.into_value(py)))?;
        Ok((array(values, shape)?, of_features, errors))
    }
}
