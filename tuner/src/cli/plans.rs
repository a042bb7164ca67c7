//! `tuner plans`: the plans of this machine.

use std::io::Write;
use std::path::PathBuf;

use engine::plan::store::in_folder;
use engine::{Machine, Plan};
use kernels::Cpu;
use serde::Serialize;

use crate::cli::{Answer, Failure, OutputArgs, PlanFilter, results_folder};
use crate::report::{Table, date, paragraphs, short};

#[derive(Clone, Debug, clap::Args)]
pub struct PlansArgs {
    #[command(flatten)]
    of: PlanFilter,
    /// Folder of results, one folder a machine inside
    #[arg(long, value_name = "DIR", env = "TUNER_RESULTS", default_value_os_t = results_folder())]
    results: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Plans {
    folder: String,
    /// The newest first.
    plans: Vec<Listed>,
}

#[derive(Debug, Serialize)]
struct Listed {
    /// Its name in the folder.
    file: String,
    model: String,
    shape: Option<String>,
    threads: usize,
    batch: usize,
    /// The whole network, in milliseconds; null where it was not measured.
    measured_ms: Option<f64>,
    /// The error that was measured, and its bound.
    rel_error: Option<f64>,
    max_rel_error: f64,
    /// Memory of the process that runs it, in MiB, and its bound.
    process_mib: Option<usize>,
    max_memory_mib: Option<u32>,
    /// When it was made, in seconds since 1970.
    created: u64,
    /// Why its times may not hold any more; null where they should.
    stale: Option<String>,
}

pub fn plans(args: &PlansArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let machine = Machine::of(&Cpu::detect());
    let folder = machine.folder(&args.results);
    let listed = |(path, plan): (PathBuf, Plan)| Listed {
        file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        process_mib: plan.process_bytes().map(|bytes| bytes >> 20),
        stale: plan
            .machine
            .differs(&machine)
            .map(|d| format!("{} was {}", d.field, d.this))
            .or(plan.stale(&machine)),
        model: plan.model,
        shape: plan.shape,
        threads: plan.threads,
        batch: plan.batch,
        measured_ms: plan.measured_ms,
        rel_error: plan.rel_error,
        max_rel_error: plan.max_rel_error,
        max_memory_mib: plan.max_memory_mib,
        created: plan.created,
    };
    let mut plans: Vec<Listed> =
        in_folder(&folder).filter(|(_, plan)| args.of.takes(plan)).map(listed).collect();
    plans.sort_by_key(|plan| std::cmp::Reverse(plan.created));
    args.output.print(&Plans { folder: folder.display().to_string(), plans }, out)
}

impl Answer for Plans {
    fn text(&self, width: usize) -> String {
        if self.plans.is_empty() {
            return format!("no plans in {}\n", self.folder);
        }
        let mut table = Table::new("plan | (model) | threads | batch | ms | error | MiB | date | state");
        for plan in &self.plans {
            let Listed { file, model, shape, threads, batch, max_memory_mib, .. } = plan;
            let model = shape.as_ref().map_or(model.clone(), |shape| format!("{model} {shape}"));
            let number = |value: Option<f64>, text: fn(f64) -> String| value.map_or("-".to_string(), text);
            let (ms, error) =
                (number(plan.measured_ms, short), number(plan.rel_error, |error| format!("{error:.1e}")));
            let memory = plan.process_mib.map_or("-".to_string(), |mib| mib.to_string());
            let memory = max_memory_mib.map_or(memory.clone(), |bound| format!("{memory} of {bound}"));
            let state = if plan.stale.is_some() { "stale" } else { "valid" };
            table.row(&[file, &model, threads, batch, &ms, &error, &memory, &date(plan.created), &state]);
        }
        let stale =
            self.plans.iter().filter_map(|plan| Some(format!("{}: {}", plan.file, plan.stale.as_ref()?)));
        let notes = paragraphs(stale, width, 2);
        format!("{}:\n\n{}{notes}", self.folder, table.fold(width))
    }
}
