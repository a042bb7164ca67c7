//! Who leads the candidates of a problem, who is dropped for it, and who comes back.

use engine::network::pair;
use engine::util::Timing;
use kernels::Dtype;

use crate::bench::{POLICY, Samples};
use crate::measure::race::{ActiveCandidate, Race};
use crate::measure::types::{CandidateResult, Outcome};

impl Race<'_> {
    /// Of those still measured, the fastest.
    pub fn first(&self) -> Option<usize> {
        let seconds = |index: usize| self.samples[index].median();
        let leaders = self.leaders().into_iter().map(|(_, leader)| leader);
        leaders.min_by(|&a, &b| seconds(a).total_cmp(&seconds(b)))
    }

    /// The median of the fastest that is still measured.
    pub fn least(&self) -> f64 {
        self.first().map_or(f64::INFINITY, |first| self.samples[first].median())
    }

    /// Of those still measured, the fastest of each pair of types: by the rounds that it was in with the one of the least
    /// median, since others may have been in slower rounds.
    pub(super) fn leaders(&self) -> Vec<([Dtype; 2], usize)> {
        let mut leaders = self.least_medians();
        for (types, leader) in &mut leaders {
            let of_types =
                |entrant: &&ActiveCandidate| pair(&self.candidates[entrant.index].choice.formats) == *types;
            let versus = |index: usize| match self.samples[index].paired(&self.samples[*leader]) {
                (Some(ratio), rounds) if rounds >= POLICY.race.decide[0] => ratio,
                _ => f64::INFINITY,
            };
            let all =
                self.alive.iter().filter(of_types).map(|entrant| (entrant.index, versus(entrant.index)));
            let least = all.min_by(|(_, a), (_, b)| a.total_cmp(b)).filter(|(_, versus)| *versus < 1.0);
            *leader = least.map_or(*leader, |(index, _)| index);
        }
        leaders
    }

    fn least_medians(&self) -> Vec<([Dtype; 2], usize)> {
        let mut leaders: Vec<([Dtype; 2], usize)> = Vec::new();
        for &ActiveCandidate { index, .. } in &self.alive {
            let types = pair(&self.candidates[index].choice.formats);
            match leaders.iter_mut().find(|(known, _)| *known == types) {
                Some((_, first)) if self.samples[index].median() < self.samples[*first].median() => {
                    *first = index;
                }
                Some(_) => {}
                None => leaders.push((types, index)),
            }
        }
        leaders
    }

    /// Drops all but the fastest where they are too many.
    pub(super) fn limit(&mut self) {
        let mut medians: Vec<f64> = self.alive.iter().map(|e| self.samples[e.index].median()).collect();
        medians.sort_by(f64::total_cmp);
        if let Some(&slowest) = medians.get(POLICY.race.most) {
            self.drop(|_, own, _| own.median() >= slowest);
        }
    }

    /// Drops those that lose to the leader of their types.
    pub(super) fn drop(&mut self, loses: impl Fn(&CandidateResult, &Samples, &Samples) -> bool) {
        let leaders = self.leaders();
        let (candidates, samples) = (&mut self.candidates, &self.samples);
        self.alive.retain(|&ActiveCandidate { index, .. }| {
            let candidate = &mut candidates[index];
            let leader = leader_of(&leaders, candidate).unwrap_or(index);
            let stays = leader == index || !loses(candidate, &samples[index], &samples[leader]);
            if !stays {
                let timing = Timing::of(&samples[index].seconds());
                candidate.outcome = Outcome::Timed { timing, dropped: true };
            }
            stays
        });
    }

    /// Lets those in again that were dropped for one that has lost since, and that were faster than the fastest that is
    /// left in the rounds that both were in; whether there are any.
    pub(super) fn reinstate(&mut self) -> bool {
        let leaders = self.leaders();
        let alive = self.alive.len();
        for index in 0..self.candidates.len() {
            let candidate = &self.candidates[index];
            let is_faster = candidate.versus.is_some_and(|versus| versus.value < 1.0);
            if is_faster && leader_of(&leaders, candidate).is_some() {
                self.let_in(index);
            }
        }
        self.alive.len() > alive
    }

    /// Lets a candidate in, if it is not.
    pub(super) fn let_in(&mut self, index: usize) {
        if !self.alive.iter().any(|entrant| entrant.index == index) {
            self.alive.push(ActiveCandidate { index, bench: None });
        }
    }

    /// The times of all: the leaders' own, and for the others the leader's times what they took in the rounds
    /// that both were in, so that drift of the machine does not favour those that left early.
    pub fn conclude(&mut self) {
        let leaders = self.leaders();
        let is_alive = |index| self.alive.iter().any(|entrant| entrant.index == index);
        for (index, candidate) in self.candidates.iter_mut().enumerate() {
            let Outcome::Timed { dropped, .. } = candidate.outcome else { continue };
            let own = &self.samples[index];
            let leader = leader_of(&leaders, candidate).map(|leader| &self.samples[leader]);
            let (Some(leader), false) = (leader, own.is_empty()) else { continue };
            candidate.versus = own.ratio(leader);
            let timing = own.relative_to(leader);
            candidate.outcome = Outcome::Timed { timing, dropped: dropped && !is_alive(index) };
        }
    }
}

fn leader_of(leaders: &[([Dtype; 2], usize)], candidate: &CandidateResult) -> Option<usize> {
    let types = pair(&candidate.choice.formats);
    leaders.iter().find(|(known, _)| *known == types).map(|(_, leader)| *leader)
}
