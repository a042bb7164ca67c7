//! `tuner tune`: measures, plans, measures the plan, writes it.

use std::io::Write;
use std::path::Path;

use engine::runtime::{PreparedNetwork, Threads, graph};
use engine::{Machine, Model, Plan};
use serde::Serialize;

use crate::autotune::file::{autotune_for, place, plan_file, write};
use crate::autotune::options::Options;
use crate::cli::classes::{ClassNames, Classes, NotFinite};
use crate::cli::detail::{detail, pareto, search_sentence};
use crate::cli::images::Seen;
use crate::cli::summary::Summary;
use crate::cli::tune_shapes::tune_shapes;
use crate::cli::warnings::{audit, warn_of_noise};
use crate::cli::{
    Answer, Batch, Failure, Images, Meter, TuneArgs, at_size, check_distinct, conv_output, crowded,
    interrupt, model_options, print_notes, shards, threads,
};
use crate::report::{count, paragraphs, sections};

pub fn tune(args: &TuneArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let written =
        [("--out", args.out.as_deref()), ("--write-input", args.images.preprocess.write_input.as_deref())];
    let read = [("--weights", args.model.weights.as_deref()), ("--shapes", args.shapes.as_deref())];
    check_distinct(&written, &read, &args.images)?;
    if let Some(path) = &args.shapes {
        return tune_shapes(args, path, out);
    }
    let (model, weights) = args.model.open(false)?;
    check_distinct(&written, &shards(&weights), &args.images)?;
    let images = args.images.open(&model, &weights)?.map(|images| load(&images, args)).transpose()?;
    let options = Options {
        batch: args.model.batch(&args.host).unwrap_or(1),
        images: images.as_ref().map_or(Vec::new(), Batch::each),
        ..args.options()
    };
    let machine = Machine::of(&options.cpu);
    let Options { threads: workers, batch, .. } = options;
    let path = args.output_file(&machine, plan_file(&args.host.results, &model, &weights, &options))?;
    print_notes(&crowded(workers));
    interrupt::tell_what_is_left(args.left(&machine));
    let plan = autotune_for(&path, &model, &weights, &options, &mut Meter::default())?;
    let written = write(&plan, &path);
    let path = place(path, &written);
    plan.noise.iter().for_each(warn_of_noise);
    audit(&plan);
    let workers = count(workers, "thread");
    let (machine, description) = (format!("{} ({})", machine.cpu, machine.isa), weights.description());
    let outcome = Outcome {
        plan: path.display().to_string(),
        next: next(args, &model, &path),
        summary: Summary::of(&plan),
        setting: format!(
            "{model}{}{}: batch {batch}, {workers} on {machine}, weights {description}",
            at_size(&model),
            conv_output(&model).map_or(String::new(), |output| format!(" to {output}")),
        ),
        tuned: &plan,
        verbose: args.verbose,
    };
    args.output.print(&outcome, out)?;
    if let Some(images) = images.filter(|_| !args.output.json) {
        writeln!(out)?;
        let (graph, choices) = plan.network(&path, &graph(&model, &weights, plan.batch), &options.cpu)?;
        let threads = threads(plan.threads)?;
        let session = PreparedNetwork::new(
            graph,
            &choices,
            plan.calibration.as_ref(),
            &weights,
            &options.cpu,
            &threads,
        )?;
        let ClassNames { names, note } = ClassNames::of(None, &model, &weights)?;
        print_notes(&note);
        classify(&model, &names, session, &threads, &images, out)?;
    }
    Ok(written?)
}

/// All images of the user.
fn load(images: &Images, args: &TuneArgs) -> Result<Batch, Failure> {
    print_notes(&images.notes);
    images.all(Seen::new(images, args.images.preprocess.write_input.as_ref())?)
}

/// What tuning has come to, and what to type next.
#[derive(Serialize)]
struct Outcome<'a> {
    plan: String,
    next: String,
    #[serde(flatten)]
    summary: Summary<'a>,
    #[serde(skip)]
    setting: String,
    #[serde(skip)]
    tuned: &'a Plan,
    #[serde(skip)]
    verbose: bool,
}

impl Answer for Outcome<'_> {
    fn text(&self, width: usize) -> String {
        let Self { plan, next, summary, setting, tuned, verbose } = self;
        sections([
            paragraphs([setting], width, 2),
            if *verbose { detail(tuned, width) } else { String::new() },
            search_sentence(&tuned.measurements, width),
            pareto(tuned, width),
            summary.text(width),
            format!("plan: {plan}\nnext: {next}\n"),
        ])
    }
}

/// The command that runs the plan.
fn next(args: &TuneArgs, model: &Model, path: &Path) -> String {
    let file = args.model.weights.as_ref().map(|path| path.display().to_string());
    let options = [
        ("plan", Some(path.display().to_string())),
        ("weights", file),
        ("image", model.takes_images().then(|| "FILE".to_string())),
    ];
    let words = options.into_iter().filter_map(|(name, value)| Some(format!(" --{name} {}", value?)));
    format!("tuner run {}{}", model_options(model), words.collect::<String>())
}

/// Prints the classes of the user's images.
fn classify(
    model: &Model,
    labels: &[String],
    mut session: PreparedNetwork,
    threads: &Threads,
    images: &Batch,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let (top, shape) = (model.has_top().then_some(5), &model.nodes[model.output].shape[..]);
    let classes = Classes { labels, top, shape, activation: model.activation() };
    let (batch, size) = (session.graph().batch, model.input().iter().product::<usize>());
    for (values, names) in images.values.chunks(batch * size).zip(images.names.chunks(batch)) {
        threads.install(|| session.run(threads, values, names.len()));
        let checked = threads.install(|| session.check_finite(threads, values, names.len()));
        checked.map_err(|error| NotFinite::of(&error, &names[error.image]))?;
        let output = session.output(names.len());
        let rows = output.chunks(output.len() / names.len().max(1));
        names.iter().zip(rows).try_for_each(|(name, row)| classes.print(row, name, out))?;
    }
    Ok(())
}
