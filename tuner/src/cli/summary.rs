//! What a person wants to know of a plan: its time, where that goes, what measuring has found, how quiet it was.

use std::fmt::Write;

use engine::network::block_variant::BlockVariant;
use engine::plan::records::{CandidateRecord, NetworkVariant, Noise};
use engine::plan::schema::Plan;
use engine::plan::step::PlanStep;
use serde::Serialize;

use crate::bench::policy::POLICY;
use crate::cli::output::Answer;
use crate::planner::context::process_bytes;
use crate::report::data::{StepView, by_family, candidate_time, positive, record, shares, steps, total};
use crate::report::rewrites;
use crate::report::table::{Table, layers_text, wrap};
use crate::report::text::{count, mib, more, short, time_text};

/// Steps that are shown because a rule would have chosen otherwise.
const SHOWN: usize = 5;

/// Families that have a line; the others share one.
const FAMILIES: usize = 9;

/// What a person wants to know of a plan.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    model: &'a str,
    shape: Option<&'a str>,
    batch: usize,
    threads: usize,
    predicted_ms: Option<f64>,
    measured_ms: Option<f64>,
    image_ms: Option<f64>,
    images_per_second: Option<f64>,
    /// The time of the built-in choice over that of the plan.
    built_in_ratio: Option<f64>,
    /// The rule that is the fastest in the whole network.
    best_rule: Option<RuleRatio<'a>>,
    rel_error: Option<f64>,
    max_rel_error: f64,
    memory_mib: Option<Memory>,
    blocks: Vec<Part>,
    families: Vec<Part>,
    found: Found<'a>,
    noise: Option<Noise>,
}

/// A rule, and the whole network's time by it over that of the plan.
#[derive(Debug, Serialize)]
struct RuleRatio<'a> {
    rule: &'a str,
    ratio: f64,
}

/// Memory in MiB: what a process takes that runs the plan, and parts of it.
#[derive(Debug, Serialize)]
struct Memory {
    process: f64,
    weights: f64,
    activations: f64,
    scratch: f64,
}

/// Steps that have something in common, and the sum of their times.
#[derive(Debug, Serialize)]
struct Part {
    name: String,
    steps: usize,
    time_us: f64,
    share: f64,
}

/// What measuring has found that a rule would not.
#[derive(Debug, Default, Serialize)]
struct Found<'a> {
    /// The rule with the least regret on single convolutions.
    rule: Option<&'a str>,
    regret: Option<f64>,
    /// Convolutions for which the rule has a choice, and those for which it is another.
    convolutions: usize,
    other_choices: usize,
    /// Those that gain most, the first of them most.
    gains: Vec<Gain<'a>>,
    /// Blocks in another form than the plain one, by form.
    block_variants: Vec<(String, usize)>,
    /// Microseconds of the steps that differ: in the plain form, and as chosen.
    block_variants_us: Option<[f64; 2]>,
    /// Steps of which several candidates were timed in the network, and those that chose another than by isolated time.
    in_network: usize,
    changed_in_network: usize,
    batch_split: Option<String>,
}

/// A step, what was chosen and what a rule takes: isolated times.
#[derive(Debug, Serialize)]
struct Gain<'a> {
    layers: &'a [String],
    kernel: &'a str,
    isolated_us: f64,
    rule_kernel: &'a str,
    rule_us: f64,
}

impl Gain<'_> {
    fn saved_us(&self) -> f64 {
        self.rule_us - self.isolated_us
    }
}

/// What a person wants to know of a plan, in lines of at most `width` characters.
pub fn summary(plan: &Plan, width: usize) -> String {
    Summary::of(plan).text(width)
}

impl<'a> Summary<'a> {
    /// Of a plan.
    pub fn of(plan: &'a Plan) -> Self {
        let views = steps(plan);
        let sum = total(&views);
        let measured_ms = positive(plan.measured_ms);
        let image_ms = measured_ms.map(|ms| ms / plan.batch.max(1) as f64);
        let ratios = || {
            let own = plan.networks.first().map_or(f64::NAN, |own| own.time_us.median);
            let ratio = move |time: f64| positive(Some(time / own));
            plan.networks.iter().filter_map(move |n| Some((&n.network, ratio(n.time_us.median)?)))
        };
        let rules = ratios().filter_map(|(network, ratio)| match network {
            NetworkVariant::Rule(rule) => Some((rule.as_str(), ratio)),
            _ => None,
        });
        Self {
            model: &plan.model,
            shape: plan.shape.as_deref(),
            batch: plan.batch,
            threads: plan.threads,
            predicted_ms: positive(plan.predicted_ms),
            measured_ms,
            image_ms,
            images_per_second: image_ms.map(|ms| 1e3 / ms),
            built_in_ratio: ratios()
                .find(|(network, _)| **network == NetworkVariant::BuiltIn)
                .map(|(_, ratio)| ratio),
            best_rule: rules
                .min_by(|(_, a), (_, b)| a.total_cmp(b))
                .map(|(rule, ratio)| RuleRatio { rule, ratio }),
            rel_error: plan.rel_error,
            max_rel_error: plan.max_rel_error,
            memory_mib: memory(plan),
            blocks: parts(shares(&views, |step| step.block), sum),
            families: families(&views, sum),
            found: Found::of(plan),
            noise: plan.noise,
        }
    }
}

fn memory(plan: &Plan) -> Option<Memory> {
    let bytes = plan.memory_bytes?;
    let all = bytes.weights + bytes.activations + bytes.scratch + process_bytes(plan.threads);
    Some(Memory {
        process: mib(all),
        weights: mib(bytes.weights),
        activations: mib(bytes.activations),
        scratch: mib(bytes.scratch),
    })
}

fn parts(shares: Vec<crate::report::data::Share>, sum: f64) -> Vec<Part> {
    let part = |share: crate::report::data::Share| Part {
        name: share.name.to_string(),
        steps: share.steps,
        time_us: share.us,
        share: if sum > 0.0 { share.us / sum } else { 0.0 },
    };
    shares.into_iter().map(part).collect()
}

/// The families with the most time, and all others together.
fn families(views: &[StepView], sum: f64) -> Vec<Part> {
    let mut families = parts(by_family(views), sum);
    if families.len() > FAMILIES {
        let rest = families.split_off(FAMILIES - 1);
        let add = |a: Part, b: Part| Part {
            name: "other".to_string(),
            steps: a.steps + b.steps,
            time_us: a.time_us + b.time_us,
            share: a.share + b.share,
        };
        families.extend(rest.into_iter().reduce(add));
    }
    families
}

impl<'a> Found<'a> {
    fn of(plan: &'a Plan) -> Self {
        let tie = plan.noise.map_or(0.0, |noise| noise.tie);
        let known = plan.rules.iter().filter(|rule| rule.fastest_us > 0.0 && rule.regret().is_finite());
        let rule = known.min_by(|a, b| a.regret().total_cmp(&b.regret()));
        let chosen = plan.block_variants.iter().filter(|b| b.variant != BlockVariant::PLAIN.to_string());
        let mut block_variants: Vec<(String, usize)> = Vec::new();
        for block in chosen {
            match block_variants.iter_mut().find(|(name, _)| *name == block.variant) {
                Some((_, count)) => *count += 1,
                None => block_variants.push((block.variant.clone(), 1)),
            }
        }
        let [plain, own] = rewrites::total(&plan.block_variants);
        let mut found = Self {
            rule: rule.map(|rule| rule.rule.as_str()),
            regret: rule.map(engine::plan::records::RuleRecord::regret),
            block_variants_us: (!block_variants.is_empty() && plain > 0.0).then_some([plain, own]),
            block_variants,
            in_network: plan.steps.iter().filter(|step| step.in_network.len() > 1).count(),
            changed_in_network: plan.steps.iter().filter(|step| step.flip(tie).is_some()).count(),
            batch_split: plan.split.as_ref().map(ToString::to_string),
            ..Self::default()
        };
        if let Some(rule) = found.rule {
            found.compare(plan, rule);
        }
        found
    }

    /// Compares the chosen candidates with those of a rule.
    fn compare(&mut self, plan: &'a Plan, rule: &str) {
        for step in &plan.steps {
            let Some([own, by_rule]) = both(plan, step, rule) else { continue };
            self.convolutions += 1;
            if own.id == by_rule.id {
                continue;
            }
            self.other_choices += 1;
            let Some((time, rule_time)) = candidate_time(own).zip(candidate_time(by_rule)) else { continue };
            self.gains.push(Gain {
                layers: &step.layers,
                kernel: &own.id.kernel,
                isolated_us: time.median * step.repeats as f64,
                rule_kernel: &by_rule.id.kernel,
                rule_us: rule_time.median * step.repeats as f64,
            });
        }
        self.gains.retain(|gain| gain.saved_us() > 0.0);
        self.gains.sort_by(|a, b| b.saved_us().total_cmp(&a.saved_us()));
        self.gains.truncate(SHOWN);
    }
}

/// The candidate of a step, and that of a rule.
fn both<'a>(plan: &'a Plan, step: &PlanStep, rule: &str) -> Option<[&'a CandidateRecord; 2]> {
    let record = record(plan, step)?;
    let by_rule = record.candidates.get(*record.rules.get(rule)?)?;
    Some([record.candidates.iter().find(|c| step.runs(&c.id))?, by_rule])
}

impl Answer for Summary<'_> {
    fn text(&self, width: usize) -> String {
        let paragraphs = [self.result(width), self.time(width), self.found.text(width), self.quiet(width)];
        let paragraphs = paragraphs.into_iter().filter(|text| !text.is_empty());
        paragraphs.collect::<Vec<_>>().join("\n")
    }
}

impl Summary<'_> {
    /// The result in some lines.
    fn result(&self, width: usize) -> String {
        let shape = self.shape.map_or(String::new(), |shape| format!(" {shape}"));
        let threads = count(self.threads, "thread");
        let mut lines = Vec::new();
        if let Some((image_ms, rate)) = self.image_ms.zip(self.images_per_second) {
            let batch = match (self.batch, self.measured_ms) {
                (batch, Some(ms)) if batch > 1 => {
                    format!(" ({} for a batch of {batch})", time_text(ms * 1e3))
                }
                _ => String::new(),
            };
            let time = time_text(image_ms * 1e3);
            lines.push(format!(
                "{}{shape}: {time} an image{batch} on {threads}, {} images a second",
                self.model,
                short(rate)
            ));
        } else {
            lines.push(format!("{}{shape} on {threads}: not measured", self.model));
        }
        if let Some(ratio) = self.built_in_ratio {
            lines.push(format!("  {ratio:.2} times as fast as the built-in choice"));
        }
        if let Some(RuleRatio { rule, ratio }) = &self.best_rule {
            lines.push(format!("  {ratio:.2} times as fast as the best published rule, {rule}"));
        }
        let error = self.rel_error.map_or("not measured".to_string(), |error| format!("{error:.1e}"));
        lines.push(format!("  relative error {error}, bound {:.0e}", self.max_rel_error));
        if let Some(Memory { process, weights, activations, scratch }) = self.memory_mib {
            let parts = format!(
                "weights {}, activations {}, scratch {}",
                short(weights),
                short(activations),
                short(scratch)
            );
            lines.push(format!("  memory of a process up to {:.0} MiB ({parts})", process.ceil()));
        }
        lines.iter().map(|line| wrap(line, width, 4) + "\n").collect()
    }

    /// Where the time goes, by block beside by family where both fit.
    fn time(&self, width: usize) -> String {
        let sum: f64 = self.blocks.iter().map(|part| part.time_us).sum();
        if sum <= 0.0 {
            return String::new();
        }
        let tables = [("block", &self.blocks), ("family", &self.families)]
            .map(|(what, parts)| table(what, parts, sum));
        let [left, right] = tables.each_ref().map(|table| table.fold(width));
        let widest = left.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        let beside = right.lines().all(|line| widest + 6 + line.chars().count() <= width);
        let mut text = "where the time goes:\n\n".to_string();
        if !beside {
            return text + &left + "\n" + &right;
        }
        let (mut left, mut right) = (left.lines(), right.lines());
        loop {
            let (a, b) = (left.next(), right.next());
            if a.is_none() && b.is_none() {
                return text;
            }
            let line = format!("{:widest$}      {}", a.unwrap_or(""), b.unwrap_or(""));
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }

    /// How quiet the machine was.
    fn quiet(&self, width: usize) -> String {
        let mut parts = Vec::new();
        if let Some((predicted, measured)) = self.predicted_ms.zip(self.measured_ms) {
            let off = more(measured / predicted);
            let [predicted, measured] = [predicted, measured].map(|ms| time_text(ms * 1e3));
            parts.push(format!("predicted {predicted}, measured {measured} ({off})"));
        }
        parts.extend(self.noise.as_ref().map(noise_text));
        parts.iter().map(|part| wrap(part, width, 2) + "\n").collect()
    }
}

/// The noise and the load of the machine in words.
pub fn noise_text(noise: &Noise) -> String {
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    let busy = POLICY.contention.busy_share;
    let load = if noise.disturbed > busy || noise.steal_share > busy { "busy" } else { "quiet" };
    let mut parts = vec![
        format!("the machine was {load}: {} of the runs were disturbed", percent(noise.disturbed)),
        format!("steal {}", percent(noise.steal_share)),
        format!("noise floor {}", percent(noise.noise_floor)),
        format!("ties within {}", percent(noise.tie)),
    ];
    if let Some([low, middle, high]) = noise.clock_ghz {
        parts.push(format!("clock {middle:.2} GHz ({low:.2} to {high:.2})"));
    }
    if let Some(distance) = noise.core_distance {
        let range = format!("{:.0} to {:.0} ns", distance.least_ns, distance.most_ns);
        let far = match distance.far > 0.0 {
            true => format!(", far in {:.0}% of the rounds", distance.far * 100.0),
            false => String::new(),
        };
        parts.push(format!("core-to-core latency {range}{far}"));
    }
    parts.join(", ")
}

fn table(what: &str, parts: &[Part], sum: f64) -> Table {
    let (unit, scale) = if sum < 1e3 { ("µs", 1.0) } else { ("ms", 1e3) };
    let mut table = Table::new(&[what, "steps", unit, "share"]);
    for part in parts {
        table.row([
            part.name.clone(),
            part.steps.to_string(),
            short(part.time_us / scale),
            format!("{:.1}%", part.share * 100.0),
        ]);
    }
    table
}

impl Found<'_> {
    fn text(&self, width: usize) -> String {
        let mut lines = Vec::new();
        if let Some((rule, regret)) = self.rule.zip(self.regret) {
            lines.push(format!(
                "the best published rule, {rule}, chooses otherwise for {} of {}; its regret in isolated time is {}",
                self.other_choices,
                count(self.convolutions, "convolution"),
                more(1.0 + regret)
            ));
        }
        if let Some([plain, own]) = self.block_variants_us {
            let blocks = |(name, n): &(String, usize)| format!("{name} in {}", count(*n, "block"));
            let variants = self.block_variants.iter().map(blocks).collect::<Vec<_>>().join(", ");
            lines.push(format!("{variants}: saves {}", time_text(plain - own)));
        }
        if self.in_network > 0 {
            lines.push(format!(
                "{} had close candidates, which were timed in the network; {} chose another there",
                count(self.in_network, "step"),
                self.changed_in_network
            ));
        }
        lines.extend(self.batch_split.as_ref().map(|split| format!("batch: {split}")));
        if lines.is_empty() {
            return String::new();
        }
        let items = lines.iter().map(|line| wrap(&format!("- {line}"), width, 2) + "\n");
        let text = "what measuring has found:\n".to_string() + &items.collect::<String>();
        if self.gains.is_empty() { text } else { text + "\n" + &self.gains_table().fold(width) }
    }

    fn gains_table(&self) -> Table {
        let mut table = Table::new(&["gains most", "chosen", "µs", "by the rule", "µs", "saves"]);
        for gain in &self.gains {
            table.row([
                layers_text(gain.layers),
                gain.kernel.to_string(),
                short(gain.isolated_us),
                gain.rule_kernel.to_string(),
                short(gain.rule_us),
                format!("{:.1}%", gain.saved_us() / gain.rule_us * 100.0),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use engine::plan::records::{MemoryBytes, NetworkRecord, RuleRecord};
    use engine::plan::step::TimeUs;

    use super::*;
    use crate::report::tests::{plan, step};

    /// A plan of a network of many blocks and families, with everything that is summed up.
    fn large() -> Plan {
        let kernels = ["direct_avx512", "winograd_avx512", "strassen_avx512", "pool_avx512", "im2col_gemm"];
        let step = |i: usize| {
            let layer = format!("mixed{}.branch7x7dbl_with_a_long_name_{i}", i / 10);
            step(&layer, "n1h35w35c192k64r1s1", kernels[i % 5], 100.0 + i as f64)
        };
        let time = |us: f64| TimeUs { median: us, low: us, high: us };
        let entry = |name: &str, us: f64| NetworkRecord {
            network: name.to_string().try_into().expect("a network"),
            time_us: time(us),
        };
        Plan {
            model: "inception_v3".to_string(),
            threads: 2,
            steps: (0..120).map(step).collect(),
            measured_ms: Some(13.194),
            predicted_ms: Some(13.0),
            memory_bytes: Some(MemoryBytes { weights: 90 << 20, activations: 20 << 20, scratch: 4 << 20 }),
            networks: vec![
                entry("tuned", 13_194.0),
                entry("built-in choice", 15_833.0),
                entry("rule: op count", 14_000.0),
                entry("rule: first match", 19_000.0),
            ],
            rules: vec![RuleRecord {
                rule: "direct always".to_string(),
                description: String::new(),
                isolated_us: 110.0,
                fastest_us: 100.0,
            }],
            noise: Some(Noise { clock_ghz: Some([3.9, 4.0, 4.1]), ..Noise::default() }),
            ..plan()
        }
    }

    #[test]
    fn a_summary_states_the_result_first_and_fits_a_screen() {
        let text = summary(&large(), 100);
        let first = "inception_v3: 13.2 ms an image on 2 threads, 75.8 images a second\n";
        assert!(text.starts_with(first), "{text}");
        for part in [
            "1.20 times as fast as the built-in choice",
            "1.06 times as fast as the best published rule, op count",
            "relative error 1.0e-7, bound 1e-5",
            "memory of a process up to 170 MiB (weights 90.0, activations 20.0, scratch 4.00)",
            "direct always, chooses otherwise",
            "fuse_siblings in 1 block: saves 100 µs",
            "predicted 13.0 ms, measured 13.2 ms (+1.5%)",
            "clock 4.00 GHz (3.90 to 4.10)",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
        assert!(text.lines().count() <= 55, "{}\n{text}", text.lines().count());
    }

    #[test]
    fn a_summary_fits_its_width() {
        for width in [60, 80, 100, 140] {
            let text = summary(&large(), width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
        }
    }

    #[test]
    fn a_batch_is_told_from_an_image() {
        let text = summary(&Plan { batch: 4, ..large() }, 100);
        assert!(
            text.contains("3.30 ms an image (13.2 ms for a batch of 4) on 2 threads, 303 images"),
            "{text}"
        );
    }

    #[test]
    fn a_plan_without_times_has_a_summary() {
        let bare =
            Plan { measured_ms: None, predicted_ms: None, networks: Vec::new(), steps: Vec::new(), ..plan() };
        assert!(summary(&bare, 100).starts_with("mixed0 on 1 thread: not measured"));
    }
}
