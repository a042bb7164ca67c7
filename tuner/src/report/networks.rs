//! Whole networks as bars: by way of choosing, by error, by threads and batch, by streams.

use engine::plan::{NetworkRecord, ParetoPoint, Plan, StreamsRecord, TimeUs};
use plotters::style::RGBColor;

use crate::report::bars::{Bar, Bars};
use crate::report::canvas::{DrawError, OTHER, colour, rgb};
use crate::report::charts::setting;
use crate::report::data::{positive, time};
use crate::report::text::{count, date, short};

/// The tuned plan's bar; no family has this colour.
const TUNED: RGBColor = rgb(0x6a6a6a);

/// The networks that were timed, the fastest first.
pub fn timed(plan: &Plan) -> Vec<(&NetworkRecord, TimeUs)> {
    let timed = plan.networks.iter().filter_map(|record| Some((record, time(Some(record.time_us))?)));
    let mut timed: Vec<_> = timed.collect();
    timed.sort_by(|(_, a), (_, b)| a.median.total_cmp(&b.median));
    timed
}

/// Times of whole networks.
pub fn contest(plan: &Plan) -> Result<String, DrawError> {
    let timed = timed(plan);
    let bar = |(record, t): &(&NetworkRecord, TimeUs)| {
        let [ms, low, high] = [t.median, t.low, t.high].map(|us| us / 1e3);
        let own = &plan.networks[0];
        let is_tuned = std::ptr::eq(*record, own);
        let ratio = positive(Some(record.ratio(own))).filter(|_| !is_tuned);
        let ratio = ratio.map(|ratio| format!(", {}", times_text(ratio, "the plan", record.interval())));
        let runs = record.runs.map_or(String::new(), |runs| format!(", {}", count(runs, "run")));
        Bar {
            label: record.network.to_string(),
            sublabel: String::new(),
            bold: is_tuned,
            colour: if is_tuned { TUNED } else { OTHER },
            value: ms,
            quartiles: [low, high],
            ticks: Vec::new(),
            pointer: None,
            text: [
                format!("{} ms{}", short(ms), ratio.unwrap_or_default()),
                format!("quartiles {} .. {} ms{runs}", short(low), short(high)),
            ],
        }
    };
    let mut notes = Vec::new();
    if !timed.is_empty() {
        let note = "The networks ran in turn, so that whatever slowed the machine slowed them alike. \
                    A ratio is the median of the rounds, with the interval that holds it in 95 of 100 cases.";
        notes.push(note.to_string());
        let left_out = plan.networks.len() - timed.len();
        notes.extend((left_out > 0).then(|| format!("{} without a time left out.", count(left_out, "plan"))));
    }
    let bars = Bars {
        title: format!("{}: the whole network, by way of choosing kernels", plan.model),
        subtitle: vec![setting(plan)],
        axis: "ms an inference, median".to_string(),
        bars: timed.iter().map(bar).collect(),
        without: "the plan has no contest of whole networks",
        notes,
    };
    bars.draw()
}

/// What an error bound costs: plans from the fastest to the most exact.
pub fn pareto(plan: &Plan) -> Result<String, DrawError> {
    let steps = plan.steps.len();
    let bar = |point: &ParetoPoint| {
        let ParetoPoint { time_us, rel_error, bf16_steps, u8_steps, .. } = *point;
        let [ms, low, high] = [time_us.median, time_us.low, time_us.high].map(|us| us / 1e3);
        let lower = match (bf16_steps, u8_steps) {
            (0, _) => "all in f32".to_string(),
            (lower, 0) => format!("{lower} of {steps} steps below f32"),
            (lower, in_u8) => format!("{lower} of {steps} steps below f32, {in_u8} in u8"),
        };
        let is_kept = rel_error <= plan.max_rel_error;
        Bar {
            label: format!("{rel_error:.1e}"),
            sublabel: if is_kept { "keeps the bound" } else { "exceeds the bound" }.to_string(),
            bold: is_kept,
            colour: colour(if u8_steps > 0 {
                "direct_int8"
            } else if bf16_steps > 0 {
                "direct_bf16"
            } else {
                "direct"
            }),
            value: ms,
            quartiles: [low, high],
            ticks: Vec::new(),
            pointer: None,
            text: [format!("{} ms", short(ms)), lower],
        }
    };
    let bars = Bars {
        title: format!("{}: time by the error of the features", plan.model),
        subtitle: vec![setting(plan)],
        axis: "ms an inference, median".to_string(),
        bars: plan.pareto.iter().map(bar).collect(),
        without: "no plans were measured",
        notes: vec!["No plan is both slower and less exact than another; all ran in turn.".to_string()],
    };
    bars.draw()
}

/// A plan for other threads or another batch, and the images a second that it gives.
pub struct Scale<'a> {
    pub plan: &'a Plan,
    pub rate: f64,
}

/// The plans with a measured time, by threads and batch; the newest of those for the same.
pub fn scales<'a>(plans: impl Iterator<Item = &'a Plan>) -> Vec<Scale<'a>> {
    let scale = |plan: &'a Plan| {
        let ms = positive(plan.measured_ms)?;
        let rate = plan.batch as f64 / ms * 1e3;
        is_rate(rate).then_some(Scale { plan, rate })
    };
    let mut scales: Vec<Scale> = plans.filter_map(scale).collect();
    let key = |scale: &Scale| (scale.plan.threads, scale.plan.batch);
    scales.sort_by_key(|scale| (key(scale), std::cmp::Reverse(scale.plan.created)));
    scales.dedup_by_key(|scale| key(scale));
    scales
}

/// Images a second of plans that differ in threads and batch.
pub fn scaling(plan: &Plan, scales: &[Scale]) -> Result<String, DrawError> {
    let bar = |Scale { plan: other, rate }: &Scale| {
        let is_own = (other.threads, other.batch) == (plan.threads, plan.batch);
        let ms = other.measured_ms.unwrap_or_default();
        Bar {
            label: format!("{}, batch {}", count(other.threads, "thread"), other.batch),
            sublabel: if is_own { "this plan".to_string() } else { String::new() },
            bold: is_own,
            colour: if is_own { TUNED } else { OTHER },
            value: *rate,
            quartiles: [*rate; 2],
            ticks: Vec::new(),
            pointer: None,
            text: [
                format!("{} images/s", short(*rate)),
                format!("{} ms an inference, {}", short(ms), date(other.created)),
            ],
        }
    };
    let bars = Bars {
        title: format!("{}: images a second by threads and batch", plan.model),
        subtitle: vec![setting(plan)],
        axis: "images a second".to_string(),
        bars: scales.iter().map(bar).collect(),
        without: "no plan has a measured time",
        notes: vec!["The plans of this model and error bound in the same folder. Each was measured when it was made, \
                     not in turn with the others."
            .to_string()],
    };
    bars.draw()
}

/// Images a second of inferences at the same time.
pub fn streams(plan: &Plan) -> Result<String, DrawError> {
    let bar = |record: &StreamsRecord| {
        let rate = record.images_per_second;
        let ratio = record.ratio_ci95.filter(|ratio| ratio.iter().all(|r| r.is_finite()));
        let ratio = ratio
            .map(|[ratio, low, high]| times_text(ratio, "one inference after the other", Some([low, high])));
        Bar {
            label: count(record.streams, "stream"),
            sublabel: format!("of {}", count(record.threads, "thread")),
            bold: false,
            colour: OTHER,
            value: rate,
            quartiles: [rate; 2],
            ticks: Vec::new(),
            pointer: None,
            text: [format!("{} images/s", short(rate)), ratio.unwrap_or_default()],
        }
    };
    let measured = plan.streams.iter().filter(|record| is_rate(record.images_per_second));
    let bars = Bars {
        title: format!("{}: images a second of inferences at the same time", plan.model),
        subtitle: vec![setting(plan)],
        axis: "images a second, median of the rounds".to_string(),
        bars: measured.map(bar).collect(),
        without: "no streams were measured",
        notes: vec!["Streams share the packed weights and ran in turn, round by round.".to_string()],
    };
    bars.draw()
}

/// So many times what, with the interval of that.
fn times_text(ratio: f64, what: &str, interval: Option<[f64; 2]>) -> String {
    let interval = interval.map_or(String::new(), |[low, high]| format!(" ({low:.2} .. {high:.2})"));
    format!("{ratio:.2}x {what}{interval}")
}

/// Whether a number may be a rate in images a second.
fn is_rate(rate: f64) -> bool {
    (1e-9..=1e9).contains(&rate)
}
