//! What measuring reports: how far a stage is, and what a user should know of the result.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// A stage that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A kernel against a copy of itself.
    NoiseFloor,
    /// The candidates of all problems, isolated.
    Candidates,
    /// What a small change of each step makes of the result.
    StepErrors,
    /// Close candidates in the running network.
    InNetwork,
    /// Whole networks in turn.
    Networks,
    /// Chosen candidates against their runners-up.
    Recheck,
    /// Inferences at the same time.
    Streams,
    /// Repeated inferences.
    Inferences,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::NoiseFloor => "noise floor",
            Self::Candidates => "candidates",
            Self::StepErrors => "errors of steps",
            Self::InNetwork => "in the network",
            Self::Networks => "whole networks",
            Self::Recheck => "entries",
            Self::Streams => "streams",
            Self::Inferences => "inferences",
        })
    }
}

/// What bears on the result, or on later ones.
#[derive(Clone, Debug, PartialEq)]
pub enum Warning {
    /// Measurements are not kept.
    NotLogged {
        /// Why.
        reason: String,
    },
    /// The log could not be written for a while; what was measured then was written later.
    LoggedLater {
        /// Why it could not.
        reason: String,
    },
    /// Other processes use the cores before anything is measured.
    Busy {
        /// How many, on average.
        cores: f64,
        /// Those that there are.
        of: usize,
    },
    /// The plan with block variants keeps no bound; the plain one is taken.
    VariantsExcluded {
        /// Why.
        reason: String,
    },
    /// A kernel's results are wrong; it is excluded.
    Wrong {
        /// The kernel's id and its tuning.
        candidate: String,
        /// The problem.
        problem: String,
        /// Its largest error.
        error: f64,
        /// The largest that is allowed.
        tolerance: f64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::NotLogged { reason } => write!(f, "{reason}; measurements are not logged"),
            Self::LoggedLater { reason } => write!(f, "{reason}; what was measured is logged all the same"),
            Self::Busy { cores, of } => write!(
                f,
                "other processes use {cores:.1} of {of} cores; a choice is better where they are quiet"
            ),
            Self::VariantsExcluded { reason } => {
                write!(f, "the plan with block variants is excluded: {reason}")
            }
            Self::Wrong { candidate, problem, error, tolerance } => write!(
                f,
                "{candidate} is wrong on {problem}: error {error:.2e}, tolerance {tolerance:.2e}; excluded"
            ),
        }
    }
}

/// Who hears of the progress of a tuning.
#[expect(unused_variables, reason = "their names are for those who implement it")]
pub trait Observer: Send {
    /// A stage is so far done, from 0 to 1; `detail` says at what it is.
    fn progress(&mut self, stage: Stage, done: f64, detail: &str) {}

    /// A stage has ended.
    fn ended(&mut self, stage: Stage) {}

    /// Something that bears on the result.
    fn warning(&mut self, warning: &Warning) {}

    /// Whether the tuning is to end without a plan. It is asked after each progress.
    fn is_to_stop(&mut self) -> bool {
        false
    }
}

/// What unwinds to the start of a tuning that its observer ends.
pub struct Stopped;

/// An observer that ignores all it hears.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

/// An observer that several parts of a tuning share.
pub type Progress<'a> = Mutex<&'a mut dyn Observer>;

/// What the contexts of measuring and planning hold of an observer.
pub trait Report: Sync {
    fn tell(&self, what: &dyn Fn(&mut dyn Observer));

    /// See [`Observer::warning`].
    fn warning(&self, warning: &Warning) {
        self.tell(&|observer| observer.warning(warning));
    }
}

impl Report for Progress<'_> {
    fn tell(&self, what: &dyn Fn(&mut dyn Observer)) {
        what(&mut **self.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
impl Report for Silent {
    fn tell(&self, _: &dyn Fn(&mut dyn Observer)) {}
}

/// The progress of a stage, or of a part of it.
#[derive(Clone, Copy)]
pub struct StageProgress<'a> {
    report: &'a dyn Report,
    stage: Stage,
    from: f64,
    to: f64,
    detail: &'a str,
}

impl<'a> StageProgress<'a> {
    pub fn new(report: &'a dyn Report, stage: Stage) -> Self {
        Self { report, stage, from: 0.0, to: 1.0, detail: "" }
    }

    /// Of the part between two shares of it.
    pub fn part(self, from: f64, to: f64) -> Self {
        Self { from: self.at(from), to: self.at(to), ..self }
    }

    pub fn detail(self, detail: &'a str) -> Self {
        Self { detail, ..self }
    }

    /// So far it is done, from 0 to 1.
    ///
    /// Unwinds with [`Stopped`] where the observer ends the tuning.
    pub fn done(&self, share: f64) {
        let is_to_stop = AtomicBool::new(false);
        self.report.tell(&|observer| {
            observer.progress(self.stage, self.at(share), self.detail);
            is_to_stop.store(observer.is_to_stop(), Ordering::Relaxed);
        });
        if is_to_stop.into_inner() {
            std::panic::resume_unwind(Box::new(Stopped));
        }
    }

    pub fn ended(&self) {
        self.report.tell(&|observer| observer.ended(self.stage));
    }

    fn at(&self, share: f64) -> f64 {
        self.from + (self.to - self.from) * share
    }
}
