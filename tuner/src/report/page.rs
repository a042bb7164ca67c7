//! The Markdown page around the pictures.

use std::fmt::Write;

use engine::Plan;
use engine::network::tuning_text;
use serde_json::{Map, Value};

use crate::report::charts::shape;
use crate::report::data::{
    ProblemView, Share, StepView, by_family, gflops, percent, positive, shares, time, total,
};
use crate::report::facts::facts;
use crate::report::rewrites::{cells, head, summary};
use crate::report::text::{count, more, short, time_text};

pub const NETWORK: &str = "network.svg";

/// Picture of whole networks by way of choosing.
pub const CONTEST: &str = "contest.svg";

/// Picture of plans by time and error.
pub const PARETO: &str = "pareto.svg";

/// Rows of the table of steps.
const STEPS: usize = 20;

/// A text as Markdown shows it word for word, in one line of a table too.
fn plain(text: &str) -> String {
    let text =
        text.replace(char::is_control, " ").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let escaped = |c: char| if "\\|*_`[]#~!".contains(c) { vec!['\\', c] } else { vec![c] };
    text.chars().flat_map(escaped).collect()
}

/// A name in a code span, in one line of a table too.
fn code(text: &str) -> String {
    format!("`{}`", text.replace(char::is_control, " ").replace('`', "'").replace('|', "\\|"))
}

fn kernel(id: &str, tuning: &Map<String, Value>) -> String {
    let tuning = tuning_text(tuning);
    if tuning == "-" { code(id) } else { format!("{} {}", code(id), plain(&tuning)) }
}

/// A table with a head like `name | ms:`; columns that end with a colon stand to the right.
fn table(head: &str, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let marks: Vec<&str> =
        head.split(" | ").map(|name| if name.ends_with(':') { "-:" } else { "-" }).collect();
    let names: Vec<&str> = head.split(" | ").map(|name| name.trim_end_matches(':')).collect();
    let mut text = format!("| {} |\n|{}|\n", names.join(" | "), marks.join("|"));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

fn header(plan: &Plan) -> String {
    table(" | ", facts(plan).into_iter().map(|fact| vec![fact.name.to_string(), plain(&fact.text)]))
}

fn shares_table(what: &str, shares: &[Share], total: f64) -> String {
    let rows = shares.iter().map(|Share { name, steps, time_us, .. }| {
        vec![plain(name), steps.to_string(), short(time_us / 1e3), percent(*time_us, total)]
    });
    table(&format!("{what} | steps: | ms: | share:"), rows)
}

fn steps_table(steps: &[StepView], total: f64) -> String {
    let mut slowest: Vec<&StepView> = steps.iter().filter(|step| step.time.is_some()).collect();
    slowest.sort_by(|a, b| b.us().total_cmp(&a.us()));
    let rows = slowest.into_iter().take(STEPS).map(|view| {
        let step = view.step;
        let second = step.runner_up.as_ref().and_then(|r| Some((r, positive(Some(r.time_us / view.us()))?)));
        vec![
            step.layers.iter().map(|layer| code(layer)).collect::<Vec<_>>().join(" "),
            code(&step.problem),
            kernel(&step.kernel, &step.tuning),
            short(view.us() / 1e3),
            view.gflops.map_or(String::new(), short),
            percent(view.us(), total),
            second.map_or(String::new(), |(r, _)| kernel(&r.id.kernel, &r.id.tuning)),
            second.map_or(String::new(), |(_, ratio)| more(ratio)),
        ]
    });
    table("layer | problem | kernel | ms: | GFLOP/s: | share: | runner-up | takes:", rows)
}

fn problems_table(problems: &[ProblemView]) -> String {
    let rows = problems.iter().map(|view| {
        let drawn = !view.rows().is_empty();
        let chosen: Vec<String> = view.choices().iter().map(|s| kernel(&s.kernel, &s.tuning)).collect();
        let took = view.steps.first().and_then(|step| Some(time(step.time_us)?.median / step.repeats as f64));
        let name = code(&view.record.problem);
        vec![
            if drawn { format!("[{name}]({})", view.file) } else { name },
            shape(&view.conv),
            view.steps.len().to_string(),
            if chosen.is_empty() { "in no step".to_string() } else { chosen.join("; ") },
            took.map_or(String::new(), |us| short(us / 1e3)),
            took.map_or(String::new(), |us| short(gflops(&view.conv, us))),
            if drawn { view.record.candidates.len().to_string() } else { "not measured".to_string() },
        ]
    });
    table("problem | in words | steps: | chosen | ms: | GFLOP/s: | candidates:", rows)
}

/// The forms of blocks; nothing where none has several.
fn rewrites(plan: &Plan) -> String {
    if plan.block_variants.is_empty() {
        return String::new();
    }
    let rows = plan.block_variants.iter().map(|block| cells(block).iter().map(|cell| plain(cell)).collect());
    let sum = summary(&plan.block_variants).map_or(String::new(), |text| format!("In all, {text}.\n\n"));
    format!(
        "## Block variants\n\n\
         The time of the steps in which the variants of a block differ: pointwise convolutions of one tensor as \
         one (fuse\\_siblings), a pointwise convolution before the mean that it follows (conv\\_before\\_pool), \
         and both. {sum}{}\n",
        table(&head().replace(", us", ", us:"), rows)
    )
}

pub fn page(plan: &Plan, steps: &[StepView], problems: &[ProblemView]) -> String {
    let total = total(steps);
    let unmeasured = steps.iter().filter(|step| step.time.is_none());
    let names: Vec<String> = unmeasured.map(|view| code(&view.step.layers.join("+"))).collect();
    let (n, list) = (count(names.len(), "step"), names.join(", "));
    let note = format!("{n} without a measured time, not in these sums: {list}.\n\n");
    let note = if names.is_empty() { "" } else { &note };
    let slowest = match steps.len() - names.len() {
        ..=STEPS => "## Steps by time".to_string(),
        _ => format!("## The {STEPS} slowest steps"),
    };
    // A list of convolutions has neither a network nor blocks.
    let (steps_of, whole, blocks) = match plan.is_of_list() {
        true => ("the list", String::new(), String::new()),
        false => (
            "the network",
            format!("## The whole network\n\n![Whole networks by way of choosing kernels]({CONTEST})\n\n"),
            shares_table("block", &shares(steps, |step| step.block), total),
        ),
    };
    let pareto = match plan.pareto.is_empty() {
        true => String::new(),
        false => format!("## What an error bound costs\n\n![Plans by time and error]({PARETO})\n\n"),
    };
    format!(
        "# {model} on {cpu}\n\n{header}\n{whole}{pareto}\
         ## Where the time goes\n\n![The steps of {steps_of} in order]({NETWORK})\n\n{note}{families}\n{blocks}\n{rewrites}\
         {slowest}\n\n{steps}\n\
         ## Convolution problems\n\n\
         Each picture shows all kernels on one problem, and why the others are not there.\n\n{problems}",
        model = plain(&plan.model),
        cpu = plain(&plan.machine.cpu),
        header = header(plan),
        families = shares_table("family", &by_family(steps), total),
        rewrites = rewrites(plan),
        steps = steps_table(steps, total),
        problems = problems_table(problems),
    )
}

/// What the plan says of one step's time, for `explain`.
pub fn step_time(view: &StepView) -> String {
    let Some(time) = view.time else { return "not measured".to_string() };
    let speed = view.gflops.map_or(String::new(), |g| format!(", {} GFLOP/s", short(g)));
    let [median, low, high] = [time.median, time.low, time.high].map(time_text);
    format!("{median} (quartiles {low} .. {high}){speed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_markdown_or_html_would_read_is_escaped() {
        assert_eq!(plain("a|b<c>\n_d_ &"), "a\\|b&lt;c&gt; \\_d\\_ &amp;");
        assert_eq!(code("a`|\nb"), "`a'\\| b`");
    }
}
