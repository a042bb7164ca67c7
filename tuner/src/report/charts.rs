//! The candidates of a problem as bars; what all charts say of a plan.

use engine::Machine;
use engine::network::tuning_text;
use engine::plan::{CandidateOutcome, CandidateRecord, Plan, TimeUs};
use kernels::{Conv, Window};

use crate::report::bars::{Bar, Bars};
use crate::report::canvas::{DrawError, colour};
use crate::report::data::{ProblemView, Rank, family, gflops, positive};
use crate::report::text::{count, date, short, time_text};

/// One bar a row of the table of kernels: its fastest tuning.
pub fn problem(plan: &Plan, view: &ProblemView) -> Result<String, DrawError> {
    let mut subtitle = vec![shape(&view.conv), setting(plan)];
    if !view.steps.is_empty() {
        let layers: Vec<String> = view.steps.iter().map(|step| step.layers.join("+")).collect();
        subtitle.push(format!("{}: {}", count(layers.len(), "step"), list(&layers, 6)));
    }
    for step in view.choices() {
        subtitle.push(format!("chosen: {}, {}", step.id(), step.reason));
    }
    let mut notes = vec![
        "A bar is a kernel with its fastest tuning; whiskers are the quartiles of its time, ticks its other \
         tunings, the triangle is what the plan has chosen. A tie may be as fast as the fastest of its types."
            .to_string(),
    ];
    let absent = view.absent();
    if !absent.is_empty() {
        notes.push("Left out:".to_string());
    }
    notes.extend(absent.iter().map(|(reason, ids)| format!("{}: {reason}", list(ids, 8))));
    let bars = Bars {
        title: view.record.problem.clone(),
        subtitle,
        axis: "GFLOP/s: floating-point operations of a direct computation over the median time".to_string(),
        bars: view.rows().iter().map(|row| bar(plan, view, row)).collect(),
        without: "no candidate was measured",
        notes,
    };
    bars.draw()
}

/// A kernel, by its candidates from the fastest on.
fn bar(plan: &Plan, view: &ProblemView, candidates: &[(&CandidateRecord, TimeUs)]) -> Bar {
    let speed = |us: f64| gflops(&view.conv, us);
    let (best, time) = candidates[0];
    let chosen = candidates.iter().find(|(c, _)| view.steps.iter().any(|step| step.runs(&c.id)));
    let work = work(view.conv.multiply_adds(), best.multiply_adds);
    let early = if best.outcome == CandidateOutcome::DroppedEarly { ", dropped early" } else { "" };
    let rank = match Rank::of(plan, best) {
        Rank::Tie => ", tie",
        _ => "",
    };
    let runs = if best.samples > 0 { format!(", {}", count(best.samples, "run")) } else { String::new() };
    let is_measured = best.outcome != CandidateOutcome::NotMeasured;
    Bar {
        label: best.id.kernel.clone(),
        sublabel: if is_measured { count(candidates.len(), "tuning") } else { String::new() },
        bold: chosen.is_some(),
        colour: colour(family(&best.id.kernel)),
        value: speed(time.median),
        quartiles: [speed(time.high), speed(time.low)],
        ticks: candidates[1..].iter().map(|(_, t)| speed(t.median)).collect(),
        pointer: chosen.map(|(_, t)| speed(t.median)),
        text: [
            format!("{} GFLOP/s, {}{work}{runs}", short(speed(time.median)), time_text(time.median)),
            format!("{}{early}{rank}", tuning_text(&best.id.tuning)),
        ],
    }
}

/// How executed multiply-adds compare with a direct computation's, where they are not equal.
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
pub fn shape(conv: &Conv) -> String {
    let ([h, w], [oh, ow]) = (conv.image, conv.output());
    let Window { kernel: [r, s], stride: [u, v], .. } = conv.window;
    let stride = if [u, v] == [1, 1] { String::new() } else { format!(", stride {u}x{v}") };
    let batch = if conv.batch == 1 { String::new() } else { format!("{} images, ", conv.batch) };
    let (c, k, work) = (conv.channels, conv.filters(), conv.multiply_adds() as f64 / 1e6);
    format!("{batch}{h}x{w}x{c} to {oh}x{ow}x{k}, kernel {r}x{s}{stride}, {work:.1} M multiply-adds")
}

/// The first few of a list, and how many more there are.
pub fn list(items: &[String], most: usize) -> String {
    let shown = items[..items.len().min(most)].join(", ");
    if items.len() > most { format!("{shown} and {} more", items.len() - most) } else { shown }
}

/// Threads, batch, machine and date in words.
pub fn setting(plan: &Plan) -> String {
    let Machine { cpu, isa, cores, .. } = &plan.machine;
    let (threads, cores) = (count(plan.threads, "thread"), count(*cores, "core"));
    format!("{threads}, batch {}, on {cpu}, {isa}, {cores}, {}", plan.batch, date(plan.created))
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
