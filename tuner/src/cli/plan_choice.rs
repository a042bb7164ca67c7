//! Which plan a run takes: the one that was named, the newest that fits, the nearest, or none.

use std::path::{Path, PathBuf};

use engine::network::{Choice, F32_ERROR, Graph, built_in};
use engine::plan::Bounds;
use engine::plan::store::{nearest, newest};
use engine::runtime::graph;
use engine::{Machine, Model, ModelShape, Plan, Weights};
use kernels::Cpu;

use crate::autotune::network::ensure_bound;
use crate::cli::images::size_hint;
use crate::cli::{Failure, HostArgs, ModelArgs, at_size, by_plan, model_options, stdin};
use crate::report::count;

#[derive(Clone, Debug, clap::Args)]
pub struct PlanChoiceArgs {
    /// The plan; by default the newest valid one of this machine
    #[arg(long, value_name = "PLAN.json", value_parser = stdin::file())]
    pub plan: Option<PathBuf>,
    /// Take plans within this bound on the memory of the process; without it plans without a bound
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=1 << 24), conflicts_with = "plan")]
    pub max_memory: Option<u32>,
    /// Fail where no plan is for this run, in place of one for another batch or the built-in choice
    #[arg(long, conflicts_with = "plan")]
    pub require_plan: bool,
    /// Take a plan that was made on another machine
    #[arg(long, requires = "plan")]
    pub any_machine: bool,
}

/// What a plan is chosen for.
pub struct PlanChoice<'a> {
    pub args: &'a PlanChoiceArgs,
    /// The file of the weights, as the user has named it.
    pub weights_file: Option<&'a Path>,
    /// Images of an inference, where the user says.
    pub batch: Option<usize>,
    pub host: &'a HostArgs,
    pub cpu: &'a Cpu,
    pub model: &'a Model,
    pub weights: &'a Weights,
}

/// A network with its choices, on so many threads.
pub struct Found {
    pub graph: Graph,
    pub choices: Vec<Choice>,
    pub threads: usize,
    /// The plan's file; none for the built-in choice.
    pub plan: Option<PathBuf>,
    /// Streams that give the most images a second, and the threads of each, where that is known.
    pub streams: Option<[usize; 2]>,
    /// What to know of it.
    pub notes: Vec<String>,
}

impl PlanChoice<'_> {
    /// The plan that was named, the newest valid one, or the built-in choice.
    pub fn find(&self) -> Result<Found, Failure> {
        let Self { args, host, cpu, model, weights, .. } = self;
        if let Some(path) = &args.plan {
            return self.named(path);
        }
        let (threads, batch) = (host.thread_count(), self.batch.unwrap_or(1));
        let wanted = ModelArgs::wanted(model, Some(threads), Some(batch));
        let machine = Machine::of(cpu);
        let folder = machine.folder(&host.results);
        let graph = graph(model, weights, batch);
        let bounds = Bounds { error: host.error_bound(), memory: args.max_memory };
        let mut unusable = String::new();
        if let Some((path, plan)) = newest(&folder, &wanted, &bounds, &machine) {
            match by_plan(&path, &plan, &graph, cpu, model) {
                Ok((graph, choices)) => {
                    let notes = plan.notes(&path, Some(&machine));
                    let streams = streams(&plan);
                    return Ok(Found { graph, choices, threads, plan: Some(path), streams, notes });
                }
                Err(error) => unusable = format!("{error}; "),
            }
        }
        ensure_bound(&graph, threads, &bounds)?;
        let command = self.tuning_command();
        let asked = format!("{model}{} with {} and batch {batch}", at_size(model), count(threads, "thread"));
        let missing = format!("{unusable}no plan for {asked} in {}", folder.display());
        if args.require_plan {
            return Err(format!("{missing}, expected one as `{command}` makes").into());
        }
        let nearest = nearest(&folder, &wanted, &bounds, &machine);
        let adapted = nearest.and_then(|(path, plan)| Some((path, plan.adapted(&graph, cpu)?, plan)));
        if let Some((path, (graph, choices), plan)) = adapted {
            let (of, batch) = (count(plan.threads, "thread"), plan.batch);
            let note = format!("{missing}; using the one for {of} and batch {batch} (`{command}` makes one)");
            return Ok(Found { graph, choices, threads, plan: Some(path), streams: None, notes: vec![note] });
        }
        if self.states_bounds() && (bounds.error < F32_ERROR || bounds.memory.is_some()) {
            let expected = "the built-in choice keeps no such bound";
            return Err(format!("{missing} within the bounds, and {expected}; `{command}` makes one").into());
        }
        let note = format!("{missing}; using the built-in choice (`{command}` makes one)");
        let (graph, choices) = built_in(&graph, cpu);
        Ok(Found { choices, graph, threads, plan: None, streams: None, notes: vec![note] })
    }

    /// The command that makes the plan that is missing.
    fn tuning_command(&self) -> String {
        let Self { args, host, weights_file, .. } = self;
        let options = [
            ("weights", weights_file.map(|path| path.display().to_string())),
            ("threads", host.threads.map(|threads| threads.to_string())),
            ("batch", self.batch.map(|batch| batch.to_string())),
            ("max-rel-error", (host.error_bound() != F32_ERROR).then(|| format!("{:e}", host.error_bound()))),
            ("max-memory", args.max_memory.map(|mib| mib.to_string())),
            ("isa", host.isa.limit().map(|tier| tier.to_string())),
        ];
        let words = options.into_iter().filter_map(|(name, value)| Some(format!(" --{name} {}", value?)));
        format!("tuner {}{}", model_options(self.model), words.collect::<String>())
    }

    /// Whether the user has stated a bound on the error or the memory.
    fn states_bounds(&self) -> bool {
        let HostArgs { max_rel_error, precision, .. } = self.host;
        max_rel_error.is_some() || precision.is_some() || self.args.max_memory.is_some()
    }

    fn named(&self, path: &Path) -> Result<Found, Failure> {
        let Self { args, host, cpu, model, weights, .. } = self;
        let (threads, batch) = (host.threads.map(usize::from), self.batch);
        let wanted = ModelArgs::wanted(model, threads, batch);
        let plan = Plan::read_steps(path)?;
        plan.check_wanted(path, &wanted).map_err(|error| match plan.shape.as_deref().map(str::parse) {
            Some(Ok(ModelShape::Input([h, w, _])))
                if plan.model == model.name && plan.shape != wanted.shape =>
            {
                format!("{error}{}", size_hint(model, [h, w])).into()
            }
            _ => Failure::from(error),
        })?;
        let machine = Machine::of(cpu);
        if !args.any_machine {
            plan.check_machine(path, &machine)?;
        }
        if self.states_bounds() && plan.max_rel_error > host.error_bound() {
            let (file, found, bound) = (path.display(), plan.max_rel_error, host.error_bound());
            return Err(format!("{file}: max_rel_error is {found:e}, expected at most {bound:e}").into());
        }
        let (graph, choices) = by_plan(path, &plan, &graph(model, weights, plan.batch), cpu, model)?;
        let notes = plan.notes(path, Some(&machine).filter(|_| !args.any_machine));
        Ok(Found {
            graph,
            choices,
            threads: plan.threads,
            plan: Some(path.to_owned()),
            streams: streams(&plan),
            notes,
        })
    }
}

fn streams(plan: &Plan) -> Option<[usize; 2]> {
    plan.fastest_streams().map(|record| [record.streams, record.threads])
}
