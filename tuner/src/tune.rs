//! `tuner tune`: measures, plans, measures the plan, writes it.

mod contest;
mod measuring;
mod pareto;
mod print;
mod record;
mod shapes;
mod split;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::apart::{CoreDistance, CoreDistanceMonitor, ns};
use crate::bench::Watch;
use crate::choose::{Bounds, Chosen, Network, built_in_images};
use crate::cold::{weight_bytes, weights_come_from};
use crate::exact::Exact;
use crate::graph::Graph;
use crate::input::check_writable;
use crate::joint::{greedy, joint};
use crate::log::Log;
use crate::machine::Machine;
use crate::measure::{Host, Measurement, Outcome};
use crate::noise;
use crate::options::{Failure, HostArgs, ImageArgs, Images, ModelArgs, create_folder, graph, threads};
use crate::plan::{BlockRewrite, Contest, Plan, PlanSplit, PlanStep, Planning, SCHEMA, TOOL, file_name};
use crate::planner::{by_rule, choose_forms_and_types, default_choices, in_forms};
use crate::report::print_rewrites;
use crate::rewrite::Rewrite;
use crate::rules::{RULES, costs, counted};
use crate::run::print_classes;
use crate::size::{ensure_measured, ensure_runs};
use crate::types::Types;
use contest::{BY_TIMES_ALONE, Entry, WITHOUT_REWRITES, contest, is_faster};
use measuring::{jobs, measure_all, open_log};
use pareto::pareto;
use print::{audit, print_contest, print_pareto, print_rules, print_search, print_steps, warn_of_noise};
use record::{block_rewrite, memory_bytes, now, plan_step, record, time_us, us};
use split::split_all;

/// Arguments of `tune`.
#[derive(Clone, Debug, clap::Args)]
pub struct TuneArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    host: HostArgs,
    /// Convolutions instead of a model: a shape a line, how often it occurs as *N, comments behind #
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "shape", "weights", "image", "input", "max_memory"])]
    shapes: Option<PathBuf>,
    /// What the error is measured on; three built-in images by default
    #[command(flatten)]
    images: ImageArgs,
    /// Seconds for all measuring; 100 by default
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    budget: Option<u32>,
    /// A budget of 14 seconds: a plan within some hundredths of the best
    #[arg(long, conflicts_with = "budget")]
    quick: bool,
    /// Bound on the memory of a process that runs the plan
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    max_memory: Option<u32>,
    /// Measure plans from the fastest to the most exact as well, which takes some seconds more
    #[arg(long, conflicts_with = "shapes")]
    pareto: bool,
    /// Try all tunings that the search has left out as well, which takes many minutes, and say what it has missed
    #[arg(long)]
    exhaustive: bool,
    /// Where to write the plan; a file for this model and machine under --results by default
    #[arg(long, value_name = "PLAN.json")]
    out: Option<PathBuf>,
    /// Measure all anew, and take nothing from the log of earlier measurements but how near the cores have been
    #[arg(long)]
    fresh: bool,
}

/// Seconds for all measuring, where the user does not say, and where it must be quick.
const BUDGET: u32 = 100;
const QUICK: u32 = 14;
/// Shares of the budget after which candidates alone and those in place are done; whole networks take the rest.
const ALONE: f64 = 0.6;
const IN_PLACE: f64 = 0.85;
/// Share of the budget in which rounds may wait until the workers' cores are near.
const PATIENCE: f64 = 0.3;
/// Of the time in place, the share of the network with rewrites where there is one without as well.
const REWRITTEN: f64 = 0.6;

/// Says which candidates gave wrong results.
fn warn_of_wrong(measurements: &[Measurement]) {
    for measurement in measurements {
        for wrong in measurement.candidates.iter().filter(|c| c.timing().is_none()) {
            let Outcome::Wrong { error, tolerance } = wrong.outcome else { continue };
            eprintln!(
                "warning: {} [{}] is wrong on {}: error {error:.2e}, tolerance {tolerance:.2e}; left out",
                wrong.row.id, wrong.tuning, measurement.problem
            );
        }
    }
}

impl TuneArgs {
    fn budget(&self) -> u32 {
        self.budget.unwrap_or(if self.quick { QUICK } else { BUDGET })
    }
}

/// A monitor that lets rounds wait for near cores, as near as the log knows them.
fn monitor(budget: Duration, log: Option<&Log>) -> CoreDistanceMonitor {
    let distance = CoreDistanceMonitor::default();
    log.and_then(Log::nearest).into_iter().for_each(|seconds| distance.known(seconds));
    distance.set_patience(budget.mul_f64(PATIENCE));
    distance
}

/// Runs the command.
pub fn tune(args: &TuneArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(path) = &args.shapes {
        return shapes::tune_shapes(args, path, out);
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
    let types = Types::within(bounds.error);
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
    let watch = Watch::new(&threads);
    let stolen = watch.stolen();
    let monitor = monitor(budget, log.as_ref());
    let (floor, measurements) = threads.install(|| {
        let problems = work.into_iter().map(|(problem, _)| problem);
        let floor = noise::floor(problems.collect(), &cpu, &threads, cold);
        let host = Host {
            cpu: &cpu,
            threads: &threads,
            distance: &monitor,
            tie: noise::tie(floor),
            cold,
            log: log.as_ref(),
        };
        let jobs = jobs(&[graph.clone(), split_all(&graph)]);
        (floor, measure_all(&jobs, &host, types, (start, budget.mul_f64(ALONE)), args.exhaustive))
    });
    warn_of_wrong(&measurements);
    let exhausted: Duration = measurements.iter().map(|m| m.search.exhausted).sum();
    let (began, start, end) = (start, start + exhausted, end + exhausted);
    let settled = Some(start + budget.mul_f64(IN_PLACE));
    let network = Network {
        graph: &graph,
        weights: &weights,
        cpu: &cpu,
        threads: &threads,
        distance: &monitor,
        settled,
    };
    let exact = match images {
        None => Exact::new(&graph, &weights, &threads)?,
        Some(Images { values, names }) => {
            let each = values.chunks(values.len() / names.len()).map(<[f32]>::to_vec);
            Exact::of(&graph, &weights, &threads, each.collect())?
        }
    };
    let Planned { mut tuned, split, rewrites, planning, contest, predicted, around } =
        threads.install(|| plan(&network, &measurements, &bounds, &exact, end))?;
    let pareto = match args.pareto {
        true => {
            let network = Network { graph: &tuned.graph, settled: None, ..network };
            threads.install(|| pareto(&network, &measurements, &exact, types))?
        }
        false => Vec::new(),
    };
    let networks_ns = contest[0].core_to_core.map(ns);
    let distance = monitor.distance().map(|distance| CoreDistance { networks_ns, ..distance });
    let meanwhile = (watch.stolen() - stolen, distance);
    let noise = record::noise(floor, cold, &measurements, meanwhile, began.elapsed());

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
        cores_allowed: Some(crate::threads::available()),
        tool: TOOL.to_string(),
        created: now(),
        predicted_ms: predicted.as_ref().map(|steps| (steps.iter().sum::<f64>() + around) * 1e3),
        around_us: Some(us(around)),
        measured_ms: Some(contest[0].timing.median * 1e3),
        planning,
        noise: Some(noise),
        contest: contest
            .iter()
            .map(|entry| Contest { plan: entry.name.clone(), time_us: time_us(&entry.timing) })
            .collect(),
        rules: costs(&counted(&graph, &measurements)),
        pareto,
        split,
        rewrites,
        steps: tuned
            .graph
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| PlanStep {
                network_us: Some(us(contest[0].steps[index])),
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

/// A network in some form, and what was chosen for it.
struct Tuned<'a> {
    graph: Graph,
    chosen: Chosen<'a>,
}

/// What planning came to.
struct Planned<'a> {
    /// The best.
    tuned: Tuned<'a>,
    /// Where its batch is split.
    split: Option<PlanSplit>,
    /// The forms of its blocks.
    rewrites: Vec<BlockRewrite>,
    /// How near that is to the least by times alone.
    planning: Option<Planning>,
    /// Whole networks in turn, the best first.
    contest: Vec<Entry>,
    /// Seconds of the best's steps as they are predicted: those of the network by times alone in the contest, times
    /// what each step's candidate took for each second of that network's in place, so that drift of the machine
    /// between the two stages does not show. Where nothing was timed in place, the times alone.
    predicted: Option<Vec<f64>>,
    /// Seconds around the steps: what the network by times alone takes beside its own, to wake, to end, and to wait for
    /// those who take other steps at the same time.
    around: f64,
}

/// When a share of the time that is left until then has gone by.
fn part(end: Instant, share: f64) -> Instant {
    let now = Instant::now();
    now + end.saturating_duration_since(now).mul_f64(share)
}

/// Chooses forms and kernels within the bounds, and measures the network by them and by others.
fn plan<'a>(
    network: &Network,
    measurements: &'a [Measurement],
    bounds: &Bounds,
    exact: &Exact,
    end: Instant,
) -> Result<Planned<'a>, Failure> {
    let choose = |graph: Graph, settled: Option<Instant>| {
        let chosen = Network { graph: &graph, settled, ..*network }.choose(measurements, bounds, exact)?;
        Ok::<_, Failure>(Tuned { graph, chosen })
    };
    let patient = network.settled.map_or_else(Instant::now, |end| part(end, PATIENCE));
    network.distance.wait_until(patient);
    let (split, graph, mut at_once) = split::split(network, measurements, bounds, exact)?;
    let types = Types::within(bounds.error);
    let ms = |seconds: f64| (seconds * 1e9).round() / 1e6;
    let greedy_ms = greedy(&graph, measurements, types).map(ms);
    let least = joint(&graph, measurements, types, |_, _| 0.0).map(|joint| ms(joint.seconds));
    let forms = choose_forms_and_types(&graph, measurements, types);
    let mut rewrites: Vec<BlockRewrite> = forms.iter().map(block_rewrite).collect();
    let is_plain =
        |rewrites: &[BlockRewrite]| rewrites.iter().all(|own| own.rewrite == Rewrite::PLAIN.to_string());
    let own_part = |end| part(end, REWRITTEN);
    let first = if is_plain(&rewrites) { network.settled } else { network.settled.map(own_part) };
    let mut plain = None;
    let mut tuned = match choose(in_forms(&graph, &forms), first) {
        Ok(tuned) if is_plain(&rewrites) => tuned,
        Ok(tuned) => {
            plain = choose(graph, network.settled).ok();
            tuned
        }
        Err(failure) if is_plain(&rewrites) => return Err(failure),
        Err(failure) => {
            let plain = choose(graph, network.settled)?;
            eprintln!("the plan with rewrites is left out: {failure}");
            rewrites.iter_mut().for_each(BlockRewrite::overrule);
            plain
        }
    };

    let default = network.session(&default_choices(network.graph, network.cpu))?;
    let mut others = vec![("default".to_string(), default)];
    if types == Types::F32 {
        for rule in &RULES {
            let choices = by_rule(network.graph, measurements, rule, network.cpu);
            others.push((format!("rule: {}", rule.name), network.session(&choices)?));
        }
    }
    let mut entries = Vec::new();
    let both = [("tuned", Some(&mut tuned)), (WITHOUT_REWRITES, plain.as_mut())];
    for (name, tuned) in both {
        let Some(Chosen { session, alone, .. }) = tuned.map(|tuned| &mut tuned.chosen) else { continue };
        entries.push((name.to_string(), session));
        entries.extend(alone.iter_mut().map(|alone| (format!("{name}, {BY_TIMES_ALONE}"), alone)));
    }
    entries.extend(at_once.iter_mut().map(|session| (split::AT_ONCE.to_string(), session)));
    let rivals = entries.len();
    entries.extend(others.iter_mut().map(|(name, session)| (name.clone(), session)));
    network.distance.wait_until(part(end, PATIENCE));
    let mut contest = contest(network, entries, rivals, end);
    let other = contest.iter().position(|entry| entry.name == WITHOUT_REWRITES);
    let faster = other.filter(|&other| is_faster(&contest[other].timing, &contest[0].timing));
    if let Some((plain, other)) = plain.zip(faster) {
        tuned = plain;
        let replaced: Vec<Entry> = contest.drain(..other).collect();
        contest.iter_mut().for_each(|entry| entry.name = entry.name.replace(WITHOUT_REWRITES, "tuned"));
        let renamed =
            |entry: Entry| Entry { name: entry.name.replace("tuned", "tuned, with rewrites"), ..entry };
        contest.extend(replaced.into_iter().map(renamed));
        rewrites.iter_mut().for_each(BlockRewrite::overrule);
    }
    let steps = 0..tuned.graph.steps.len();
    let predict = |step: usize| match tuned.chosen.alone {
        Some(_) => Some(contest[1].steps[step] * tuned.chosen.against_alone(step)),
        None => Some(tuned.chosen.timing(step)?.median),
    };
    let predicted = steps.map(predict).collect();
    let around = match tuned.chosen.alone {
        Some(_) => contest[1].timing.median - contest[1].steps.iter().sum::<f64>(),
        None => 0.0,
    };
    let chosen_ms = ms(tuned.chosen.alone_seconds());
    let planning = least.map(|least_ms| Planning { greedy_ms, least_ms, chosen_ms });
    Ok(Planned { tuned, split, rewrites, planning, contest, predicted, around })
}
