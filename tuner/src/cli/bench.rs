//! `tuner bench --shape SHAPE`: every kernel and tuning on one shape, checked and timed in turn.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use engine::Model;
use engine::network::{Graph, Precision, available};
use engine::plan::{CandidateOutcome, CandidateRecord, ProblemRecord};
use kernels::{Conv, PoolKind, Problem};
use serde::Serialize;

use crate::autotune::record::record;
use crate::bench::{
    CoreDistanceMonitor, Progress, Stage, StageProgress, noise, weight_bytes, weights_come_from,
};
use crate::cli::args::PrecisionArg;
use crate::cli::check::rows;
use crate::cli::shape_list::{Listed, read};
use crate::cli::{
    Answer, Failure, IsaArgs, Meter, OutputArgs, crowded, print_notes, stdin, thread_count, threads,
};
use crate::measure::{MeasureBudget, MeasureContext, ensure_measured, measure_kernels};
use crate::report::{COLUMNS, Candidates, convolution, count, paragraphs, percent, sections, shape};

#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    /// The shape, like n1h17w17c768k192r1s7
    #[arg(long, required_unless_present = "shapes")]
    shape: Option<Conv>,
    /// Several: a shape a line, comments after #
    #[arg(long, visible_alias = "problems", value_name = "FILE", value_parser = stdin::file(), conflicts_with = "shape")]
    shapes: Option<PathBuf>,
    /// One kernel; all of this machine by default
    #[arg(long, value_name = "ID")]
    kernel: Option<String>,
    /// Worker threads; the physical cores this process may use by default
    #[arg(long, value_parser = thread_count)]
    threads: Option<u16>,
    /// Images of an inference, in place of the n of the shapes
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Option<u16>,
    /// The lowest types: f32 by default
    #[arg(long)]
    precision: Option<PrecisionArg>,
    #[command(flatten)]
    isa: IsaArgs,
    /// Seconds for each shape
    #[arg(long, value_name = "SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    budget: u32,
    /// Show all candidates, not only the fastest of each kernel
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Rounds of a shape at most. Only time ends them sooner.
const ROUNDS: usize = 200;

#[derive(Debug, Serialize)]
struct Benched {
    cpu: String,
    isa: String,
    threads: usize,
    shapes: Vec<BenchedShape>,
}

#[derive(Debug, Serialize)]
struct BenchedShape {
    multiply_adds: u64,
    /// Times within this share of each other are ties.
    tie: f64,
    #[serde(flatten)]
    record: ProblemRecord,
    #[serde(skip)]
    threads: usize,
    #[serde(skip)]
    is_all: bool,
}

/// False if the results of a candidate are wrong.
pub fn bench(args: &BenchArgs, out: &mut dyn Write) -> Result<bool, Failure> {
    let cpu = args.isa.cpu();
    let list = match (&args.shapes, &args.shape) {
        (Some(path), _) => read(path, args.batch.map(usize::from))?,
        (None, conv) => conv.iter().map(|conv| listed(conv, args.batch)).collect(),
    };
    let problems: Vec<Problem> = list.iter().map(Listed::problem).collect();
    let count = args.threads.map_or_else(engine::runtime::physical_cores, usize::from);
    ensure_measured(&problems, &cpu, precision(args), count)?;
    let threads = threads(count)?;
    print_notes(&crowded(threads.count()));
    let mut meter = Meter::default();
    let progress = Progress::new(&mut meter);
    let (distance, types) = (CoreDistanceMonitor::default(), precision(args));
    let cold = weights_come_from(network_weight_bytes(types), &cpu);
    let mut shapes = Vec::new();
    for (index, problem) in problems.iter().enumerate() {
        let (mut kernels, mut left_out) = available(&cpu, problem);
        if let Some(id) = &args.kernel {
            rows(Some(id))?;
            kernels.retain(|kernel| kernel.row.id == id);
            left_out.retain(|excluded| excluded.id == id);
        }
        if let ([], [excluded]) = (&kernels[..], &left_out[..]) {
            return Err(
                format!("--kernel: {} does not take {problem}: {}", excluded.id, excluded.reason).into()
            );
        }
        let at = |index: usize| index as f64 / problems.len() as f64;
        let name = problem.to_string();
        let stage = |stage| StageProgress::new(&progress, stage).part(at(index), at(index + 1)).detail(&name);
        let measured = threads.install(|| {
            let start = Instant::now();
            let floor = noise::floor(vec![problem.clone()], &cpu, &threads, cold, stage(Stage::NoiseFloor));
            let host = MeasureContext {
                cpu: &cpu,
                threads: &threads,
                distance: &distance,
                tie: noise::tie(floor),
                cold,
                log: None,
                progress: &progress,
            };
            let budget = Duration::from_secs(args.budget.into()).saturating_sub(start.elapsed());
            let deadline = Instant::now() + budget;
            let effort = MeasureBudget { budget, share: budget, deadline, rounds: ROUNDS, exhaustive: false };
            measure_kernels(problem, &host, types, (&kernels, left_out), effort, stage(Stage::Candidates))
        });
        shapes.push(BenchedShape {
            multiply_adds: list[index].conv.multiply_adds(),
            tie: measured.tie,
            record: record(&measured),
            threads: threads.count(),
            is_all: args.all,
        });
    }
    let benched =
        Benched { cpu: cpu.name.clone(), isa: cpu.tier().to_string(), threads: threads.count(), shapes };
    args.output.print(&benched, out)?;
    let mut candidates = benched.shapes.iter().flat_map(|shape| &shape.record.candidates);
    Ok(candidates.all(|c| !matches!(c.outcome, CandidateOutcome::Wrong { .. })))
}

fn listed(conv: &Conv, batch: Option<u16>) -> Listed {
    let batch = batch.map_or(conv.batch, usize::from);
    Listed { conv: Conv { batch, ..conv.clone() }, count: 1 }
}

fn precision(args: &BenchArgs) -> Precision {
    match args.precision {
        None | Some(PrecisionArg::F32) => Precision::F32,
        Some(PrecisionArg::Bf16) => Precision::Bf16,
        Some(PrecisionArg::Int8) => Precision::Int8,
    }
}

/// Bytes of the weights that pass between two turns of a layer in InceptionV3: a shape is as cold as
/// there.
fn network_weight_bytes(types: Precision) -> usize {
    let graph = Graph::new(&Model::inception_v3(), 1, PoolKind::Average);
    let problems = graph.problems();
    weight_bytes(problems.iter().map(|(problem, steps)| (problem, steps.len())), types)
}

impl Answer for Benched {
    fn text(&self, width: usize) -> String {
        let head = format!("{} ({}), {}\n", self.cpu, self.isa, count(self.threads, "thread"));
        sections(std::iter::once(head).chain(self.shapes.iter().map(|shape| shape.text(width))))
    }
}

impl BenchedShape {
    fn text(&self, width: usize) -> String {
        let Self { record, tie, threads, is_all, .. } = self;
        let mark = |c: &CandidateRecord| mark(c, *tie);
        let is_shown = |index: usize| *is_all || is_first(&record.candidates, index);
        let candidates =
            Candidates { record, threads: *threads, is_shown: &is_shown, mark: &mark, formats: None };
        let words = convolution(&record.problem).map_or(String::new(), |conv| shape(&conv));
        let mut facts = vec![format!("{}: {words}", record.problem)];
        let fastest = record.candidates.first().filter(|c| c.time_us.is_some());
        facts.extend(fastest.map(|c| format!("fastest: {}", c.id)));
        let ties = format!("=: as fast as the fastest, within {}. {COLUMNS}", percent(*tie, 1.0));
        let notes = candidates.hidden().into_iter().chain([ties]).chain(candidates.conditions());
        let excluded = record
            .excluded
            .iter()
            .map(|(id, reason)| format!("left out: {id}: {}", crate::report::reason_text(reason)));
        let notes = paragraphs(notes.chain(excluded), width, 2);
        format!("{}\n{}{notes}", paragraphs(facts, width, 2), candidates.table().fold(width))
    }
}

/// Marks what is as fast as the fastest of its types.
fn mark(candidate: &CandidateRecord, tie: f64) -> &'static str {
    match candidate.ratio_ci95 {
        Some([ratio, low, _]) if ratio <= 1.0 + tie || low <= 1.0 => "=",
        _ => " ",
    }
}

/// Whether a candidate is the fastest of its kernel and types: the fastest come first.
fn is_first(candidates: &[CandidateRecord], index: usize) -> bool {
    let of = |c: &CandidateRecord| (c.id.kernel.clone(), c.id.formats.types());
    let own = of(&candidates[index]);
    candidates[..index].iter().all(|other| of(other) != own)
}
