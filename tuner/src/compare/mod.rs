//! Two sides compared, problem by problem: which one is faster, by how much, and whether that can
//! be told.
//!
//! What was recorded, two plans or two logs, is compared by [`recorded`]. Two plans or two programs
//! are run in turn by [`live`], which tells much smaller differences: both sides have the same
//! machine in the same minute.

pub mod interval;
pub mod live;
pub mod page;
pub mod recorded;
pub mod side;

use serde::Serialize;

use engine::util::Interval;

pub use interval::{Verdict, verdict};

/// Times this near are the same, whatever their intervals: as much as a copy of a kernel may differ
/// on the quietest machine.
pub const TIE: f64 = 0.01;

/// The chance that an interval of a comparison, of all its rows together, does not hold the true
/// ratio. Each of `n` rows has its share, an `n`-th (C. E. Bonferroni, 1936).
pub const ERROR: f64 = 0.05;

/// Why nothing is compared; one line.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error(transparent)]
    Plan(#[from] engine::PlanError),
    #[error(transparent)]
    Log(#[from] crate::log::file::LogError),
    #[error("{0}")]
    Input(String),
}

/// How B compares with A.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub a: String,
    pub b: String,
    /// Rounds in which both ran in turn; none of what was recorded.
    pub rounds: Option<usize>,
    /// By how much the machine differs between the two recordings; none of rounds.
    pub pace: Option<Pace>,
    /// The whole network, where both have its time.
    pub network: Option<Row>,
    /// Those that both have, the one that costs most first.
    pub problems: Vec<Row>,
    /// Problems that one side has alone.
    pub only_a: Vec<String>,
    pub only_b: Vec<String>,
}

/// The times of all candidates that both recordings have, B's over A's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pace {
    pub candidates: usize,
    /// The median of the ratios.
    pub ratio: f64,
    /// Their spread about it, as a standard deviation of their logarithms.
    pub spread: f64,
}

/// One problem, or the whole network.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: String,
    /// How many steps of A have it.
    pub count: usize,
    pub a: Timed,
    pub b: Timed,
    /// The time of B over that of A: the median, and its interval; none where that is not known.
    pub ratio: Option<[f64; 3]>,
    pub verdict: Verdict,
}

/// The time of one side: of one step where there are several.
#[derive(Clone, Debug, Serialize)]
pub struct Timed {
    /// Which kernel; empty of a whole network.
    pub kernel: String,
    pub us: f64,
}

impl Row {
    pub fn new(name: String, count: usize, [a, b]: [Timed; 2], ratio: Option<Interval>) -> Self {
        let verdict = verdict(ratio, TIE);
        Self { name, count, a, b, ratio: ratio.map(|r| [r.value, r.low, r.high]), verdict }
    }

    /// Microseconds that B costs more, in all its steps.
    fn costs_us(&self) -> f64 {
        (self.b.us - self.a.us) * self.count as f64
    }

    /// Whether B is slower by more than a share, beyond the noise.
    pub fn is_slower_by(&self, share: f64) -> bool {
        self.ratio.is_some_and(|[_, low, _]| low > 1.0 + share)
    }
}

impl Comparison {
    /// The rows, the whole network first.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.network.iter().chain(&self.problems)
    }

    /// Whether B is slower by more than a share, beyond the noise, in one row at least.
    pub fn is_slower_by(&self, share: f64) -> bool {
        self.rows().any(|row| row.is_slower_by(share))
    }

    /// How many problems have a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.problems.iter().filter(|row| row.verdict == verdict).count()
    }

    fn sort(&mut self) {
        let rank = |row: &Row| match row.verdict {
            Verdict::Slower => 0,
            Verdict::Faster => 1,
            Verdict::CannotTell => 2,
            Verdict::Same => 3,
        };
        self.problems
            .sort_by(|a, b| rank(a).cmp(&rank(b)).then(b.costs_us().abs().total_cmp(&a.costs_us().abs())));
    }
}
