//! Which tunings are tried: a walk from the default and from the best so far, one number at a time.

use std::time::{Duration, Instant};

use engine::network::Choice;
use kernels::{KernelEntry, Tuning};

use crate::bench::POLICY;
use crate::measure::race::Race;

impl Race<'_> {
    /// Walks through the tunings of each kernel until the time is over: first the defaults, then
    /// those that differ by the fewest numbers from the fastest of their kernel so far, of the
    /// fastest kernels first, and at last those of kernels without much hope. What is there already
    /// is not tried again. Whether nothing is left to try.
    pub fn walk(&mut self, time: Duration, deadline: Instant) -> bool {
        let clock = self.host.distance.clock();
        let spaces: Vec<Vec<Choice>> = self.kernels.iter().map(|kernel| self.space(kernel)).collect();
        let mut tried: Vec<Vec<_>> = self.kernels.iter().map(|kernel| self.tunings(kernel.row)).collect();
        let defaults = spaces.iter().enumerate().filter_map(|(index, space)| Some((index, space.first()?)));
        let mut next: Vec<(usize, &Choice)> =
            defaults.filter(|(index, choice)| !tried[*index].contains(&choice.tuning)).collect();
        loop {
            next.iter().for_each(|(index, choice)| tried[*index].push(choice.tuning.clone()));
            if !next.is_empty() {
                self.enter(next.into_iter().map(|(_, choice)| choice.clone()).collect());
                (0..POLICY.search.rounds).for_each(|_| self.round());
            }
            let least = self.least();
            let mut others: Vec<((bool, usize), f64, usize, &Choice)> = Vec::new();
            for (index, kernel) in self.kernels.iter().enumerate() {
                let Some((centre, seconds)) = self.fastest(kernel.row) else { continue };
                let is_slow =
                    seconds > least * POLICY.search.promising_ratio[usize::from(tried[index].len() > 1)];
                let left = spaces[index].iter().filter(|choice| !tried[index].contains(&choice.tuning));
                let rank = |choice: &Choice| (is_slow, choice.tuning.distance(&centre));
                others.extend(left.map(|choice| (rank(choice), seconds, index, choice)));
            }
            if others.is_empty() || clock() >= time || Instant::now() >= deadline {
                return others.is_empty();
            }
            others.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
            others.truncate(POLICY.search.at_a_time);
            next = others.into_iter().map(|(_, _, index, choice)| (index, choice)).collect();
        }
    }

    /// Tunings of a row that are there.
    pub fn tunings(&self, row: &KernelEntry) -> Vec<Tuning> {
        let mut list: Vec<Tuning> = Vec::new();
        for candidate in self.results().filter(|c| c.choice.row.id == row.id) {
            if !list.contains(&candidate.choice.tuning) {
                list.push(candidate.choice.tuning.clone());
            }
        }
        list
    }

    fn fastest(&self, row: &KernelEntry) -> Option<(Tuning, f64)> {
        let own = self.entrants.iter().filter(|own| own.result.choice.row.id == row.id);
        let timed = own.filter(|own| !own.samples.is_empty()).map(|own| (own, own.samples.median()));
        let (fastest, seconds) = timed.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        Some((fastest.result.choice.tuning.clone(), seconds))
    }
}
