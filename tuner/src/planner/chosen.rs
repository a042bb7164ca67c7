//! A choice that was made into a network and measured.

use engine::network::Choice;
use engine::runtime::PreparedNetwork;
use engine::util::Timing;

use crate::measure::CandidateResult;

pub struct Chosen<'a> {
    /// The candidates; `None` for a step that has none.
    pub winners: Vec<Option<&'a CandidateResult>>,
    /// The same, and default choices for the others.
    pub choices: Vec<Choice>,
    pub session: PreparedNetwork,
    pub error: f64,
    /// Of each step, the candidates that were timed in the running network.
    pub in_network: Vec<Vec<(&'a CandidateResult, Timing)>>,
    /// The network that was chosen by isolated times; none where nothing else would do.
    pub isolated: Option<PreparedNetwork>,
    /// Of each step, which of its options.
    pub picks: Vec<usize>,
    /// The image with that error.
    pub image: Vec<f32>,
}

impl Chosen<'_> {
    /// How many times as long as by the choice by isolated times a step takes in place.
    pub fn in_network_ratio(&self, step: usize) -> f64 {
        let first = self.in_network.get(step).and_then(|list| list.first());
        let ratio = |(own, (_, first)): (Timing, &(&CandidateResult, Timing))| own.median / first.median;
        self.timing(step).zip(first).map_or(1.0, ratio)
    }

    /// Seconds of all steps by the choice by isolated times.
    pub fn isolated_seconds(&self) -> f64 {
        let first = |step: usize| self.in_network.get(step).and_then(|list| list.first()).map(|(c, _)| *c);
        let of = |step: usize| {
            let own = first(step).or(self.winners[step]);
            own.map_or(0.0, CandidateResult::seconds) * self.session.graph().repeats(step) as f64
        };
        (0..self.winners.len()).map(of).sum()
    }

    /// The time of a step: in the running network where that was taken, else alone.
    pub fn timing(&self, step: usize) -> Option<Timing> {
        let won = self.winners[step]?;
        let in_network =
            self.in_network.get(step).into_iter().flatten().find(|(c, _)| c.choice == won.choice);
        let repeats = self.session.graph().repeats(step) as f64;
        in_network.map(|(_, time)| *time).or(Some(won.timing()?.scaled(repeats)))
    }
}
