//! The sloped roofs of a roofline: what the cores read, and which limit a step is nearest to.

use std::fmt;

use engine::Plan;
use engine::plan::MemoryLevel;

use crate::report::canvas::{Canvas, Drawn, GREY, INK, SMALL, text_style, text_width};
use crate::report::charts::list;
use crate::report::data::{percent, positive};
use crate::report::text::{count, short};
use crate::report::traffic::Work;

/// What all threads read from a level, in GB a second.
pub struct Roof {
    pub level: MemoryLevel,
    pub rate: f64,
}

/// Those that the plan has, L1 first; none of an earlier plan.
pub fn roofs(plan: &Plan) -> Vec<Roof> {
    let rate = |level| Some(positive(plan.bandwidth?.get(level))? * plan.threads as f64);
    MemoryLevel::ALL.into_iter().filter_map(|level| Some(Roof { level, rate: rate(level)? })).collect()
}

/// The peak of the instructions that a step's kernel uses, on all threads.
pub fn peak(plan: &Plan, work: &Work) -> Option<f64> {
    let step = work.view.step;
    let record = plan.measurements.iter().find(|record| record.problem == step.problem)?;
    positive(Some(record.conditions.as_ref()?.peak(&step.kernel)? * plan.threads as f64))
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    Arithmetic,
    Reading(MemoryLevel),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Arithmetic => f.write_str("arithmetic"),
            Self::Reading(level) => level.fmt(f),
        }
    }
}

/// The limit that a step is nearest to, and the share of its time for which it would be at it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    pub limit: Limit,
    pub share: f64,
}

/// A step is this much faster than a roof by chance.
const CHANCE: f64 = 1.05;

/// Arithmetic takes the executed operations at the peak. Reading takes the bytes at the roof of the
/// level that is furthest from the cores and that can deliver them in the step's time. None where
/// neither is known.
pub fn bound(work: &Work, peak: Option<f64>, roofs: &[Roof]) -> Option<Bound> {
    let bytes = positive(Some(work.effective / work.intensity))?;
    let furthest = roofs.iter().rev().find(|roof| bytes <= CHANCE * roof.rate);
    let reading = furthest.map(|roof| Bound { limit: Limit::Reading(roof.level), share: bytes / roof.rate });
    let arithmetic = peak.map(|peak| Bound { limit: Limit::Arithmetic, share: work.executed / peak });
    arithmetic.into_iter().chain(reading).max_by(|a, b| a.share.total_cmp(&b.share))
}

/// Steps that a sentence names.
const NAMED: usize = 6;

/// Which steps are nearest to which limit, a sentence a limit; nothing without roofs.
pub fn sentences(plan: &Plan, works: &[Work], roofs: &[Roof]) -> Vec<String> {
    if roofs.is_empty() {
        return Vec::new();
    }
    let bounds: Vec<_> = works.iter().map(|work| bound(work, peak(plan, work), roofs)).collect();
    let total = works.iter().map(|work| work.view.us()).sum();
    let limits = MemoryLevel::ALL.into_iter().rev().map(Limit::Reading);
    let sentence = |limit: Limit| {
        let is_of = |bound: &Option<Bound>| bound.is_some_and(|bound| bound.limit == limit);
        let mut of: Vec<&Work> =
            works.iter().zip(&bounds).filter(|(_, bound)| is_of(bound)).map(|(w, _)| w).collect();
        of.sort_by(|a, b| b.view.us().total_cmp(&a.view.us()));
        let time = of.iter().map(|work| work.view.us()).sum();
        let names: Vec<String> = of.iter().map(|work| work.view.step.layers.join("+")).collect();
        let what = match limit {
            Limit::Arithmetic => "the peak of the arithmetic".to_string(),
            Limit::Reading(MemoryLevel::Memory) => "the roof of the memory".to_string(),
            Limit::Reading(level) => format!("the roof of {level}"),
        };
        let steps = count(of.len(), "step");
        let is = if of.len() == 1 { "is" } else { "are" };
        let share = percent(time, total);
        (!of.is_empty()).then(|| {
            format!("{steps} with {share} of the time {is} nearest to {what}: {}.", list(&names, NAMED))
        })
    };
    std::iter::once(Limit::Arithmetic).chain(limits).filter_map(sentence).collect()
}

/// Where the axis of a chart has values: those of the points, where the roofs meet the highest peak,
/// and room for the names on both sides.
pub fn intensities(points: &[f64], roofs: &[Roof], highest: f64) -> Vec<f64> {
    let ridges: Vec<f64> = roofs.iter().map(|roof| highest / roof.rate).collect();
    let all = || points.iter().chain(&ridges).copied().filter(|value| *value > 0.0);
    let (least, most) = all().fold((f64::INFINITY, 0.0f64), |(a, b), value| (a.min(value), b.max(value)));
    let room = 2.0 * (most / least).max(1.0).powf(0.2);
    let rooms = ridges.iter().map(|ridge| ridge * room).chain(ridges.first().map(|ridge| ridge / 2.0));
    all().chain(rooms).collect()
}

/// Height of a row of names.
pub const ROW: i32 = 15;

/// The name of a roof above a chart, and where its line ends.
pub struct Name {
    text: String,
    left: i32,
    end: i32,
    /// From the chart upwards.
    pub row: i32,
}

/// Names of roofs whose lines end at some place: each begins at its line or, near the right end, so
/// that it fits, and is in a row of its own where it would lie on one further right. So a line that
/// leads up to a name meets no other.
pub fn names(roofs: &[Roof], end: impl Fn(&Roof) -> i32, right: i32) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    let mut ends: Vec<(&Roof, i32)> = roofs.iter().map(|roof| (roof, end(roof))).collect();
    ends.sort_by_key(|(_, end)| std::cmp::Reverse(*end));
    for (roof, end) in ends {
        let text = format!("{}: {} GB/s", roof.level, short(roof.rate));
        let width = text_width(&text, SMALL);
        let left = end.min(right - width);
        let below = names.iter().filter(|name| name.left < left + width + GAP).map(|name| name.row + 1);
        names.push(Name { row: below.max().unwrap_or(0), text, left, end });
    }
    names
}

/// Pixels between two names.
const GAP: i32 = 10;

pub fn draw_names(canvas: &Canvas, names: &[Name], top: i32) -> Drawn {
    for Name { text, left, end, row } in names {
        let bottom = top - ROW * row;
        canvas.line((*end, top), (*end, bottom), GREY)?;
        canvas.text(text, (*left, bottom - ROW / 2), text_style(SMALL, INK))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use engine::plan::BandwidthRecord;

    use super::*;
    use crate::report::data::steps;
    use crate::report::tests::plan;
    use crate::report::traffic::works;

    fn roof(level: MemoryLevel, rate: f64) -> Roof {
        Roof { level, rate }
    }

    #[test]
    fn names_lie_on_no_other_and_on_no_line() {
        let rates = [[400.0, 390.0, 380.0, 370.0], [400.0, 200.0, 60.0, 20.0], [1e9, 300.0, 1e-3, 1e-9]];
        for (rates, right) in rates.into_iter().flat_map(|rates| [700, 1000].map(|right| (rates, right))) {
            let roofs: Vec<Roof> =
                MemoryLevel::ALL.into_iter().zip(rates).map(|(level, rate)| roof(level, rate)).collect();
            let end = |roof: &Roof| (1000.0 - 100.0 * roof.rate.log10()).clamp(90.0, 990.0) as i32;
            let names = names(&roofs, |roof| end(roof).min(right - 10), right);
            for (i, name) in names.iter().enumerate() {
                let last = |name: &Name| name.left + text_width(&name.text, SMALL);
                assert!(last(name) <= right, "{} is cut", name.text);
                for other in &names[i + 1..] {
                    let is_apart = last(other) < name.left || last(name) < other.left;
                    assert!(name.row != other.row || is_apart, "{} is on {}", name.text, other.text);
                }
            }
        }
    }

    #[test]
    fn a_step_is_bound_by_what_would_take_the_longest() {
        let plan = plan();
        let steps = steps(&plan);
        let mut work = works(&steps).remove(0);
        // 20 GB/s, and 60 G operations a second.
        (work.intensity, work.effective, work.executed) = (5.0, 100.0, 60.0);
        let of = |peak, roofs: &[Roof]| bound(&work, peak, roofs).map(|bound| (bound.limit, bound.share));
        let [l3, memory] = [roof(MemoryLevel::L3, 50.0), roof(MemoryLevel::Memory, 25.0)];
        let roofs = [l3, memory];
        assert_eq!(of(Some(66.0), &roofs), Some((Limit::Arithmetic, 60.0 / 66.0)));
        assert_eq!(of(Some(100.0), &roofs), Some((Limit::Reading(MemoryLevel::Memory), 0.8)));
        // Memory that is slower can not have been what it has read from.
        let roofs = [roof(MemoryLevel::L3, 50.0), roof(MemoryLevel::Memory, 10.0)];
        assert_eq!(of(None, &roofs), Some((Limit::Reading(MemoryLevel::L3), 0.4)));
        assert_eq!(of(None, &[]), None);
    }

    #[test]
    fn each_limit_that_steps_are_near_to_has_a_sentence() {
        let bandwidth = BandwidthRecord::of([None, None, None, Some(1.0)]);
        let plan = Plan { bandwidth: Some(bandwidth), ..plan() };
        let steps = steps(&plan);
        let text = sentences(&plan, &works(&steps), &roofs(&plan)).join("\n");
        assert!(text.starts_with("2 steps with 100.0% of the time are nearest to "), "{text}");
        assert!(text.contains("mixed0.branch1x1"), "{text}");
        assert_eq!(sentences(&plan, &works(&steps), &[]), Vec::<String>::new());
    }
}
