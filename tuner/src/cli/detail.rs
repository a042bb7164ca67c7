//! All tables of a plan, for `tune --verbose`.

use std::fmt::Write;

use engine::network::tuning_text;
use engine::plan::{Plan, PlanStep, ProblemRecord, RuleRecord, SearchRecord, TimeUs};
use serde_json::{Map, Value};

use crate::cli::summary::noise_text;
use crate::report::{
    Table, convolution, count, group, layers_text, more, paragraphs, quartiles, ratio_text, rewrites,
    sections, short, time, time_text,
};

/// All tables and sentences, in lines of at most `width` characters.
pub fn detail(plan: &Plan, width: usize) -> String {
    sections([
        steps(plan, width),
        rewrites::text(&plan.block_variants, width),
        networks(plan, width),
        in_network(plan, width),
        rules(&plan.rules, width),
        search(&plan.measurements, width),
        noise(plan, width),
    ])
}

fn candidate(step: &PlanStep) -> (&str, &str, &Map<String, Value>) {
    (&step.problem, &step.kernel, &step.tuning)
}

/// A line for all steps with the same problem and the same candidate.
fn steps(plan: &Plan, width: usize) -> String {
    let mut table = Table::new(
        "layer | x | (problem) | kernel | (tuning) | (types) | us | (GFLOP/s) | (runner-up) | takes",
    );
    let timed = plan.steps.iter().filter_map(|step| Some((candidate(step), (step, time(step.time_us)?))));
    for (common, timed) in group(timed) {
        let (step, time) = timed[0];
        let PlanStep { layers, problem, kernel, tuning, formats, gflops, runner_up, .. } = step;
        let n = plan.steps.iter().filter(|other| candidate(other) == common).count();
        let (layers, tuning, types) = (layers_text(layers), tuning_text(tuning), formats.types());
        let (us, speed) = (short(time.median), gflops.map_or(String::new(), short));
        let second = runner_up.as_ref().map_or(String::new(), |c| c.id.to_string());
        let takes = runner_up.as_ref().map_or(String::new(), |c| more(c.time_us / time.median));
        table.row(&[&layers, &n, problem, kernel, &tuning, &types, &us, &speed, &second, &takes]);
    }
    table.fold(width)
}

/// Whole networks that were measured in turn.
fn networks(plan: &Plan, width: usize) -> String {
    let Some(first) = plan.networks.first() else { return String::new() };
    let (unit, scale) = if first.time_us.median < 1e3 { ("µs", 1.0) } else { ("ms", 1e3) };
    let mut table = Table::new(&format!("whole network | {unit} | quartiles | runs | vs plan"));
    for record in &plan.networks {
        let TimeUs { median, low, high } = record.time_us;
        let time = TimeUs { median: median / scale, low: low / scale, high: high / scale };
        let ratio = ratio_text(record.ratio(first), record.interval());
        let runs = record.runs.map_or(String::new(), |runs| runs.to_string());
        table.row(&[&record.network, &short(time.median), &quartiles(time, record.runs), &runs, &ratio]);
    }
    let mut lines = Vec::new();
    if let Some((measured, error)) = plan.measured_ms.zip(plan.rel_error) {
        let of = |predicted: f64| {
            let (before, off) = (time_text(predicted * 1e3), more(measured / predicted));
            (format!("predicted {before}, "), format!(" ({off})"))
        };
        let (before, off) = plan.predicted_ms.map(of).unwrap_or_default();
        let measured = time_text(measured * 1e3);
        lines.push(format!("{before}measured {measured}{off}; error against f64 {error:.1e}"));
    }
    lines.extend(plan.split.as_ref().map(|split| format!("batch: {split}")));
    if let Some(planning) = plan.planning {
        let layerwise = planning.layerwise_ms.map_or(
            "a layer-by-layer choice is impossible: neighbours would want different types".to_string(),
            |ms| format!("the layer-by-layer choice {}", time_text(ms * 1e3)),
        );
        let [sum, bound] = [planning.plan_ms, planning.bound_ms].map(|ms| time_text(ms * 1e3));
        let gap = more(1.0 + planning.gap());
        lines.push(format!("sum of isolated times {sum}, {gap} above the lower bound {bound}; {layerwise}"));
    }
    table.fold(width) + &paragraphs(lines, width, 2)
}

/// Steps that have chosen another candidate in the network than by isolated time.
fn in_network(plan: &Plan, width: usize) -> String {
    let tie = plan.noise.map_or(0.0, |noise| noise.tie);
    let flips: Vec<_> = plan.steps.iter().filter_map(|step| Some((step, step.flip(tie)?))).collect();
    let several = count(plan.steps.iter().filter(|step| step.in_network.len() > 1).count(), "step");
    let changed = flips.len();
    let text = format!(
        "in the network: {several} had close candidates, {changed} chose another than by isolated time\n"
    );
    if flips.is_empty() {
        return text;
    }
    let mut table = Table::new("layer | chosen | (tuning) | us | by isolated time | (tuning) | us | takes");
    for (step, (first, chosen)) in flips {
        let layers = layers_text(&step.layers);
        let [tuning, first_tuning] = [chosen, first].map(|c| tuning_text(&c.id.tuning));
        let [us, first_us] = [chosen, first].map(|c| c.time_us.median);
        let (takes, [us, first_us]) = (more(first_us / us), [us, first_us].map(short));
        let [kernel, first_kernel] = [chosen, first].map(|c| &c.id.kernel);
        table.row(&[&layers, kernel, &tuning, &us, first_kernel, &first_tuning, &first_us, &takes]);
    }
    text + "\n" + &table.fold(width)
}

/// What published rules cost more than the fastest of each convolution.
pub fn rules(rules: &[RuleRecord], width: usize) -> String {
    let known: Vec<&RuleRecord> = rules.iter().filter(|rule| rule.fastest_us > 0.0).collect();
    let Some(first) = known.first() else { return String::new() };
    let mut table = Table::new("rule instead of measuring | isolated time | regret");
    for rule in &known {
        table.row(&[&rule.rule, &time_text(rule.isolated_us), &more(1.0 + rule.regret())]);
    }
    let fastest = time_text(first.fastest_us);
    let note = format!("convolutions in f32, isolated times; the fastest of each take {fastest}");
    table.fold(width) + &paragraphs([note], width, 2)
}

/// The convolutions of which all tunings were tried, with the regret of the search.
fn exhausted(measurements: &[ProblemRecord]) -> Vec<(&str, SearchRecord, [f64; 3])> {
    let convolutions = measurements.iter().filter(|record| convolution(&record.problem).is_some());
    let searched = convolutions.filter_map(|record| Some((&record.problem[..], record.search?)));
    searched.filter_map(|(problem, search)| Some((problem, search, search.regret?))).collect()
}

fn percent(ratio: f64) -> String {
    format!("{:.2}%", (ratio - 1.0) * 100.0)
}

/// What the search for tunings has missed, where all of them were tried: problem by problem.
pub fn search(measurements: &[ProblemRecord], width: usize) -> String {
    let mut table = Table::new("all tunings tried | by the search | of | missed | 95% | the best was");
    for (problem, SearchRecord { evaluated, space, best_skipped, .. }, [ratio, low, high]) in
        exhausted(measurements)
    {
        let interval = format!("{} .. {}", percent(low), percent(high));
        let best_was = if best_skipped { "left out" } else { "tried" };
        table.row(&[&problem, &evaluated, &space, &percent(ratio), &interval, &best_was]);
    }
    table.fold_rows(width)
}

/// The same in a sentence.
pub fn search_sentence(measurements: &[ProblemRecord], width: usize) -> String {
    let exhausted = exhausted(measurements);
    if exhausted.is_empty() {
        return String::new();
    }
    let ratios = || exhausted.iter().map(|(_, search, [ratio, ..])| (search.best_skipped, *ratio));
    let mean = percent(ratios().map(|(_, ratio)| ratio).sum::<f64>() / exhausted.len() as f64);
    let most = percent(ratios().map(|(_, ratio)| ratio).fold(1.0, f64::max));
    let skipped = ratios().filter(|(best_skipped, _)| *best_skipped);
    let unseen = percent(skipped.map(|(_, ratio)| ratio).fold(1.0, f64::max));
    let evaluated: usize = exhausted.iter().map(|(_, search, _)| search.evaluated).sum();
    let space = count(exhausted.iter().map(|(_, search, _)| search.space).sum(), "tuning");
    let text = format!(
        "the search has tried {evaluated} of {space}; its best is {mean} slower than the best of all on average, \
         {most} at most, and {unseen} at most where it had left that out"
    );
    paragraphs([text], width, 2)
}

/// What an error bound costs.
pub fn pareto(plan: &Plan, width: usize) -> String {
    let mut table =
        Table::new("error against f64 | ms | steps below f32 | in u8 | M executed multiply-adds | bound");
    for point in &plan.pareto {
        let (error, ms) = (format!("{:.1e}", point.rel_error), short(point.time_us.median / 1e3));
        let below_f32 = format!("{} of {}", point.bf16_steps, plan.steps.len());
        let in_u8 = point.u8_steps.to_string();
        let work = format!("{:.0}", point.multiply_adds as f64 / 1e6);
        let bound = if point.rel_error <= plan.max_rel_error { "kept" } else { "exceeded" };
        table.row(&[&error, &ms, &below_f32, &in_u8, &work, &bound]);
    }
    table.fold_rows(width)
}

fn noise(plan: &Plan, width: usize) -> String {
    let Some(noise) = &plan.noise else { return String::new() };
    let mut text = format!("noise: {}; weights came from {}", noise_text(noise), noise.weights_from);
    if let Some(distance) = noise.core_distance {
        let _ = write!(text, "; core-to-core latency at best {:.0} ns", distance.near_ns);
        if distance.waited_s > 0.0 {
            let _ = write!(text, ", after {:.1} s of waiting", distance.waited_s);
        }
        if let Some(ns) = distance.far_networks_ns() {
            let _ = write!(text, ", {ns:.0} ns when whole networks were measured");
        }
    }
    paragraphs([text], width, 2)
}
