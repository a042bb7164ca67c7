//! What a search has missed: all other tunings, tried afterwards, and the best of all against the
//! best it has found.

use std::time::{Duration, Instant};

use engine::network::{Choice, SupportedKernel};
use engine::plan::SearchRecord;
use engine::util::Interval;
use kernels::Tuning;

use crate::bench::POLICY;
use crate::measure::race::Race;

impl Race<'_> {
    /// How far the search has come.
    pub fn search(&self) -> SearchRecord {
        SearchRecord {
            evaluated: self.kernels.iter().map(|kernel| self.tunings(kernel.row).len()).sum(),
            space: self.kernels.iter().map(|kernel| self.space(kernel).len()).sum(),
            ..SearchRecord::default()
        }
    }

    /// Tries all tunings that the search has left out, each in the first of its formats, and
    /// compares the best of all with the best that was found before, in new rounds: those that have
    /// chosen the best would flatter it.
    pub fn exhaust(&mut self) -> (SearchRecord, Duration) {
        let (start, search) = (Instant::now(), self.search());
        let Some(found) = self.first() else { return (search, Duration::ZERO) };
        let distance = self.host.distance;
        let patience = distance.set_patience(POLICY.exhaustive.patience);
        distance.wait_until(None);
        let known = self.entrants.len();
        let mut left: Vec<Choice> = Vec::new();
        for kernel in self.kernels {
            let tried = self.tunings(kernel.row);
            left.extend(self.space(kernel).into_iter().filter(|choice| !tried.contains(&choice.tuning)));
        }
        for some in left.chunks(POLICY.search.at_a_time) {
            self.enter(some.to_vec());
            (0..POLICY.search.rounds).for_each(|_| self.round());
        }
        (0..POLICY.exhaustive.rounds_before).for_each(|_| self.round());
        let best = self.first();
        let best_skipped = best.is_some_and(|best| best >= known);
        let regret = match best {
            Some(best) if best != found => self.duel([found, best], POLICY.exhaustive.last_rounds),
            _ => Some(Interval { value: 1.0, low: 1.0, high: 1.0 }),
        };
        self.conclude();
        distance.set_patience(patience);
        let regret = regret.map(|ratio| [ratio.value, ratio.low, ratio.high]);
        (SearchRecord { regret, best_skipped, ..search }, start.elapsed())
    }

    /// The tunings that a kernel offers, each in the first of its formats that are asked for.
    pub fn space(&self, SupportedKernel { row, kernel }: &SupportedKernel) -> Vec<Choice> {
        let first = |tuning: Tuning| {
            let formats = self.types.formats(&**kernel, self.problem, &tuning).first().copied()?;
            Some(Choice { row, tuning, formats })
        };
        kernel.tunings(self.problem).into_iter().filter_map(first).collect()
    }
}
