//! Which plan a run takes: the one that was named, the newest that fits, the nearest, or none.

use std::path::{Path, PathBuf};

use engine::network::F32_ERROR;
use engine::plan::Bounds;
use engine::runtime::graph;
use engine::{Machine, Model, ModelShape, Plan, PlanChoice, PlanError, PlanOrigin, Request, Weights};
use kernels::Cpu;

use crate::autotune::network::ensure_bound;
use crate::cli::images::size_hint;
use crate::cli::{Failure, HostArgs, at_size, model_options, stdin};
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
    /// Results with the same bits on every processor with AVX2, on any number of threads and in any
    /// batch, in f32; takes about twice the time of a tuned plan
    #[arg(long, conflicts_with_all = ["plan", "require_plan", "max_memory", "precision", "max_rel_error"])]
    pub reproducible: bool,
    /// Take a plan that was made on another machine
    #[arg(long, requires = "plan")]
    pub any_machine: bool,
}

/// What a plan is chosen for.
pub struct PlanChoiceFor<'a> {
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

impl PlanChoiceFor<'_> {
    /// The plan that was named, the newest valid one, the nearest, or the built-in choice.
    pub fn find(&self) -> Result<PlanChoice, Failure> {
        let Self { args, host, cpu, model, weights, batch, .. } = self;
        let threads = host.threads.map(usize::from);
        let request = Request::new(model).cpu(cpu).threads(threads).batch(*batch);
        let request = request.max_rel_error(host.stated_error_bound()).max_memory(args.max_memory);
        if let Some(path) = &args.plan {
            let read = request.any_machine(args.any_machine).read(path, weights);
            return read.map_err(|error| self.with_size_hint(error));
        }
        if args.reproducible {
            return Ok(request.reproducible(weights).map_err(|error| format!("--reproducible: {error}"))?);
        }
        let choice = request.find(&host.results, weights)?;
        let told = match &choice.origin {
            PlanOrigin::Named(_) | PlanOrigin::Newest(_) | PlanOrigin::Reproducible => return Ok(choice),
            PlanOrigin::Nearest { threads, batch, .. } => {
                format!("the one for {} and batch {batch}", count(*threads, "thread"))
            }
            PlanOrigin::BuiltIn => "the built-in choice".to_owned(),
        };
        let Plan { threads, batch, .. } = choice.plan;
        let bounds = Bounds { error: host.error_bound(), memory: args.max_memory };
        ensure_bound(&graph(model, weights, batch), threads, &bounds)?;
        let command = self.tuning_command();
        let folder = Machine::of(cpu).folder(&host.results);
        let asked = format!("{model}{} with {} and batch {batch}", at_size(model), count(threads, "thread"));
        let none = format!("no plan for {asked} in {}", folder.display());
        let missing = [&choice.notes[..], &[none]].concat().join("; ");
        if args.require_plan {
            return Err(format!("{missing}, expected one as `{command}` makes").into());
        }
        let is_stated = host.stated_error_bound().is_some() || args.max_memory.is_some();
        let keeps_bounds = bounds.error >= F32_ERROR && bounds.memory.is_none();
        if choice.origin == PlanOrigin::BuiltIn && is_stated && !keeps_bounds {
            let expected = "the built-in choice keeps no such bound";
            return Err(format!("{missing} within the bounds, and {expected}; `{command}` makes one").into());
        }
        let note = format!("{missing}; using {told} (`{command}` makes one)");
        Ok(PlanChoice { notes: vec![note], ..choice })
    }

    /// An error with the option that gives the model the size of the plan, where that differs.
    fn with_size_hint(&self, error: PlanError) -> Failure {
        let size = match &error {
            PlanError::Field { field, found, .. } if field == "shape" => found.parse().ok(),
            _ => None,
        };
        match size {
            Some(ModelShape::Input([h, w, _])) => format!("{error}{}", size_hint(self.model, [h, w])).into(),
            _ => error.into(),
        }
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
}
