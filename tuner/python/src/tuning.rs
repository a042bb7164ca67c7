//! Tuning: on a thread of its own, while the calling one reports progress and hears of signals.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::Plan;
use pyo3::prelude::*;
use tuner::{Observer, Options, Stage, Warning, autotune_to, plan_file};

use crate::errors::Raised;
use crate::open::{Network, Target};

/// How often progress is reported and signals are heard. More would disturb what is measured.
const POLL: Duration = Duration::from_millis(100);

/// Python functions that hear of a tuning.
pub struct Listener {
    /// Takes the stage, how far it is done, and at what it is.
    pub progress: Option<Py<PyAny>>,
    /// Takes what a user should know.
    pub note: Py<PyAny>,
}

/// What a tuning has reported and the listener has not heard.
#[derive(Default)]
struct Unheard {
    progress: Option<(Stage, f64, String)>,
    warnings: Vec<String>,
}

/// Leaves what it hears for another thread, which ends the tuning by `is_to_stop`.
struct Recorder<'a> {
    unheard: &'a Mutex<Unheard>,
    is_to_stop: &'a AtomicBool,
}

impl Observer for Recorder<'_> {
    fn progress(&mut self, stage: Stage, done: f64, detail: &str) {
        let mut unheard = self.unheard.lock().unwrap_or_else(PoisonError::into_inner);
        unheard.progress = Some((stage, done, detail.to_owned()));
    }

    fn warning(&mut self, warning: &Warning) {
        let mut unheard = self.unheard.lock().unwrap_or_else(PoisonError::into_inner);
        unheard.warnings.push(warning.to_string());
    }

    fn is_to_stop(&mut self) -> bool {
        self.is_to_stop.load(Ordering::Relaxed)
    }
}

impl Listener {
    /// Tells what is new, on the calling thread.
    fn hear(&self, unheard: &Mutex<Unheard>) -> PyResult<()> {
        let Unheard { progress, warnings } =
            std::mem::take(&mut *unheard.lock().unwrap_or_else(PoisonError::into_inner));
        Python::attach(|py| {
            py.check_signals()?;
            warnings.into_iter().try_for_each(|text| self.note.call1(py, (text,)).map(drop))?;
            if let (Some(function), Some((stage, done, detail))) = (&self.progress, progress) {
                function.call1(py, (stage.to_string(), done, detail))?;
            }
            Ok(())
        })
    }
}

/// Tunes and writes the plan. Called without the GIL.
///
/// # Errors
/// Of the tuning, of the listener, and of a signal; these two end the tuning.
pub fn tuned(file: &Path, network: &Network, options: &Options, listener: &Listener) -> PyResult<Plan> {
    let (unheard, is_to_stop) = (Mutex::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let mut recorder = Recorder { unheard: &unheard, is_to_stop: &is_to_stop };
        let Network { model, weights, .. } = network;
        let tune = move || autotune_to(file, model, weights, options, &mut recorder).map_err(Box::new);
        let tuning = std::thread::Builder::new().spawn_scoped(scope, tune)?;
        let mut heard = Ok(());
        while heard.is_ok() && !tuning.is_finished() {
            std::thread::sleep(POLL);
            heard = listener.hear(&unheard);
        }
        is_to_stop.store(heard.is_err(), Ordering::Relaxed);
        let plan = tuning.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Of a tuning that the listener has ended, the listener's error says why.
        heard.and(plan.map_err(|error| error.raised()))
    })
}

/// Tunes a network and writes the plan: its path, and what to know of the weights.
#[pyfunction]
#[pyo3(signature = (target, out, fresh, progress, note))]
pub fn tune(
    py: Python<'_>,
    target: Target,
    out: Option<PathBuf>,
    fresh: bool,
    progress: Option<Py<PyAny>>,
    note: Py<PyAny>,
) -> PyResult<(PathBuf, Vec<String>)> {
    target.check()?;
    let listener = Listener { progress, note };
    py.detach(|| {
        let network = Network::open(&target)?;
        let options = target.options(fresh);
        let file =
            out.unwrap_or_else(|| plan_file(&target.results, &network.model, &network.weights, &options));
        tuned(&file, &network, &options, &listener)?;
        Ok((file, network.notes))
    })
}

/// The folder of results where none is named.
#[pyfunction]
pub fn results_folder() -> PathBuf {
    tuner::results_folder()
}
