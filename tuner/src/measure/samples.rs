//! The times of one candidate, round by round.

use super::Timing;
use crate::stats::{Interval, median, ratio};

/// A candidate's times, each with the round it is from; rounds ascend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<(usize, f64)>);

impl Samples {
    /// Adds the seconds of a round after all before.
    pub fn push(&mut self, round: usize, seconds: f64) {
        self.0.push((round, seconds));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The round of the last.
    pub fn last_round(&self) -> Option<usize> {
        self.0.last().map(|(round, _)| *round)
    }

    /// Seconds, in order.
    pub fn seconds(&self) -> Vec<f64> {
        self.0.iter().map(|(_, seconds)| *seconds).collect()
    }

    /// The median; infinite where there are none.
    pub fn median(&self) -> f64 {
        median(&self.seconds()).unwrap_or(f64::INFINITY)
    }

    /// The least; infinite where there are none.
    pub fn fastest(&self) -> f64 {
        self.0.iter().map(|(_, seconds)| *seconds).fold(f64::INFINITY, f64::min)
    }

    /// Those after a round.
    pub fn since(&self, round: usize) -> Self {
        Self(self.0.iter().copied().filter(|(own, _)| *own > round).collect())
    }

    /// `self / other` in the rounds that both were in; none without one.
    pub fn ratio(&self, other: &Self) -> Option<Interval> {
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        let mut rest = other.0.iter().peekable();
        for (round, seconds) in &self.0 {
            while rest.next_if(|(other, _)| other < round).is_some() {}
            if let Some((_, other)) = rest.next_if(|(other, _)| other == round) {
                own.push(*seconds);
                theirs.push(*other);
            }
        }
        ratio(&own, &theirs)
    }
}

impl Samples {
    /// Times as they would be beside a leader: its median times what these took in the rounds that both were in, so
    /// that drift of the machine favours neither; as they are where there is no such round. There is at least one.
    pub fn beside(&self, leader: &Self) -> Timing {
        let timing = Timing::of(&self.seconds());
        let fair = self.ratio(leader).map(|ratio| ratio.value * leader.median() / timing.median);
        timing.scaled(fair.unwrap_or(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_rounds_that_both_were_in() {
        let of = |list: &[(usize, f64)]| Samples(list.to_vec());
        let leader = of(&[(1, 1.0), (2, 2.0), (3, 4.0), (7, 8.0)]);
        assert_eq!(of(&[(2, 3.0), (7, 12.0)]).ratio(&leader).map(|r| r.value), Some(1.5));
        assert_eq!(of(&[(4, 3.0), (5, 12.0)]).ratio(&leader), None);
        assert_eq!(of(&[]).ratio(&leader), None);
        assert_eq!((leader.median(), leader.fastest(), leader.last_round()), (3.0, 1.0, Some(7)));
        assert_eq!(leader.since(2), of(&[(3, 4.0), (7, 8.0)]));
        assert_eq!((of(&[]).median(), of(&[]).last_round()), (f64::INFINITY, None));
    }
}
