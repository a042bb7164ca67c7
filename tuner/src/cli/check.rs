//! `tuner check`: every kernel against the oracle, or against tensors from elsewhere.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;

use engine::Model;
use engine::network::models::DEFAULT;
use engine::network::{Graph, Precision, StepFormats, block_variant, supported};
use engine::plan::WeightResidency;
use engine::runtime::Threads;
use engine::runtime::memory::ensure_checked;
use engine::util::names;
use kernels::verify::{Pixel, all_pixels};
use kernels::{Conv, Cpu, Epilogue, Filter, Kernel, KernelEntry, Numerics, PoolKind, Problem, entry, table};
use serde::Serialize;

use crate::bench::{Bench, BenchContext, Comparison, Inputs, Oracle, sample_pixels};
use crate::cli::npy::{load_expect, load_npy_dyn};
use crate::cli::{Answer, Failure, HostArgs, ImageSize, Meter, OutputArgs, of_size, size, stdin, threads};
use crate::report::{Table, convolution, count, group, paragraphs, shape, wrap};

#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    #[arg(
        long, value_name = "MODEL", conflicts_with = "shape",
        help = format!("Check all problems of a model, in all block variants: {DEFAULT} (the default) or a block")
    )]
    model: Option<String>,
    /// Check one shape, like n1h17w17c768k192r1s7
    #[arg(long)]
    shape: Option<Conv>,
    /// Height and width of the images of a network, from 75 up
    #[arg(long, value_name = "HxW", value_parser = size, conflicts_with = "shape")]
    size: Option<ImageSize>,
    /// Check one kernel
    #[arg(long, value_name = "ID")]
    kernel: Option<String>,
    /// Input of the shape, .npy of [N, H, W, C] float32
    #[arg(long, value_name = "X.npy", value_parser = stdin::file(), requires_all = ["filter", "expect", "shape"])]
    input: Option<PathBuf>,
    /// Filter of the shape, .npy of [R, S, C, K] float32 (HWIO, as Keras has it)
    #[arg(long, value_name = "W.npy", value_parser = stdin::file(), requires = "input")]
    filter: Option<PathBuf>,
    /// Expected output, .npy of [N, OH, OW, K], float32 or float64; neither bias nor ReLU
    #[arg(long, value_name = "Y.npy", value_parser = stdin::file(), requires = "input")]
    expect: Option<PathBuf>,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Serialize)]
struct Checked {
    /// Where the given output is off; null where none is given or it is right.
    expectation: Option<Off>,
    problems: Vec<CheckedProblem>,
}

/// The element of a given output that is furthest off.
#[derive(Debug, Serialize)]
struct Off {
    /// `[n, h, w, c]`.
    index: [usize; 4],
    found: f64,
    oracle: f64,
    error: f64,
    tolerance: f64,
}

#[derive(Debug, Serialize)]
struct CheckedProblem {
    problem: String,
    kernels: Vec<CheckedKernel>,
    left_out: Vec<LeftOut>,
}

/// The tuning of a kernel, in f32 or in lower types, that is nearest to its tolerance or beyond.
#[derive(Debug, Serialize)]
struct CheckedKernel {
    kernel: &'static str,
    types: String,
    holds: bool,
    error: f64,
    tolerance: f64,
    tunings: usize,
    worst_tuning: String,
}

#[derive(Debug, Serialize)]
struct LeftOut {
    kernel: &'static str,
    reason: String,
}

impl Answer for Checked {
    fn text(&self, width: usize) -> String {
        let mut text = String::new();
        if let Some(Off { index, found, oracle, error, tolerance }) = &self.expectation {
            let off = format!(
                "expectation is off at {index:?}: found {found:e}, the oracle has {oracle:e}; error {error:.2e}, \
                 tolerance {tolerance:.2e}"
            );
            text += &(wrap(&off, width, 2) + "\n\n");
        }
        text.extend(self.problems.iter().map(|problem| problem.text(width)));
        let rows = || self.problems.iter().flat_map(|problem| &problem.kernels);
        let kernels: HashSet<&str> = rows().map(|row| row.kernel).collect();
        let tunings = rows().filter(|row| row.types == "f32").map(|row| row.tunings).sum();
        let wrong = rows().filter(|row| !row.holds).count();
        let verdict = if wrong == 0 { "all ok".to_string() } else { count(wrong, "WRONG result") };
        let (kernels, tunings) = (count(kernels.len(), "kernel"), count(tunings, "tuning"));
        text + &format!("{}, {kernels}, {tunings}: {verdict}\n", count(self.problems.len(), "problem"))
    }
}

impl CheckedProblem {
    fn text(&self, width: usize) -> String {
        let mut table = Table::new("kernel | types | result | error | tolerance | tunings | worst tuning");
        for CheckedKernel { kernel, types, holds, error, tolerance, tunings, worst_tuning } in &self.kernels {
            let (result, error) = (if *holds { "ok" } else { "WRONG" }, format!("{error:.2e}"));
            let tolerance = format!("{tolerance:.2e}");
            table.row(&[kernel, types, &result, &error, &tolerance, tunings, worst_tuning]);
        }
        let reasons = group(self.left_out.iter().map(|left_out| (&left_out.reason, left_out.kernel)));
        let left_out = reasons.iter().map(|(why, kernels)| format!("left out: {why}: {}", kernels.join(" ")));
        let left_out = paragraphs(left_out, width, 2);
        let words = convolution(&self.problem).map_or(String::new(), |conv| format!(", {}", shape(&conv)));
        format!("{}\n{}{left_out}\n", wrap(&(self.problem.clone() + &words), width, 2), table.fold(width))
    }
}

/// False if a kernel or the expectation is off.
pub fn check(args: &CheckArgs, out: &mut dyn Write) -> Result<bool, Failure> {
    let rows = rows(args.kernel.as_deref())?;
    let cpu = args.host.isa.cpu();
    let threads = threads(args.host.thread_count())?;
    let batch = args.host.batch.map(usize::from);
    let resized = |conv: &Conv| Conv { batch: batch.unwrap_or(conv.batch), ..conv.clone() };
    let checker = Checker { cpu, threads, rows, types: Precision::Int8 };
    let checked = match (&args.shape, &args.input, &args.filter, &args.expect) {
        (Some(conv), Some(input), Some(filter), Some(expect)) => {
            if batch.is_some() {
                return Err("--batch: the shape has the batch of the tensors".into());
            }
            checker.tensors(conv, [input, filter, expect])?
        }
        (Some(conv), ..) => checker.problems(&[Problem::Conv(resized(conv))])?,
        (None, ..) => {
            let model = Model::by_name(args.model.as_deref().unwrap_or(DEFAULT), None, Some(1000))?;
            let model = of_size(model, args.size)?;
            checker.problems(&problems_of(&model, batch.unwrap_or(1)))?
        }
    };
    args.output.print(&checked, out)?;
    let mut kernels = checked.problems.iter().flat_map(|problem| &problem.kernels);
    Ok(checked.expectation.is_none() && kernels.all(|kernel| kernel.holds))
}

/// The problems of a model and of its block variants, by both kinds of average pools.
fn problems_of(model: &Model, batch: usize) -> Vec<Problem> {
    let kinds = [PoolKind::Average, PoolKind::AverageCountingBorder];
    let all = kinds.into_iter().flat_map(|kind| block_variant::problems(&Graph::new(model, batch, kind)));
    group(all).into_iter().map(|(problem, _)| problem).collect()
}

/// The row of a kernel, or all.
pub(super) fn rows(id: Option<&str>) -> Result<Vec<&'static KernelEntry>, Failure> {
    let Some(id) = id else { return Ok(table().iter().collect()) };
    let found = entry(id).ok_or_else(|| {
        format!("--kernel: found `{id}`, expected {}", names::expected(id, table().iter().map(|row| row.id)))
    })?;
    Ok(vec![found])
}

struct Checker {
    cpu: Cpu,
    threads: Threads,
    rows: Vec<&'static KernelEntry>,
    /// The types of the formats that are checked.
    types: Precision,
}

impl Checker {
    /// Checks all tunings in all their formats: the worst in f32, and the worst in lower types.
    fn kernel(
        &self,
        entry: &'static KernelEntry,
        kernel: &dyn Kernel,
        problem: &Problem,
        oracle: &Oracle,
    ) -> Result<Vec<CheckedKernel>, Failure> {
        let mut context = BenchContext::new(&self.threads, &self.cpu);
        let mut worst: [Option<CheckedKernel>; 2] = [None, None];
        let tunings = kernel.tunings(problem);
        // How far towards the tolerance; more where it does not hold.
        let badness = |checked: &CheckedKernel| (!checked.holds, checked.error / checked.tolerance);
        let in_formats = |tuning| {
            let list = self.types.formats(kernel, problem, tuning);
            list.into_iter().map(move |formats| (tuning, formats))
        };
        for (tuning, formats) in tunings.iter().flat_map(in_formats) {
            let Inputs { src, filters } = oracle.inputs(&formats);
            let prepared = kernel.prepare(problem, tuning, &formats, filters)?;
            let src = Bench::source(prepared.signature().src, &formats.src, src);
            let mut bench = Bench::new(prepared, &formats, src, WeightResidency::Dram);
            bench.run(&self.threads, &mut context);
            let verdict = oracle.judge(&bench, &kernel.numerics(problem, tuning));
            let Comparison { error, tolerance, .. } = verdict.nearer();
            let types = StepFormats::of(&formats).types();
            let worst = &mut worst[usize::from(types != "f32")];
            let checked = CheckedKernel {
                kernel: entry.id,
                types,
                holds: verdict.holds(),
                error,
                tolerance,
                tunings: tunings.len(),
                worst_tuning: tuning.to_string(),
            };
            if worst.as_ref().is_none_or(|worst| badness(&checked) > badness(worst)) {
                *worst = Some(checked);
            }
        }
        Ok(worst.into_iter().flatten().collect())
    }

    /// The kernel of a row, if this machine has it and it takes the problem.
    fn problem(&self, problem: &Problem, oracle: &Oracle) -> Result<CheckedProblem, Failure> {
        let (mut kernels, mut left_out) = (Vec::new(), Vec::new());
        for entry in &self.rows {
            match supported(entry, &self.cpu, problem) {
                Ok(kernel) => {
                    let checked = self.kernel(entry, &*kernel, problem, oracle)?;
                    if checked.is_empty() {
                        let reason = "reads u8, for which the input has no scale".to_string();
                        left_out.push(LeftOut { kernel: entry.id, reason });
                    }
                    kernels.extend(checked);
                }
                Err(refusal) => left_out.push(LeftOut { kernel: entry.id, reason: refusal.to_string() }),
            }
        }
        if kernels.is_empty() {
            let names = self.rows.iter().map(|row| row.id).collect::<Vec<_>>().join(" ");
            let reasons = left_out.iter().map(|l| l.reason.as_str()).collect::<Vec<_>>().join(", ");
            return Err(format!("--kernel: {names} does not take {problem}: {reasons}").into());
        }
        Ok(CheckedProblem { problem: problem.to_string(), kernels, left_out })
    }

    fn problems(&self, problems: &[Problem]) -> Result<Checked, Failure> {
        ensure_checked(problems)?;
        let mut meter = Meter::default();
        let mut checked = Vec::new();
        for (index, problem) in problems.iter().enumerate() {
            meter.show("problems", index as f64 / problems.len() as f64, &problem.to_string());
            if self.rows.len() > 1
                || problems.len() == 1
                || supported(self.rows[0], &self.cpu, problem).is_ok()
            {
                let inputs = Inputs::synthetic(problem);
                let oracle = Oracle::new(problem, &inputs, sample_pixels(problem.dst()[0], 20));
                checked.push(self.problem(problem, &oracle)?);
            }
        }
        if checked.is_empty() {
            return Err(format!("--kernel: {} takes no problem of the model", self.rows[0].id).into());
        }
        Ok(Checked { expectation: None, problems: checked })
    }

    /// Compares every kernel, and the oracle, with an output computed elsewhere.
    fn tensors(self, conv: &Conv, [input, filter, expect]: [&PathBuf; 3]) -> Result<Checked, Failure> {
        let mut conv = conv.clone();
        for segment in &mut conv.segments {
            segment.epilogue = Epilogue::NONE;
        }
        let ([h, w], [r, s], [oh, ow]) = (conv.image, conv.window.kernel, conv.output());
        let x = load_npy_dyn(input, "input", &[conv.batch, h, w, conv.channels])?;
        let weights = load_npy_dyn(filter, "filter", &[r, s, conv.channels, conv.filters()])?;
        let y = load_expect(expect, "expect", &[conv.batch, oh, ow, conv.filters()])?;
        // Segments would need the filter split; one is the same sums.
        conv.segments.truncate(1);
        conv.segments[0].channels = weights.shape()[3];
        let problem = Problem::Conv(conv);
        let dims = [r, s, weights.shape()[2], weights.shape()[3]];
        let filters = vec![Filter::new(dims, weights.into_iter().collect())];
        let inputs = Inputs { src: x.into_iter().collect(), filters };
        let oracle = Oracle::new(&problem, &inputs, all_pixels(problem.dst()[0]));
        let values: Vec<f64> = y.values.iter().copied().collect();
        let expectation = off(&oracle, &values, y.is_f64, problem.dst()[0].c);
        let given = Self { types: Precision::Bf16, ..self };
        let problems = vec![given.problem(&problem, &oracle.with_values(values))?];
        Ok(Checked { expectation, problems })
    }
}

/// Where values are off; none where they are the oracle's within the tolerance.
fn off(oracle: &Oracle, values: &[f64], is_f64: bool, channels: usize) -> Option<Off> {
    let exact = oracle.given();
    // An output in f64 was summed in f64; one in f32 may have been summed in f32.
    let eps = if is_f64 { f64::EPSILON / f32::EPSILON as f64 } else { 1.0 };
    let tolerance = exact.tolerance(&Numerics::DIRECT_F32) * eps;
    let (mut error, mut at) = (0.0, 0);
    for (index, (exact, given)) in exact.values.iter().zip(values).enumerate() {
        let difference = (exact - given).abs();
        if difference > error || difference.is_nan() {
            (error, at) = (if difference.is_nan() { f64::INFINITY } else { difference }, index);
        }
    }
    let Pixel { n, y, x } = oracle.pixels[at / channels];
    let index = [n, y, x, at % channels];
    (error > tolerance).then(|| Off { index, found: values[at], oracle: exact.values[at], error, tolerance })
}
