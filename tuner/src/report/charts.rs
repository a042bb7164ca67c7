//! The candidates of a problem and the contest of whole networks, as bars.

use engine::plan::reasons::CandidateOutcome;
use engine::plan::records::NetworkVariant;
use engine::plan::schema::Plan;
use engine::util::error::Failure;

use crate::report::bars::{Bar, Bars};
use crate::report::canvas::{OTHER, colour};
use crate::report::data::{ProblemView, RowView, family, gflops, positive, time, tuning_text};
use crate::report::text::{count, short, time_text};

/// One bar a row of the table of kernels: its fastest tuning.
///
/// # Errors
/// If plotters fails.
pub fn problem(view: &ProblemView) -> Result<String, Failure> {
    let conv = &view.conv;
    let speed = |us: f64| gflops(conv, us);
    let bar = |row: &RowView| {
        let tunings = row.others.len() + 1;
        let best = row.best;
        let all = std::iter::once((best, row.time)).chain(row.others.iter().copied());
        let chosen = all.clone().find(|(candidate, _)| view.is_chosen(candidate));
        let work = work(conv.multiply_adds(), best.multiply_adds);
        let early = if best.outcome == CandidateOutcome::DroppedEarly { ", dropped early" } else { "" };
        Bar {
            label: best.id.kernel.clone(),
            sublabel: if best.outcome == CandidateOutcome::NotMeasured {
                String::new()
            } else {
                count(tunings, "tuning")
            },
            bold: chosen.is_some(),
            colour: colour(family(&best.id.kernel)),
            value: speed(row.time.median),
            quartiles: [speed(row.time.high), speed(row.time.low)],
            ticks: row.others.iter().map(|(_, t)| speed(t.median)).collect(),
            pointer: chosen.map(|(_, t)| speed(t.median)),
            text: [
                format!("{} GFLOP/s, {}{work}", short(speed(row.time.median)), time_text(row.time.median)),
                format!("{}{early}", tuning_text(&best.id.tuning)),
            ],
        }
    };
    let rows = view.rows();
    let mut subtitle = vec![shape(view)];
    if !view.steps.is_empty() {
        let layers: Vec<String> = view.steps.iter().map(|step| step.layers.join("+")).collect();
        subtitle.push(format!("{}: {}", count(layers.len(), "step"), list(&layers, 6)));
    }
    for step in view.choices() {
        subtitle.push(format!("chosen: {} [{}], {}", step.kernel, tuning_text(&step.tuning), step.reason));
    }
    let mut notes = vec![
        "A bar is a kernel with its fastest tuning; whiskers are the quartiles of its time, ticks its other tunings, the triangle is what the plan has chosen."
            .to_string(),
    ];
    let absent = view.absent();
    if !absent.is_empty() {
        notes.push("Left out:".to_string());
    }
    notes.extend(absent.iter().map(|(reason, ids)| format!("{}: {reason}", list(ids, 8))));
    let bars = Bars {
        title: view.name.to_string(),
        subtitle,
        axis: "GFLOP/s: floating-point operations of a direct computation over the median time".to_string(),
        bars: rows.iter().map(bar).collect(),
        without: "no candidate was measured",
        notes,
    };
    bars.draw()
}

/// How executed multiply-adds compare with those of a direct computation, if they do not equal them.
fn work(direct: u64, executed: u64) -> String {
    let saved = direct as f64 / executed as f64;
    match saved {
        _ if executed == 0 => String::new(),
        s if s > 1.005 => format!(", {s:.2}x fewer multiply-adds"),
        s if s < 0.995 => format!(", {:.2}x the multiply-adds", 1.0 / s),
        _ => String::new(),
    }
}

/// Input, output, kernel and work in words.
pub fn shape(view: &ProblemView) -> String {
    let conv = &view.conv;
    let ([h, w], [oh, ow], [r, s], [u, v]) =
        (conv.image, conv.output(), conv.window.kernel, conv.window.stride);
    let stride = if [u, v] == [1, 1] { String::new() } else { format!(", stride {u}x{v}") };
    let batch = if conv.batch == 1 { String::new() } else { format!("{} images, ", conv.batch) };
    format!(
        "{batch}{h}x{w}x{} to {oh}x{ow}x{}, kernel {r}x{s}{stride}, {:.1} M multiply-adds",
        conv.channels,
        conv.filters(),
        conv.multiply_adds() as f64 / 1e6
    )
}

/// The first few of a list, and how many more there are.
fn list(items: &[String], most: usize) -> String {
    let shown = items[..items.len().min(most)].join(", ");
    if items.len() > most { format!("{shown} and {} more", items.len() - most) } else { shown }
}

/// Times of whole networks.
///
/// # Errors
/// If plotters fails.
pub fn contest(plan: &Plan) -> Result<String, Failure> {
    let timed: Vec<_> =
        plan.networks.iter().filter_map(|c| Some((&c.network, time(Some(c.time_us))?))).collect();
    let own = timed.iter().find(|(name, _)| **name == NetworkVariant::Tuned).map(|(_, t)| t.median);
    let bar = |(name, t): &(&NetworkVariant, engine::plan::step::TimeUs)| {
        let [ms, low, high] = [t.median, t.low, t.high].map(|us| us / 1e3);
        let ratio = own.map_or(String::new(), |own| format!(", {:.2}x the tuned plan", t.median / own));
        let is_own = **name == NetworkVariant::Tuned;
        Bar {
            label: name.to_string(),
            sublabel: String::new(),
            bold: is_own,
            colour: if is_own { TUNED } else { OTHER },
            value: ms,
            quartiles: [low, high],
            ticks: Vec::new(),
            pointer: None,
            text: [
                format!("{} ms{}", short(ms), if is_own { String::new() } else { ratio }),
                format!("quartiles {} .. {} ms", short(low), short(high)),
            ],
        }
    };
    let left_out = plan.networks.len() - timed.len();
    let mut notes =
        vec!["The networks ran in turn, so that whatever slowed the machine slowed them alike.".to_string()];
    if left_out > 0 {
        notes.push(format!("{} without a time left out.", count(left_out, "plan")));
    }
    let bars = Bars {
        title: format!("{}: the whole network, by way of choosing kernels", plan.model),
        subtitle: vec![setting(plan)],
        axis: "ms an inference, median".to_string(),
        bars: timed.iter().map(bar).collect(),
        without: "the plan has no contest of whole networks",
        notes: if timed.is_empty() { Vec::new() } else { notes },
    };
    bars.draw()
}

/// The plan's own bar; no family has this colour.
const TUNED: plotters::style::RGBColor = plotters::style::RGBColor(0x44, 0x44, 0x44);

/// Threads, batch and machine in words.
pub fn setting(plan: &Plan) -> String {
    let machine = &plan.machine;
    format!(
        "{}, batch {}, on {}, {}, {}",
        count(plan.threads, "thread"),
        plan.batch,
        machine.cpu,
        machine.isa,
        count(machine.cores, "core")
    )
}

/// Predicted and measured time of the network in words.
pub fn times(plan: &Plan) -> String {
    let text = |ms: Option<f64>, what: &str| match positive(ms) {
        Some(ms) => format!("{} ms {what}", short(ms)),
        None => format!("not {what}"),
    };
    format!("{}, {}", text(plan.predicted_ms, "predicted"), text(plan.measured_ms, "measured"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_told_where_it_differs() {
        assert_eq!(work(100, 50), ", 2.00x fewer multiply-adds");
        assert_eq!(work(100, 200), ", 2.00x the multiply-adds");
        assert_eq!((work(100, 100), work(100, 0)), (String::new(), String::new()));
    }

    #[test]
    fn lists_end_with_what_is_left() {
        let items: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        assert_eq!(list(&items, 3), "a, b, c");
        assert_eq!(list(&items, 2), "a, b and 1 more");
        assert_eq!(list(&[], 2), "");
    }
}
