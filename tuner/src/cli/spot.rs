//! `tuner spot`: a few entries of a plan measured again, to see whether it still holds.

use std::io::Write;
use std::path::PathBuf;

use engine::network::choice::{Choice, StepFormats};
use engine::network::graph::Step;
use engine::plan::records::WeightResidency;
use engine::plan::schema::Plan;
use engine::plan::step::PlanStep;
use engine::plan::store::plan_or_newest;
use engine::runtime::load::graph;
use engine::runtime::machine::Machine;
use engine::util::error::Failure;
use engine::util::stats::{Interval, median, ratio};
use serde_json::{Map, Value};

use crate::bench::inputs::Inputs;
use crate::bench::policy::POLICY;
use crate::bench::timer::{Bench, BenchContext, in_turn};
use crate::cli::args::{ModelArgs, cpu, threads};
use crate::report::table::Table;

/// Arguments of `spot`.
#[derive(Clone, Debug, clap::Args)]
pub struct SpotArgs {
    /// The plan; by default the newest of this machine
    #[arg(long, value_name = "PLAN.json")]
    plan: Option<PathBuf>,
    /// How many entries, those first that take the most time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,
    /// Folder of results, one folder a machine inside
    #[arg(long, value_name = "DIR", env = "TUNER_RESULTS", default_value = "bench-results")]
    results: PathBuf,
}

/// A step, and the candidate that came second to its own.
struct Pair<'a> {
    planned: &'a PlanStep,
    step: &'a Step,
    own: Choice,
    second: Choice,
    /// The time of the one over that of the other when the plan was made, both alone.
    then: f64,
}

/// Runs the command: chosen kernels and those that came second in turn, alone and cold; whether none has lost its
/// lead.
///
/// # Errors
/// If the plan can't be read or is of another machine.
pub fn spot(args: &SpotArgs, out: &mut dyn Write) -> Result<bool, Failure> {
    let path = plan_or_newest(args.plan.as_ref(), &args.results)?;
    let plan = Plan::read(&path)?;
    let cpu = cpu(None);
    plan.check_machine(&path, &Machine::of(&cpu))?;
    let shape = match &plan.shape {
        Some(text) => {
            Some(text.parse().map_err(|error| format!("{}: shape is `{text}`: {error}", path.display()))?)
        }
        None => None,
    };
    let args_of = ModelArgs { model: Some(plan.model.clone()), shape, weights: None, seed: 1 };
    let (model, weights) = args_of.open()?;
    let (graph, choices) = plan.network(&path, &graph(&model, &weights, plan.batch), &cpu)?;
    let mut pairs: Vec<Pair> = Vec::new();
    for (index, ((planned, step), own)) in plan.steps.iter().zip(&graph.steps).zip(&choices).enumerate() {
        if pairs.iter().any(|pair| pair.step.problem == step.problem) {
            continue;
        }
        if let Some((second, then)) = second(&plan, planned) {
            let second = plan.choice(&path, index, &second, step, &cpu)?;
            pairs.push(Pair { planned, step, own: own.clone(), second, then });
        }
    }
    let time = |pair: &Pair| pair.planned.network_us.or(pair.planned.isolated_us).unwrap_or(0.0);
    pairs.sort_by(|a, b| time(b).total_cmp(&time(a)));
    pairs.truncate(args.steps.into());
    let (tie, cold) =
        plan.noise.map_or((0.02, WeightResidency::Dram), |noise| (noise.tie, noise.weights_from));
    let threads = threads(plan.threads)?;
    let mut table =
        Table::new(&["layer", "kernel", "us", "second", "us", "ratio, 95%", "ratio then", "verdict"]);
    let mut lost = 0;
    threads.install(|| {
        let mut place = BenchContext::new(&threads, &cpu);
        for Pair { planned, step, own, second, then } in &pairs {
            let inputs = Inputs::synthetic(&step.problem);
            let bench = |choice| Bench::of(&step.problem, choice, &inputs, &cpu, cold);
            let mut benches = [bench(own)?, bench(second)?];
            let samples = in_turn(&mut benches, POLICY.recheck.rounds, &threads, &mut place);
            let Some(now) = ratio(&samples[0], &samples[1]) else { continue };
            let verdict = verdict(now, *then, tie);
            lost += usize::from(verdict == LOST);
            let us = |samples: &[f64]| format!("{:.1}", median(samples).unwrap_or(0.0) * 1e6);
            table.row([
                planned.layers.join(" "),
                format!("{} [{}]", own.row.id, own.tuning),
                us(&samples[0]),
                format!("{} [{}]", second.row.id, second.tuning),
                us(&samples[1]),
                format!("{:.3} ({:.3} .. {:.3})", now.value, now.low, now.high),
                format!("{then:.3}"),
                verdict.to_string(),
            ]);
        }
        Ok::<_, Failure>(())
    })?;
    write!(out, "{table}")?;
    let count = pairs.len();
    match lost {
        0 => writeln!(out, "\n{}: {count} entries hold", path.display())?,
        _ => writeln!(
            out,
            "\n{}: {lost} of {count} entries have lost their lead; tune --fresh measures all anew",
            path.display()
        )?,
    }
    Ok(lost == 0)
}

/// The step with the candidate that came second instead, and the ratio of both alone.
fn second(plan: &Plan, step: &PlanStep) -> Option<(PlanStep, f64)> {
    let second = step.runner_up.as_ref()?;
    let record = plan.measurements.iter().find(|record| record.problem == step.problem)?;
    let types = step.formats.types();
    let of = |kernel: &str, tuning: &Map<String, Value>| {
        let is_it = |formats: &StepFormats| formats.types() == types;
        let alike = record.candidates.iter().filter(|c| c.kernel == kernel && c.tuning == *tuning);
        alike.filter(|c| c.formats.as_ref().is_some_and(is_it)).find_map(|c| Some((c, c.time_us?.median)))
    };
    let (_, own_us) = of(&step.kernel, &step.tuning)?;
    let (candidate, second_us) = of(&second.kernel, &second.tuning)?;
    let step = PlanStep {
        kernel: candidate.kernel.clone(),
        tuning: candidate.tuning.clone(),
        formats: candidate.formats.clone()?,
        ..step.clone()
    };
    (second_us > 0.0).then_some((step, own_us / second_us))
}

const HOLDS: &str = "holds";

const LOST: &str = "lost";

/// A choice has lost its lead where it is slower than the second by more than a tie, and more than it was: what was
/// settled in the running network may have been slower alone from the start.
fn verdict(now: Interval, then: f64, tie: f64) -> &'static str {
    if now.low > then.max(1.0) * (1.0 + 2.0 * tie) { LOST } else { HOLDS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_is_lost_by_more_than_ties_and_not_where_there_was_none() {
        let now = |low: f64| Interval { value: low + 0.02, low, high: low + 0.04 };
        assert_eq!(verdict(now(0.9), 0.9, 0.01), HOLDS);
        assert_eq!(verdict(now(1.01), 0.9, 0.01), HOLDS);
        assert_eq!(verdict(now(1.03), 0.9, 0.01), LOST);
        assert_eq!(verdict(now(1.05), 1.04, 0.01), HOLDS);
        assert_eq!(verdict(now(1.10), 1.04, 0.01), LOST);
    }
}
