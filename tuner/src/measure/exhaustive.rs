//! What a search has missed: all other tunings, tried afterwards, and the best of all beside the best it has found.

use std::time::Instant;

use engine::network::{Precision, SupportedKernel};
use engine::util::Interval;
use kernels::{Formats, Tuning};

use crate::bench::POLICY;
use crate::measure::local_search::TunedFormats;
use crate::measure::race::Race;
use crate::measure::types::Search;

impl Race<'_> {
    /// How far the search has come.
    pub fn search(&self, types: Precision) -> Search {
        let mut search = Search::default();
        for available in self.kernels {
            search.evaluated += self.tunings(available.row).len();
            search.space += self.offered(available, types).len();
        }
        search
    }

    /// Tries all tunings that the search has left out, each in the first of its formats, and compares the best of all
    /// with the best that was found before, in new rounds: those that have chosen the best would flatter it.
    pub fn exhaust(&mut self, types: Precision) -> Search {
        let (start, search) = (Instant::now(), self.search(types));
        let Some(found) = self.first() else { return search };
        let apart = self.distance;
        let patience = apart.set_patience(POLICY.exhaustive.patience);
        apart.wait_until(None);
        let (kernels, known) = (self.kernels, self.candidates.len());
        let mut jobs: Vec<(&SupportedKernel, Tuning, Formats)> = Vec::new();
        for available in kernels {
            let tried = self.tunings(available.row);
            let left =
                self.offered(available, types).into_iter().filter(|(tuning, _)| !tried.contains(tuning));
            jobs.extend(left.map(|(tuning, formats)| (available, tuning, formats)));
        }
        for some in jobs.chunks(POLICY.search.at_a_time) {
            self.enter(some);
            (0..POLICY.search.rounds).for_each(|_| self.round());
        }
        (0..POLICY.exhaustive.rounds_before).for_each(|_| self.round());
        let best = self.first();
        let left_out = best.is_some_and(|best| best >= known);
        let missed = match best {
            Some(best) if best != found => self.duel([found, best], POLICY.exhaustive.last_rounds),
            _ => Some(Interval { value: 1.0, low: 1.0, high: 1.0 }),
        };
        self.conclude();
        apart.set_patience(patience);
        Search { regret: missed, left_out, exhausted: start.elapsed(), ..search }
    }

    /// The tunings that a kernel offers in types that are asked for.
    pub fn offered(&self, available: &SupportedKernel, types: Precision) -> Vec<TunedFormats> {
        let kernel = &*available.kernel;
        let first = |tuning: Tuning| {
            let formats = types.formats(kernel, self.problem, &tuning).first().copied()?;
            Some((tuning, formats))
        };
        kernel.tunings(self.problem).into_iter().filter_map(first).collect()
    }
}
