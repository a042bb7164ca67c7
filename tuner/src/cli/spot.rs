//! `tuner spot`: a few entries of a plan measured again, to see whether it still holds.

use std::io::Write;
use std::path::Path;

use engine::Weights;
use engine::network::{CandidateId, Choice, Graph, Step};
use engine::plan::{CandidateRecord, Plan, PlanStep, WeightResidency};
use engine::runtime::{Machine, Threads, graph};
use engine::util::{Interval, median, ratio};
use kernels::Cpu;
use serde::Serialize;

use crate::bench::timer::in_turn;
use crate::bench::{
    Bench, BenchContext, CoreDistanceMonitor, Inputs, POLICY, Progress, Rounds, Stage, StageProgress,
};
use crate::cli::{Answer, Failure, Meter, OutputArgs, PlanArgs, planned_model, threads_of};
use crate::report::{RUNS, Table, count, is_edited, layers_text, short, wrap};

#[derive(Clone, Debug, clap::Args)]
pub struct SpotArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// How many entries, those first that take the most time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Rechecked {
    plan: String,
    lost: usize,
    unclear: usize,
    /// Steps that were changed by hand, which are left out.
    edited: usize,
    entries: Vec<Entry>,
}

/// A chosen candidate and the one that came second, measured in turn: isolated times.
#[derive(Debug, Serialize)]
struct Entry {
    layers: Vec<String>,
    chosen: Measured,
    second: Measured,
    /// The time of the one over that of the other now: the median, and its interval.
    ratio_ci95: [f64; 3],
    /// The same when the plan was made.
    ratio_then: f64,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Holds,
    Lost,
    /// The interval is too wide.
    CannotTell,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::Lost => "lost",
            Self::CannotTell => "cannot tell",
        })
    }
}

#[derive(Debug, Serialize)]
struct Measured {
    kernel: String,
    tuning: String,
    isolated_us: Option<f64>,
    runs: usize,
}

impl Measured {
    fn of(choice: &Choice, samples: &[f64]) -> Self {
        Self {
            kernel: choice.row.id.to_string(),
            tuning: choice.tuning.to_string(),
            isolated_us: median(samples).map(|seconds| seconds * 1e6),
            runs: samples.len(),
        }
    }
}

/// A step, its candidate, and the one that came second.
struct Pair<'a> {
    planned: &'a PlanStep,
    step: &'a Step,
    chosen: Choice,
    second: Choice,
    /// The isolated time of the one over that of the other when the plan was made.
    then: f64,
}

/// Whether every entry has kept its lead.
pub fn spot(args: &SpotArgs, out: &mut dyn Write) -> Result<bool, Failure> {
    let (path, plan) = args.plan.read()?;
    let cpu = Cpu::detect();
    plan.check_machine(&path, &Machine::of(&cpu))?;
    let (graph, choices) = network(&path, &plan, &cpu)?;
    let mut pairs = pairs(&path, &plan, &graph, &choices, &cpu)?;
    pairs.truncate(args.steps.into());
    let entries = measure(&plan, threads_of(&plan, Some(&path))?, &pairs, &cpu)?;
    let count = |verdict| entries.iter().filter(|entry| entry.verdict == verdict).count();
    let [lost, unclear] = [Verdict::Lost, Verdict::CannotTell].map(count);
    let edited = plan.steps.iter().filter(|step| is_edited(&plan, step)).count();
    let rechecked = Rechecked { plan: path.display().to_string(), lost, unclear, edited, entries };
    args.output.print(&rechecked, out)?;
    Ok(lost + unclear == 0)
}

/// The network of a plan, by synthetic weights, or its list of convolutions.
fn network(path: &Path, plan: &Plan, cpu: &Cpu) -> Result<(Graph, Vec<Choice>), Failure> {
    if plan.is_of_list() {
        return Ok(plan.network(path, &plan.list_graph(path)?, cpu)?);
    }
    let model = planned_model(path, plan)?;
    let weights = Weights::synthetic(&model, 1);
    let model = model.with_head(weights.head());
    Ok(plan.network(path, &graph(&model, &weights, plan.batch), cpu)?)
}

/// Steps as measured with a second candidate, each problem once, those that take the most time first.
fn pairs<'a>(
    path: &Path,
    plan: &'a Plan,
    graph: &'a Graph,
    choices: &[Choice],
    cpu: &Cpu,
) -> Result<Vec<Pair<'a>>, Failure> {
    let mut pairs: Vec<Pair> = Vec::new();
    for (index, ((planned, step), chosen)) in plan.steps.iter().zip(&graph.steps).zip(choices).enumerate() {
        if pairs.iter().any(|pair| pair.step.problem == step.problem) || is_edited(plan, planned) {
            continue;
        }
        if let Some((second, then)) = second(plan, planned) {
            let second = plan.choice(path, index, &second, step, cpu)?;
            pairs.push(Pair { planned, step, chosen: chosen.clone(), second, then });
        }
    }
    let time = |pair: &Pair| pair.planned.network_us.or(pair.planned.isolated_us).unwrap_or(0.0);
    pairs.sort_by(|a, b| time(b).total_cmp(&time(a)));
    Ok(pairs)
}

fn measure(plan: &Plan, threads: Threads, pairs: &[Pair], cpu: &Cpu) -> Result<Vec<Entry>, Failure> {
    let (tie, weights_from) =
        plan.noise.map_or((0.02, WeightResidency::Dram), |noise| (noise.tie, noise.weights_from));
    let (mut meter, distance) = (Meter::default(), CoreDistanceMonitor::default());
    let progress = Progress::new(&mut meter);
    let stage = StageProgress::new(&progress, Stage::Recheck);
    threads.install(|| {
        let mut context = BenchContext::new(&threads, cpu);
        let mut entries = Vec::new();
        for (index, Pair { planned, step, chosen, second, then }) in pairs.iter().enumerate() {
            let layers = planned.layers.join(" ");
            let [from, to] = [index, index + 1].map(|pair| pair as f64 / pairs.len() as f64);
            let part = stage.part(from, to).detail(&layers);
            let rounds = POLICY.pair_warm_up + POLICY.recheck_rounds;
            let rounds = Rounds::exactly(rounds, &threads, &distance, part);
            let inputs = Inputs::synthetic(&step.problem);
            let bench = |choice| Bench::of(&step.problem, choice, &inputs, cpu, weights_from);
            let mut benches = [bench(chosen)?, bench(second)?];
            let samples = in_turn(&mut benches, &rounds, &mut context);
            let Some(now) = ratio(&samples[0], &samples[1]) else { continue };
            entries.push(Entry {
                layers: planned.layers.clone(),
                chosen: Measured::of(chosen, &samples[0]),
                second: Measured::of(second, &samples[1]),
                ratio_ci95: [now.value, now.low, now.high],
                ratio_then: *then,
                verdict: verdict(now, *then, tie),
            });
        }
        Ok(entries)
    })
}

impl Answer for Rechecked {
    fn text(&self, width: usize) -> String {
        let mut table = Table::new(
            "layer | chosen | (tuning) | us | second | (tuning) | us | (runs) | ratio, 95% | then | verdict",
        );
        let us = |m: &Measured| m.isolated_us.filter(|_| m.runs >= RUNS).map_or("-".to_string(), short);
        for Entry { layers, chosen, second, ratio_ci95: [ratio, low, high], ratio_then, verdict } in
            &self.entries
        {
            table.row(&[
                &layers_text(layers),
                &chosen.kernel,
                &chosen.tuning,
                &us(chosen),
                &second.kernel,
                &second.tuning,
                &us(second),
                &chosen.runs,
                &format!("{ratio:.2} ({low:.2} .. {high:.2})"),
                &format!("{ratio_then:.2}"),
                verdict,
            ]);
        }
        let (plan, entries) = (&self.plan, count(self.entries.len(), "entry"));
        let verdict = match (self.lost, self.unclear) {
            (0, 0) => {
                let hold = if self.entries.len() == 1 { "holds" } else { "hold" };
                format!("{plan}: {entries} {hold}")
            }
            (0, unclear) => {
                format!("{plan}: {unclear} of {entries} cannot be told; repeat it when the machine is quiet")
            }
            (lost, _) => format!("{plan}: {lost} of {entries} lost the lead; tune --fresh measures all anew"),
        };
        let edited = match self.edited {
            0 => String::new(),
            n => format!("; edited by hand and left out: {}", count(n, "step")),
        };
        format!("{}\n{}\n", table.fold(width), wrap(&(verdict + &edited), width, 2))
    }
}

/// The step with the candidate that came second instead, and the ratio of their isolated times.
fn second(plan: &Plan, step: &PlanStep) -> Option<(PlanStep, f64)> {
    let second = step.runner_up.as_ref()?;
    let record = plan.measurements.iter().find(|record| record.problem == step.problem)?;
    let types = step.formats.types();
    // The first schema has no formats of the runner-up: any of the same types is it.
    let of = |id: &CandidateId| {
        let is_it = |c: &&CandidateRecord| (&c.id.kernel, &c.id.tuning) == (&id.kernel, &id.tuning);
        let mut alike = record.candidates.iter().filter(|c| is_it(c) && c.id.formats.types() == types);
        alike.find_map(|c| Some((c.id.clone(), c.time_us?.median)))
    };
    let (_, chosen_us) = of(&step.id())?;
    let (CandidateId { kernel, tuning, formats }, second_us) = of(&second.id)?;
    let step = PlanStep { kernel, tuning, formats, ..step.clone() };
    (second_us > 0.0).then_some((step, chosen_us / second_us))
}

/// Whether a choice leads. It does not where it is slower than the second by more than a tie and
/// more than it was: a choice in the network may have the longer isolated time from the start. An
/// interval that reaches further than another tie beyond that proves neither.
fn verdict(now: Interval, then: f64, tie: f64) -> Verdict {
    let limit = then.max(1.0) * (1.0 + 2.0 * tie);
    if now.low > limit {
        Verdict::Lost
    } else if now.value <= limit && now.high <= limit * (1.0 + tie).powi(2) {
        Verdict::Holds
    } else {
        Verdict::CannotTell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_is_lost_by_more_than_ties_and_wide_intervals_prove_nothing() {
        let now = |low: f64, width: f64| Interval { value: low + width / 2.0, low, high: low + width };
        for (low, width, then, expected) in [
            (0.9, 0.01, 0.9, Verdict::Holds),
            (1.005, 0.01, 0.9, Verdict::Holds),
            (1.03, 0.01, 0.9, Verdict::Lost),
            (1.05, 0.01, 1.04, Verdict::Holds),
            (1.10, 0.01, 1.04, Verdict::Lost),
            (0.9, 0.3, 0.9, Verdict::CannotTell),
            (1.03, 2.2, 0.9, Verdict::Lost),
            (0.685, 2.5, 0.685, Verdict::CannotTell),
        ] {
            assert_eq!(verdict(now(low, width), then, 0.01), expected, "{low} {width} now, {then} then");
        }
    }
}
