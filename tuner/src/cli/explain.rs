//! `tuner explain`: one layer, what was measured for it and why its kernel won.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use engine::network::choice::StepFormats;
use engine::plan::records::{
    BlockVariantRecord, CandidateRecord, ConditionsRecord, ProblemRecord, SearchRecord,
};
use engine::plan::schema::{Plan, PlanSplit};
use engine::plan::step::{InNetwork, PlanStep};
use engine::plan::store::plan_or_newest;
use engine::util::error::Failure;
use engine::util::files::one_line;
use kernels::problem::Conv;
use serde::Serialize;

use crate::cli::layer_names::{nearest, resolve};
use crate::cli::output::{Answer, OutputArgs};
use crate::report::charts::shape;
use crate::report::data::{
    StepView, candidate_time, convolution, convolutions, positive, record, steps, tuning_text,
};
use crate::report::page::step_time;
use crate::report::rewrites::form;
use crate::report::table::{Table, layers_text, wrap};
use crate::report::text::{RUNS, count, more, quartiles, short, time_text};

/// Arguments of `explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    /// The layer, like mixed0.branch1x1; torchvision's and Keras's names as well, like Mixed_5b.branch1x1 or conv2d_5
    layer: String,
    /// The plan; by default the newest of this machine
    #[arg(long, value_name = "PLAN.json")]
    plan: Option<PathBuf>,
    /// Folder of results, one folder a machine inside
    #[arg(long, value_name = "DIR", env = "TUNER_RESULTS", default_value = "bench-results")]
    results: PathBuf,
    /// Show all candidates, not only the ten fastest
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Candidates that are shown without `--all`.
const SHOWN: usize = 10;

/// A layer of a plan.
#[derive(Serialize)]
struct Explained<'a> {
    layer: &'a str,
    model: &'a str,
    plan: String,
    step: &'a PlanStep,
    block_variant: Option<&'a BlockVariantRecord>,
    split: Option<&'a PlanSplit>,
    /// Other layers with the same problem.
    shared_with: Vec<&'a str>,
    /// What was measured of its problem.
    measurements: Option<&'a ProblemRecord>,
    #[serde(skip)]
    view: &'a StepView<'a>,
    #[serde(skip)]
    in_words: Option<String>,
    #[serde(skip)]
    threads: usize,
    #[serde(skip)]
    shown: usize,
}

/// Runs `explain`.
pub fn explain(args: &ExplainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let path = plan_or_newest(args.plan.as_ref(), &args.results)?;
    let plan = Plan::read(&path)?;
    let views = steps(&plan);
    let layer = resolve(&plan, &args.layer).ok_or_else(|| {
        let (file, wanted, expected) = (path.display(), one_line(&args.layer), nearest(&plan, &args.layer));
        format!("{file}: layer `{wanted}` is not there, expected {expected}")
    })?;
    let view = views.iter().find(|view| view.step.layers.contains(&layer)).expect("a layer of a step");
    let shown = if args.all { usize::MAX } else { SHOWN };
    args.output.print(&explained(&plan, &path, &layer, view, shown), out)
}

fn explained<'a>(
    plan: &'a Plan,
    path: &Path,
    layer: &'a str,
    view: &'a StepView<'a>,
    shown: usize,
) -> Explained<'a> {
    let step = view.step;
    let same = plan.steps.iter().filter(|other| other.problem == step.problem);
    let others = same.flat_map(|other| &other.layers).filter(|other| !step.layers.contains(other));
    let in_words = convolutions(plan).iter().find(|problem| problem.name == step.problem).map(shape);
    Explained {
        layer,
        model: &plan.model,
        plan: path.display().to_string(),
        step,
        block_variant: plan.block_variants.iter().find(|variant| variant.block == view.block),
        split: plan.split.as_ref(),
        shared_with: others.map(String::as_str).collect(),
        measurements: record(plan, step),
        view,
        in_words,
        threads: plan.threads,
        shown,
    }
}

impl Answer for Explained<'_> {
    fn text(&self, width: usize) -> String {
        let mut text = self.facts(width);
        if self.step.in_network.len() > 1 {
            let _ =
                write!(text, "\nIn-network times of the finalists:\n\n{}", in_network(self.step).fold(width));
        }
        let Some(record) = self.measurements else {
            return text + "\nthe plan has no measurements of this problem\n";
        };
        let _ = write!(text, "\nIsolated times:\n\n{}", self.candidates(record).fold(width));
        for note in self.notes(record) {
            let _ = writeln!(text, "{}", wrap(&note, width, 2));
        }
        if !record.rules.is_empty() {
            let _ = write!(text, "\n{}", rules(record).fold(width));
        }
        if !record.excluded.is_empty() {
            let mut table = Table::new(&["left out", "reason"]);
            for (id, reason) in &record.excluded {
                table.row([id.clone(), reason.as_str().map_or_else(|| reason.to_string(), str::to_string)]);
            }
            let _ = write!(text, "\n{}", table.fold(width));
        }
        text
    }
}

impl Explained<'_> {
    /// One fact a line.
    fn facts(&self, width: usize) -> String {
        let step = self.step;
        let mut facts = vec![("layer", format!("{} of {}, {}", self.layer, self.model, self.plan))];
        if step.layers.len() > 1 {
            facts.push(("step", step.layers.join(" + ")));
        }
        facts.extend(self.block_variant.map(|variant| ("form", form(variant))));
        facts.extend(self.split.map(|split| ("batch", split.to_string())));
        facts.push(("problem", step.problem.clone()));
        facts.extend(self.in_words.as_ref().map(|words| ("", words.clone())));
        if !self.shared_with.is_empty() {
            let others: Vec<String> = self.shared_with.iter().map(|layer| layer.to_string()).collect();
            facts.push(("shared", format!("with {}", layers_text(&others))));
        }
        facts.push(("kernel", format!("{} [{}]", step.kernel, tuning_text(&step.tuning))));
        facts.push(("formats", step.formats.to_string()));
        facts.push(("time", format!("{}, {}", step_time(self.view), self.kind_of_time())));
        facts.push(("because", step.reason.to_string()));
        if let Some(second) = &step.runner_up {
            let takes = positive(Some(second.time_us / self.view.us()))
                .map_or(String::new(), |ratio| format!(", {}", more(ratio)));
            facts.push(("second", format!("{}, {}{takes}", second.id, time_text(second.time_us))));
        }
        facts.extend(self.times().map(|times| ("times", times)));
        let line = |(name, fact): (&str, String)| wrap(&format!("{name:<8} {fact}"), width, 9) + "\n";
        facts.into_iter().map(line).collect()
    }

    /// Which of the step's times [`PlanStep::time_us`] is.
    fn kind_of_time(&self) -> &'static str {
        if self.step.in_network.is_empty() { "isolated time" } else { "in-network time" }
    }

    fn times(&self) -> Option<String> {
        let step = self.step;
        let named = [
            ("isolated", step.isolated_us),
            ("predicted", step.predicted_us),
            ("measured in the whole network", step.network_us),
        ];
        let known: Vec<String> =
            named.iter().filter_map(|(name, us)| Some(format!("{name} {}", time_text((*us)?)))).collect();
        (!known.is_empty()).then(|| known.join(", "))
    }

    /// The fastest candidates of a problem, and the chosen one.
    fn candidates(&self, record: &ProblemRecord) -> Table {
        let conv = convolution(&record.problem);
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
        ])
        .details(&["types", "outcome", "KiB", "saved", "GFLOP/s", "asks", "of peak"]);
        for (index, c) in record.candidates.iter().enumerate() {
            if index < self.shown || self.step.runs(&c.id) {
                table.row(self.candidate(record, conv.as_ref(), c));
            }
        }
        table
    }

    fn candidate(&self, record: &ProblemRecord, conv: Option<&Conv>, c: &CandidateRecord) -> [String; 15] {
        let direct = conv.map(|conv| conv.multiply_adds() as f64);
        let (time, executed) = (candidate_time(c), c.multiply_adds as f64);
        let gflops = |multiply_adds: f64| time.map(|t| 2.0 * multiply_adds / t.median / 1e3);
        let peak = record.conditions.as_ref().and_then(|conditions| conditions.peak(&c.id.kernel));
        let share = gflops(executed).zip(peak).map(|(own, peak)| own / (peak * self.threads as f64) * 100.0);
        [
            if self.step.runs(&c.id) { "*" } else { " " }.to_string(),
            c.id.kernel.clone(),
            tuning_text(&c.id.tuning),
            c.id.formats.types(),
            time.map_or(String::new(), |t| short(t.median)),
            time.map_or(String::new(), |t| quartiles(t, Some(c.samples))),
            c.ratio_ci95.map_or(String::new(), |ratio| ratio_text(ratio, c.samples)),
            c.samples.to_string(),
            gflops(direct.unwrap_or(executed)).map_or(String::new(), short),
            share.filter(|_| direct.is_some()).map_or(String::new(), |share| format!("{share:.0}%")),
            direct.map_or(String::new(), |direct| format!("{:.2}x", direct / executed.max(1.0))),
            (c.bytes >> 10).to_string(),
            format!("{:.1e}", c.rel_error),
            asked(&c.id.formats, &self.step.formats),
            c.outcome.to_string(),
        ]
    }

    /// What stands below the table of candidates.
    fn notes(&self, record: &ProblemRecord) -> Vec<String> {
        let mut notes = Vec::new();
        let hidden = record.candidates.len().saturating_sub(self.shown);
        if hidden > 0 {
            notes.push(format!("{} more: --all shows all", count(hidden, "candidate")));
        }
        notes.push(
            "*: chosen. -: fewer than five runs. GFLOP/s count a direct computation's operations; the share of \
             the peak counts those that the kernel executes, saved is the ratio of the two. Asks: types that \
             its neighbours would have to change to."
                .to_string(),
        );
        notes.extend(record.conditions.as_ref().map(|conditions| conditions_text(conditions, self.threads)));
        notes.extend(record.search.as_ref().map(searched));
        notes
    }
}

/// A ratio and its interval; `-` of too few runs.
fn ratio_text([ratio, low, high]: [f64; 3], runs: usize) -> String {
    match runs {
        _ if low == high => format!("{ratio:.2}"),
        runs if runs < RUNS => "-".to_string(),
        _ => format!("{ratio:.2} ({low:.2} .. {high:.2})"),
    }
}

/// Candidates that were timed in the network, the fastest first.
fn in_network(step: &PlanStep) -> Table {
    let mut table = Table::new(&["", "kernel", "tuning", "us", "quartiles", "vs chosen"]);
    let mut list: Vec<&InNetwork> = step.in_network.iter().collect();
    list.sort_by(|a, b| a.time_us.median.total_cmp(&b.time_us.median));
    let own = step.time_us.map_or(f64::NAN, |time| time.median);
    for c in list {
        table.row([
            if step.runs(&c.id) { "*" } else { " " }.to_string(),
            c.id.kernel.clone(),
            tuning_text(&c.id.tuning),
            short(c.time_us.median),
            quartiles(c.time_us, None),
            format!("{:.3}", c.time_us.median / own),
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

/// The conditions of the rounds.
fn conditions_text(conditions: &ConditionsRecord, threads: usize) -> String {
    let of = |(tier, gflops): (&String, &f64)| format!("{tier} {gflops:.0} GFLOP/s");
    let list: Vec<String> = conditions.peak_gflops.iter().map(of).collect();
    let cores = if threads == 1 { "the core" } else { "each core" };
    let latency =
        conditions.core_to_core_ns.map_or(String::new(), |ns| format!(", {ns:.0} ns from core to core"));
    format!(
        "Meanwhile {cores} ran at {:.2} GHz{latency}; at its peak {}.",
        conditions.clock_ghz,
        list.join(", ")
    )
}

/// How many of the tunings were tried.
fn searched(search: &SearchRecord) -> String {
    let SearchRecord { evaluated, space, regret, best_skipped } = search;
    let percent = |ratio: f64| (ratio - 1.0) * 100.0;
    let regret = regret.map_or(String::new(), |[ratio, low, high]| {
        let [ratio, low, high] = [ratio, low, high].map(percent);
        let had = if *best_skipped { "left out" } else { "tried" };
        format!("; all of them were tried afterwards, and its best is {ratio:.1}% slower than the best ({low:.1} .. {high:.1}), which it had {had}")
    });
    format!("The search has tried {evaluated} of {}{regret}.", count(*space, "tuning"))
}

/// What rules that do not measure would take, in f32, with the fastest in f32.
fn rules(record: &ProblemRecord) -> Table {
    let is_f32 = |c: &&CandidateRecord| c.id.formats.types() == "f32";
    let fastest = record.candidates.iter().filter(is_f32).find_map(candidate_time);
    let mut table = Table::new(&["rule", "would take", "tuning", "us", "regret"]);
    for (name, &number) in &record.rules {
        let Some(c) = record.candidates.get(number) else { continue };
        let time = candidate_time(c);
        let regret = time.zip(fastest).map(|(own, fastest)| more(own.median / fastest.median));
        table.row([
            name.clone(),
            c.id.kernel.clone(),
            tuning_text(&c.id.tuning),
            time.map_or(String::new(), |time| short(time.median)),
            regret.unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use engine::plan::schema::PlanSplit;

    use engine::network::choice::CandidateId;

    use super::*;
    use crate::report::tests::plan;

    fn explained(layer: &str) -> Result<String, String> {
        explained_by(&plan(), layer)
    }

    fn explained_by(plan: &Plan, layer: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plan.json");
        plan.write(&path).expect("written");
        let args = ExplainArgs {
            layer: layer.to_string(),
            plan: Some(path),
            results: PathBuf::new(),
            all: false,
            output: OutputArgs { json: false, wide: true },
        };
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
        let form =
            "form     fuse_siblings of mixed0: 600 µs; plain 700 µs, conv_before_pool 650 µs; saves 14.3%";
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

    #[test]
    fn names_of_torchvision_and_keras_are_names_too() {
        for name in ["Mixed_5b.branch1x1", "conv2d_5"] {
            assert!(
                explained(name).expect("explained").starts_with("layer    mixed0.branch1x1 of"),
                "{name}"
            );
        }
    }

    #[test]
    fn ten_candidates_are_shown_and_the_chosen_one() {
        let mut plan = plan();
        let candidates = &mut plan.measurements[0].candidates;
        let first = candidates[1].clone();
        let other = |i: usize| CandidateRecord {
            id: CandidateId { kernel: format!("other{i}_plain"), ..first.id.clone() },
            ..first.clone()
        };
        let others: Vec<CandidateRecord> = (0..20).map(other).collect();
        candidates.splice(0..0, others);
        let text = explained_by(&plan, "mixed0.branch1x1").expect("explained");
        assert!(text.contains("other9_plain") && !text.contains("other10_plain"), "{text}");
        assert!(text.contains("*  direct_avx512") && text.contains("14 candidates more: --all"), "{text}");
    }
}
