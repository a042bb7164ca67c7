//! What tuning says at its end.

use std::io::Write;

use engine::network::model::Model;
use engine::plan::records::{CoreDistance, MemoryBytes, Noise, ProblemRecord, RuleRecord, SearchRecord};
use engine::plan::schema::Plan;
use engine::plan::step::{InNetwork, PlanStep};
use engine::runtime::session::Session;
use engine::util::error::Failure;

use crate::bench::policy::POLICY;
use crate::planner::context::process_bytes;
use crate::report::data::{convolution, tuning_text};
use crate::report::table::Table;

/// The steps of a plan, one line for all with the same problem and candidate.
pub fn print_steps(plan: &Plan, out: &mut dyn Write) -> Result<(), Failure> {
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
        "+%",
    ]);
    for (first, step) in plan.steps.iter().enumerate() {
        let is_same = |other: &PlanStep| {
            (&other.problem, &other.kernel, &other.tuning) == (&step.problem, &step.kernel, &step.tuning)
                && other.formats == step.formats
        };
        let (Some(time), None) = (step.time_us, plan.steps[..first].iter().find(|other| is_same(other)))
        else {
            continue;
        };
        let (second, more) = match &step.runner_up {
            Some(second) => (
                format!("{} [{}]", second.kernel, tuning_text(&second.tuning)),
                format!("{:.1}", (second.time_us / time.median - 1.0) * 100.0),
            ),
            None => (String::new(), String::new()),
        };
        table.row([
            step.layers.join(" "),
            plan.steps[first..].iter().filter(|other| is_same(other)).count().to_string(),
            step.problem.clone(),
            step.kernel.clone(),
            tuning_text(&step.tuning),
            step.formats.types(),
            format!("{:.1}", time.median),
            step.gflops.map_or(String::new(), |gflops| format!("{gflops:.1}")),
            second,
            more,
        ]);
    }
    writeln!(out, "\n{table}")?;
    Ok(())
}

/// Whole networks in turn, and what they say of the plan.
pub fn print_contest(plan: &Plan, out: &mut dyn Write) -> Result<(), Failure> {
    let mut table = Table::new(&["whole network", "ms", "quartiles", "vs tuned"]);
    for entry in &plan.networks {
        let (t, own) = (entry.time_us, plan.networks[0].time_us);
        table.row([
            entry.network.to_string(),
            format!("{:.2}", t.median / 1e3),
            format!("{:.2} .. {:.2}", t.low / 1e3, t.high / 1e3),
            format!("{:.2}x", t.median / own.median),
        ]);
    }
    writeln!(out, "{table}")?;
    if let (Some(predicted), Some(measured), Some(error)) =
        (plan.predicted_ms, plan.measured_ms, plan.rel_error)
    {
        writeln!(
            out,
            "predicted {predicted:.2} ms, measured {measured:.2} ms ({:+.1}%); error against f64 {error:.1e}",
            (measured / predicted - 1.0) * 100.0
        )?;
    }
    if let Some(split) = &plan.split {
        writeln!(out, "batch: {split}")?;
    }
    if let Some(planning) = plan.planning {
        writeln!(
            out,
            "by times alone: {:.2} ms, {:.1}% above the least of all forms, types and kernels ({:.2} ms); layer by layer {}",
            planning.plan_ms,
            planning.gap() * 100.0,
            planning.bound_ms,
            planning.layerwise_ms.map_or("types do not agree".to_string(), |ms| format!("{ms:.2} ms"))
        )?;
    }
    let tie = plan.noise.map_or(0.0, |noise| noise.tie);
    let flips: Vec<(&PlanStep, &InNetwork, &InNetwork)> =
        plan.steps.iter().filter_map(|step| step.flip(tie).map(|(first, own)| (step, first, own))).collect();
    let settled = plan.steps.iter().filter(|step| step.in_network.len() > 1).count();
    writeln!(
        out,
        "in place: {settled} steps had close candidates, {} chose another than when timed alone",
        flips.len()
    )?;
    for (step, first, own) in flips {
        writeln!(
            out,
            "  {}: {} [{}], {:.1}% faster there than {} [{}]",
            step.layers.join(" "),
            own.kernel,
            tuning_text(&own.tuning),
            (first.time_us.median / own.time_us.median - 1.0) * 100.0,
            first.kernel,
            tuning_text(&first.tuning)
        )?;
    }
    if let Some(noise) = plan.noise {
        writeln!(
            out,
            "noise: a kernel against itself differs by up to {:.1}%, ties are {:.1}%; {:.1}% of the runs were disturbed, the host took {:.1}% of the time{}; weights came from {}",
            noise.noise_floor * 100.0,
            noise.tie * 100.0,
            noise.disturbed * 100.0,
            noise.steal_share * 100.0,
            noise.clock_ghz.map_or(String::new(), |[low, middle, high]| {
                format!(", the clock was at {middle:.2} GHz ({low:.2} to {high:.2})")
            }),
            noise.weights_from
        )?;
        if let Some(apart) = noise.core_distance {
            writeln!(out, "cores: {}", distance(&apart))?;
        }
    }
    if let Some(MemoryBytes { weights, activations, scratch }) = plan.memory_bytes {
        let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
        writeln!(
            out,
            "memory: weights {:.1}, activations {:.1}, scratch {:.1} MiB; a process takes up to {:.0}",
            mib(weights),
            mib(activations),
            mib(scratch),
            mib(weights + activations + scratch + process_bytes(plan.threads)).ceil()
        )?;
    }
    Ok(())
}

/// How far apart the cores were.
fn distance(apart: &CoreDistance) -> String {
    let CoreDistance { near_ns, least_ns, most_ns, far, waited_s, .. } = apart;
    let networks = apart.far_networks_ns();
    let networks =
        networks.map_or(String::new(), |ns| format!(", and {ns:.0} when whole networks were measured"));
    let waited = if *waited_s > 0.0 { format!(", after {waited_s:.1} s of waiting") } else { String::new() };
    match *far > 0.0 || *waited_s > 0.0 {
        true => format!(
            "{near_ns:.0} ns from core to core when near, up to {most_ns:.0} and far apart in {:.0}% of the rounds{networks}{waited}",
            far * 100.0
        ),
        false => format!("{least_ns:.0} to {most_ns:.0} ns from core to core"),
    }
}

/// Warns of rounds whose times say little about quiet ones.
pub fn warn_of_noise(noise: &Noise) {
    if noise.disturbed > POLICY.contention.busy_share {
        eprintln!(
            "warning: busy: others used the cores in {:.0}% of the runs, so that the choice may not be the best",
            noise.disturbed * 100.0
        );
    }
    let Some(apart) = noise.core_distance else { return };
    if apart.far > POLICY.contention.busy_share {
        eprintln!(
            "warning: cores far apart: a cache line took up to {:.0} ns from core to core in {:.0}% of the rounds, and {:.0} where they are near, for which the choice may not be the best",
            apart.most_ns,
            apart.far * 100.0,
            apart.near_ns
        );
    }
    if let Some(ns) = apart.far_networks_ns() {
        eprintln!(
            "warning: cores far apart: whole networks were measured while a cache line took {ns:.0} ns from core to core; they are faster where it takes {:.0}",
            apart.near_ns
        );
    }
}

/// What an error bound costs.
pub fn print_pareto(plan: &Plan, out: &mut dyn Write) -> Result<(), Failure> {
    if plan.pareto.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["error against f64", "ms", "steps below f32", "M multiply-adds"]);
    for point in &plan.pareto {
        table.row([
            format!("{:.1e}", point.rel_error),
            format!("{:.2}", point.time_us.median / 1e3),
            format!("{} of {}", point.bf16_steps, plan.steps.len()),
            format!("{:.0}", point.multiply_adds as f64 / 1e6),
        ]);
    }
    writeln!(out, "\n{table}")?;
    Ok(())
}

/// What published rules cost beside the fastest of each convolution.
pub fn print_rules(rules: &[RuleRecord], out: &mut dyn Write) -> Result<(), Failure> {
    let known: Vec<&RuleRecord> = rules.iter().filter(|rule| rule.fastest_us > 0.0).collect();
    let Some(first) = known.first() else { return Ok(()) };
    let mut table = Table::new(&["rule instead of measuring", "ms", "regret %"]);
    for rule in &known {
        let regret = format!("{:.1}", rule.regret() * 100.0);
        table.row([rule.rule.clone(), format!("{:.2}", rule.isolated_us / 1e3), regret]);
    }
    writeln!(out, "\n{table}")?;
    writeln!(
        out,
        "convolutions in f32, timed alone; the fastest of each take {:.2} ms",
        first.fastest_us / 1e3
    )?;
    Ok(())
}

/// What the search for tunings has missed, where all of them were tried.
pub fn print_search(measurements: &[ProblemRecord], out: &mut dyn Write) -> Result<(), Failure> {
    let mut table =
        Table::new(&["all tunings tried", "by the search", "of", "missed %", "95%", "the best was"]);
    let percent = |ratio: f64| format!("{:.2}", (ratio - 1.0) * 100.0);
    let (mut ratios, mut unseen, mut convolutions) = (Vec::new(), 1.0, [0, 0]);
    for record in measurements.iter().filter(|record| convolution(&record.problem).is_some()) {
        let Some(SearchRecord {
            evaluated: tried,
            space: offered,
            best_skipped: left_out,
            regret: Some([ratio, low, high]),
        }) = record.search
        else {
            continue;
        };
        table.row([
            record.problem.clone(),
            tried.to_string(),
            offered.to_string(),
            percent(ratio),
            format!("{} .. {}", percent(low), percent(high)),
            if left_out { "left out" } else { "tried" }.to_string(),
        ]);
        unseen = if left_out { ratio.max(unseen) } else { unseen };
        convolutions = [convolutions[0] + tried, convolutions[1] + offered];
        ratios.push(ratio);
    }
    if ratios.is_empty() {
        return Ok(());
    }
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let most = ratios.iter().copied().fold(1.0, f64::max);
    let [tried, offered] = convolutions;
    writeln!(out, "\n{table}")?;
    writeln!(
        out,
        "the search has tried {tried} of {offered} tunings; its best is {}% slower than the best of all on average, {}% at most, and {}% at most where it had left that out",
        percent(mean),
        percent(most),
        percent(unseen)
    )?;
    Ok(())
}

/// Warns of a whole network that takes longer or shorter than predicted, and names the steps that are furthest off.
pub fn audit(plan: &Plan) {
    let (Some(predicted), Some(measured)) = (plan.predicted_ms, plan.measured_ms) else { return };
    if (measured / predicted - 1.0).abs() <= POLICY.stages.prediction_off {
        return;
    }
    let mut residuals: Vec<(f64, &str)> =
        plan.steps.iter().filter_map(|step| Some((step.residual_us()?, &step.layers[0][..]))).collect();
    residuals.sort_by(|(a, _), (b, _)| b.abs().total_cmp(&a.abs()));
    let list: Vec<String> =
        residuals.iter().take(3).map(|(us, layer)| format!("{layer} {us:+.0} µs")).collect();
    eprintln!(
        "warning: the network takes {measured:.2} ms, predicted were {predicted:.2} ms, {:+.1}%; furthest off: {}",
        (measured / predicted - 1.0) * 100.0,
        list.join(", ")
    );
}

pub(crate) fn summary(name: &str, values: &[f32], out: &mut dyn Write) -> Result<(), Failure> {
    let count = values.len() as f64;
    let mean = values.iter().map(|&v| v as f64).sum::<f64>() / count;
    let rms = (values.iter().map(|&v| (v as f64).powi(2)).sum::<f64>() / count).sqrt();
    let head: Vec<String> = values.iter().take(4).map(|v| format!("{v:.6}")).collect();
    writeln!(out, "{name}: {} values, mean {mean:.6}, rms {rms:.6}, first {}", values.len(), head.join(" "))?;
    Ok(())
}

/// Prints the likeliest classes of each image, or a summary where there are no classes.
#[allow(clippy::too_many_arguments, reason = "one call, all of it what to print")]
pub fn print_classes(
    model: &Model,
    session: &Session,
    n: usize,
    top: usize,
    labels: &[String],
    names: &[String],
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let output = session.output(n);
    for (name, values) in names.iter().zip(output.chunks(output.len() / n)) {
        if !model.has_top() {
            summary(name, values, out)?;
            continue;
        }
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
        writeln!(out, "{name}:")?;
        for class in order.into_iter().take(top) {
            let label = labels.get(class).map_or(String::new(), |label| format!("  {label}"));
            writeln!(out, "  {:8.4}%  class {class}{label}", values[class] * 100.0)?;
        }
    }
    Ok(())
}
