//! `tuner tune`: measures, plans, measures the plan, writes it.

use std::io::Write;
use std::path::{Path, PathBuf};

use engine::network::model::Model;
use engine::network::models::is_network;
use engine::plan::schema::Plan;
use engine::plan::store::file_name;
use engine::runtime::load::graph;
use engine::runtime::machine::Machine;
use engine::runtime::prepared::PreparedNetwork;
use engine::util::error::Failure;
use engine::util::files::{check_writable, create_folder};
use engine::weights::source::Weights;
use kernels::cpu::Cpu;
use kernels::problem::Conv;
use serde::Serialize;

use crate::autotune::network::autotune;
use crate::autotune::options::Options;
use crate::cli::args::{Images, TuneArgs, threads};
use crate::cli::classes::Classes;
use crate::cli::detail::{detail, pareto, search_sentence};
use crate::cli::output::print_json;
use crate::cli::progress::Meter;
use crate::cli::summary::{Summary, summary};
use crate::cli::tune_shapes::tune_shapes;
use crate::cli::warnings::{audit, warn_of_noise};
use crate::report::table::wrap;
use crate::report::text::count;

/// Runs the command.
pub fn tune(args: &TuneArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(path) = &args.shapes {
        return tune_shapes(args, path, out);
    }
    let (model, weights) = args.model.open()?;
    let images = args.images.load(&model)?;
    let options = Options {
        shape: args.model.wanted(None, None)?.shape,
        batch: args.model.batch(&args.host).unwrap_or(1),
        images: images.as_ref().map_or(Vec::new(), Images::each),
        ..args.options()
    };
    let machine = Machine::of(&options.cpu);
    let path = plan_file(args, &options, model.to_string().as_str(), &machine)?;
    check_writable(&path)?;
    let plan = autotune(&model, &weights, &options, &mut Meter::default())?;
    plan.write(&path)?;
    plan.noise.iter().for_each(warn_of_noise);
    audit(&plan);
    if !args.output.json {
        let (batch, threads) = (options.batch, count(options.threads, "thread"));
        let (machine, weights) = (format!("{} ({})", machine.cpu, machine.isa), weights.description());
        let line = format!("{model}: batch {batch}, {threads} on {machine}, weights {weights}");
        writeln!(out, "{}\n", wrap(&line, args.output.width(), 2))?;
    }
    print(args, &plan, &path, out)?;
    if let Some(images) = images.filter(|_| !args.output.json) {
        writeln!(out)?;
        classify(&model, &weights, (&path, &plan), &options.cpu, &images, out)?;
    }
    Ok(())
}

/// Where the plan is written: the given file, or one in the folder of this machine, which is made.
fn plan_file(args: &TuneArgs, options: &Options, model: &str, machine: &Machine) -> Result<PathBuf, Failure> {
    if let Some(path) = &args.out {
        return Ok(path.clone());
    }
    let folder = machine.folder(&args.host.results);
    create_folder(&folder)?;
    let Options { shape, threads, batch, bounds, .. } = options;
    Ok(folder.join(file_name(model, shape.as_deref(), *threads, *batch, bounds)))
}

/// What tuning has come to, as JSON.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    plan: String,
    next: String,
    #[serde(flatten)]
    summary: Summary<'a>,
}

/// Prints what tuning has come to, and what to type next.
fn print(args: &TuneArgs, plan: &Plan, path: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let next = next(args, path);
    if args.output.json {
        let plan_path = path.display().to_string();
        return print_json(&Outcome { plan: plan_path, next, summary: Summary::of(plan) }, out);
    }
    let width = args.output.width();
    if args.verbose {
        writeln!(out, "{}", detail(plan, width))?;
    }
    for text in [search_sentence(&plan.measurements, width), pareto(plan, width)] {
        if !text.is_empty() {
            writeln!(out, "{text}")?;
        }
    }
    write!(out, "{}", summary(plan, width))?;
    writeln!(out, "\nplan: {}\nnext: {next}", path.display())?;
    Ok(())
}

/// The command that runs the plan.
fn next(args: &TuneArgs, path: &Path) -> String {
    let mut words = vec!["tuner run".to_string()];
    let mut add =
        |name: &str, value: Option<String>| words.extend(value.map(|value| format!("--{name} {value}")));
    add("model", args.model.model.clone());
    add("shape", args.model.shape.as_ref().map(|shape| Conv { batch: 1, ..shape.clone() }.to_string()));
    add("plan", Some(path.display().to_string()));
    add("weights", args.model.weights.as_ref().map(|path| path.display().to_string()));
    if args.model.model.as_deref().is_some_and(is_network) {
        add("image", Some("FILE".to_string()));
    }
    words.join(" ")
}

/// Prints the classes of the user's images, by the plan.
fn classify(
    model: &Model,
    weights: &Weights,
    (path, plan): (&Path, &Plan),
    cpu: &Cpu,
    images: &Images,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let threads = threads(plan.threads)?;
    let (graph, choices) = plan.network(path, &graph(model, weights, plan.batch), cpu)?;
    let mut session = PreparedNetwork::new(graph, &choices, weights, cpu, &threads)?;
    let classes = Classes { model, labels: &[], top: 5 };
    let size: usize = model.input().iter().product();
    for (values, names) in images.values.chunks(plan.batch * size).zip(images.names.chunks(plan.batch)) {
        threads.install(|| session.run(&threads, values, names.len()));
        classes.print(&session.output(names.len()), names, out)?;
    }
    Ok(())
}
