//! What a person wants to know of a plan: its time, where that goes, what measuring has found.

use std::fmt::Write;

use engine::plan::{CoreDistance, LoadRecord, MemoryBytes, NetworkVariant, Noise, Plan, StreamsRecord};
use serde::Serialize;

use crate::bench::POLICY;
use crate::bench::noise::is_busy;
use crate::cli::Answer;
use crate::cli::findings::Findings;
use crate::report::{
    Share, StepView, Table, by_family, count, mib, more, paragraphs, percent, positive, ratio_text, sections,
    shares, short, steps, time_text,
};

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
    /// Images a second of inferences at the same time, one after the other first.
    streams: &'a [StreamsRecord],
    blocks: Vec<Share<'a>>,
    families: Vec<Share<'a>>,
    found: Findings<'a>,
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
            streams: &plan.streams,
            found: Findings::of(plan),
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
        for StreamsRecord { streams, threads, images_per_second, ratio_ci95 } in self.streams {
            if let Some([ratio, low, high]) = ratio_ci95 {
                let (rate, ratio) = (short(*images_per_second), ratio_text(*ratio, Some([*low, *high])));
                let (streams, threads) = (count(*streams, "stream"), count(*threads, "thread"));
                lines.push(format!(
                    "  {streams} of {threads} each: {rate} images a second, {ratio} times as many"
                ));
            }
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

#[cfg(test)]
mod tests {
    use engine::plan::{NetworkRecord, RuleRecord, TimeUs};

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
