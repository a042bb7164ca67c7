//! `tuner tune`: measures, plans, measures the plan, writes it.

use std::io::Write;
use std::time::{Duration, Instant};

use engine::network::choice::TOOL;
use engine::network::dtypes::Precision;
use engine::plan::records::{Contest, CoreDistance};
use engine::plan::schema::{Bounds, Plan, SCHEMA};
use engine::plan::step::{PlanStep, time_us};
use engine::plan::store::file_name;
use engine::runtime::load::graph;
use engine::runtime::machine::Machine;
use engine::runtime::memory::ensure_runs;
use engine::runtime::reference::Reference;
use engine::util::error::Failure;
use engine::util::files::{check_writable, create_folder, now};
use engine::util::stats::{ns, us};

use crate::autotune::record::{memory_bytes, noise_record, plan_step, record};
use crate::autotune::stages::{Planned, monitor, plan};
use crate::bench::contention::RunQueueMonitor;
use crate::bench::noise;
use crate::bench::policy::POLICY;
use crate::bench::residency::{weight_bytes, weights_come_from};
use crate::cli::args::{Images, TuneArgs, threads};
use crate::cli::logging::open_log;
use crate::cli::print::{
    audit, print_classes, print_contest, print_pareto, print_rules, print_search, print_steps, warn_of_noise,
    warn_of_wrong,
};
use crate::cli::tune_shapes::tune_shapes;
use crate::measure::memory::ensure_measured;
use crate::measure::schedule::{jobs, measure_all};
use crate::measure::types::MeasureContext;
use crate::planner::batch_split::split_all;
use crate::planner::context::{Network, built_in_images};
use crate::planner::pareto::pareto;
use crate::planner::rules::{costs, counted};
use crate::report::rewrites::print_rewrites;

/// Runs the command.
pub fn tune(args: &TuneArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(path) = &args.shapes {
        return tune_shapes(args, path, out);
    }
    let cpu = args.host.cpu();
    let (model, weights) = args.model.open()?;
    let images = args.images.load(&model)?;
    let threads = threads(args.host.thread_count())?;
    let graph = graph(&model, &weights, args.model.batch(&args.host).unwrap_or(1));
    ensure_runs(&model.to_string(), &graph)?;
    let work = graph.problems();
    ensure_measured(work.iter().map(|(problem, _)| problem), &cpu)?;
    let bounds = Bounds { error: args.host.error_bound(), memory: args.max_memory };
    let machine = Machine::of(&cpu);
    let types = Precision::within(bounds.error);
    let wanted = args.model.wanted(Some(threads.count()), Some(graph.batch))?;
    let path = match &args.out {
        Some(path) => path.clone(),
        None => {
            let folder = machine.folder(&args.host.results);
            create_folder(&folder)?;
            let shape = wanted.shape.as_deref();
            folder.join(file_name(wanted.model, shape, threads.count(), graph.batch, &bounds))
        }
    };
    check_writable(&path)?;
    let cold = weights_come_from(weight_bytes(work.iter().map(|(p, steps)| (p, steps.len())), types), &cpu);
    let log = open_log(&machine, args, threads.count(), types, cold)?;
    writeln!(
        out,
        "{model}: {} steps, batch {}, {} on {} ({}), weights {}",
        graph.steps.len(),
        graph.batch,
        if threads.count() == 1 { "1 thread".to_string() } else { format!("{} threads", threads.count()) },
        machine.cpu,
        machine.isa,
        weights.description()
    )?;
    let budget = Duration::from_secs(args.budget().into());
    let start = Instant::now();
    let end = start + budget;
    let watch = RunQueueMonitor::new(&threads);
    let stolen = watch.stolen();
    let monitor = monitor(budget, log.as_ref());
    let (floor, measurements) = threads.install(|| {
        let problems = work.into_iter().map(|(problem, _)| problem);
        let floor = noise::floor(problems.collect(), &cpu, &threads, cold);
        let host = MeasureContext {
            cpu: &cpu,
            threads: &threads,
            distance: &monitor,
            tie: noise::tie(floor),
            cold,
            log: log.as_ref(),
        };
        let jobs = jobs(&[graph.clone(), split_all(&graph)]);
        (
            floor,
            measure_all(
                &jobs,
                &host,
                types,
                (start, budget.mul_f64(POLICY.stages.isolated_share)),
                args.exhaustive,
            ),
        )
    });
    warn_of_wrong(&measurements);
    let exhausted: Duration = measurements.iter().map(|m| m.search.exhausted).sum();
    let (began, start, end) = (start, start + exhausted, end + exhausted);
    let settled = Some(start + budget.mul_f64(POLICY.stages.in_network_share));
    let network = Network {
        graph: &graph,
        weights: &weights,
        cpu: &cpu,
        threads: &threads,
        distance: &monitor,
        settled,
    };
    let exact = match images {
        None => Reference::new(&graph, &weights, &threads)?,
        Some(Images { values, names }) => {
            let each = values.chunks(values.len() / names.len()).map(<[f32]>::to_vec);
            Reference::of(&graph, &weights, &threads, each.collect())?
        }
    };
    let Planned { mut tuned, split, block_variants, planning, networks, predicted, around } =
        threads.install(|| plan(&network, &measurements, &bounds, &exact, end))?;
    let pareto = match args.pareto {
        true => {
            let network = Network { graph: &tuned.graph, settled: None, ..network };
            threads.install(|| pareto(&network, &measurements, &exact, types))?
        }
        false => Vec::new(),
    };
    let networks_ns = networks[0].core_to_core.map(ns);
    let distance = monitor.distance().map(|distance| CoreDistance { networks_ns, ..distance });
    let meanwhile = (watch.stolen() - stolen, distance);
    let noise = noise_record(floor, cold, &measurements, meanwhile, began.elapsed());

    let plan = Plan {
        schema: SCHEMA.to_string(),
        model: wanted.model.to_string(),
        shape: wanted.shape.clone(),
        batch: graph.batch,
        threads: threads.count(),
        max_rel_error: bounds.error,
        rel_error: Some(tuned.chosen.error),
        max_memory_mib: bounds.memory,
        memory_bytes: Some(memory_bytes(&tuned.chosen.session)),
        machine,
        cores_allowed: Some(engine::runtime::threads::available()),
        tool: TOOL.to_string(),
        created: now(),
        predicted_ms: predicted.as_ref().map(|steps| (steps.iter().sum::<f64>() + around) * 1e3),
        overhead_us: Some(us(around)),
        measured_ms: Some(networks[0].timing.median * 1e3),
        planning,
        noise: Some(noise),
        networks: networks
            .iter()
            .map(|entry| Contest { plan: entry.name.clone(), time_us: time_us(&entry.timing) })
            .collect(),
        rules: costs(&counted(&graph, &measurements)),
        pareto,
        split,
        block_variants,
        steps: tuned
            .graph
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| PlanStep {
                network_us: Some(us(networks[0].steps[index])),
                predicted_us: predicted.as_ref().map(|steps| us(steps[index])),
                ..plan_step(index, step, &tuned.chosen, &measurements, &cpu, threads.count())
            })
            .collect(),
        measurements: measurements.iter().map(record).collect(),
    };
    plan.write(&path)?;
    print_steps(&tuned, &measurements, out)?;
    print_rewrites(&plan, out)?;
    print_contest(&plan, out)?;
    print_rules(&plan.rules, out)?;
    print_search(&plan.measurements, out)?;
    print_pareto(&plan, out)?;
    plan.noise.iter().for_each(warn_of_noise);
    audit(&plan);
    writeln!(out, "\nplan: {}", path.display())?;

    let image = built_in_images(&graph, graph.batch);
    tuned.chosen.session.run(&threads, &image, graph.batch);
    writeln!(out, "\nbuilt-in image:")?;
    print_classes(&model, &tuned.chosen.session, 1, 5, &[], &["built-in".to_string()], out)?;
    Ok(())
}
