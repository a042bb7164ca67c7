//! The variants of blocks, and published rules, as bars.

use engine::network::BlockVariant;
use engine::plan::{BlockVariantRecord, Plan, RuleRecord};

use crate::report::bars::{Bar, Bars};
use crate::report::canvas::{DrawError, OTHER, colour};
use crate::report::charts::setting;
use crate::report::data::microseconds;
use crate::report::rewrites::summary;
use crate::report::text::{more, time_text};

/// A bar of one time without quartiles.
fn bar(label: String, sublabel: String, is_chosen: bool, us: f64) -> Bar {
    Bar {
        label,
        sublabel,
        bold: is_chosen,
        colour: if is_chosen { colour("direct") } else { OTHER },
        value: us,
        quartiles: [us; 2],
        ticks: Vec::new(),
        pointer: None,
        text: [time_text(us), String::new()],
    }
}

/// The variants of each block, in order.
pub fn variants(plan: &Plan) -> Result<String, DrawError> {
    let of_block = |block: &BlockVariantRecord| {
        let plain = block
            .alternatives
            .iter()
            .find(|a| BlockVariant::from_name(&a.variant) == Some(BlockVariant::PLAIN));
        let plain = plain.and_then(|a| microseconds(a.time_us));
        let timed = block.alternatives.iter().filter_map(|a| Some((&a.variant, microseconds(a.time_us)?)));
        let bar = |(variant, us): (&String, f64)| {
            let is_chosen = *variant == block.variant;
            let mut bar = bar(block.block.clone(), variant.clone(), is_chosen, us);
            let change = plain.filter(|plain| *plain != us).map(|plain| more(us / plain) + " against plain");
            let chosen = is_chosen.then(|| format!("chosen: {}", block.reason));
            bar.text[0] += &change.map_or(String::new(), |change| format!(", {change}"));
            bar.text[1] = chosen.unwrap_or_default();
            bar
        };
        timed.map(bar).collect::<Vec<_>>()
    };
    let bars = Bars {
        title: format!("{}: variants of blocks", plan.model),
        subtitle: vec![setting(plan)],
        axis: "µs of the steps in which the variants of a block differ, sum of the medians".to_string(),
        bars: plan.block_variants.iter().flat_map(of_block).collect(),
        without: "no variant was measured",
        notes: summary(&plan.block_variants).map(|text| format!("In all, {text}.")).into_iter().collect(),
    };
    bars.draw()
}

/// The rules that were measured, the best first.
pub fn measured_rules(plan: &Plan) -> Vec<&RuleRecord> {
    let is_time = |us: f64| microseconds(Some(us)).is_some();
    let measured = plan.rules.iter().filter(|rule| is_time(rule.isolated_us) && is_time(rule.fastest_us));
    let mut rules: Vec<&RuleRecord> = measured.collect();
    rules.sort_by(|a, b| a.isolated_us.total_cmp(&b.isolated_us));
    rules
}

/// What published rules choose, in isolated times.
pub fn rules(plan: &Plan, rules: &[&RuleRecord]) -> Result<String, DrawError> {
    let fastest = rules.first().map(|rule| {
        bar("fastest in f32".to_string(), "of all candidates".to_string(), true, rule.fastest_us)
    });
    let of_rule = |rule: &&RuleRecord| {
        let mut bar = bar(rule.rule.clone(), String::new(), false, rule.isolated_us);
        bar.text[0] += &format!(", {}", more(rule.isolated_us / rule.fastest_us));
        bar
    };
    let bars = Bars {
        title: format!("{}: published rules on the plain network in f32", plan.model),
        subtitle: vec![setting(plan)],
        axis: "µs of the convolutions, sum of the isolated medians".to_string(),
        bars: fastest.into_iter().chain(rules.iter().map(of_rule)).collect(),
        without: "no rule was measured",
        notes: rules.iter().map(|rule| format!("{}: {}.", rule.rule, rule.description)).collect(),
    };
    bars.draw()
}
