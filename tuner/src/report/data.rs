//! A plan as the pictures show it: times that are none are gone, steps have a block and a family.

use engine::Plan;
use engine::plan::{CandidateOutcome, CandidateRecord, PlanStep, ProblemRecord, TimeUs};
use kernels::{Conv, entry};
use serde::Serialize;
use serde_json::Value;

/// A number that a plan may give as a time in microseconds: a nanosecond to eleven days.
fn is_time(us: f64) -> bool {
    (1e-3..=1e12).contains(&us)
}

/// Such a number; none if it is no time.
pub fn microseconds(us: Option<f64>) -> Option<f64> {
    us.filter(|us| is_time(*us))
}

/// A measured time; none if the median is no time. Quartiles that are not around it become it.
pub fn time(time: Option<TimeUs>) -> Option<TimeUs> {
    let TimeUs { median, low, high } = time.filter(|t| is_time(t.median))?;
    let low = if is_time(low) { low.min(median) } else { median };
    let high = if is_time(high) { high.max(median) } else { median };
    Some(TimeUs { median, low, high })
}

/// A number of a plan that must be above zero to mean something.
pub fn positive(value: Option<f64>) -> Option<f64> {
    value.filter(|v| *v > 0.0 && v.is_finite())
}

/// The family of a kernel; for an id that the table lacks, the id without its instruction set.
pub fn family(kernel: &str) -> &str {
    let bare = || ["_avx512", "_avx2", "_plain"].iter().find_map(|isa| kernel.strip_suffix(isa));
    entry(kernel).map_or_else(|| bare().unwrap_or(kernel), |row| row.family)
}

/// The convolution that a problem's name describes; none for a pool or softmax.
pub fn convolution(problem: &str) -> Option<Conv> {
    problem.split(':').next()?.parse().ok()
}

/// GFLOP/s of a convolution in a time.
pub fn gflops(conv: &Conv, us: f64) -> f64 {
    2.0 * conv.multiply_adds() as f64 / us / 1e3
}

pub struct StepView<'a> {
    pub step: &'a PlanStep,
    /// What comes before the first layer's point.
    pub block: &'a str,
    /// The first layer without its block, and how many more there are.
    pub layer: String,
    /// Family of its kernel.
    pub family: &'a str,
    pub time: Option<TimeUs>,
    pub gflops: Option<f64>,
}

impl<'a> StepView<'a> {
    fn of(step: &'a PlanStep) -> Self {
        let first = step.layers.first().map_or("", String::as_str);
        let (block, layer) = first.split_once('.').unwrap_or((first, first));
        let more = if step.layers.len() > 1 { format!(" +{}", step.layers.len() - 1) } else { String::new() };
        let time = time(step.time_us);
        let speed = |(conv, t): (Conv, TimeUs)| gflops(&conv, t.median / step.repeats as f64);
        Self {
            step,
            block,
            layer: format!("{layer}{more}"),
            family: family(&step.kernel),
            time,
            gflops: convolution(&step.problem)
                .zip(time)
                .map(speed)
                .or(time.and_then(|_| positive(step.gflops))),
        }
    }

    /// Median in microseconds; 0 where it was not measured.
    pub fn us(&self) -> f64 {
        self.time.map_or(0.0, |t| t.median)
    }
}

pub fn steps(plan: &Plan) -> Vec<StepView<'_>> {
    plan.steps.iter().map(StepView::of).collect()
}

/// Values by key, the keys in the order in which they appear.
pub fn group<K: PartialEq, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut groups: Vec<(K, Vec<V>)> = Vec::new();
    for (key, value) in pairs {
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups
}

/// Steps that have something in common, its name, and the sum of their medians.
#[derive(Debug, Serialize)]
pub struct Share<'a> {
    pub name: &'a str,
    pub steps: usize,
    pub time_us: f64,
    /// Of the time of all steps; 0 where none was measured.
    pub share: f64,
}

/// Sums the steps by a key, in order of first appearance.
pub fn shares<'a>(steps: &[StepView<'a>], key: impl Fn(&StepView<'a>) -> &'a str) -> Vec<Share<'a>> {
    let total = total(steps);
    let share = |(name, times): (&'a str, Vec<f64>)| {
        let time_us = times.iter().sum();
        let share = if total > 0.0 { time_us / total } else { 0.0 };
        Share { name, steps: times.len(), time_us, share }
    };
    group(steps.iter().map(|step| (key(step), step.us()))).into_iter().map(share).collect()
}

/// Shares by family, the largest first.
pub fn by_family<'a>(steps: &[StepView<'a>]) -> Vec<Share<'a>> {
    let mut shares = shares(steps, |step| step.family);
    shares.sort_by(|a, b| b.time_us.total_cmp(&a.time_us));
    shares
}

/// Sum of the medians in microseconds.
pub fn total(steps: &[StepView]) -> f64 {
    steps.iter().map(StepView::us).sum()
}

/// Part of a total in percent.
pub fn percent(part: f64, total: f64) -> String {
    if total > 0.0 { format!("{:.1}%", part / total * 100.0) } else { "-".to_string() }
}

/// A convolution problem, all that was measured of it, and the steps that compute it.
pub struct ProblemView<'a> {
    pub conv: Conv,
    /// The steps, in order; none if an edited plan has dropped them.
    pub steps: Vec<&'a PlanStep>,
    /// Its candidates; what the step itself says where the plan has no record.
    pub record: ProblemRecord,
    /// Name of its picture.
    pub file: String,
}

/// A candidate against the fastest of the same types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    Fastest,
    /// The interval of its ratio begins within the share that counts as a tie.
    Tie,
    Slower,
    /// It was not timed against another.
    Unknown,
}

impl Rank {
    pub fn of(plan: &Plan, candidate: &CandidateRecord) -> Self {
        let tie = positive(plan.noise.map(|noise| noise.tie)).unwrap_or(0.0);
        match candidate.ratio_ci95.filter(|_| candidate_time(candidate).is_some()) {
            Some([1.0, 1.0, 1.0]) => Self::Fastest,
            Some([_, low, _]) if low <= 1.0 + tie => Self::Tie,
            Some(_) => Self::Slower,
            None => Self::Unknown,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Fastest => "fastest of its types",
            Self::Tie => "tie",
            Self::Slower => "slower",
            Self::Unknown => "",
        }
    }
}

/// The time of a candidate whose results were right.
pub fn candidate_time(candidate: &CandidateRecord) -> Option<TimeUs> {
    time(candidate.time_us).filter(|_| !matches!(candidate.outcome, CandidateOutcome::Wrong { .. }))
}

impl ProblemView<'_> {
    /// The measured candidates of each kernel, the fastest first; the fastest kernel first.
    pub fn rows(&self) -> Vec<Vec<(&CandidateRecord, TimeUs)>> {
        let mut timed: Vec<(&CandidateRecord, TimeUs)> =
            self.record.candidates.iter().filter_map(|c| Some((c, candidate_time(c)?))).collect();
        timed.sort_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
        let by_kernel = group(timed.into_iter().map(|timed| (&timed.0.id.kernel, timed)));
        by_kernel.into_iter().map(|(_, candidates)| candidates).collect()
    }

    /// Steps that differ in kernel, tuning or formats, the first of each; most often one.
    pub fn choices(&self) -> Vec<&PlanStep> {
        let choices = group(self.steps.iter().map(|step| (step.id(), *step)));
        choices.into_iter().map(|(_, steps)| steps[0]).collect()
    }

    /// Reasons, with the ids of kernels that are left out and of candidates that are wrong.
    pub fn absent(&self) -> Vec<(String, Vec<String>)> {
        let left_out = self.record.excluded.iter().map(|(id, reason)| (reason_text(reason), id.clone()));
        let wrong = self.record.candidates.iter().filter(|c| candidate_time(c).is_none());
        let wrong = wrong.map(|c| (c.outcome.to_string(), c.id.to_string()));
        group(left_out.chain(wrong))
    }
}

/// Why a kernel is left out, as the plan says.
pub fn reason_text(reason: &Value) -> String {
    reason.as_str().map_or_else(|| reason.to_string(), str::to_string)
}

/// The measurements that a step was chosen by.
pub fn record<'a>(plan: &'a Plan, step: &PlanStep) -> Option<&'a ProblemRecord> {
    let plain = |problem: &str| problem.replace("average_counting_border", "average");
    plan.measurements.iter().find(|r| plain(&r.problem) == step.problem)
}

/// Whether a step's candidate was changed by hand: its isolated time is not what was measured of that
/// candidate. False where the plan does not say.
pub fn is_edited(plan: &Plan, step: &PlanStep) -> bool {
    let (Some(isolated_us), Some(record)) = (step.isolated_us, record(plan, step)) else { return false };
    let measured = record.candidates.iter().filter(|c| step.runs(&c.id)).filter_map(|c| c.time_us);
    // Both are rounded to a thousandth of a microsecond.
    let rounding = 1e-3 * (step.repeats as f64 + 1.0);
    !measured.into_iter().any(|time| (time.median * step.repeats as f64 - isolated_us).abs() <= rounding)
}

/// What a step says of its kernel and the runner-up, as a record.
fn record_of_step(step: &PlanStep) -> ProblemRecord {
    let candidate = |id, time_us| CandidateRecord { id, time_us, ..Default::default() };
    let mut candidates = vec![candidate(step.id(), step.time_us)];
    candidates.extend(step.runner_up.as_ref().map(|second| {
        let time = TimeUs { median: second.time_us, low: second.time_us, high: second.time_us };
        candidate(second.id.clone(), Some(time))
    }));
    ProblemRecord { problem: step.problem.clone(), candidates, ..Default::default() }
}

/// All distinct convolutions: those of the steps in order, then those that were only measured.
pub fn convolutions(plan: &Plan) -> Vec<ProblemView<'_>> {
    let steps = plan.steps.iter().map(|step| (&step.problem, Some(step)));
    let measured = plan.measurements.iter().map(|record| (&record.problem, None));
    let mut views: Vec<ProblemView> = Vec::new();
    for (name, steps) in group(steps.chain(measured)) {
        let Some(conv) = convolution(name) else { continue };
        let steps: Vec<&PlanStep> = steps.into_iter().flatten().collect();
        let known = plan.measurements.iter().find(|r| r.problem == *name).cloned();
        let Some(record) = known.or_else(|| Some(record_of_step(steps.first()?))) else { continue };
        let file = file_name(name, views.iter().map(|view| view.file.as_str()));
        views.push(ProblemView { conv, steps, record, file });
    }
    views
}

/// Name of a problem's picture: letters, digits and hyphens, unlike all others whatever the case.
fn file_name<'a>(problem: &str, others: impl Iterator<Item = &'a str> + Clone) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let slug: String = problem.chars().take(100).map(safe).collect();
    let numbered = |i: usize| if i < 2 { format!("conv-{slug}.svg") } else { format!("conv-{slug}-{i}.svg") };
    let is_free = |name: &String| others.clone().all(|other| other != name);
    (1..).map(numbered).find(is_free).expect("a number that none has")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_none_is_dropped_and_quartiles_lie_around_the_median() {
        let of = |median, low, high| time(Some(TimeUs { median, low, high }));
        for median in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(of(median, 1.0, 2.0), None, "{median}");
        }
        let expected = TimeUs { median: 5.0, low: 5.0, high: 5.0 };
        assert_eq!(of(5.0, f64::NAN, -3.0), Some(expected));
        assert_eq!(of(5.0, 7.0, 3.0), Some(expected));
    }

    #[test]
    fn problems_are_convolutions_or_not() {
        for name in ["n1h35w35c192k64r1s1", "n1h1w1c2048k1000r1s1:bias", "n1h35w35c192k64+48r1s1"] {
            assert!(convolution(name).is_some(), "{name}");
        }
        for name in ["max:n1h147w147c64r3s3u2", "softmax:n1c1000", "", ":", "../x", "n0h1w1c1k1r1s1"] {
            assert!(convolution(name).is_none(), "{name}");
        }
    }

    #[test]
    fn files_have_safe_and_distinct_names() {
        assert_eq!(file_name("n1h1:bias", [].into_iter()), "conv-n1h1-bias.svg");
        assert_eq!(file_name("../A", [].into_iter()), "conv----a.svg");
        assert_eq!(file_name("a:b", ["conv-a-b.svg", "conv-a-b-2.svg"].into_iter()), "conv-a-b-3.svg");
    }

    #[test]
    fn families_are_those_of_the_table_or_the_bare_id() {
        assert_eq!(["direct_avx2", "fft_avx512", "other"].map(family), ["direct", "fft", "other"]);
    }
}
