//! `tuner explain`: one layer, what was measured for it and why its kernel won.

use std::io::Write;

use engine::network::tuning_text;
use engine::plan::{
    BlockVariantRecord, CandidateRecord, InNetwork, PlanSplit, PlanStep, ProblemRecord, RunnerUp,
};
use engine::util::files::one_line;
use serde::Serialize;

use crate::cli::layer_names::{nearest, resolve};
use crate::cli::{Answer, Failure, OutputArgs, PlanArgs};
use crate::report::rewrites::form;
use crate::report::{
    COLUMNS, Candidates, StepView, Table, candidate_time, convolution, is_edited, layers_text, more,
    paragraphs, positive, quartiles, reason_text, record, sections, shape, short, step_time, steps,
    time_text,
};

#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    /// The layer, like mixed0.branch1x1; torchvision's and Keras's names as well, like
    /// Mixed_5b.branch1x1 or conv2d_5
    layer: String,
    #[command(flatten)]
    plan: PlanArgs,
    /// Show all candidates, not only the ten fastest
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Candidates that are shown without `--all`.
const SHOWN: usize = 10;

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
    /// The kernel or its tuning was changed by hand: the step's times and its reason are another's.
    is_edited: bool,
    #[serde(skip)]
    view: &'a StepView<'a>,
    #[serde(skip)]
    threads: usize,
    #[serde(skip)]
    shown: usize,
}

pub fn explain(args: &ExplainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let (path, plan) = args.plan.read()?;
    let views = steps(&plan);
    let layer = resolve(&plan, &args.layer).ok_or_else(|| {
        let (file, wanted, expected) = (path.display(), one_line(&args.layer), nearest(&plan, &args.layer));
        format!("{file}: layer `{wanted}` is not there, expected {expected}")
    })?;
    let view = views.iter().find(|view| view.step.layers.contains(&layer)).expect("a layer of a step");
    let step = view.step;
    let same = plan.steps.iter().filter(|other| other.problem == step.problem);
    let others = same.flat_map(|other| &other.layers).filter(|other| !step.layers.contains(other));
    let explained = Explained {
        layer: &layer,
        model: &plan.model,
        plan: path.display().to_string(),
        step,
        block_variant: plan.block_variants.iter().find(|variant| variant.block == view.block),
        split: plan.split.as_ref(),
        shared_with: others.map(String::as_str).collect(),
        measurements: record(&plan, step),
        is_edited: is_edited(&plan, step),
        view,
        threads: plan.threads,
        shown: if args.all { usize::MAX } else { SHOWN },
    };
    args.output.print(&explained, out)
}

impl Answer for Explained<'_> {
    fn text(&self, width: usize) -> String {
        let mut parts = vec![self.facts(width)];
        if self.step.in_network.len() > 1 && !self.is_edited {
            let finalists = in_network(self.step).fold(width);
            parts.push(format!("In-network times of the finalists:\n\n{finalists}"));
        }
        if let Some(record) = self.measurements {
            parts.push(format!("Isolated times:\n\n{}", self.candidates(record, width)));
            let mut excluded = Table::new("left out | reason");
            for (id, reason) in &record.excluded {
                excluded.row(&[id, &reason_text(reason)]);
            }
            parts.extend([rules(record), excluded].map(|table| table.fold_rows(width)));
        } else {
            parts.push("the plan has no measurements of this problem\n".to_string());
        }
        sections(parts)
    }
}

impl Explained<'_> {
    /// One fact a line.
    fn facts(&self, width: usize) -> String {
        let step = self.step;
        let others: Vec<String> = self.shared_with.iter().map(|layer| layer.to_string()).collect();
        let kind = if step.in_network.is_empty() { "isolated time" } else { "in-network time" };
        let second = |second: &RunnerUp| {
            let ratio = positive(Some(second.time_us / self.view.us()));
            let takes = ratio.map_or(String::new(), |ratio| format!(", {}", more(ratio)));
            format!("{}, {}{takes}", second.id, time_text(second.time_us))
        };
        let times = [
            ("isolated", step.isolated_us),
            ("predicted", step.predicted_us),
            ("measured in the whole network", step.network_us),
        ];
        let times = times.into_iter().filter_map(|(name, us)| Some(format!("{name} {}", time_text(us?))));
        let times: Vec<String> = times.collect();
        let facts = [
            ("layer", Some(format!("{} of {}, {}", self.layer, self.model, self.plan))),
            ("step", (step.layers.len() > 1).then(|| step.layers.join(" + "))),
            ("form", self.block_variant.map(form)),
            ("batch", self.split.map(ToString::to_string)),
            ("problem", Some(step.problem.clone())),
            ("", convolution(&step.problem).map(|conv| shape(&conv))),
            ("repeats", (step.repeats > 1).then(|| format!("{} times; the times are of all", step.repeats))),
            ("shared", (!others.is_empty()).then(|| format!("with {}", layers_text(&others)))),
            ("kernel", Some(step.id().to_string())),
            ("formats", Some(step.formats.to_string())),
        ];
        let edited = "by hand: this is not what was measured and chosen, so that the step's times and its reason are \
                      another candidate's";
        let measured = [
            ("time", Some(format!("{}, {kind}", step_time(self.view)))),
            ("because", Some(step.reason.to_string())),
            ("second", step.runner_up.as_ref().map(second)),
            ("times", (!times.is_empty()).then(|| times.join(", "))),
        ];
        let facts = facts.into_iter().chain(match self.is_edited {
            true => vec![("edited", Some(edited.to_string()))],
            false => measured.to_vec(),
        });
        let lines = facts.filter_map(|(name, fact)| Some(format!("{name:<8} {}", fact?)));
        paragraphs(lines, width, 9)
    }

    /// The fastest candidates of a problem, and the chosen one.
    fn candidates(&self, record: &ProblemRecord, width: usize) -> String {
        let mark = |c: &CandidateRecord| mark(self.step.runs(&c.id));
        let is_shown = |index: usize| index < self.shown || self.step.runs(&record.candidates[index].id);
        let (threads, formats) = (self.threads, Some(&self.step.formats));
        let candidates = Candidates { record, threads, is_shown: &is_shown, mark: &mark, formats };
        let asks = "Asks: types that its neighbours would have to change to.";
        let columns = format!("*: chosen. {COLUMNS} {asks}");
        let notes = candidates.hidden().into_iter().chain([columns]).chain(candidates.conditions());
        candidates.table().fold(width) + &paragraphs(notes, width, 2)
    }
}

/// Marks what is chosen.
fn mark(is_chosen: bool) -> &'static str {
    if is_chosen { "*" } else { " " }
}

/// Candidates that were timed in the network, the fastest first.
fn in_network(step: &PlanStep) -> Table {
    let mut table = Table::new(" | kernel | tuning | us | quartiles | vs chosen");
    let mut list: Vec<&InNetwork> = step.in_network.iter().collect();
    list.sort_by(|a, b| a.time_us.median.total_cmp(&b.time_us.median));
    let chosen = step.time_us.map_or(f64::NAN, |time| time.median);
    for c in list {
        let (tuning, us) = (tuning_text(&c.id.tuning), short(c.time_us.median));
        let (quartiles, ratio) = (quartiles(c.time_us, None), format!("{:.3}", c.time_us.median / chosen));
        table.row(&[&mark(step.runs(&c.id)), &c.id.kernel, &tuning, &us, &quartiles, &ratio]);
    }
    table
}

/// What rules that do not measure would take, in f32, with the fastest in f32.
fn rules(record: &ProblemRecord) -> Table {
    let is_f32 = |c: &&CandidateRecord| ["", "f32"].contains(&&*c.id.formats.types());
    let fastest = record.candidates.iter().filter(is_f32).find_map(candidate_time);
    let mut table = Table::new("rule | would take | tuning | us | regret");
    for (name, &number) in &record.rules {
        let Some(c) = record.candidates.get(number) else { continue };
        let time = candidate_time(c);
        let regret = time.zip(fastest).map(|(time, fastest)| more(time.median / fastest.median));
        let us = time.map_or(String::new(), |time| short(time.median));
        table.row(&[name, &c.id.kernel, &tuning_text(&c.id.tuning), &us, &regret.unwrap_or_default()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use engine::Plan;

    use super::*;
    use crate::report::tests::{assert_has, plan};

    fn explained(plan: &Plan, layer: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plan.json");
        plan.write(&path).expect("written");
        let args = ExplainArgs {
            layer: layer.to_string(),
            plan: PlanArgs { plan: Some(path), results: PathBuf::new(), of: Default::default() },
            all: false,
            output: OutputArgs { json: false, wide: true },
        };
        let mut out = Vec::new();
        explain(&args, &mut out).map_err(|failure| failure.to_string())?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn a_layer_shows_its_block_its_winner_its_candidates_and_what_was_left_out() {
        let text = explained(&plan(), "mixed0.branch1x1").expect("explained");
        let parts = [
            "35x35x192 to 35x35x64",
            "15.1 M multiply-adds",
            "form     fuse_siblings of mixed0: 600 µs; plain 700 µs, conv_before_pool 650 µs; saves 14.3%",
            "because  19.9% faster",
            "*  direct_avx512",
            "bf16 behind  measured",
            "100%",
            "the core ran at 3.00 GHz, 21 ns from core to core; at its peak avx512 100 GFLOP/s",
            "has tried 3 of 9 tunings",
            "winograd_plain  stands aside",
        ];
        assert_has(&text, &parts);
    }

    #[test]
    fn an_edited_step_is_not_explained_by_another_candidates_measurements() {
        let mut plan = plan();
        let time = plan.measurements[0].candidates[0].time_us.expect("a time").median;
        plan.steps[0].isolated_us = Some(time);
        let layer = plan.steps[0].layers[0].clone();
        let text = explained(&plan, &layer).expect("explained");
        assert!(text.contains("because") && !text.contains("edited"), "{text}");
        plan.steps[0].tuning.insert("m".to_string(), 4.into());
        let text = explained(&plan, &layer).expect("explained");
        assert!(text.contains("edited   by hand") && !text.contains("because"), "{text}");
    }

    #[test]
    fn how_a_batch_is_split_is_told() {
        let before = Some("mixed9".to_string());
        for (before, images, per_worker, part) in [
            (
                before,
                1,
                true,
                "batch    the blocks before mixed9 are taken image by image, each worker its own",
            ),
            (None, 2, false, "all blocks are taken 2 images at a time, all workers together"),
        ] {
            let split = Some(PlanSplit { before, images, per_worker });
            assert_has(&explained(&Plan { split, ..plan() }, "mixed0.pool").expect("explained"), &[part]);
        }
    }

    #[test]
    fn steps_without_measurements_are_explained_too() {
        assert_has(&explained(&plan(), "mixed0.pool").expect("explained"), &["no measurements"]);
    }

    #[test]
    fn an_unknown_layer_gets_one_line_with_names_to_try() {
        for (layer, name) in [("branch", "mixed0.branch1x1"), ("x\ny", "a name like mixed0")] {
            let failure = explained(&plan(), layer).expect_err("no such layer");
            assert!(failure.contains(name) && !failure.contains('\n'), "{failure}");
        }
    }

    #[test]
    fn names_of_torchvision_and_keras_are_names_too() {
        for name in ["Mixed_5b.branch1x1", "conv2d_5"] {
            let text = explained(&plan(), name).expect("explained");
            assert!(text.starts_with("layer    mixed0.branch1x1 of"), "{name}: {text}");
        }
    }

    #[test]
    fn ten_candidates_are_shown_and_the_chosen_one() {
        let mut plan = plan();
        let candidates = &mut plan.measurements[0].candidates;
        let mut other = candidates[1].clone();
        for i in (0..20).rev() {
            other.id.kernel = format!("other{i}_plain");
            candidates.insert(0, other.clone());
        }
        let text = explained(&plan, "mixed0.branch1x1").expect("explained");
        assert!(text.contains("other9_plain") && !text.contains("other10_plain"), "{text}");
        assert!(text.contains("*  direct_avx512") && text.contains("13 candidates more: --all"), "{text}");
    }
}
