//! `tuner tune`: measures, plans, measures the plan, writes it.

use std::io::Write;
use std::path::PathBuf;

use engine::plan::schema::Plan;
use engine::plan::store::file_name;
use engine::runtime::machine::Machine;
use engine::util::error::Failure;
use engine::util::files::{check_writable, create_folder};

use crate::autotune::network::autotune;
use crate::autotune::options::Options;
use crate::cli::args::{Images, TuneArgs};
use crate::cli::print::{
    audit, print_contest, print_pareto, print_rules, print_search, print_steps, warn_of_noise,
};
use crate::cli::progress::TerminalObserver;
use crate::cli::tune_shapes::tune_shapes;
use crate::report::rewrites::print_rewrites;

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
        images: images.map_or(Vec::new(), Images::each),
        ..args.options()
    };
    let machine = Machine::of(&options.cpu);
    let path = plan_file(args, &options, model.to_string().as_str(), &machine)?;
    check_writable(&path)?;
    writeln!(
        out,
        "{model}: batch {}, {} on {} ({}), weights {}",
        options.batch,
        if options.threads == 1 { "1 thread".to_string() } else { format!("{} threads", options.threads) },
        machine.cpu,
        machine.isa,
        weights.description()
    )?;
    let plan = autotune(&model, &weights, &options, &mut TerminalObserver::default())?;
    plan.write(&path)?;
    print(&plan, out)?;
    writeln!(out, "\nplan: {}", path.display())?;
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

fn print(plan: &Plan, out: &mut dyn Write) -> Result<(), Failure> {
    print_steps(plan, out)?;
    print_rewrites(plan, out)?;
    print_contest(plan, out)?;
    print_rules(&plan.rules, out)?;
    print_search(&plan.measurements, out)?;
    print_pareto(plan, out)?;
    plan.noise.iter().for_each(warn_of_noise);
    audit(plan);
    Ok(())
}
