//! All tables of a plan, for `tune --verbose`.

use std::fmt::Write;

use engine::plan::records::{ProblemRecord, RuleRecord, SearchRecord};
use engine::plan::schema::Plan;
use engine::plan::step::{InNetwork, PlanStep};

use crate::cli::summary::noise_text;
use crate::report::data::{convolution, time, tuning_text};
use crate::report::rewrites;
use crate::report::table::{Table, layers_text, wrap};
use crate::report::text::{count, more, quartiles, short, time_text};

/// All tables and sentences, in lines of at most `width` characters.
pub fn detail(plan: &Plan, width: usize) -> String {
    let parts = [
        steps(plan, width),
        rewrites::text(&plan.block_variants, width),
        networks(plan, width),
        in_network(plan, width),
        rules(&plan.rules, width),
        search(&plan.measurements, width),
        noise(plan, width),
    ];
    let parts: Vec<String> = parts.into_iter().filter(|text| !text.is_empty()).collect();
    parts.join("\n")
}

/// A line for all steps with the same problem and the same candidate.
fn steps(plan: &Plan, width: usize) -> String {
    let mut table = Table::new(&[
        "layer",
        "x",
        "problem",
        "kernel",
        "tuning",
        "types",
        "us",
        "GFLOP/s",
        "runner-up",
        "takes",
    ])
    .details(&["problem", "types", "GFLOP/s", "runner-up", "tuning"]);
    let key = |step: &PlanStep| (step.problem.clone(), step.kernel.clone(), step.tuning.clone());
    let mut seen = Vec::new();
    for step in &plan.steps {
        let Some(own) = time(step.time_us).filter(|_| !seen.contains(&key(step))) else { continue };
        seen.push(key(step));
        let second = step.runner_up.as_ref();
        table.row([
            layers_text(&step.layers),
            plan.steps.iter().filter(|other| key(other) == key(step)).count().to_string(),
            step.problem.clone(),
            step.kernel.clone(),
            tuning_text(&step.tuning),
            step.formats.types(),
            short(own.median),
            step.gflops.map_or(String::new(), short),
            second.map_or(String::new(), |c| c.id.to_string()),
            second.map_or(String::new(), |c| more(c.time_us / own.median)),
        ]);
    }
    table.fold(width)
}

/// Whole networks that were measured in turn.
fn networks(plan: &Plan, width: usize) -> String {
    let Some(first) = plan.networks.first() else { return String::new() };
    let (unit, scale) = if first.time_us.median < 1e3 { ("µs", 1.0) } else { ("ms", 1e3) };
    let mut table = Table::new(&["whole network", unit, "quartiles", "vs tuned"]);
    for entry in &plan.networks {
        let mut time = entry.time_us;
        for us in [&mut time.median, &mut time.low, &mut time.high] {
            *us /= scale;
        }
        let ratio = entry.time_us.median / first.time_us.median;
        table.row([
            entry.network.to_string(),
            short(time.median),
            quartiles(time, None),
            format!("{ratio:.2}x"),
        ]);
    }
    let mut lines = Vec::new();
    if let (Some(predicted), Some(measured), Some(error)) =
        (plan.predicted_ms, plan.measured_ms, plan.rel_error)
    {
        let [before, after] = [predicted, measured].map(|ms| time_text(ms * 1e3));
        let off = more(measured / predicted);
        lines.push(format!("predicted {before}, measured {after} ({off}); error against f64 {error:.1e}"));
    }
    lines.extend(plan.split.as_ref().map(|split| format!("batch: {split}")));
    if let Some(planning) = plan.planning {
        let layerwise = match planning.layerwise_ms {
            Some(ms) => format!("the layer-by-layer choice {}", time_text(ms * 1e3)),
            None => {
                "a layer-by-layer choice is impossible: neighbours would want different types".to_string()
            }
        };
        lines.push(format!(
            "sum of isolated times {}, {} above the lower bound {}; {layerwise}",
            time_text(planning.plan_ms * 1e3),
            more(1.0 + planning.gap()),
            time_text(planning.bound_ms * 1e3),
        ));
    }
    let lines = lines.iter().map(|line| wrap(line, width, 2) + "\n");
    table.fold(width) + &lines.collect::<String>()
}

/// Steps that have chosen another candidate in the network than by isolated time.
fn in_network(plan: &Plan, width: usize) -> String {
    let tie = plan.noise.map_or(0.0, |noise| noise.tie);
    let flips: Vec<(&PlanStep, &InNetwork, &InNetwork)> =
        plan.steps.iter().filter_map(|step| step.flip(tie).map(|(first, own)| (step, first, own))).collect();
    let several = plan.steps.iter().filter(|step| step.in_network.len() > 1).count();
    let mut text = format!(
        "in the network: {} had close candidates, {} chose another than by isolated time\n",
        count(several, "step"),
        flips.len()
    );
    if flips.is_empty() {
        return text;
    }
    let mut table =
        Table::new(&["layer", "chosen", "tuning", "us", "by isolated time", "tuning", "us", "takes"])
            .details(&["tuning"]);
    for (step, first, own) in flips {
        table.row([
            layers_text(&step.layers),
            own.id.kernel.clone(),
            tuning_text(&own.id.tuning),
            short(own.time_us.median),
            first.id.kernel.clone(),
            tuning_text(&first.id.tuning),
            short(first.time_us.median),
            more(first.time_us.median / own.time_us.median),
        ]);
    }
    let _ = write!(text, "\n{}", table.fold(width));
    text
}

/// What published rules cost beside the fastest of each convolution.
pub fn rules(rules: &[RuleRecord], width: usize) -> String {
    let known: Vec<&RuleRecord> = rules.iter().filter(|rule| rule.fastest_us > 0.0).collect();
    let Some(first) = known.first() else { return String::new() };
    let mut table = Table::new(&["rule instead of measuring", "isolated time", "regret"]);
    for rule in &known {
        table.row([rule.rule.clone(), time_text(rule.isolated_us), more(1.0 + rule.regret())]);
    }
    let note = format!(
        "convolutions in f32, isolated times; the fastest of each take {}",
        time_text(first.fastest_us)
    );
    format!("{}{}\n", table.fold(width), wrap(&note, width, 2))
}

/// What the search has missed in all problems.
struct Missed {
    table: Table,
    ratios: Vec<f64>,
    /// The most where the search has left the best out.
    unseen: f64,
    evaluated: usize,
    space: usize,
}

impl Missed {
    fn of(measurements: &[ProblemRecord]) -> Self {
        let table =
            Table::new(&["all tunings tried", "by the search", "of", "missed", "95%", "the best was"]);
        let mut missed = Self { table, ratios: Vec::new(), unseen: 1.0, evaluated: 0, space: 0 };
        for record in measurements.iter().filter(|record| convolution(&record.problem).is_some()) {
            if let Some(search) = &record.search {
                missed.add(&record.problem, search);
            }
        }
        missed
    }

    fn add(&mut self, problem: &str, search: &SearchRecord) {
        let SearchRecord { evaluated, space, regret: Some([ratio, low, high]), best_skipped } = *search
        else {
            return;
        };
        self.table.row([
            problem.to_string(),
            evaluated.to_string(),
            space.to_string(),
            percent(ratio),
            format!("{} .. {}", percent(low), percent(high)),
            if best_skipped { "left out" } else { "tried" }.to_string(),
        ]);
        self.unseen = if best_skipped { ratio.max(self.unseen) } else { self.unseen };
        self.evaluated += evaluated;
        self.space += space;
        self.ratios.push(ratio);
    }
}

fn percent(ratio: f64) -> String {
    format!("{:.2}%", (ratio - 1.0) * 100.0)
}

/// What the search for tunings has missed, where all of them were tried: problem by problem.
pub fn search(measurements: &[ProblemRecord], width: usize) -> String {
    let missed = Missed::of(measurements);
    if missed.ratios.is_empty() { String::new() } else { missed.table.fold(width) }
}

/// The same in a sentence.
pub fn search_sentence(measurements: &[ProblemRecord], width: usize) -> String {
    let Missed { ratios, unseen, evaluated, space, .. } = Missed::of(measurements);
    if ratios.is_empty() {
        return String::new();
    }
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let most = ratios.iter().copied().fold(1.0, f64::max);
    let text = format!(
        "the search has tried {evaluated} of {}; its best is {} slower than the best of all on average, {} at most, and {} at most where it had left that out",
        count(space, "tuning"),
        percent(mean),
        percent(most),
        percent(unseen)
    );
    wrap(&text, width, 2) + "\n"
}

/// What an error bound costs.
pub fn pareto(plan: &Plan, width: usize) -> String {
    if plan.pareto.is_empty() {
        return String::new();
    }
    let mut table =
        Table::new(&["error against f64", "ms", "steps below f32", "M executed multiply-adds", "bound"]);
    for point in &plan.pareto {
        table.row([
            format!("{:.1e}", point.rel_error),
            short(point.time_us.median / 1e3),
            format!("{} of {}", point.bf16_steps, plan.steps.len()),
            format!("{:.0}", point.multiply_adds as f64 / 1e6),
            if point.rel_error <= plan.max_rel_error { "kept" } else { "exceeded" }.to_string(),
        ]);
    }
    table.fold(width)
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
    wrap(&text, width, 2) + "\n"
}
