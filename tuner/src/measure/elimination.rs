//! Who leads the candidates of a problem, who is dropped for it, and who comes back.

use engine::util::Timing;
use kernels::Dtype;

use crate::bench::{POLICY, Samples};
use crate::measure::race::{ActiveCandidate, Entrant, Race};
use crate::measure::types::{CandidateResult, Outcome};

impl Race<'_> {
    /// Of those still measured, the fastest.
    pub fn first(&self) -> Option<usize> {
        let leaders = self.leaders().into_iter().map(|(_, leader)| leader);
        leaders.min_by(|&a, &b| self.median(a).total_cmp(&self.median(b)))
    }

    /// The median of the fastest that is still measured.
    pub fn least(&self) -> f64 {
        self.first().map_or(f64::INFINITY, |first| self.median(first))
    }

    fn median(&self, index: usize) -> f64 {
        self.entrants[index].samples.median()
    }

    /// Of those still measured, the fastest of each pair of types: by the rounds that it was in
    /// with the one of the least median, since others may have been in slower rounds.
    pub fn leaders(&self) -> Vec<([Dtype; 2], usize)> {
        let mut leaders = self.least_medians();
        for (types, leader) in &mut leaders {
            let versus = |own: &Entrant| match own.samples.paired(&self.entrants[*leader].samples) {
                (Some(ratio), rounds) if rounds >= POLICY.race.decide[0] => ratio,
                _ => f64::INFINITY,
            };
            let all = self.alive.iter().map(|active| (active.index, &self.entrants[active.index]));
            let of_types = all.filter(|(_, own)| own.result.types() == *types);
            let timed = of_types.map(|(index, own)| (index, versus(own)));
            let least = timed.min_by(|(_, a), (_, b)| a.total_cmp(b)).filter(|(_, versus)| *versus < 1.0);
            *leader = least.map_or(*leader, |(index, _)| index);
        }
        leaders
    }

    fn least_medians(&self) -> Vec<([Dtype; 2], usize)> {
        let mut leaders: Vec<([Dtype; 2], usize)> = Vec::new();
        for &ActiveCandidate { index, .. } in &self.alive {
            let types = self.entrants[index].result.types();
            match leaders.iter_mut().find(|(known, _)| *known == types) {
                Some((_, first)) if self.median(index) < self.median(*first) => *first = index,
                Some(_) => {}
                None => leaders.push((types, index)),
            }
        }
        leaders
    }

    /// Drops all but the fastest where they are too many.
    pub fn limit(&mut self) {
        let mut medians: Vec<f64> = self.alive.iter().map(|active| self.median(active.index)).collect();
        medians.sort_by(f64::total_cmp);
        if let Some(&slowest) = medians.get(POLICY.race.most) {
            self.drop(|own, _| own.samples.median() >= slowest);
        }
    }

    /// Drops those that lose to the leader of their types.
    pub fn drop(&mut self, loses: impl Fn(&Entrant, &Samples) -> bool) {
        let leaders = self.leaders();
        let entrants = &mut self.entrants;
        self.alive.retain(|&ActiveCandidate { index, .. }| {
            let own = &entrants[index];
            let leader = leader_of(&leaders, &own.result).unwrap_or(index);
            let stays = leader == index || !loses(own, &entrants[leader].samples);
            if !stays {
                let timing = Timing::of(&own.samples.seconds());
                entrants[index].result.outcome = Outcome::Timed { timing, dropped: true };
            }
            stays
        });
    }

    /// Lets those in again that were dropped for one that has lost since, and that were faster than
    /// the fastest that is left in the rounds that both were in; whether there are any.
    pub fn reinstate(&mut self) -> bool {
        let leaders = self.leaders();
        let alive = self.alive.len();
        for index in 0..self.entrants.len() {
            let candidate = &self.entrants[index].result;
            let is_faster = candidate.versus.is_some_and(|versus| versus.value < 1.0);
            if is_faster && leader_of(&leaders, candidate).is_some() {
                self.let_in(index);
            }
        }
        self.alive.len() > alive
    }

    /// Lets a candidate in, if it is not.
    pub fn let_in(&mut self, index: usize) {
        if !self.is_alive(index) {
            self.alive.push(ActiveCandidate { index, bench: None });
        }
    }

    fn is_alive(&self, index: usize) -> bool {
        self.alive.iter().any(|active| active.index == index)
    }

    /// The times of all: the leaders' own, and for the others the leader's times what they took in
    /// the rounds that both were in, so that drift of the machine favours none that left early.
    pub fn conclude(&mut self) {
        let leaders = self.leaders();
        for index in 0..self.entrants.len() {
            let Entrant { result, samples, .. } = &self.entrants[index];
            let Outcome::Timed { dropped, .. } = result.outcome else { continue };
            let leader = leader_of(&leaders, result).map(|leader| &self.entrants[leader].samples);
            let Some(leader) = leader.filter(|_| !samples.is_empty()) else { continue };
            let (versus, timing) = (samples.ratio(leader), samples.relative_to(leader));
            let dropped = dropped && !self.is_alive(index);
            let result = &mut self.entrants[index].result;
            result.versus = versus;
            result.outcome = Outcome::Timed { timing, dropped };
        }
    }
}

fn leader_of(leaders: &[([Dtype; 2], usize)], candidate: &CandidateResult) -> Option<usize> {
    let types = candidate.types();
    leaders.iter().find(|(known, _)| *known == types).map(|(_, leader)| *leader)
}
