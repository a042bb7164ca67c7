//! Intervals of medians whose confidence is chosen, and what they tell.

use engine::util::Interval;
use serde::Serialize;

/// What an interval of a ratio B / A tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// B is faster, by more than a tie.
    Faster,
    Slower,
    /// Whatever the ratio is, it is a tie.
    Same,
    /// The interval is too wide.
    CannotTell,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.pad(match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::Same => "same",
            Self::CannotTell => "cannot tell",
        })
    }
}

/// A difference has to be beyond the noise, by its interval, and beyond a tie, by its value. An
/// interval within a tie says that there is none.
pub fn verdict(ratio: Option<Interval>, tie: f64) -> Verdict {
    let (low, high) = (1.0 / (1.0 + tie), 1.0 + tie);
    match ratio {
        Some(ratio) if ratio.low > 1.0 && ratio.value > high => Verdict::Slower,
        Some(ratio) if ratio.high < 1.0 && ratio.value < low => Verdict::Faster,
        Some(ratio) if ratio.low >= low && ratio.high <= high => Verdict::Same,
        _ => Verdict::CannotTell,
    }
}

/// The median of values, with an interval that misses the true one in at most a share `error` of
/// cases, whatever the distribution: from the `k`-th value to the `k`-th from above, for the largest
/// `k` for which so few of `n` values are below a median by chance (W. J. Conover, "Practical
/// Nonparametric Statistics", confidence intervals for quantiles). None of too few values.
pub fn median_interval(values: &[f64], error: f64) -> Option<Interval> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    // The chance that exactly 0, 1, 2, ... of n are below the median, summed up.
    let mut chance = 0.5f64.powi(i32::try_from(n).ok()?);
    let (mut sum, mut k) = (0.0, 0);
    while k < n.div_ceil(2) && 2.0 * (sum + chance) <= error {
        sum += chance;
        chance *= (n - k) as f64 / (k + 1) as f64;
        k += 1;
    }
    let value = engine::util::median(values)?;
    (k > 0).then(|| Interval { value, low: sorted[k - 1], high: sorted[n - k] })
}

/// By how many standard deviations a normal variable is off in a share `error` of cases, either way
/// (M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions", 26.2.23; off by less than
/// 5e-4).
pub fn normal_deviate(error: f64) -> f64 {
    let t = (-2.0 * (error / 2.0).ln()).sqrt();
    let above = 2.515517 + t * (0.802853 + t * 0.010328);
    let below = 1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308));
    t - above / below
}

#[cfg(test)]
mod tests {
    use engine::util::unit;

    use super::*;

    #[test]
    fn a_difference_is_beyond_its_interval_and_beyond_a_tie() {
        let of = |value, low, high| verdict(Some(Interval { value, low, high }), 0.01);
        assert_eq!(of(1.10, 1.05, 1.20), Verdict::Slower);
        assert_eq!(of(0.90, 0.80, 0.95), Verdict::Faster);
        assert_eq!(of(1.004, 1.002, 1.008), Verdict::Same);
        assert_eq!(of(1.004, 0.95, 1.03), Verdict::CannotTell);
        assert_eq!(of(1.20, 0.99, 1.50), Verdict::CannotTell);
        assert_eq!(verdict(None, 0.01), Verdict::CannotTell);
    }

    #[test]
    fn intervals_of_medians_are_of_the_ranks_that_tables_give() {
        // For n = 20: P(X <= 5) = 0.0207, P(X <= 2) = 0.0002.
        let values: Vec<f64> = (1..=20).map(f64::from).collect();
        let at = |error| median_interval(&values, error).map(|i| [i.value, i.low, i.high]);
        assert_eq!(at(0.05), Some([10.5, 6.0, 15.0]));
        assert_eq!(at(0.001), Some([10.5, 3.0, 18.0]));
        assert_eq!(at(1e-6), None);
        assert_eq!(median_interval(&[], 0.05), None);
    }

    #[test]
    fn intervals_miss_as_seldom_as_they_say() {
        let misses = (0..2000).filter(|&stream| {
            let values: Vec<f64> = (0..15).map(|i| unit(31, stream, i)).collect();
            let interval = median_interval(&values, 0.05).expect("enough values");
            !(interval.low..=interval.high).contains(&0.5)
        });
        let share = misses.count() as f64 / 2000.0;
        assert!(share <= 0.05 && share > 0.01, "{share}");
    }

    #[test]
    fn normal_deviates_are_those_of_tables() {
        for (error, expected) in [(0.05, 1.95996), (0.01, 2.57583), (0.001, 3.29053)] {
            assert!((normal_deviate(error) - expected).abs() < 5e-4, "{error}");
        }
    }
}
