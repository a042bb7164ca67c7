//! Medians, and how far a median of paired ratios may be off.

use crate::util::random::unit;

/// The median; none of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| quantile(&sorted(values.to_vec()), 0.5))
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// A quantile of sorted values, at least one, interpolated linearly between the two next to it.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = (sorted.len() - 1) as f64 * q;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// A value and the interval that holds it in 95 of 100 cases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// Samples drawn anew for an interval.
const DRAWS: usize = 200;

/// The median of values with its interval, by the bootstrap: medians of as many values drawn with
/// replacement (B. Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979). None of
/// nothing.
pub fn interval(values: &[f64]) -> Option<Interval> {
    let value = median(values)?;
    let mut drawn = vec![0.0; values.len()];
    let median_of_draw = |draw: usize| {
        for (i, drawn) in drawn.iter_mut().enumerate() {
            let at = unit(23, draw as u64, i as u64) * values.len() as f64;
            *drawn = values[(at as usize).min(values.len() - 1)];
        }
        median(&drawn).unwrap_or(value)
    };
    let medians = sorted((0..DRAWS).map(median_of_draw).collect());
    Some(Interval { value, low: medians[DRAWS / 40], high: medians[DRAWS - 1 - DRAWS / 40] })
}

/// The ratio `a / b` of samples taken in the same rounds: its median, with its interval. None
/// without samples in common.
pub fn ratio(a: &[f64], b: &[f64]) -> Option<Interval> {
    let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b).collect();
    interval(&ratios)
}

/// Seconds of one candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    pub median: f64,
    /// First and third quartile.
    pub quartiles: [f64; 2],
    pub fastest: f64,
    /// How many runs there were.
    pub samples: usize,
}

impl Timing {
    /// The same for one that takes `factor` times as long.
    pub fn scaled(self, factor: f64) -> Self {
        let quartiles = self.quartiles.map(|quartile| quartile * factor);
        Self { median: self.median * factor, quartiles, fastest: self.fastest * factor, ..self }
    }

    /// Of at least one sample.
    pub fn of(samples: &[f64]) -> Self {
        let sorted = sorted(samples.to_vec());
        let at = |q: f64| quantile(&sorted, q);
        Self { median: at(0.5), quartiles: [at(0.25), at(0.75)], fastest: sorted[0], samples: sorted.len() }
    }
}

/// Nanoseconds, to a tenth.
pub fn ns(seconds: f64) -> f64 {
    (seconds * 1e10).round() / 10.0
}

/// Microseconds, to a thousandth.
pub fn us(seconds: f64) -> f64 {
    (seconds * 1e9).round() / 1e3
}

/// Relative L2 distance of two vectors: `|a - b| / |b|`.
pub fn relative_l2<A: Into<f64> + Copy, B: Into<f64> + Copy>(a: &[A], b: &[B]) -> f64 {
    let square = |x: f64| x * x;
    let distance: f64 = a.iter().zip(b).map(|(&a, &b)| square(a.into() - b.into())).sum();
    let length: f64 = b.iter().map(|&b| square(b.into())).sum();
    if distance == 0.0 { 0.0 } else { (distance / length).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(stream: u64, count: usize) -> Vec<f64> {
        (0..count as u64).map(|i| 1.0 + 0.1 * (unit(29, stream, i) - 0.5)).collect()
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn intervals_hold_the_true_median_in_most_cases_and_shrink_with_samples() {
        let holds = |count: usize| {
            let of = |stream| interval(&noise(stream, count)).expect("samples");
            let all: Vec<Interval> = (0..400).map(of).collect();
            let held = all.iter().filter(|i| (i.low..=i.high).contains(&1.0)).count();
            let width = all.iter().map(|i| i.high - i.low).sum::<f64>() / all.len() as f64;
            assert!(all.iter().all(|i| i.low <= i.value && i.value <= i.high));
            (held as f64 / 400.0, width)
        };
        let ((few, wide), (many, narrow)) = (holds(9), holds(40));
        assert!(few > 0.88 && many > 0.9, "{few}, {many}");
        assert!(narrow < 0.6 * wide, "{narrow}, {wide}");
    }

    #[test]
    fn what_slows_both_does_not_show_in_their_ratio() {
        let load: Vec<f64> = (0..20).map(|round| if round % 7 == 3 { 5.0 } else { 1.0 }).collect();
        let times = |stream, scale: f64| -> Vec<f64> {
            noise(stream, 20).iter().zip(&load).map(|(noise, load)| scale * noise * load).collect()
        };
        let ratio = ratio(&times(1, 1.2), &times(2, 1.0)).expect("samples");
        assert!(ratio.low > 1.1 && ratio.high < 1.3, "{ratio:?}");
    }
}
