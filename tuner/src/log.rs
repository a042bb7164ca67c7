//! The log of measurements: one file a machine, to which every tuning appends, a line of JSON at a time.
//!
//! ```text
//! {"line": "run", "run": R, "schema": "measurements-1", "machine": .., "threads": .., "types": ..}
//! {"line": "candidates", "run": R, "problem": P, "first": n, "list": [candidate, ..]}
//! {"line": "round", "run": R, "problem": P, "round": i, "times": [[number, ns, disturbed], ..], "core_to_core_ns": ..}
//! {"line": "resumes", "run": R, "problem": P, "from": an earlier run}
//! {"line": "done", "run": R, "problem": P, "share": seconds, "complete": ..}
//! ```
//!
//! A run is one process on one machine with one number of threads. Candidates are numbered within a run and problem,
//! in the order they come; a round holds the times of all that were still measured, so that what is compared
//! was measured within seconds. A line is written whole, under a lock on the file: several tuners may append at once,
//! and one that is killed leaves at most a torn last line, which readers pass over and the next writer ends.
//!
//! A tuning goes on from the rounds of the newest run of the same machine, threads and types that went furthest
//! with a problem. Candidates of a kernel whose code has changed since are left out.

mod file;
mod history;
mod merge;
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kernels::problem::Problem;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::apart::ns;
use crate::bench::BUSY;
use crate::cold::Cold;
use crate::machine::Machine;
use crate::plan::{StepFormats, TOOL};
use crate::types::Types;

pub use file::{LogError, append, read};
pub use history::{Done, Histories, History, nearest};
pub use merge::{MergeArgs, merge};
pub use transfer::{TransferArgs, transfer};

/// Version of the format.
pub const SCHEMA: &str = "measurements-1";
/// How runs are measured, a number that is raised with that: times of another method are not taken. 1: all candidates of a
/// round in one region, on shared scratch. 2: scratch as cold whoever had it last, and rounds that wait for near cores. 3: as near as
/// the pair furthest apart. 4: scratch is moved out of the caches first.
pub const METHOD: u32 = 4;
/// Name of the file in a machine's folder.
pub const FILE: &str = "measurements.jsonl";

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// A run begins.
    Run(Run),
    /// Candidates of a problem that are measured from now on.
    Candidates {
        /// The run.
        run: String,
        /// The problem.
        problem: String,
        /// Number of the first.
        first: usize,
        /// The candidates.
        list: Vec<Entry>,
    },
    /// All candidates that are left, timed once.
    Round {
        /// The run.
        run: String,
        /// The problem.
        problem: String,
        /// Its number, from 1.
        round: usize,
        /// In the order they ran.
        times: Vec<Time>,
        /// How far apart the workers' cores were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        core_to_core_ns: Option<f64>,
    },
    /// The run goes on where another has ended.
    Resumes {
        /// The run.
        run: String,
        /// The problem.
        problem: String,
        /// The other run.
        from: String,
    },
    /// Measured as long as its share of the budget allows.
    Done {
        /// The run.
        run: String,
        /// The problem.
        problem: String,
        /// With what.
        #[serde(flatten)]
        done: Done,
    },
}

/// One tuning on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its name: when and by which process.
    pub run: String,
    /// [`SCHEMA`].
    pub schema: String,
    /// What measures.
    pub tool: String,
    /// Where.
    pub machine: Machine,
    /// On how many threads.
    pub threads: usize,
    /// `f32`, or `lower` where lower types are measured too.
    pub types: String,
    /// Where weights were.
    #[serde(default)]
    pub cold: Cold,
    /// [`METHOD`].
    #[serde(default)]
    pub method: u32,
    /// Seconds since 1970.
    pub started: u64,
}

/// A candidate as it was found when it was checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Id of its kernel.
    pub kernel: String,
    /// The kernel's tuning.
    pub tuning: Map<String, Value>,
    /// Formats.
    pub formats: StepFormats,
    /// Hash of the kernel's code.
    pub code: String,
    /// Largest error over the largest output.
    pub rel_error: f64,
    /// Root mean square of the errors over that of the outputs.
    pub rms_error: f64,
    /// Bytes of packed weights.
    pub packed: usize,
    /// Bytes of scratch.
    pub scratch: usize,
    /// Error and tolerance of one whose results are wrong; it is not timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<[f64; 2]>,
}

impl Entry {
    /// Whether it is the same kernel, of the same code, with the same tuning and formats.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.kernel, &self.code, &self.tuning) == (&other.kernel, &other.code, &other.tuning)
            && self.formats == other.formats
    }

    /// Of no particular candidate, to test what keeps them.
    #[cfg(test)]
    pub fn any() -> Self {
        Self {
            kernel: "direct_plain".to_string(),
            tuning: Map::new(),
            formats: StepFormats::of(&kernels::tensor::Formats::F32),
            code: String::new(),
            rel_error: 0.0,
            rms_error: 0.0,
            packed: 0,
            scratch: 0,
            wrong: None,
        }
    }
}

/// A candidate's time in a round: its number, nanoseconds, and 1 if something else disturbed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time(pub usize, pub u64, pub u8);

impl Time {
    /// Of a run.
    pub fn new(number: usize, seconds: f64, disturbed: bool) -> Self {
        Self(number, (seconds * 1e9).round() as u64, u8::from(disturbed))
    }

    /// Seconds.
    pub fn seconds(&self) -> f64 {
        self.1 as f64 / 1e9
    }
}

/// The log of a machine, open for one run.
pub struct Log {
    path: PathBuf,
    run: String,
    histories: Histories,
    /// It could not be written.
    failed: AtomicBool,
}

impl Log {
    /// Begins a run in the log of a machine's folder. What runs of the same machine, threads and types have found
    /// is kept at hand, unless it is to be ignored.
    ///
    /// # Errors
    /// If the file is no log, or can't be read or written.
    pub fn open(
        folder: &Path,
        machine: &Machine,
        threads: usize,
        types: Types,
        cold: Cold,
        is_fresh: bool,
    ) -> Result<Self, LogError> {
        let path = folder.join(FILE);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = Run {
            run: format!("{:x}-{:x}", since.as_nanos(), std::process::id()),
            schema: SCHEMA.to_string(),
            tool: TOOL.to_string(),
            machine: machine.clone(),
            threads,
            types: match types {
                Types::F32 => "f32".to_string(),
                Types::Lower => "lower".to_string(),
            },
            cold,
            method: METHOD,
            started: since.as_secs(),
        };
        let lines = if path.exists() { read(&path)?.0 } else { Vec::new() };
        let here = |other: &Run| {
            other.machine == run.machine && (other.threads, other.method) == (run.threads, run.method)
        };
        let nearest = nearest(&lines, here);
        let like = |other: &Run| {
            !is_fresh
                && other.tool == run.tool
                && other.machine == run.machine
                && (other.threads, &other.types, other.cold) == (run.threads, &run.types, run.cold)
                && other.method == run.method
        };
        let histories = Histories::of(lines, nearest, like);
        let name = run.run.clone();
        append(&path, &Line::Run(run))?;
        Ok(Self { path, run: name, histories, failed: AtomicBool::new(false) })
    }

    /// How near this machine's workers are known to have been, in seconds.
    pub fn nearest(&self) -> Option<f64> {
        self.histories.nearest.map(|ns| ns * 1e-9)
    }

    /// What earlier runs have found out about a problem; nothing of a time when others used the cores, or when these were
    /// far apart, which must not settle a choice for good.
    pub fn history(&self, problem: &Problem) -> Option<&History> {
        self.histories.furthest(&problem.to_string(), BUSY)
    }

    fn append(&self, line: &Line) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = append(&self.path, line) {
            self.failed.store(true, Ordering::Relaxed);
            eprintln!("note: {error}; measurements are no longer logged");
        }
    }
}

/// Keeps what happens to one problem, and writes it.
pub struct Journal<'a> {
    log: Option<&'a Log>,
    run: String,
    problem: String,
    /// All until now, and the run that the last of it is of.
    history: History,
}

impl<'a> Journal<'a> {
    /// Of a problem; kept alone without a log.
    pub fn new(log: Option<&'a Log>, problem: &Problem) -> Self {
        let run = log.map(|log| log.run.clone()).unwrap_or_default();
        Self {
            log,
            problem: problem.to_string(),
            history: History { run: run.clone(), ..History::default() },
            run,
        }
    }

    fn append(&mut self, line: impl FnOnce(String, String) -> Line) {
        let (run, problem) = (|| self.run.clone(), || self.problem.clone());
        let line = line(run(), problem());
        let from = std::mem::replace(&mut self.history.run, run());
        if let Some(log) = self.log {
            if from != self.run {
                log.append(&Line::Resumes { run: run(), problem: problem(), from });
            }
            log.append(&line);
        }
        self.history.add(line);
    }

    /// All that follows goes on from there.
    pub fn resume(&mut self, history: History) {
        self.history = history;
    }

    /// All that was kept.
    pub fn into_history(self) -> History {
        self.history
    }

    /// Candidates with numbers from `first` on.
    pub fn candidates(&mut self, first: usize, list: Vec<Entry>) {
        self.append(|run, problem| Line::Candidates { run, problem, first, list });
    }

    /// A round, with the seconds from core to core.
    pub fn round(&mut self, round: usize, times: Vec<Time>, core_to_core: Option<f64>) {
        let core_to_core_ns = core_to_core.map(ns);
        self.append(|run, problem| Line::Round { run, problem, round, times, core_to_core_ns });
    }

    /// The end.
    pub fn done(&mut self, share: Duration, complete: bool) {
        let done = Done { share: share.as_secs_f64(), complete };
        self.append(|run, problem| Line::Done { run, problem, done });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::cpu::Cpu;

    #[test]
    fn what_is_added_after_a_visit_that_took_all_from_the_log_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = Machine::of(&Cpu::detect());
        let open = || Log::open(folder.path(), &machine, 1, Types::F32, Cold::Memory, false).expect("a log");
        let problem = Problem::Conv("n1h5w5c8k8r3s3".parse().expect("a shape"));
        let round = |journal: &mut Journal, number| {
            journal.round(number, vec![Time(0, 1000, 0)], None);
            journal.done(Duration::from_secs(number as u64), false);
        };
        let log = open();
        let mut journal = Journal::new(Some(&log), &problem);
        journal.candidates(0, vec![Entry::any()]);
        round(&mut journal, 1);

        let log = open();
        let mut first = Journal::new(Some(&log), &problem);
        first.resume(log.history(&problem).expect("a history").clone());
        let mut second = Journal::new(Some(&log), &problem);
        second.resume(first.into_history());
        round(&mut second, 2);
        let kept = second.into_history();

        let log = open();
        let found = log.history(&problem).expect("a history");
        assert_eq!(found, &kept);
        assert_eq!((found.rounds.len(), found.done.map(|done| done.share)), (2, Some(2.0)));
    }
}
