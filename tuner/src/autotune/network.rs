//! Tunes a network.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use engine::network::{Calibration, Graph, Model, Precision, TOOL};
use engine::plan::{Bounds, NetworkRecord, NetworkVariant, Plan, PlanStep, SCHEMA, time_us};
use engine::runtime::{Reference, available, ensure_runs, graph, least_bytes};
use engine::util::{now, ns, us};
use engine::weights::Weights;
use kernels::Dtype;

use crate::autotune::calibration::calibration;
use crate::autotune::commit::commit;
use crate::autotune::error::TuneError;
use crate::autotune::memory::ensure_compared;
use crate::autotune::options::Options;
use crate::autotune::planning::{Planned, plan};
use crate::autotune::record::{plan_step, record};
use crate::autotune::setup::{Measured, Setup};
use crate::bench::{Observer, POLICY, Progress, Stopped};
use crate::measure::jobs;
use crate::planner::{
    Network, NetworkTime, PlannerError, costs, counted, measure_streams, pareto, split_all,
};

/// Measures the kernels on this machine and plans a network within its budget. Prints nothing;
/// `observer` hears of the progress and of what a user should know.
///
/// # Errors
/// If no plan keeps the bounds, weights are missing or wrong, or threads or memory are refused; if
/// the observer ends the tuning.
pub fn autotune(
    model: &Model,
    weights: &Weights,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Plan, TuneError> {
    // What unwinds has no part of the state but the log, which has whole lines.
    match catch_unwind(AssertUnwindSafe(|| tuned(model, weights, options, observer))) {
        Ok(plan) => plan,
        Err(payload) if payload.is::<Stopped>() => Err(TuneError::Stopped),
        Err(payload) => resume_unwind(payload),
    }
}

fn tuned(
    model: &Model,
    weights: &Weights,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Plan, TuneError> {
    let graph = graph(model, weights, options.batch);
    ensure_runs(&model.to_string(), &graph)?;
    ensure_bound(&graph, options.threads, &options.bounds)?;
    ensure_compared(&model.to_string(), &graph, options)?;
    let progress = Progress::new(observer);
    let work = graph.problems().into_iter().map(|(problem, steps)| (problem, steps.len())).collect();
    let setup = Setup::new(options, work, &progress)?;
    let measured = setup.measure(&jobs(&[graph.clone(), split_all(&graph)]), POLICY.stages.isolated_share);
    let reference = reference(&setup, &graph, weights)?;
    let (calibration, calibrating) = timed(|| calibration(&setup, &graph, weights, &reference));
    let (calibration, added) = (calibration?, measured.exhausted + calibrating);
    let network = Network {
        graph: &graph,
        measurements: &measured.results,
        bounds: &options.bounds,
        reference: &reference,
        calibration: calibration.as_ref(),
        weights,
        cpu: &options.cpu,
        threads: &setup.threads,
        distance: &setup.distance,
        progress: &progress,
        runs: &setup.network_runs,
        in_network_until: Some(setup.after(POLICY.stages.in_network_share) + added),
    };
    let (end, earlier) = (setup.after(1.0) + added, options.earlier.as_ref());
    let planned = setup.threads.install(|| plan(&network, earlier, setup.is_busy(&measured), end))?;
    let mut plan = written(model, &graph, &setup, &measured, &planned, calibration.clone());
    if options.bounds.memory.is_none() {
        plan.streams = measure_streams(&planned.chosen.session, options.threads, &progress)?;
        plan.measuring_s = Some(setup.seconds());
    }
    if options.pareto {
        let network = Network { graph: planned.chosen.session.graph(), in_network_until: None, ..network };
        plan.pareto = setup.threads.install(|| pareto(&network))?;
    }
    Ok(plan)
}

/// What a function gives, and how long it takes.
fn timed<T>(function: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (function(), start.elapsed())
}

/// Refuses a bound on memory that no kernels can keep, before anything is measured.
pub fn ensure_bound(graph: &Graph, threads: usize, bounds: &Bounds) -> Result<(), PlannerError> {
    let Some(bound) = bounds.memory else { return Ok(()) };
    let least = |graph| least_bytes(graph, threads, Precision::within(bounds.error));
    let least = least(graph).min(least(&split_all(graph))).div_ceil(1 << 20);
    if least <= bound as usize {
        return Ok(());
    }
    Err(PlannerError::Memory { bound: bound as usize, least })
}

/// What results are compared with: the network in f64, on the given images or built-in ones.
fn reference(setup: &Setup, graph: &Graph, weights: &Weights) -> Result<Reference, TuneError> {
    let images = setup.options.images.clone();
    if images.is_empty() {
        return Ok(Reference::new(graph, weights, &setup.threads)?);
    }
    Ok(Reference::of(graph, weights, &setup.threads, images)?)
}

fn written(
    model: &Model,
    graph: &Graph,
    setup: &Setup,
    measured: &Measured,
    planned: &Planned,
    calibration: Option<Calibration>,
) -> Plan {
    let options = setup.options;
    let Planned { chosen, networks, prediction, .. } = planned;
    let best = &networks[0].1;
    let network = |(index, (network, time)): (usize, &(NetworkVariant, NetworkTime))| NetworkRecord {
        network: network.clone(),
        time_us: time_us(&time.timing),
        runs: Some(time.timing.samples),
        ratio_ci95: time.over(best).filter(|_| index > 0).map(|v| [v.value, v.low, v.high]),
    };
    let predicted = prediction.steps.as_ref().map(|steps| steps.iter().sum::<f64>() + prediction.overhead);
    let is_by_step = networks[0].0.is_by_step();
    let step = |index: usize| {
        let step = plan_step(index, chosen, &measured.results, &options.cpu, setup.threads.count());
        PlanStep {
            network_us: Some(us(best.steps[index])),
            predicted_us: prediction.steps.as_ref().map(|steps| us(steps[index])),
            reason: if is_by_step { step.reason } else { step.reason.with_whole_network() },
            ..step
        }
    };
    Plan {
        schema: SCHEMA.to_string(),
        model: model.to_string(),
        shape: model.shape_text(),
        batch: graph.batch,
        threads: setup.threads.count(),
        max_rel_error: options.bounds.error,
        rel_error: Some(chosen.error),
        max_memory_mib: options.bounds.memory,
        memory_bytes: Some(chosen.session.memory()),
        machine: setup.machine.clone(),
        cores_allowed: Some(available()),
        tool: TOOL.to_string(),
        commit: commit(),
        created: now(),
        predicted_ms: predicted.map(|seconds| seconds * 1e3),
        overhead_us: Some(us(prediction.overhead)),
        measured_ms: Some(best.timing.median * 1e3),
        bandwidth: Some(setup.bandwidth()),
        budget_s: Some(options.budget.as_secs_f64()),
        measuring_s: Some(setup.seconds()),
        in_network_budget_s: planned.missing_s.map(|seconds| budget_for(seconds, options.budget)),
        planning: planned.planning,
        chosen_beside_load: Some(planned.beside_load),
        noise: Some(setup.noise(measured, best.core_to_core.map(ns))),
        calibration: calibration.filter(|_| chosen.choices.iter().any(|choice| choice.has(Dtype::U8))),
        networks: networks.iter().enumerate().map(network).collect(),
        rules: costs(&counted(graph, &measured.results)),
        split: planned.split.clone(),
        block_variants: planned.variants.clone(),
        steps: (0..chosen.choices.len()).map(step).collect(),
        measurements: measured.results.iter().map(record).collect(),
        ..Plan::default()
    }
}

/// A budget that has so many seconds more for the stage of candidates in the network.
fn budget_for(more_s: f64, budget: Duration) -> f64 {
    let stages = &POLICY.stages;
    let share = (stages.in_network_share - stages.isolated_share) * stages.variants_share;
    (budget.as_secs_f64() + more_s / share).ceil()
}
