//! What measuring has found that a rule would not: a part of the summary of a plan.

use engine::network::BlockVariant;
use engine::plan::{CandidateRecord, Plan, PlanStep, RuleRecord};
use serde::Serialize;

use crate::bench::POLICY;
use crate::report::{
    Table, candidate_time, count, group, layers_text, more, paragraphs, percent, record, rewrites, sections,
    short, time_text,
};

/// Steps that are shown because a rule would have chosen otherwise.
const SHOWN: usize = 5;

/// What measuring has found that a rule would not.
#[derive(Debug, Serialize)]
pub struct Findings<'a> {
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

impl<'a> Findings<'a> {
    pub fn of(plan: &'a Plan) -> Self {
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

/// See [`Findings::not_in_network`].
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

impl Findings<'_> {
    pub fn text(&self, width: usize) -> String {
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
