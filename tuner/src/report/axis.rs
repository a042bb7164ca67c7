//! Logarithmic axes.

/// A range of positive values on so many pixels.
#[derive(Clone, Copy, Debug)]
pub struct LogAxis {
    from: f64,
    to: f64,
    pixels: i32,
}

impl LogAxis {
    /// An axis with room around all values, of which those that are not positive count as one.
    pub fn of(values: impl Iterator<Item = f64>, pixels: i32) -> Self {
        let values = values.filter(|value| value.is_finite() && *value > 0.0);
        let (least, most) = values.fold((f64::INFINITY, 0.0f64), |(a, b), v| (a.min(v), b.max(v)));
        let (least, most) = if least > most { (1.0, 1.0) } else { (least, most) };
        Self { from: least.log10() - 0.12, to: most.log10() + 0.12, pixels }
    }

    /// An axis of ratios with little room around them, of which 1 is in the middle.
    pub fn around(ratios: impl Iterator<Item = f64>, pixels: i32) -> Self {
        let off = ratios.filter(|ratio| *ratio > 0.0).map(|ratio| ratio.log10().abs()).fold(0.0, f64::max);
        Self { from: -1.1 * off, to: 1.1 * off, pixels }
    }

    /// Some round values at equal distances.
    pub fn linear_marks(&self) -> Vec<f64> {
        let (from, to) = (10f64.powf(self.from), 10f64.powf(self.to));
        let step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].into_iter().find(|step| (to - from) / step <= 12.0);
        let step = step.unwrap_or(1.0);
        let marks = (from / step).ceil() as i64..=(to / step).floor() as i64;
        marks.map(|mark| mark as f64 * step).collect()
    }

    /// Pixels from the start of the axis to a value.
    pub fn at(&self, value: f64) -> i32 {
        let share = (value.max(f64::MIN_POSITIVE).log10() - self.from) / (self.to - self.from);
        (share.clamp(0.0, 1.0) * f64::from(self.pixels)).round() as i32
    }

    /// The least and the largest value on the axis.
    pub fn ends(&self) -> [f64; 2] {
        [self.from, self.to].map(|end| 10f64.powf(end))
    }

    /// Values of one digit on the axis, fewer of them where it spans many decades.
    pub fn marks(&self) -> Vec<f64> {
        let digits: &[f64] = match self.to - self.from {
            decades if decades < 1.0 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
            decades if decades < 3.0 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let decades = self.from.floor() as i32..=self.to.ceil() as i32;
        let all = decades.flat_map(|decade| digits.iter().map(move |digit| digit * 10f64.powi(decade)));
        all.filter(|mark| (self.from..=self.to).contains(&mark.log10())).collect()
    }
}

/// A mark without digits that say nothing.
pub fn mark_text(mark: f64) -> String {
    if (1e-4..1e7).contains(&mark) {
        format!("{}", (mark * 1e6).round() / 1e6)
    } else {
        format!("{mark:.0e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_order_between_the_ends() {
        let axis = LogAxis::of([3.0, 700.0, f64::NAN, 0.0].into_iter(), 500);
        let at = [3.0, 30.0, 700.0].map(|value| axis.at(value));
        assert!(0 < at[0] && at[0] < at[1] && at[1] < at[2] && at[2] < 500, "{at:?}");
        assert_eq!(axis.marks(), [5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]);
        assert_eq!([0.002, 50.0, 1e8].map(mark_text), ["0.002", "50", "1e8"]);
    }

    #[test]
    fn ratios_lie_around_one_with_marks_at_equal_distances() {
        let axis = LogAxis::around([0.97, 1.1].into_iter(), 100);
        assert_eq!(axis.at(1.0), 50);
        let marks = axis.linear_marks();
        assert!(marks.len() > 4 && marks.iter().any(|mark| (mark - 1.0).abs() < 1e-9), "{marks:?}");
    }

    #[test]
    fn an_axis_without_values_is_one() {
        let axis = LogAxis::of([].into_iter(), 100);
        assert_eq!(axis.at(1.0), 50);
        assert!(!axis.marks().is_empty());
    }
}
