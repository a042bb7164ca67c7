//! Plans in a folder: their names, and the newest for what a run asks.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use kernels::Cpu;

use crate::plan::error::PlanError;
use crate::plan::schema::{Bounds, Plan, PlanRequest};
use crate::runtime::Machine;
use crate::weights::Weights;

/// File name of a plan: what it is for, so that plans for different uses lie side by side.
/// `weights` tells those from others that it is for alone.
pub fn file_name(
    model: &str,
    shape: Option<&str>,
    [threads, batch]: [usize; 2],
    bounds: &Bounds,
    weights: Option<&str>,
) -> String {
    let shape = shape.map(|s| format!("-{s}")).unwrap_or_default();
    let memory = bounds.memory.map(|mib| format!("-m{mib}")).unwrap_or_default();
    let weights =
        weights.map(|text| format!("-w{:08x}", crc32fast::hash(text.as_bytes()))).unwrap_or_default();
    format!("plan-{model}{shape}-t{threads}-b{batch}-e{:e}{memory}{weights}.json", bounds.error)
}

/// The newest plan of a folder that is for what a run asks, and its path: of those with that bound
/// on the error, if there is one, else of those with a tighter one. Other files are passed over.
/// Plans with a bound on memory are for runs that ask for one, and those with ranges of activations
/// for the weights that these are of, where weights are given.
pub fn newest(
    folder: &Path,
    wanted: &PlanRequest,
    bounds: &Bounds,
    machine: &Machine,
    weights: Option<&Weights>,
) -> Option<(PathBuf, Plan)> {
    fitting(folder, wanted, bounds, machine, weights)
        .max_by_key(|(_, plan)| (plan.max_rel_error == bounds.error, plan.created))
}

/// The plans of a folder that are for what a run asks, on a machine like this, and for its weights.
fn fitting(
    folder: &Path,
    wanted: &PlanRequest,
    bounds: &Bounds,
    machine: &Machine,
    weights: Option<&Weights>,
) -> impl Iterator<Item = (PathBuf, Plan)> {
    in_folder(folder).filter(move |(path, plan)| {
        plan.check_wanted(path, wanted).is_ok()
            && plan.keeps(bounds)
            && plan.machine.differs(machine).is_none()
            && weights.is_none_or(|weights| plan.check_calibration(path, weights).is_ok())
    })
}

/// As [`newest`], where no plan is for the batch and the threads that a run asks: the plan for the
/// next batch, of those the one for the next number of threads.
pub fn nearest(
    folder: &Path,
    wanted: &PlanRequest,
    bounds: &Bounds,
    machine: &Machine,
    weights: Option<&Weights>,
) -> Option<(PathBuf, Plan)> {
    let any = PlanRequest { threads: None, batch: None, ..wanted.clone() };
    fitting(folder, &any, bounds, machine, weights).min_by_key(|(_, plan)| {
        let distance = |asked: Option<usize>, found: usize| asked.map_or(0, |asked| asked.abs_diff(found));
        let batch = distance(wanted.batch, plan.batch);
        (batch, distance(wanted.threads, plan.threads), Reverse(plan.created))
    })
}

/// All plans of a folder; files that are none are passed over.
pub fn in_folder(folder: &Path) -> impl Iterator<Item = (PathBuf, Plan)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let json = paths.filter(|path| path.extension().is_some_and(|e| e == "json"));
    json.filter_map(|path| Plan::read_steps(&path).ok().map(|plan| (path, plan)))
}

/// A plan that is named, or the newest in the folder of this machine of those that are wanted; an
/// error without either.
pub fn plan_or_newest(
    plan: Option<&PathBuf>,
    results: &Path,
    is_wanted: impl Fn(&Plan) -> bool,
) -> Result<PathBuf, PlanError> {
    if let Some(path) = plan {
        return Ok(path.clone());
    }
    let folder = Machine::of(&Cpu::detect()).folder(results);
    let wanted = in_folder(&folder).filter(|(_, plan)| is_wanted(plan));
    let newest = wanted.max_by_key(|(_, plan)| plan.created);
    let none = || PlanError::None { folder: folder.display().to_string() };
    newest.map(|(path, _)| path).ok_or_else(none)
}
