//! `tuner explain`: one layer, what was measured for it and why its kernel won.

use std::io::Write;
use std::path::PathBuf;

use engine::network::choice::StepFormats;
use engine::plan::records::{CandidateRecord, ConditionsRecord, ProblemRecord, SearchRecord};
use engine::plan::schema::Plan;
use engine::plan::step::{InNetwork, PlanStep};
use engine::plan::store::plan_or_newest;
use engine::util::error::Failure;
use engine::util::files::one_line;

use crate::report::charts::shape;
use crate::report::data::{
    ProblemView, candidate_time, convolution, convolutions, record, steps, time_text, tuning_text,
};
use crate::report::page::step_time;
use crate::report::rewrites::form;
use crate::report::table::Table;

/// Arguments of `explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    /// The layer, like mixed0.branch1x1
    layer: String,
    /// The plan; by default the newest of this machine
    #[arg(long, value_name = "PLAN.json")]
    plan: Option<PathBuf>,
    /// Folder of results, one folder a machine inside
    #[arg(long, value_name = "DIR", env = "TUNER_RESULTS", default_value = "bench-results")]
    results: PathBuf,
}

/// Runs `explain`.
pub fn explain(args: &ExplainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let path = plan_or_newest(args.plan.as_ref(), &args.results)?;
    let plan = Plan::read(&path)?;
    let views = steps(&plan);
    let view = views.iter().find(|view| view.step.layers.contains(&args.layer)).ok_or_else(|| {
        let expected = nearest(&plan, &args.layer);
        format!("{}: layer `{}` is not there, expected {expected}", path.display(), one_line(&args.layer))
    })?;
    let step = view.step;
    writeln!(out, "layer    {} of {}, {}", args.layer, plan.model, path.display())?;
    if step.layers.len() > 1 {
        writeln!(out, "step     {}", step.layers.join(" + "))?;
    }
    if let Some(rewrite) = plan.block_variants.iter().find(|rewrite| rewrite.block == view.block) {
        writeln!(out, "form     {}", form(rewrite))?;
    }
    if let Some(split) = &plan.split {
        writeln!(out, "batch    {split}")?;
    }
    writeln!(out, "problem  {}", step.problem)?;
    let problems = convolutions(&plan);
    if let Some(problem) = problems.iter().find(|p| p.name == step.problem) {
        writeln!(out, "         {}", shape(problem))?;
        print_twins(problem, &args.layer, out)?;
    }
    writeln!(out, "kernel   {} [{}]", step.kernel, tuning_text(&step.tuning))?;
    writeln!(out, "formats  {} -> {}", step.formats.src, step.formats.dst)?;
    writeln!(out, "time     {}", step_time(view))?;
    writeln!(out, "because  {}", step.reason)?;
    if let Some(second) = &step.runner_up {
        let more = (second.time_us / view.us() - 1.0) * 100.0;
        let more = if more.is_finite() { format!(", {more:+.1}%") } else { String::new() };
        let tuning = tuning_text(&second.tuning);
        writeln!(out, "second   {} [{tuning}], {}{more}", second.kernel, time_text(second.time_us))?;
    }
    if let (Some(alone), Some(predicted), Some(network)) =
        (step.isolated_us, step.predicted_us, step.network_us)
    {
        let [alone, predicted, network] = [alone, predicted, network].map(time_text);
        writeln!(out, "alone    {alone}; in the whole network predicted {predicted}, measured {network}")?;
    }
    writeln!(out)?;
    if step.in_network.len() > 1 {
        writeln!(out, "In the running network, where what is close alone was settled:\n")?;
        writeln!(out, "{}\nAlone:\n", in_place(step))?;
    }
    let Some(record) = record(&plan, step) else {
        writeln!(out, "the plan has no measurements of this problem")?;
        return Ok(());
    };
    write!(out, "{}", candidates(record, step, plan.threads))?;
    writeln!(
        out,
        "\n*: chosen. GFLOP/s count a direct computation's operations; the share of the peak counts those that the kernel executes, saved is the ratio of the two. Asks: types that its neighbours would have to change to."
    )?;
    if let Some(beside) = &record.conditions {
        writeln!(out, "{}", peaks(beside, plan.threads))?;
    }
    if let Some(search) = &record.search {
        writeln!(out, "{}", searched(search))?;
    }
    if !record.rules.is_empty() {
        write!(out, "\n{}", rules(record))?;
    }
    if !record.excluded.is_empty() {
        let mut table = Table::new(&["left out", "reason"]);
        for (id, reason) in &record.excluded {
            table.row([id.clone(), reason.as_str().map_or_else(|| reason.to_string(), str::to_string)]);
        }
        write!(out, "\n{table}")?;
    }
    Ok(())
}

/// Candidates that were timed in the running network, the fastest first.
fn in_place(step: &PlanStep) -> Table {
    let mut table = Table::new(&["", "kernel", "tuning", "us", "quartiles", "vs chosen"]);
    let mut list: Vec<&InNetwork> = step.in_network.iter().collect();
    list.sort_by(|a, b| a.time_us.median.total_cmp(&b.time_us.median));
    let own = step.time_us.map_or(f64::NAN, |time| time.median);
    for c in list {
        let is_chosen = c.is_of(step);
        table.row([
            if is_chosen { "*" } else { " " }.to_string(),
            c.kernel.clone(),
            tuning_text(&c.tuning),
            format!("{:.1}", c.time_us.median),
            format!("{:.1} .. {:.1}", c.time_us.low, c.time_us.high),
            format!("{:.3}", c.time_us.median / own),
        ]);
    }
    table
}

/// Other layers with the same problem.
fn print_twins(problem: &ProblemView, layer: &String, out: &mut dyn Write) -> Result<(), Failure> {
    let others: Vec<&str> = problem
        .steps
        .iter()
        .filter(|step| !step.layers.contains(layer))
        .flat_map(|step| step.layers.iter().map(String::as_str))
        .collect();
    if !others.is_empty() {
        writeln!(out, "shared   with {}", others.join(" "))?;
    }
    Ok(())
}

/// All candidates of a problem, the fastest first as the plan has them.
fn candidates(record: &ProblemRecord, step: &PlanStep, threads: usize) -> Table {
    let conv = convolution(&record.problem);
    let effective = conv.as_ref().map(|conv| conv.multiply_adds() as f64);
    let mut table = Table::new(&[
        "",
        "kernel",
        "tuning",
        "types",
        "us",
        "quartiles",
        "vs fastest, 95%",
        "runs",
        "GFLOP/s",
        "of peak",
        "saved",
        "KiB",
        "error",
        "asks",
        "outcome",
    ]);
    for c in &record.candidates {
        let time = candidate_time(c);
        let executed = c.multiply_adds as f64;
        let gflops = |multiply_adds: f64| time.map(|t| 2.0 * multiply_adds / t.median / 1e3);
        let peak = record.conditions.as_ref().and_then(|beside| beside.peak(&c.kernel));
        let share = gflops(executed).zip(peak).map(|(own, peak)| own / (peak * threads as f64) * 100.0);
        table.row([
            if c.is_of(step) { "*" } else { " " }.to_string(),
            c.kernel.clone(),
            tuning_text(&c.tuning),
            c.formats.as_ref().map_or(String::new(), StepFormats::types),
            time.map_or(String::new(), |t| format!("{:.1}", t.median)),
            time.map_or(String::new(), |t| format!("{:.1} .. {:.1}", t.low, t.high)),
            c.ratio_ci95
                .map_or(String::new(), |[value, low, high]| format!("{value:.3} ({low:.3} .. {high:.3})")),
            c.samples.to_string(),
            gflops(effective.unwrap_or(executed)).map_or(String::new(), |rate| format!("{rate:.1}")),
            share.filter(|_| effective.is_some()).map_or(String::new(), |share| format!("{share:.0}%")),
            effective.map_or(String::new(), |effective| format!("{:.2}x", effective / executed.max(1.0))),
            (c.bytes >> 10).to_string(),
            format!("{:.1e}", c.rel_error),
            c.formats.as_ref().map_or(String::new(), |own| asked(own, &step.formats)),
            c.outcome.to_string(),
        ]);
    }
    table
}

/// What a candidate asks of its neighbours that they do not do in the plan.
fn asked(own: &StepFormats, plan: &StepFormats) -> String {
    let other = |own: &str, plan: &str| (own != plan).then(|| own.to_string());
    let [(src, dst), (plan_src, plan_dst)] = [own.each_type(), plan.each_type()];
    let before = other(src, plan_src).map(|src| format!("{src} before"));
    let behind = other(dst, plan_dst).map(|dst| format!("{dst} behind"));
    before.into_iter().chain(behind).collect::<Vec<_>>().join(", ")
}

/// What the cores did beside the rounds.
fn peaks(beside: &ConditionsRecord, threads: usize) -> String {
    let of = |(tier, gflops): (&String, &f64)| format!("{tier} {gflops:.0} GFLOP/s");
    let list: Vec<String> = beside.peak_gflops.iter().map(of).collect();
    let cores = if threads == 1 { "the core" } else { "each core" };
    let apart = beside.core_to_core_ns.map_or(String::new(), |ns| format!(", {ns:.0} ns from core to core"));
    format!("Meanwhile {cores} ran at {:.2} GHz{apart}; at its peak {}.", beside.clock_ghz, list.join(", "))
}

/// How many of the tunings were tried.
fn searched(search: &SearchRecord) -> String {
    let SearchRecord { evaluated: tried, space: offered, regret: missed, best_skipped: left_out } = search;
    let percent = |ratio: f64| (ratio - 1.0) * 100.0;
    let missed = missed.map_or(String::new(), |[ratio, low, high]| {
        let [ratio, low, high] = [ratio, low, high].map(percent);
        format!("; all of them were tried afterwards, and its best is {ratio:.1}% slower than the best ({low:.1} .. {high:.1}), which it had {}", if *left_out { "left out" } else { "tried" })
    });
    format!("The search has tried {tried} of {offered} tunings{missed}.")
}

/// What rules that do not measure would take, in f32, beside the fastest in f32.
fn rules(record: &ProblemRecord) -> Table {
    let is_f32 = |c: &&CandidateRecord| c.formats.as_ref().is_none_or(|formats| formats.types() == "f32");
    let fastest = record.candidates.iter().filter(is_f32).find_map(candidate_time);
    let mut table = Table::new(&["rule", "would take", "tuning", "us", "regret %"]);
    for (name, &number) in &record.rules {
        let Some(c) = record.candidates.get(number) else { continue };
        let time = candidate_time(c);
        let regret = time.zip(fastest).map(|(own, fastest)| (own.median / fastest.median - 1.0) * 100.0);
        table.row([
            name.clone(),
            c.kernel.clone(),
            tuning_text(&c.tuning),
            time.map_or(String::new(), |time| format!("{:.1}", time.median)),
            regret.map_or(String::new(), |regret| format!("{regret:.1}")),
        ]);
    }
    table
}

/// Names to try instead of a layer that is not there.
fn nearest(plan: &Plan, wanted: &str) -> String {
    let block = wanted.split('.').next().unwrap_or(wanted);
    let all = || plan.steps.iter().flat_map(|step| step.layers.iter());
    let inside = |layer: &&String| layer.split('.').next() == Some(block);
    let alike = |layer: &&String| !wanted.is_empty() && layer.contains(wanted);
    let mut names: Vec<&String> = all().filter(alike).collect();
    if names.is_empty() {
        names = all().filter(inside).collect();
    }
    if names.is_empty() {
        let first =
            all().next().map_or("a plan with steps".to_string(), |name| format!("a name like {name}"));
        return one_line(&first);
    }
    let names: Vec<&str> = names.into_iter().map(String::as_str).take(16).collect();
    one_line(&format!("one of {}", names.join(" ")))
}

#[cfg(test)]
mod tests {
    use engine::plan::schema::PlanSplit;

    use super::*;
    use crate::report::tests::plan;

    fn explained(layer: &str) -> Result<String, String> {
        explained_by(&plan(), layer)
    }

    fn explained_by(plan: &Plan, layer: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plan.json");
        plan.write(&path).expect("written");
        let args = ExplainArgs { layer: layer.to_string(), plan: Some(path), results: PathBuf::new() };
        let mut out = Vec::new();
        explain(&args, &mut out).map_err(|failure| failure.to_string())?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_layer_shows_its_winner_its_candidates_and_what_was_left_out() {
        let text = explained("mixed0.branch1x1").expect("explained");
        for part in [
            "35x35x192 to 35x35x64",
            "15.1 M multiply-adds",
            "because  19.9% faster",
            "*  direct_avx512",
            "bf16 behind  measured",
            "100%",
            "the core ran at 3.00 GHz, 21 ns from core to core; at its peak avx512 100 GFLOP/s",
            "has tried 3 of 9 tunings",
            "winograd_plain  stands aside",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
    }

    #[test]
    fn the_form_of_the_block_is_told_with_its_alternatives() {
        let text = explained("mixed0.branch1x1").expect("explained");
        let form = "form     siblings of mixed0: 600.0 µs; plain 700.0 µs, swap 650.0 µs; saves 14.3%";
        assert!(text.contains(form), "{text}");
    }

    #[test]
    fn how_a_batch_is_split_is_told() {
        let split = |before: Option<&str>, images, apart| {
            let split = PlanSplit { before: before.map(str::to_string), images, per_worker: apart };
            explained_by(&Plan { split: Some(split), ..plan() }, "mixed0.pool").expect("explained")
        };
        let text = split(Some("mixed9"), 1, true);
        let part = "batch    the blocks before mixed9 are taken image by image, each worker its own";
        assert!(text.contains(part), "{text}");
        let text = split(None, 2, false);
        assert!(text.contains("all blocks are taken 2 images at a time, all workers together"), "{text}");
    }

    #[test]
    fn steps_without_measurements_are_explained_too() {
        assert!(explained("mixed0.pool").expect("explained").contains("no measurements"));
    }

    #[test]
    fn an_unknown_layer_gets_one_line_with_names_to_try() {
        let failure = explained("branch").expect_err("no such layer");
        assert!(failure.contains("mixed0.branch1x1") && !failure.contains('\n'), "{failure}");
        assert!(explained("x\ny").expect_err("no such layer").contains("a name like mixed0"));
    }
}
