//! Plans as files: where a tuning writes its plan, and one process of a machine that tunes at a
//! time.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use engine::network::Precision;
use engine::plan::store::file_name;
use engine::runtime::weight_cache::fingerprint;
use engine::util::create_folder;
use engine::util::files::check_writable;
use engine::{InputError, Machine, Model, Plan, PlanError, Weights};

use crate::autotune::error::{NotWritten, TuneError};
use crate::autotune::network::autotune;
use crate::autotune::options::Options;
use crate::bench::Observer;

/// The folder of results where none is named: `bench-results` where there is one, so that a
/// checkout keeps its own, and else one of the user, which is found from everywhere.
pub fn results_folder() -> PathBuf {
    let here = PathBuf::from("bench-results");
    if here.is_dir() {
        return here;
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = variable("XDG_DATA_HOME").or_else(|| variable("LOCALAPPDATA"));
    let data = data.or_else(|| Some(variable("HOME")?.join(".local").join("share")));
    data.map_or(here, |data| data.join("tuner"))
}

/// The file in a folder of results that a tuning writes by default: in the folder of this machine,
/// with a name that says what the plan is for: where a tensor may be u8, for these weights alone.
pub fn plan_file(results: &Path, model: &Model, weights: &Weights, options: &Options) -> PathBuf {
    let Options { cpu, threads, batch, bounds, .. } = options;
    let may_be_u8 = Precision::within(bounds.error) == Precision::Int8;
    let weights = may_be_u8.then(|| fingerprint(weights).ok()).flatten();
    let shape = model.shape_text();
    let name = file_name(&model.to_string(), shape.as_deref(), [*threads, *batch], bounds, weights);
    Machine::of(cpu).folder(results).join(name)
}

/// Tunes and writes the plan to a file, the folder of which is made. A plan that is there for the
/// same competes with the new one.
///
/// # Errors
/// Of [`autotune`], and if the file can't be written, which is found before anything is measured. Where
/// it can't be written any more at the end, the plan is in another file, which the error names.
pub fn autotune_to(
    file: &Path,
    model: &Model,
    weights: &Weights,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Plan, TuneError> {
    let plan = autotune_for(file, model, weights, options, observer)?;
    write(&plan, file)?;
    Ok(plan)
}

/// As [`autotune_to`], without writing the plan.
pub fn autotune_for(
    file: &Path,
    model: &Model,
    weights: &Weights,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Plan, TuneError> {
    if let Some(folder) = file.parent().filter(|folder| *folder != Path::new("")) {
        create_folder(folder)?;
    }
    check_writable(file)?;
    let earlier = earlier(file, model, options).or_else(|| options.earlier.clone());
    autotune(model, weights, &Options { earlier, ..options.clone() }, observer)
}

/// Writes a plan to its file, or else to one in the folder of temporary files.
///
/// # Errors
/// If it is not in its file.
pub fn write(plan: &Plan, file: &Path) -> Result<(), NotWritten> {
    plan.write(file).map_err(|error| {
        let (error, plan) = (Box::new(error), kept(plan));
        NotWritten { error, plan }
    })
}

/// The file that has a plan which was to be written to `path`.
pub fn place(path: PathBuf, written: &Result<(), NotWritten>) -> PathBuf {
    match written {
        Err(NotWritten { plan: Ok(elsewhere), .. }) => elsewhere.clone(),
        _ => path,
    }
}

/// Writes a plan to a new file in the folder of temporary files.
fn kept(plan: &Plan) -> Result<PathBuf, PlanError> {
    let new = tempfile::Builder::new().prefix("plan-").suffix(".json").tempfile();
    let folder = std::env::temp_dir().display().to_string();
    let new = new.map_err(|source| InputError::Folder { folder, source })?;
    plan.write(new.path())?;
    let (_, path) = new.keep().map_err(|error| {
        let file = error.file.path().display().to_string();
        InputError::Write { file, source: error.error }
    })?;
    Ok(path)
}

/// The plan that is there for the same, on a machine like this.
fn earlier(file: &Path, model: &Model, options: &Options) -> Option<Plan> {
    let plan = Plan::read(file).ok()?;
    let is_same = (&plan.model, &plan.shape) == (&model.name, &model.shape_text())
        && (plan.threads, plan.batch) == (options.threads, options.batch)
        && plan.machine.differs(&Machine::of(&options.cpu)).is_none()
        && (plan.max_rel_error, plan.max_memory_mib) == (options.bounds.error, options.bounds.memory);
    is_same.then_some(plan)
}

/// The right to tune on a machine, which one process has at a time, until it drops this.
#[derive(Debug)]
pub struct TuningLock(#[expect(dead_code, reason = "held for its lock")] File);

impl TuningLock {
    /// Its file in the folder of a machine.
    const FILE: &str = "tuning.lock";

    /// The right, if no other process has it. A folder that several machines of one kind share is
    /// one machine. A file system without locks grants it to all.
    ///
    /// # Errors
    /// If the folder can't be made or written to.
    pub fn try_acquire(results: &Path, options: &Options) -> Result<Option<Self>, TuneError> {
        let folder = Machine::of(&options.cpu).folder(results);
        create_folder(&folder)?;
        let path = folder.join(Self::FILE);
        let failed = |source| InputError::Write { file: path.display().to_string(), source };
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(Some(Self(file))),
            Err(TryLockError::Error(source)) => Err(failed(source).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use engine::PlanOrigin;

    use super::*;
    use crate::bench::progress::Silent;

    fn options() -> Options {
        Options { threads: 1, budget: Duration::from_millis(500), ..Options::default() }
    }

    #[test]
    fn a_tuning_writes_its_plan_where_a_run_finds_it() {
        let (model, options) = (Model::block("mixed10").expect("a block"), options());
        let weights = Weights::synthetic(&model, 1);
        let results = tempfile::tempdir().expect("a folder");
        let file = plan_file(results.path(), &model, &weights, &options);
        let plan = autotune_to(&file, &model, &weights, &options, &mut Silent).expect("a plan");
        let request = engine::Request::new(&model).threads(1);
        let found = request.find(results.path(), &weights).expect("readable");
        assert_eq!((found.origin, found.plan.created), (PlanOrigin::Newest(file), plan.created));
    }

    #[test]
    fn a_plan_that_cannot_be_written_is_kept_elsewhere() {
        let (model, options) = (Model::block("mixed10").expect("a block"), options());
        let plan = engine::Request::new(&model).threads(options.threads).untuned();
        let folder = tempfile::tempdir().expect("a folder");
        let error = write(&plan, folder.path()).expect_err("a folder is no file");
        let kept = error.plan.as_ref().expect("kept");
        assert_eq!(Plan::read(kept).expect("a plan").steps, plan.steps);
        let text = error.to_string();
        assert!(text.contains(&format!("the plan is in {}", kept.display())), "{text}");
        std::fs::remove_file(kept).expect("removed");
    }

    #[test]
    fn one_tunes_at_a_time() {
        let (results, options) = (tempfile::tempdir().expect("a folder"), options());
        let first = TuningLock::try_acquire(results.path(), &options).expect("a lock");
        assert!(first.is_some());
        assert!(TuningLock::try_acquire(results.path(), &options).expect("no error").is_none());
        drop(first);
        assert!(TuningLock::try_acquire(results.path(), &options).expect("a lock").is_some());
    }

    #[test]
    fn an_observer_ends_a_tuning_and_nothing_is_written() {
        struct Impatient;
        impl Observer for Impatient {
            fn is_to_stop(&mut self) -> bool {
                true
            }
        }
        let (model, options) = (Model::block("mixed10").expect("a block"), options());
        let weights = Weights::synthetic(&model, 1);
        let results = tempfile::tempdir().expect("a folder");
        let file = plan_file(results.path(), &model, &weights, &options);
        let stopped = autotune_to(&file, &model, &weights, &options, &mut Impatient);
        assert!(matches!(stopped, Err(TuneError::Stopped)), "{stopped:?}");
        assert!(!file.exists());
    }
}
