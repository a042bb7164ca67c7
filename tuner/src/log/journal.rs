//! The log of measurements: one file a machine, to which each run of the tuner appends JSON lines.
//!
//! ```text
//! {"line": "run", "run": R, "schema": "measurements-1", "machine": .., "threads": .., "types": ..}
//! {"line": "candidates", "run": R, "problem": P, "first": n, "list": [candidate, ..]}
//! {"line": "round", "run": R, "problem": P, "round": i, "times": [[number, ns, disturbed], ..],
//! "core_to_core_ns": ..} {"line": "resumes", "run": R, "problem": P, "from": an earlier run}
//! {"line": "done", "run": R, "problem": P, "share": seconds, "complete": ..}
//! ```
//!
//! A run is one process on one machine with one number of threads. Candidates are numbered within a
//! run and problem, in the order they come; a round holds the times of all that were still
//! measured, so that what is compared was measured within seconds. A line is written whole, under a
//! lock on the file where the file system has locks: several tuners may append at once, and one
//! that is killed leaves at most a torn last line, which readers pass over and the next writer
//! ends. Lines that cannot be written, as where a disk is full for a while, are kept and tried again
//! with the next.
//!
//! A tuning goes on from the rounds of the newest run of the same machine, threads and types that
//! went furthest with a problem. Candidates of a kernel whose code has changed since are left out.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::network::{Precision, TOOL};
use engine::plan::WeightResidency;
use engine::runtime::Machine;
use engine::util::ns;
use kernels::Problem;

use crate::bench::{POLICY, Warning};
use crate::log::file::{LogError, append, read, text_of};
use crate::log::history::{Histories, History, nearest};
use crate::log::schema::{Done, Line, LoggedCandidate, METHOD, Run, SCHEMA, Time};

/// Name of the file in a machine's folder.
pub const FILE: &str = "measurements.jsonl";

/// The log of a machine, open for one run.
pub struct Log {
    path: PathBuf,
    run: String,
    histories: Histories,
    /// Core-to-core latency in seconds of the machine's workers when they are near.
    pub nearest: Option<f64>,
    unwritten: Mutex<Unwritten>,
}

/// Bytes of lines that are kept for a disk that is full. What comes after them is not logged: without
/// a line in between, later ones may mean nothing.
const KEPT: usize = 16 << 20;

/// Lines that could not be written yet.
#[derive(Debug, Default)]
struct Unwritten {
    lines: String,
    /// Why, the first time.
    reason: Option<String>,
    /// There were more than are kept.
    is_full: bool,
}

impl Unwritten {
    /// Writes a line behind those that could not be written before.
    fn add(&mut self, path: &Path, line: &Line) {
        match text_of(line) {
            Ok(text) if !self.is_full && self.lines.len() + text.len() <= KEPT => self.lines += &text,
            _ => self.is_full = true,
        }
        if !self.is_full {
            self.write(path);
        }
    }

    fn write(&mut self, path: &Path) {
        match append(path, &self.lines) {
            Ok(()) => self.lines.clear(),
            Err(error) => drop(self.reason.get_or_insert_with(|| error.to_string())),
        }
    }
}

impl Log {
    /// Begins a run in the log of a machine's folder. What runs of the same machine, threads and
    /// types have found is kept at hand, unless it is to be ignored.
    pub fn open(
        folder: &Path,
        machine: &Machine,
        threads: usize,
        types: Precision,
        cold: WeightResidency,
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
                Precision::F32 => "f32",
                Precision::Bf16 => "lower",
                Precision::Int8 => "int8",
            }
            .to_string(),
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
            let same_kind = (&other.tool, &other.types, other.cold) == (&run.tool, &run.types, run.cold);
            !is_fresh && here(other) && same_kind
        };
        let histories = Histories::of(lines, nearest, like);
        let name = run.run.clone();
        let nearest = nearest.map(|ns| ns * 1e-9);
        let log = Self { path, run: name, histories, nearest, unwritten: Mutex::default() };
        log.append(&Line::Run(run));
        Ok(log)
    }

    /// What earlier runs have found out about a problem while the cores were quiet and near.
    pub fn history(&self, problem: &Problem) -> Option<&History> {
        self.histories.furthest(&problem.to_string(), POLICY.contention.busy_share)
    }

    fn unwritten(&self) -> std::sync::MutexGuard<'_, Unwritten> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: &Line) {
        self.unwritten().add(&self.path, line);
    }

    /// Tries once more to write what could not be written; what to tell of the lines that could not.
    pub fn finish(&self) -> Option<Warning> {
        let mut unwritten = self.unwritten();
        if !unwritten.lines.is_empty() {
            unwritten.write(&self.path);
        }
        let Unwritten { lines, reason, is_full } = &*unwritten;
        let reason = reason.clone()?;
        let is_whole = lines.is_empty() && !is_full;
        Some(if is_whole { Warning::LoggedLater { reason } } else { Warning::NotLogged { reason } })
    }
}

/// Keeps what happens to one problem, and writes it.
pub struct Journal<'a> {
    log: Option<&'a Log>,
    run: String,
    problem: String,
    /// All until now, and the run that the last of it is of. What is added goes on from there.
    pub history: History,
}

impl<'a> Journal<'a> {
    /// Of a problem; kept alone without a log.
    pub fn new(log: Option<&'a Log>, problem: &Problem) -> Self {
        let run = log.map(|log| log.run.clone()).unwrap_or_default();
        let history = History { run: run.clone(), ..History::default() };
        Self { log, problem: problem.to_string(), history, run }
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

    /// Candidates with the next numbers.
    pub fn candidates(&mut self, list: Vec<LoggedCandidate>) {
        let first = self.history.candidates.len();
        self.append(|run, problem| Line::Candidates { run, problem, first, list });
    }

    /// The next round, with the seconds from core to core.
    pub fn round(&mut self, times: Vec<Time>, core_to_core: Option<f64>) {
        let round = self.history.last_round + 1;
        let core_to_core_ns = core_to_core.map(ns);
        self.append(|run, problem| Line::Round { run, problem, round, times, core_to_core_ns });
    }

    pub fn done(&mut self, share: Duration, complete: bool) {
        let done = Done { share: share.as_secs_f64(), complete };
        self.append(|run, problem| Line::Done { run, problem, done });
    }
}

#[cfg(test)]
mod tests {
    use kernels::Cpu;

    use super::*;

    #[test]
    fn lines_that_could_not_be_written_are_written_with_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let (at, away) = (folder.path().join(FILE), folder.path().join("away"));
        let machine = Machine::of(&Cpu::detect());
        let open = || {
            Log::open(folder.path(), &machine, 1, Precision::F32, WeightResidency::Dram, false)
                .expect("a log")
        };
        let problem = Problem::Conv("n1h5w5c8k8r3s3".parse().expect("a shape"));
        let log = open();
        let mut journal = Journal::new(Some(&log), &problem);
        journal.candidates(vec![LoggedCandidate::default()]);
        assert_eq!(log.finish(), None);
        // A folder of its name can no more be written than a full disk.
        std::fs::rename(&at, &away).expect("moved");
        std::fs::create_dir(&at).expect("a folder");
        (0..3).for_each(|_| journal.round(vec![Time(0, 1000, 0)], None));
        assert!(matches!(log.finish(), Some(Warning::NotLogged { .. })));
        std::fs::remove_dir(&at).expect("removed");
        std::fs::rename(&away, &at).expect("moved");
        journal.round(vec![Time(0, 1000, 0)], None);
        assert!(matches!(log.finish(), Some(Warning::LoggedLater { .. })));
        let kept = journal.history;
        let log = open();
        assert_eq!(log.history(&problem), Some(&kept));
        assert_eq!(kept.rounds.len(), 4);
    }

    #[test]
    fn what_is_added_after_a_visit_that_took_all_from_the_log_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = Machine::of(&Cpu::detect());
        let open = || {
            Log::open(folder.path(), &machine, 1, Precision::F32, WeightResidency::Dram, false)
                .expect("a log")
        };
        let problem = Problem::Conv("n1h5w5c8k8r3s3".parse().expect("a shape"));
        let round = |journal: &mut Journal, number| {
            journal.round(vec![Time(0, 1000, 0)], None);
            journal.done(Duration::from_secs(number as u64), false);
        };
        let log = open();
        let mut journal = Journal::new(Some(&log), &problem);
        journal.candidates(vec![LoggedCandidate::default()]);
        round(&mut journal, 1);

        let log = open();
        let mut first = Journal::new(Some(&log), &problem);
        first.history = log.history(&problem).expect("a history").clone();
        let mut second = Journal::new(Some(&log), &problem);
        second.history = first.history;
        round(&mut second, 2);
        let kept = second.history;

        let log = open();
        let found = log.history(&problem).expect("a history");
        assert_eq!(found, &kept);
        assert_eq!((found.rounds.len(), found.done.map(|done| done.share)), (2, Some(2.0)));
    }
}
