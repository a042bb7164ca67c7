//! The numbers behind each chart.

use engine::network::tuning_text;
use engine::plan::{CandidateRecord, Plan, RuleRecord};
use serde_json::{Value, json};

use crate::report::data::{ProblemView, Rank, StepView, candidate_time, family, gflops, microseconds, time};
use crate::report::dataset::Dataset;
use crate::report::networks::{Scale, timed};
use crate::report::predicted::Pair;
use crate::report::roofline::Peak;
use crate::report::roofs::{Roof, bound, peak};
use crate::report::table::layers_text;
use crate::report::text::date;
use crate::report::traffic::Work;

pub fn steps(steps: &[StepView]) -> Dataset {
    let mut data = Dataset::new(&[
        ["layers", "layers"],
        ["block", "block"],
        ["problem", "problem"],
        ["kernel", "kernel"],
        ["tuning", "tuning"],
        ["types", "types"],
        ["time_us", "µs, median"],
        ["low_us", "1st quartile"],
        ["high_us", "3rd quartile"],
        ["isolated_us", "isolated, µs"],
        ["effective_gops", "GFLOP/s"],
        ["rel_error", "error"],
        ["reason", "reason"],
    ]);
    for view in steps {
        let (step, time) = (view.step, view.time);
        data.row([
            json!(layers_text(&step.layers)),
            json!(view.block),
            json!(step.problem),
            json!(step.kernel),
            json!(tuning_text(&step.tuning)),
            json!(step.formats.types()),
            json!(time.map(|t| t.median)),
            json!(time.map(|t| t.low)),
            json!(time.map(|t| t.high)),
            json!(microseconds(step.isolated_us)),
            json!(view.gflops),
            json!(step.rel_error),
            json!(step.reason.to_string()),
        ]);
    }
    data
}

pub fn predicted(pairs: &[Pair]) -> Dataset {
    let mut data = Dataset::new(&[
        ["layers", "layers"],
        ["block", "block"],
        ["kernel", "kernel"],
        ["network_us", "measured in the network, µs"],
        ["predicted_us", "predicted, µs"],
        ["difference_us", "difference, µs"],
        ["ratio", "measured over predicted"],
    ]);
    for Pair { view, measured, predicted } in pairs {
        data.row([
            json!(layers_text(&view.step.layers)),
            json!(view.block),
            json!(view.step.kernel),
            json!(measured),
            json!(predicted),
            json!(measured - predicted),
            json!(measured / predicted),
        ]);
    }
    data
}

pub fn roofline(plan: &Plan, works: &[Work], roofs: &[Roof]) -> Dataset {
    let mut data = Dataset::new(&[
        ["layers", "layers"],
        ["problem", "problem"],
        ["kernel", "kernel"],
        ["intensity_ops_per_byte", "operations a byte"],
        ["effective_gops", "effective, G/s"],
        ["executed_gops", "executed, G/s"],
        ["share_of_peak", "executed over peak"],
        ["source_mib", "source, MiB"],
        ["destination_mib", "destination, MiB"],
        ["weights_mib", "packed weights, MiB"],
        ["time_us", "µs, median"],
        ["read_gb_s", "bytes over time, GB/s"],
        ["bound", "nearest limit"],
        ["share_of_bound", "share of that limit"],
    ]);
    for work in works {
        let (step, peak) = (work.view.step, peak(plan, work));
        let bound = bound(work, peak, roofs).filter(|_| !roofs.is_empty());
        let [source, destination, weights] = work.mib;
        data.row([
            json!(layers_text(&step.layers)),
            json!(step.problem),
            json!(step.kernel),
            json!(work.intensity),
            json!(work.effective),
            json!(work.executed),
            json!(peak.map(|peak| work.executed / peak)),
            json!(source),
            json!(destination),
            json!(weights),
            json!(work.view.us()),
            json!(work.effective / work.intensity),
            json!(bound.map(|bound| bound.limit.to_string())),
            json!(bound.map(|bound| bound.share)),
        ]);
    }
    data
}

pub fn peaks(peaks: &[Peak]) -> Dataset {
    let mut data = Dataset::new(&[["tier", "instructions"], ["gops", "peak of all threads, G operations/s"]]);
    for Peak { tier, rate } in peaks {
        data.row([json!(tier), json!(rate)]);
    }
    data
}

pub fn roofs(roofs: &[Roof]) -> Dataset {
    let mut data = Dataset::new(&[["level", "level"], ["gb_s", "read by all threads, GB/s"]]);
    for Roof { level, rate } in roofs {
        data.row([json!(level.to_string()), json!(rate)]);
    }
    data
}

pub fn candidates(plan: &Plan, view: &ProblemView) -> Dataset {
    let mut data = Dataset::new(&[
        ["kernel", "kernel"],
        ["tuning", "tuning"],
        ["types", "types"],
        ["is_chosen", "chosen"],
        ["rank", "against the fastest"],
        ["time_us", "µs, median"],
        ["low_us", "1st quartile"],
        ["high_us", "3rd quartile"],
        ["ratio", "ratio"],
        ["ratio_low", "95% from"],
        ["ratio_high", "95% to"],
        ["runs", "runs"],
        ["effective_gops", "effective, G/s"],
        ["executed_gops", "executed, G/s"],
        ["bytes", "bytes"],
        ["rel_error", "error"],
        ["outcome", "outcome"],
    ]);
    for candidate in &view.record.candidates {
        data.row(candidate_row(plan, view, candidate));
    }
    data
}

fn candidate_row(plan: &Plan, view: &ProblemView, candidate: &CandidateRecord) -> Vec<Value> {
    let time = candidate_time(candidate);
    let executed = (candidate.multiply_adds > 0).then_some(2.0 * candidate.multiply_adds as f64);
    let ratio = |part: usize| candidate.ratio_ci95.filter(|_| time.is_some()).map(|ratio| ratio[part]);
    vec![
        json!(candidate.id.kernel),
        json!(tuning_text(&candidate.id.tuning)),
        json!(candidate.id.formats.types()),
        json!(view.steps.iter().any(|step| step.runs(&candidate.id))),
        json!(Rank::of(plan, candidate).name()),
        json!(time.map(|t| t.median)),
        json!(time.map(|t| t.low)),
        json!(time.map(|t| t.high)),
        json!(ratio(0)),
        json!(ratio(1)),
        json!(ratio(2)),
        json!(candidate.samples),
        json!(time.map(|t| gflops(&view.conv, t.median))),
        json!(time.zip(executed).map(|(t, executed)| executed / t.median / 1e3)),
        json!(candidate.bytes),
        json!(candidate.rel_error),
        json!(candidate.outcome.to_string()),
    ]
}

/// The problems of convolutions: what was chosen, and what it takes.
pub fn problems(problems: &[ProblemView]) -> Dataset {
    let mut data = Dataset::new(&[
        ["problem", "problem"],
        ["steps", "steps"],
        ["kernel", "chosen"],
        ["family", "family"],
        ["time_us", "µs a run"],
        ["effective_gops", "effective, G/s"],
        ["candidates", "candidates"],
        ["reason", "reason"],
    ]);
    for view in problems {
        let first = view.steps.first();
        let us = first.and_then(|step| Some(time(step.time_us)?.median / step.repeats.max(1) as f64));
        data.row([
            json!(view.record.problem),
            json!(view.steps.len()),
            json!(first.map_or("in no step", |step| step.kernel.as_str())),
            json!(first.map(|step| family(&step.kernel))),
            json!(us),
            json!(us.map(|us| gflops(&view.conv, us))),
            json!(view.record.candidates.len()),
            json!(first.map(|step| step.reason.to_string())),
        ]);
    }
    data
}

pub fn networks(plan: &Plan) -> Dataset {
    let mut data = Dataset::new(&[
        ["network", "network"],
        ["time_ms", "ms an inference, median"],
        ["low_ms", "1st quartile"],
        ["high_ms", "3rd quartile"],
        ["ratio", "over the plan"],
        ["ratio_low", "95% from"],
        ["ratio_high", "95% to"],
        ["runs", "runs"],
    ]);
    for (record, time) in timed(plan) {
        let interval = record.interval();
        data.row([
            json!(record.network.to_string()),
            json!(time.median / 1e3),
            json!(time.low / 1e3),
            json!(time.high / 1e3),
            json!(record.ratio(&plan.networks[0])),
            json!(interval.map(|[low, _]| low)),
            json!(interval.map(|[_, high]| high)),
            json!(record.runs),
        ]);
    }
    data
}

pub fn rules(rules: &[&RuleRecord]) -> Dataset {
    let mut data = Dataset::new(&[
        ["rule", "rule"],
        ["isolated_us", "µs, isolated"],
        ["fastest_us", "fastest in f32, µs"],
        ["regret", "more than the fastest, share"],
        ["description", "description"],
    ]);
    for rule in rules {
        data.row([
            json!(rule.rule),
            json!(rule.isolated_us),
            json!(rule.fastest_us),
            json!(rule.regret()),
            json!(rule.description),
        ]);
    }
    data
}

pub fn pareto(plan: &Plan) -> Dataset {
    let mut data = Dataset::new(&[
        ["rel_error", "error"],
        ["time_ms", "ms an inference, median"],
        ["low_ms", "1st quartile"],
        ["high_ms", "3rd quartile"],
        ["steps_below_f32", "steps below f32"],
        ["steps_in_u8", "steps in u8"],
        ["keeps_bound", "keeps the bound"],
    ]);
    for point in &plan.pareto {
        let time = time(Some(point.time_us));
        data.row([
            json!(point.rel_error),
            json!(time.map(|t| t.median / 1e3)),
            json!(time.map(|t| t.low / 1e3)),
            json!(time.map(|t| t.high / 1e3)),
            json!(point.bf16_steps),
            json!(point.u8_steps),
            json!(point.rel_error <= plan.max_rel_error),
        ]);
    }
    data
}

pub fn variants(plan: &Plan) -> Dataset {
    let mut data = Dataset::new(&[
        ["block", "block"],
        ["variant", "variant"],
        ["time_us", "µs of the steps that differ"],
        ["is_chosen", "chosen"],
        ["reason", "reason"],
    ]);
    for block in &plan.block_variants {
        for form in &block.alternatives {
            let is_chosen = form.variant == block.variant;
            let reason = is_chosen.then(|| block.reason.to_string());
            let us = microseconds(form.time_us);
            data.row([json!(block.block), json!(form.variant), json!(us), json!(is_chosen), json!(reason)]);
        }
    }
    data
}

pub fn scaling(scales: &[Scale]) -> Dataset {
    let mut data = Dataset::new(&[
        ["threads", "threads"],
        ["batch", "batch"],
        ["images_per_second", "images a second"],
        ["measured_ms", "ms an inference"],
        ["predicted_ms", "ms predicted"],
        ["rel_error", "error"],
        ["date", "date"],
    ]);
    for Scale { plan, rate } in scales {
        data.row([
            json!(plan.threads),
            json!(plan.batch),
            json!(rate),
            json!(plan.measured_ms),
            json!(plan.predicted_ms),
            json!(plan.rel_error),
            json!(date(plan.created)),
        ]);
    }
    data
}

pub fn streams(plan: &Plan) -> Dataset {
    let mut data = Dataset::new(&[
        ["streams", "streams"],
        ["threads", "threads of each"],
        ["images_per_second", "images a second"],
        ["ratio", "over one stream"],
        ["ratio_low", "95% from"],
        ["ratio_high", "95% to"],
    ]);
    for record in &plan.streams {
        let ratio = |part: usize| record.ratio_ci95.map(|ratio| ratio[part]);
        data.row([
            json!(record.streams),
            json!(record.threads),
            json!(record.images_per_second),
            json!(ratio(0)),
            json!(ratio(1)),
            json!(ratio(2)),
        ]);
    }
    data
}
