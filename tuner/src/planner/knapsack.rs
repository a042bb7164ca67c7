//! One candidate for each step: the least time within limits on what all of them cost together.
//!
//! This is a multiple-choice knapsack. From the fastest candidates on, the step is changed whose
//! other candidate brings the sums nearest to their limits for the time that it costs, until they
//! are kept: the greedy walk along the convex hulls, as a Lagrange multiplier would, off the
//! optimum by less than one step. Scratch is no sum, since the steps share it: each size that a
//! candidate has is tried as a cap.

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    pub seconds: f64,
    /// Its share of the squared error of the network.
    pub error: f64,
    /// Bytes of packed weights.
    pub packed: usize,
    /// Bytes of scratch.
    pub scratch: usize,
}

/// What all steps may cost together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Sum of the squared errors.
    pub error: f64,
    /// Bytes of all packed weights and the largest scratch.
    pub memory: usize,
}

impl Limits {
    pub const NONE: Self = Self { error: f64::INFINITY, memory: usize::MAX };
}

pub fn total<'a>(costs: impl IntoIterator<Item = &'a Cost>) -> Cost {
    costs.into_iter().fold(Cost::default(), |sum, cost| Cost {
        seconds: sum.seconds + cost.seconds,
        error: sum.error + cost.error,
        packed: sum.packed + cost.packed,
        scratch: sum.scratch.max(cost.scratch),
    })
}

/// The costs of picks; a step without candidates has none.
pub fn picked<'a>(steps: &'a [Vec<Cost>], picks: &'a [usize]) -> impl Iterator<Item = &'a Cost> {
    steps.iter().zip(picks).filter_map(|(step, &pick)| step.get(pick))
}

/// The number of a candidate for each step, or none if no choice keeps the limits. The first
/// candidate of a step is taken unless the limits ask for another. A step without candidates costs
/// nothing.
pub fn choose(steps: &[Vec<Cost>], limits: &Limits) -> Option<Vec<usize>> {
    let seconds = |picks: &Vec<usize>| total(picked(steps, picks)).seconds;
    let within_caps = caps(steps, limits).into_iter().filter_map(|cap| {
        let packed = if limits.memory == usize::MAX { usize::MAX } else { limits.memory.checked_sub(cap)? };
        Walk { steps, cap, packed, error: limits.error }.walk()
    });
    within_caps.min_by(|a, b| seconds(a).total_cmp(&seconds(b)))
}

/// The least bytes of packed weights and scratch that any choice has.
pub fn least_memory(steps: &[Vec<Cost>]) -> usize {
    let with_cap = |cap: usize| {
        let least = |step: &Vec<Cost>| step.iter().filter(|c| c.scratch <= cap).map(|c| c.packed).min();
        let sizes = steps.iter().filter(|step| !step.is_empty()).map(least);
        Some(sizes.sum::<Option<usize>>()? + cap)
    };
    let limits = Limits { memory: 0, ..Limits::NONE };
    caps(steps, &limits).into_iter().filter_map(with_cap).min().unwrap_or(0)
}

/// Sizes of scratch that are worth a try as the largest.
fn caps(steps: &[Vec<Cost>], limits: &Limits) -> Vec<usize> {
    if limits.memory == usize::MAX {
        return vec![usize::MAX];
    }
    let mut caps: Vec<usize> = steps.iter().flatten().map(|cost| cost.scratch).chain([0]).collect();
    caps.sort_unstable();
    caps.dedup();
    caps
}

/// Sums that differ by less are equal: a change and its reverse must not both be progress.
const ROUNDING: f64 = 1e-9;

/// Limits with a cap on scratch.
struct Walk<'a> {
    steps: &'a [Vec<Cost>],
    cap: usize,
    packed: usize,
    error: f64,
}

impl Walk<'_> {
    /// How far the sums are above their limits, as shares of these.
    fn excess(&self, sum: &Cost) -> f64 {
        let over = |sum: f64, limit: f64| {
            let share = (sum - limit) / limit.max(1e-300);
            if share > ROUNDING { share } else { 0.0 }
        };
        over(sum.error, self.error) + over(sum.packed as f64, self.packed as f64)
    }

    /// All changes of one step from the given picks: step, candidate, sums with it.
    fn changes(&self, picks: &[usize], sum: Cost) -> impl Iterator<Item = (usize, usize, Cost)> {
        self.steps.iter().enumerate().flat_map(move |(step, costs)| {
            let changed = move |(candidate, to): (usize, &Cost)| {
                let from = costs[picks[step]];
                let with = Cost {
                    seconds: sum.seconds - from.seconds + to.seconds,
                    error: sum.error - from.error + to.error,
                    packed: sum.packed - from.packed + to.packed,
                    scratch: sum.scratch,
                };
                (to.scratch <= self.cap).then_some((step, candidate, with))
            };
            costs.iter().enumerate().filter_map(changed)
        })
    }

    fn walk(&self) -> Option<Vec<usize>> {
        let first = |step: &Vec<Cost>| match step.is_empty() {
            true => Some(0),
            false => step.iter().position(|cost| cost.scratch <= self.cap),
        };
        let start: Vec<usize> = self.steps.iter().map(first).collect::<Option<_>>()?;
        let mut picks = start.clone();
        loop {
            let sum = total(picked(self.steps, &picks));
            let excess = self.excess(&sum);
            if excess == 0.0 {
                break;
            }
            let rate = |with: &Cost| (excess - self.excess(with)) / (with.seconds - sum.seconds).max(1e-12);
            let better = |with: &Cost| excess - self.excess(with) > 1e-3 * ROUNDING * (1.0 + excess);
            let changes = self.changes(&picks, sum).filter(|(_, _, with)| better(with));
            let (step, candidate, _) = changes.max_by(|a, b| rate(&a.2).total_cmp(&rate(&b.2)))?;
            picks[step] = candidate;
        }
        // The last change may have made earlier ones needless.
        loop {
            let sum = total(picked(self.steps, &picks));
            let back = |(step, _, with): &(usize, usize, Cost)| {
                picks[*step] != start[*step]
                    && with.seconds < sum.seconds * (1.0 - ROUNDING)
                    && self.excess(with) == 0.0
            };
            let changes = self.changes(&picks, sum).filter(back);
            match changes.min_by(|a, b| a.2.seconds.total_cmp(&b.2.seconds)) {
                Some((step, candidate, _)) => picks[step] = candidate,
                None => return Some(picks),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::util::unit;

    use super::*;

    /// Steps whose faster candidates err more and take more memory, by and large.
    fn random(seed: u64, steps: usize, candidates: usize) -> Vec<Vec<Cost>> {
        let cost = |step: usize, i: usize| {
            let value = |stream| unit(seed, stream, (step * candidates + i) as u64);
            Cost {
                seconds: 1.0 + i as f64 + value(0),
                error: (1.0 + value(1)) / (1 + i * i) as f64,
                packed: (1000.0 * (1.0 + value(2)) / (1 + i) as f64) as usize,
                scratch: (200.0 * value(3)) as usize,
            }
        };
        (0..steps).map(|step| (0..candidates).map(|i| cost(step, i)).collect()).collect()
    }

    fn exhaustive(steps: &[Vec<Cost>], limits: &Limits) -> Option<f64> {
        let choices = steps.iter().map(Vec::len).product::<usize>();
        let picks = |mut code: usize| -> Vec<usize> {
            let digit = |step: &Vec<Cost>| (code % step.len(), code /= step.len()).0;
            steps.iter().map(digit).collect()
        };
        let sums = (0..choices).map(|code| total(picked(steps, &picks(code))));
        let kept = sums.filter(|sum| sum.error <= limits.error && sum.packed + sum.scratch <= limits.memory);
        kept.map(|sum| sum.seconds).min_by(f64::total_cmp)
    }

    #[test]
    fn without_limits_every_step_keeps_its_first_candidate() {
        let steps = random(1, 6, 4);
        assert_eq!(choose(&steps, &Limits::NONE), Some(vec![0; 6]));
        assert_eq!(choose(&[Vec::new()], &Limits { error: 0.0, memory: 0 }), Some(vec![0]));
    }

    #[test]
    fn limits_are_kept_wherever_they_can_be_in_nearly_the_least_time() {
        let mut ratios = Vec::new();
        for seed in 0..200 {
            let steps = random(seed, 6, 4);
            let (loose, tight) = (total(steps.iter().map(|s| &s[0])), total(steps.iter().map(|s| &s[3])));
            let part = |stream: u64| unit(seed, 10 + stream, 0);
            let error = tight.error + part(0) * (loose.error - tight.error);
            let memory =
                (tight.packed as f64 + part(1) * (loose.packed as f64 - tight.packed as f64)) as usize;
            for limits in [
                Limits { error, ..Limits::NONE },
                Limits { memory: memory + 200, ..Limits::NONE },
                Limits { error, memory: memory + 200 },
            ] {
                let least = exhaustive(&steps, &limits);
                let Some(picks) = choose(&steps, &limits) else {
                    assert_eq!(least, None, "seed {seed}, {limits:?}");
                    continue;
                };
                let sum = total(picked(&steps, &picks));
                assert!(
                    sum.error <= limits.error * (1.0 + 2.0 * ROUNDING),
                    "seed {seed}: {sum:?}, {limits:?}"
                );
                assert!(sum.packed + sum.scratch <= limits.memory, "seed {seed}: {sum:?}, {limits:?}");
                ratios.push(sum.seconds / least.expect("there is a choice"));
            }
        }
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        assert!(ratios.len() > 400 && mean < 1.03, "{mean} times the least time on average");
    }

    #[test]
    fn the_least_memory_is_what_a_choice_can_have_and_no_less() {
        for seed in 0..20 {
            let steps = random(seed, 6, 4);
            let memory = least_memory(&steps);
            assert!(choose(&steps, &Limits { memory, ..Limits::NONE }).is_some());
            assert_eq!(choose(&steps, &Limits { memory: memory - 1, ..Limits::NONE }), None);
        }
    }
}
