//! What a report says of a plan before its charts.

use engine::Plan;
use engine::plan::{LoadRecord, NetworkVariant};

use crate::report::charts::times;
use crate::report::data::positive;
use crate::report::networks::timed;
use crate::report::text::{count, date, more, ratio_text, short};

/// A fact, and what it is of.
pub struct Fact {
    pub name: &'static str,
    pub text: String,
}

fn fact(name: &'static str, text: String) -> Fact {
    Fact { name, text }
}

/// Measured over predicted time.
fn off(plan: &Plan) -> Option<f64> {
    positive(Some(positive(plan.measured_ms)? / positive(plan.predicted_ms)?))
}

/// What the plan is of, and what has come of it.
pub fn facts(plan: &Plan) -> Vec<Fact> {
    let machine = &plan.machine;
    let [l1, l2, l3] = machine.caches_kib;
    let off =
        off(plan).map_or(String::new(), |ratio| format!(": {} against what was predicted", more(ratio)));
    let of = if plan.is_of_list() { "" } else { " on the features, relative L2" };
    let error = plan.rel_error.filter(|e| e.is_finite());
    let commit = plan.commit.as_ref().map_or(String::new(), |commit| format!(", commit {commit}"));
    let mut facts = vec![
        fact("model", plan.model.clone()),
        fact("machine", format!("{}, {}", machine.cpu, machine.os)),
        fact("instructions", machine.isa.clone()),
        fact("cores, caches", format!("{}, {l1} + {l2} + {l3} KiB", machine.cores)),
        fact("threads, batch", format!("{}, {}", plan.threads, plan.batch)),
        fact("error bound", format!("{:e}{of}", plan.max_rel_error)),
        fact("measured error", error.map_or("not measured".to_string(), |e| format!("{e:.1e} against f64"))),
        fact("time", format!("{}{off}", times(plan))),
        fact("made by", format!("{}{commit}, {}", plan.tool, date(plan.created))),
    ];
    if let Some(shape) = &plan.shape {
        facts.insert(1, fact("shape", shape.clone()));
    }
    facts.extend(conditions(plan));
    facts
}

/// How quiet the machine was, as far as the plan says.
fn conditions(plan: &Plan) -> Vec<Fact> {
    let Some(noise) = plan.noise else { return Vec::new() };
    let seconds = positive(plan.measuring_s).map(|s| fact("measuring", format!("{} s", short(s))));
    let clock = noise.clock_ghz.filter(|ghz| ghz.iter().all(|ghz| ghz.is_finite()));
    let clock = clock.map(|[least, median, most]| {
        fact("clock", format!("{median:.2} GHz, the median; from {least:.2} to {most:.2}"))
    });
    let load = noise.load.map(|load: LoadRecord| {
        let cores = format!(
            "{:.2} cores before, {:.2} at most meanwhile",
            load.before,
            load.meanwhile() * load.cores as f64
        );
        fact("other processes", cores)
    });
    let tie = noise.tie.is_finite().then(|| fact("tie", format!("times within {:.1}%", noise.tie * 100.0)));
    seconds.into_iter().chain(clock).chain(load).chain(tie).collect()
}

/// A number that is read first, and what it is.
pub struct Figure {
    pub number: String,
    pub text: String,
}

/// The time of an image, measured and predicted; the ratio to the built-in choice; the error.
pub fn figures(plan: &Plan) -> Vec<Figure> {
    let figure = |number: String, text: &str| Figure { number, text: text.to_string() };
    let what = if plan.is_of_list() { "of the list, measured" } else { "an image, measured" };
    let images = plan.batch.max(1) as f64;
    let ms = |ms: f64| format!("{} ms", short(ms / images));
    let mut figures = vec![match positive(plan.measured_ms) {
        Some(measured) => figure(ms(measured), what),
        None => figure("-".to_string(), "the whole was not measured"),
    }];
    if let Some(predicted) = positive(plan.predicted_ms) {
        let text = off(plan).map_or(String::new(), |ratio| format!("; the measured time is {}", more(ratio)));
        figures.push(figure(ms(predicted), &format!("predicted{text}")));
    }
    figures.extend(over_built_in(plan));
    let bound = format!("{:.1e}", plan.max_rel_error);
    figures.push(match plan.rel_error.filter(|error| error.is_finite()) {
        Some(error) => figure(format!("{error:.1e}"), &format!("relative error; the bound is {bound}")),
        None => figure("-".to_string(), &format!("the error was not measured; the bound is {bound}")),
    });
    figures
}

/// How many times as long the built-in choice takes.
fn over_built_in(plan: &Plan) -> Option<Figure> {
    let own = plan.networks.first()?;
    let timed = timed(plan);
    let (built_in, _) = timed.iter().find(|(record, _)| record.network == NetworkVariant::BuiltIn)?;
    let ratio = positive(Some(built_in.ratio(own)))?;
    let interval =
        built_in.interval().map_or(String::new(), |[low, high]| format!(", {low:.2} .. {high:.2}"));
    let runs = built_in.runs.map_or(String::new(), |runs| format!(", {}", count(runs, "run")));
    let text = format!("the time of the built-in choice over that of the plan{interval}{runs}");
    Some(Figure { number: format!("{}x", ratio_text(ratio, None)), text })
}
