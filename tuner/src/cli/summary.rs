//! What a person wants to know of a plan: its time, where that goes, what measuring has found.

use std::fmt::Write;

use engine::network::BlockVariant;
use engine::plan::{
    CandidateRecord, CoreDistance, LoadRecord, MemoryBytes, NetworkVariant, Noise, Plan, PlanStep, RuleRecord,
};
use serde::Serialize;

use crate::bench::POLICY;
use crate::bench::noise::is_busy;
use crate::cli::Answer;
use crate::report::{
    Share, StepView, Table, by_family, candidate_time, count, group, layers_text, mib, more, paragraphs,
    percent, positive, ratio_text, record, rewrites, sections, shares, short, steps, time_text,
};

/// Steps that are shown because a rule would have chosen otherwise.
const SHOWN: usize = 5;

/// Families that have a line; the others share one.
const FAMILIES: usize = 9;

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
    built_in_ci95: Option<[f64; 2]>,
    /// What the plan is, where that was faster in turn than what measuring step by step has chosen.
    whole: Option<&'a NetworkVariant>,
    /// The rule that is the fastest in the whole network.
    best_rule: Option<RuleRatio<'a>>,
    rel_error: Option<f64>,
    max_rel_error: f64,
    memory_mib: Option<Memory>,
    blocks: Vec<Share<'a>>,
    families: Vec<Share<'a>>,
    found: Found<'a>,
    noise: Option<Noise>,
    /// Seconds that measuring might take, and those that it took.
    budget_s: Option<f64>,
    measuring_s: Option<f64>,
}

/// A rule, and the whole network's time by it over that of the plan.
#[derive(Debug, Serialize)]
struct RuleRatio<'a> {
    rule: &'a str,
    ratio: f64,
    /// The interval that holds it in 95 of 100 cases; none of a single round.
    ci95: Option<[f64; 2]>,
}

/// Memory in MiB: what a process takes that runs the plan, and parts of it.
#[derive(Debug, Serialize)]
struct Memory {
    process: f64,
    weights: f64,
    activations: f64,
    scratch: f64,
}

/// What measuring has found that a rule would not.
#[derive(Debug, Serialize)]
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
    /// Steps of which several candidates were timed in the network, and those that then changed.
    in_network: usize,
    changed_in_network: usize,
    /// Steps with a close runner-up, where there was no time to time any in the network.
    not_in_network: usize,
    /// The budget that leaves time for that.
    in_network_budget_s: Option<f64>,
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

impl<'a> Gain<'a> {
    fn of(step: &'a PlanStep, [chosen, by_rule]: [&'a CandidateRecord; 2]) -> Option<Self> {
        let time = |candidate| Some(candidate_time(candidate)?.median * step.repeats as f64);
        Some(Self {
            layers: &step.layers,
            kernel: &chosen.id.kernel,
            isolated_us: time(chosen)?,
            rule_kernel: &by_rule.id.kernel,
            rule_us: time(by_rule)?,
        })
    }

    fn saved_us(&self) -> f64 {
        self.rule_us - self.isolated_us
    }
}

impl<'a> Summary<'a> {
    pub fn of(plan: &'a Plan) -> Self {
        let views = steps(plan);
        let measured_ms = positive(plan.measured_ms);
        let image_ms = measured_ms.map(|ms| ms / plan.batch.max(1) as f64);
        let own = plan.networks.first();
        let ratios = plan
            .networks
            .iter()
            .filter_map(|n| Some((&n.network, positive(Some(n.ratio(own?)))?, n.interval())));
        let built_in = ratios.clone().find(|(network, ..)| **network == NetworkVariant::BuiltIn);
        let rules = ratios.filter_map(|(network, ratio, ci95)| match network {
            NetworkVariant::Rule(rule) => Some(RuleRatio { rule, ratio, ci95 }),
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
            built_in_ratio: built_in.map(|(_, ratio, _)| ratio),
            built_in_ci95: built_in.and_then(|(.., ci95)| ci95),
            best_rule: rules.min_by(|a, b| a.ratio.total_cmp(&b.ratio)),
            rel_error: plan.rel_error,
            max_rel_error: plan.max_rel_error,
            whole: own.map(|own| &own.network).filter(|network| !network.is_by_step()),
            memory_mib: memory(plan),
            blocks: shares(&views, |step| step.block),
            families: families(&views),
            found: Found::of(plan),
            noise: plan.noise,
            budget_s: plan.budget_s,
            measuring_s: plan.measuring_s,
        }
    }
}

fn memory(plan: &Plan) -> Option<Memory> {
    let MemoryBytes { weights, activations, scratch, .. } = plan.memory_bytes?;
    let process = plan.process_bytes()?;
    let [process, weights, activations, scratch] = [process, weights, activations, scratch].map(mib);
    Some(Memory { process, weights, activations, scratch })
}

/// The families with the most time, and all others together.
fn families<'a>(views: &[StepView<'a>]) -> Vec<Share<'a>> {
    let mut families = by_family(views);
    if families.len() > FAMILIES {
        let rest = families.split_off(FAMILIES - 1);
        families.extend(rest.into_iter().reduce(|a, b| Share {
            name: "other",
            steps: a.steps + b.steps,
            time_us: a.time_us + b.time_us,
            share: a.share + b.share,
        }));
    }
    families
}

impl<'a> Found<'a> {
    fn of(plan: &'a Plan) -> Self {
        let tie = plan.noise.map_or(0.0, |noise| noise.tie);
        let known = plan.rules.iter().filter(|rule| rule.fastest_us > 0.0 && rule.regret().is_finite());
        let rule = known.min_by(|a, b| a.regret().total_cmp(&b.regret()));
        let compare = |step| Some((step, both(plan, step, &rule?.rule)?));
        let compared: Vec<_> = plan.steps.iter().filter_map(compare).collect();
        let others = compared.iter().filter(|(_, [chosen, by_rule])| chosen.id != by_rule.id);
        let gains = others.clone().filter_map(|(step, pair)| Gain::of(step, *pair));
        let mut gains: Vec<Gain> = gains.filter(|gain| gain.saved_us() > 0.0).collect();
        gains.sort_by(|a, b| b.saved_us().total_cmp(&a.saved_us()));
        gains.truncate(SHOWN);
        let changed = plan.block_variants.iter().filter(|b| b.variant != BlockVariant::PLAIN.to_string());
        let blocks = group(changed.map(|block| (block.variant.clone(), &block.block)));
        let block_variants: Vec<_> = blocks.into_iter().map(|(name, blocks)| (name, blocks.len())).collect();
        let [plain, chosen] = rewrites::total(&plan.block_variants);
        Self {
            rule: rule.map(|rule| rule.rule.as_str()),
            regret: rule.map(RuleRecord::regret),
            convolutions: compared.len(),
            other_choices: others.count(),
            gains,
            block_variants_us: (!block_variants.is_empty() && plain > 0.0).then_some([plain, chosen]),
            block_variants,
            in_network: plan.steps.iter().filter(|step| step.in_network.len() > 1).count(),
            changed_in_network: plan.steps.iter().filter(|step| step.flip(tie).is_some()).count(),
            not_in_network: not_in_network(plan),
            in_network_budget_s: plan.in_network_budget_s,
            batch_split: plan.split.as_ref().map(ToString::to_string),
        }
    }
}

/// See [`Found::not_in_network`].
fn not_in_network(plan: &Plan) -> usize {
    if plan.steps.iter().any(|step| step.in_network.len() > 1) {
        return 0;
    }
    let [_, close] = POLICY.in_network.slower;
    let is_close = |step: &&PlanStep| {
        step.runner_up
            .as_ref()
            .zip(step.time_us)
            .is_some_and(|(second, own)| second.time_us <= close * own.median)
    };
    plan.steps.iter().filter(is_close).count()
}

/// The candidate of a step, and that of a rule.
fn both<'a>(plan: &'a Plan, step: &PlanStep, rule: &str) -> Option<[&'a CandidateRecord; 2]> {
    let record = record(plan, step)?;
    let by_rule = record.candidates.get(*record.rules.get(rule)?)?;
    Some([record.candidates.iter().find(|c| step.runs(&c.id))?, by_rule])
}

impl Answer for Summary<'_> {
    fn text(&self, width: usize) -> String {
        sections([self.result(width), self.time(width), self.found.text(width), self.quiet(width)])
    }
}

impl Summary<'_> {
    fn result(&self, width: usize) -> String {
        let shape = self.shape.map_or(String::new(), |shape| format!(" {shape}"));
        let (model, threads) = (self.model, count(self.threads, "thread"));
        let mut lines = Vec::new();
        if let Some((image_ms, rate)) = self.image_ms.zip(self.images_per_second) {
            let batch = match (self.batch, self.measured_ms) {
                (batch @ 2.., Some(ms)) => format!(" ({} for a batch of {batch})", time_text(ms * 1e3)),
                _ => String::new(),
            };
            let (time, rate) = (time_text(image_ms * 1e3), short(rate));
            lines
                .push(format!("{model}{shape}: {time} an image{batch} on {threads}, {rate} images a second"));
        } else {
            lines.push(format!("{model}{shape} on {threads}: not measured"));
        }
        if let Some(ratio) = self.built_in_ratio {
            let ratio = ratio_text(ratio, self.built_in_ci95);
            lines.push(format!("  {ratio} times as fast as the built-in choice"));
        }
        if let Some(RuleRatio { rule, ratio, ci95 }) = &self.best_rule {
            let ratio = ratio_text(*ratio, *ci95);
            lines.push(format!("  {ratio} times as fast as the best published rule, {rule}"));
        }
        match self.whole {
            Some(NetworkVariant::Earlier) => {
                lines.push("  the earlier plan stays: what was tuned now is not faster".to_string());
            }
            Some(whole) => lines.push(format!(
                "  the plan is `{whole}`: in turn it was faster than what measuring step by step has chosen"
            )),
            None => {}
        }
        let error = self.rel_error.map_or("not measured".to_string(), |error| format!("{error:.1e}"));
        lines.push(format!("  relative error {error}, bound {:.0e}", self.max_rel_error));
        if let Some(Memory { process, weights, activations, scratch }) = self.memory_mib {
            let [weights, activations, scratch] = [weights, activations, scratch].map(short);
            let parts = format!("weights {weights}, activations {activations}, scratch {scratch}");
            lines.push(format!("  memory of a process up to {:.0} MiB ({parts})", process.ceil()));
        }
        paragraphs(lines, width, 4)
    }

    /// Where the time goes: by block, and to the right or below by family.
    fn time(&self, width: usize) -> String {
        let sum: f64 = self.blocks.iter().map(|part| part.time_us).sum();
        if sum <= 0.0 {
            return String::new();
        }
        let tables = [("block", &self.blocks), ("family", &self.families)];
        let [left, right] = tables.map(|(what, parts)| table(what, parts, sum).fold(width));
        let widest = left.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        let fits = right.lines().all(|line| widest + 6 + line.chars().count() <= width);
        if !fits {
            return format!("where the time goes:\n\n{left}\n{right}");
        }
        let mut text = "where the time goes:\n\n".to_string();
        for i in 0..left.lines().count().max(right.lines().count()) {
            let [left, right] = [&left, &right].map(|text| text.lines().nth(i).unwrap_or(""));
            let _ = writeln!(text, "{}", format!("{left:widest$}      {right}").trim_end());
        }
        text
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
        parts.extend(self.budget_s.zip(self.measuring_s).map(|(budget, took)| budget_text(budget, took)));
        paragraphs(parts, width, 2)
    }
}

/// How long measuring took, and by how much it was too long.
fn budget_text(budget: f64, took: f64) -> String {
    let text = format!("measuring took {took:.0} s of a budget of {budget:.0} s");
    if took <= budget * (1.0 + POLICY.stages.exceeded_share) {
        return text;
    }
    let over = took - budget;
    format!(
        "{text}, {over:.0} s too long: each kernel's default tuning and each whole network are measured whatever the \
         budget"
    )
}

/// The noise and the load of the machine in words.
pub fn noise_text(noise: &Noise) -> String {
    let percent = |share| percent(share, 1.0);
    let mut parts = Vec::new();
    if let Some(LoadRecord { cores, before, isolated, networks, after }) = noise.load {
        let networks = networks.map_or(String::new(), |used| format!(", {used:.1} beside whole networks"));
        parts.push(format!(
            "others used {before:.1} of {} before, {isolated:.1} beside candidates{networks}, {after:.1} after",
            count(cores, "core")
        ));
    }
    let networks = noise
        .disturbed_networks
        .map_or(String::new(), |share| format!(" and {} of networks", percent(share)));
    parts.extend([
        format!("{} of the isolated runs{networks} were disturbed", percent(noise.disturbed)),
        format!("steal {}", percent(noise.steal_share)),
        format!("noise floor {}", percent(noise.noise_floor)),
        format!("ties within {}", percent(noise.tie)),
    ]);
    let clock = |[low, middle, high]: [f64; 3]| format!("clock {middle:.2} GHz ({low:.2} to {high:.2})");
    parts.extend(noise.clock_ghz.map(clock));
    if let Some(CoreDistance { least_ns, most_ns, far, .. }) = noise.core_distance {
        let far =
            if far > 0.0 { format!(", far in {:.0}% of the rounds", far * 100.0) } else { String::new() };
        parts.push(format!("core-to-core latency {least_ns:.0} to {most_ns:.0} ns{far}"));
    }
    let load = if is_busy(noise) { "busy" } else { "quiet" };
    format!("the machine was {load}: {}", parts.join(", "))
}

fn table(what: &str, parts: &[Share], sum: f64) -> Table {
    let (unit, scale) = if sum < 1e3 { ("µs", 1.0) } else { ("ms", 1e3) };
    let mut table = Table::new(&format!("{what} | steps | {unit} | share"));
    for Share { name, steps, time_us, share } in parts {
        table.row(&[name, steps, &short(time_us / scale), &percent(*share, 1.0)]);
    }
    table
}

impl Found<'_> {
    fn text(&self, width: usize) -> String {
        let mut lines = Vec::new();
        if let Some((rule, regret)) = self.rule.zip(self.regret) {
            let (others, all) = (self.other_choices, count(self.convolutions, "convolution"));
            let regret = more(1.0 + regret);
            lines.push(format!(
                "- the best published rule, {rule}, chooses otherwise for {others} of {all}; its regret in isolated \
                 time is {regret}"
            ));
        }
        if let Some([plain, chosen]) = self.block_variants_us {
            let blocks = |(name, n): &(String, usize)| format!("{name} in {}", count(*n, "block"));
            let variants = self.block_variants.iter().map(blocks).collect::<Vec<_>>().join(", ");
            lines.push(format!("- {variants}: saves {}", time_text(plain - chosen)));
        }
        if self.not_in_network > 0 {
            let steps = count(self.not_in_network, "step");
            let budget = self.in_network_budget_s.map_or(String::new(), |s| format!(", of some {s:.0} s,"));
            lines.push(format!(
                "- {steps} had close candidates, and no time was left to time them in the network: a larger \
                 --budget{budget} gives it"
            ));
        }
        if self.in_network > 0 {
            let (steps, changed) = (count(self.in_network, "step"), self.changed_in_network);
            lines.push(format!(
                "- {steps} had close candidates, which were timed in the network; {changed} chose another there"
            ));
        }
        lines.extend(self.batch_split.as_ref().map(|split| format!("- batch: {split}")));
        if lines.is_empty() {
            return String::new();
        }
        let mut table = Table::new("gains most | chosen | µs | by the rule | µs | saves");
        for gain in &self.gains {
            let Gain { layers, kernel, isolated_us, rule_kernel, rule_us } = gain;
            let (layers, saves) = (layers_text(layers), percent(gain.saved_us(), *rule_us));
            let [us, rule_us] = [*isolated_us, *rule_us].map(short);
            table.row(&[&layers, kernel, &us, rule_kernel, &rule_us, &saves]);
        }
        let text = "what measuring has found:\n".to_string() + &paragraphs(lines, width, 2);
        sections([text, table.fold_rows(width)])
    }
}

#[cfg(test)]
mod tests {
    use engine::plan::{NetworkRecord, TimeUs};

    use super::*;
    use crate::report::tests::{assert_has, plan, step};

    fn summary(plan: &Plan, width: usize) -> String {
        Summary::of(plan).text(width)
    }

    /// A plan of a network of many blocks and families, with everything that is summed up.
    fn large() -> Plan {
        let kernels = ["direct_avx512", "winograd_avx512", "strassen_avx512", "pool_avx512", "im2col_gemm"];
        let step = |i: usize| {
            let layer = format!("mixed{}.branch7x7dbl_with_a_long_name_{i}", i / 10);
            step(&layer, "n1h35w35c192k64r1s1", kernels[i % 5], 100.0 + i as f64)
        };
        let networks = [
            ("tuned", 13_194.0),
            ("built-in choice", 15_833.0),
            ("rule: op count", 14_000.0),
            ("rule: first match", 19_000.0),
        ];
        let network = |(name, us): (&str, f64)| NetworkRecord {
            network: name.to_string().try_into().expect("a network"),
            time_us: TimeUs { median: us, low: us, high: us },
            runs: None,
            ratio_ci95: None,
        };
        Plan {
            model: "inception_v3".to_string(),
            threads: 2,
            steps: (0..120).map(step).collect(),
            measured_ms: Some(13.194),
            predicted_ms: Some(13.0),
            memory_bytes: Some(MemoryBytes {
                weights: 90 << 20,
                activations: 20 << 20,
                scratch: 4 << 20,
                process: Some(40 << 20),
            }),
            networks: networks.map(network).into(),
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
        let parts = [
            "1.20 times as fast as the built-in choice",
            "1.06 times as fast as the best published rule, op count",
            "relative error 1.0e-7, bound 1e-5",
            "memory of a process up to 154 MiB (weights 90.0, activations 20.0, scratch 4.00)",
            "direct always, chooses otherwise",
            "fuse_siblings in 1 block: saves 100 µs",
            "predicted 13.0 ms, measured 13.2 ms (+1.5%)",
            "clock 4.00 GHz (3.90 to 4.10)",
        ];
        assert_has(&text, &parts);
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
    fn ratios_have_their_intervals_and_a_plan_that_was_not_chosen_step_by_step_is_named() {
        let text = summary(&large(), 100);
        assert!(!text.contains("the plan is") && !text.contains("earlier"), "{text}");
        let with = |first| {
            let mut plan = large();
            plan.networks[1].ratio_ci95 = Some([1.2, 1.1, 1.3]);
            plan.networks[0].network = first;
            summary(&plan, 100)
        };
        let parts = ["1.20 (1.10 .. 1.30) times as fast as the built-in", "the earlier plan stays"];
        assert_has(&with(NetworkVariant::Earlier), &parts);
        assert_has(&with(NetworkVariant::Plain), &parts[..1]);
        let rule = NetworkVariant::Rule("direct always".to_string());
        assert_has(&with(rule), &["the plan is `rule: direct always`: in turn it was faster"]);
    }

    #[test]
    fn load_in_a_stage_makes_a_machine_busy() {
        let quiet = LoadRecord { cores: 2, before: 0.1, isolated: 0.0, networks: Some(0.1), after: 0.2 };
        let noise = |load| Noise { load: Some(load), disturbed_networks: Some(0.05), ..Noise::default() };
        let text = noise_text(&noise(quiet));
        assert!(text.starts_with("the machine was quiet: others used 0.1 of 2 cores before"), "{text}");
        // What is there before and after is shown; it disturbs no run.
        let around = LoadRecord { before: 2.0, after: 2.0, ..quiet };
        assert!(noise_text(&noise(around)).starts_with("the machine was quiet: others used 2.0 of 2 cores"));
        for busy in [LoadRecord { isolated: 1.0, ..quiet }, LoadRecord { networks: Some(0.5), ..quiet }] {
            assert!(noise_text(&noise(busy)).starts_with("the machine was busy"), "{busy:?}");
        }
        let disturbed = Noise { disturbed_networks: Some(0.2), ..noise(quiet) };
        assert!(noise_text(&disturbed).starts_with("the machine was busy"));
    }

    #[test]
    fn a_budget_that_was_exceeded_is_reported() {
        let plan = |took| Plan { budget_s: Some(33.0), measuring_s: Some(took), ..large() };
        let within = summary(&plan(34.0), 200);
        assert!(within.contains("measuring took 34 s of a budget of 33 s\n"), "{within}");
        assert_has(&summary(&plan(41.0), 200), &["measuring took 41 s of a budget of 33 s, 8 s too long: "]);
    }

    #[test]
    fn a_batch_is_told_from_an_image() {
        let part = "3.30 ms an image (13.2 ms for a batch of 4) on 2 threads, 303 images";
        assert_has(&summary(&Plan { batch: 4, ..large() }, 100), &[part]);
    }

    #[test]
    fn a_plan_without_times_has_a_summary() {
        let bare =
            Plan { measured_ms: None, predicted_ms: None, networks: Vec::new(), steps: Vec::new(), ..plan() };
        assert!(summary(&bare, 100).starts_with("mixed0 on 1 thread: not measured"));
    }
}
