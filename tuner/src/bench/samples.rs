//! The times of one candidate, round by round.

use engine::util::{Interval, Timing, median, ratio};

use crate::bench::policy::POLICY;

/// A candidate's times, each with the round it is from; rounds ascend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(Vec<(usize, f64)>);

impl Samples {
    /// Adds the seconds of a round after all before.
    pub fn push(&mut self, round: usize, seconds: f64) {
        self.0.push((round, seconds));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn last_round(&self) -> Option<usize> {
        self.0.last().map(|(round, _)| *round)
    }

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
        let (own, theirs) = self.together(other);
        ratio(&own, &theirs)
    }

    /// The value of [`Self::ratio`] alone, and the number of those rounds.
    pub fn paired(&self, other: &Self) -> (Option<f64>, usize) {
        let (own, theirs) = self.together(other);
        let ratios: Vec<f64> = own.iter().zip(&theirs).map(|(own, theirs)| own / theirs).collect();
        (median(&ratios), ratios.len())
    }

    /// The seconds of both in the rounds that both were in.
    fn together(&self, other: &Self) -> (Vec<f64>, Vec<f64>) {
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        let mut rest = other.0.iter().peekable();
        for (round, seconds) in &self.0 {
            while rest.next_if(|(other, _)| other < round).is_some() {}
            if let Some((_, other)) = rest.next_if(|(other, _)| other == round) {
                own.push(*seconds);
                theirs.push(*other);
            }
        }
        (own, theirs)
    }

    /// Times relative to a leader: its median times what these took in the rounds that
    /// both were in, so that drift of the machine favours neither; as they are where there is no
    /// such round. There is at least one. In few rounds it may be the leader that was disturbed:
    /// then no less than the least of these.
    pub fn relative_to(&self, leader: &Self) -> Timing {
        let timing = Timing::of(&self.seconds());
        let (ratio, rounds) = self.paired(leader);
        let fair = ratio.map_or(timing.median, |ratio| ratio * leader.median());
        let fair = if rounds < POLICY.race.rounds_together { fair.max(self.fastest()) } else { fair };
        timing.scaled(fair / timing.median)
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
        assert_eq!(of(&[(2, 3.0), (7, 12.0)]).paired(&leader), (Some(1.5), 2));
        // The leader was disturbed in round 3, and in more rounds that shows.
        assert_eq!(of(&[(3, 4.0)]).relative_to(&leader).median, 4.0);
        assert_eq!(of(&[(1, 1.1), (2, 2.2), (3, 4.4)]).relative_to(&leader).median, 3.0 * 1.1);
        assert_eq!((leader.median(), leader.fastest(), leader.last_round()), (3.0, 1.0, Some(7)));
        assert_eq!(leader.since(2), of(&[(3, 4.0), (7, 8.0)]));
        assert_eq!((of(&[]).median(), of(&[]).last_round()), (f64::INFINITY, None));
    }
}
