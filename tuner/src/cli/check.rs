//! `tuner check`: every kernel against the oracle, or against tensors from elsewhere.

use std::io::Write;
use std::path::PathBuf;

use engine::network::block_variant;
use engine::network::dtypes::pair;
use engine::network::graph::Graph;
use engine::network::model::Model;
use engine::plan::records::WeightResidency;
use engine::runtime::memory::ensure_checked;
use engine::runtime::threads::Threads;
use engine::util::error::Failure;
use kernels::cpu::Cpu;
use kernels::filter::Filter;
use kernels::kernel::Kernel;
use kernels::problem::{Conv, Epilogue, PoolKind, Problem};
use kernels::tensor::Dtype;
use kernels::verify::{Pixel, all_pixels};
use kernels::{KernelEntry, entry, table};

use crate::bench::inputs::Inputs;
use crate::bench::oracle::{Comparison, Oracle, Verdict, sample_pixels};
use crate::bench::timer::{Bench, BenchContext};
use crate::cli::args::{HostArgs, threads};
use crate::cli::npy::{load_expect, load_npy_dyn};
use crate::report::table::Table;

/// Arguments of `check`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    /// Check all problems of a model, rewritten or not: inception_v3 (the default) or a block
    #[arg(long, value_name = "MODEL", conflicts_with = "shape")]
    model: Option<String>,
    /// Check one shape, like n1h17w17c768k192r1s7
    #[arg(long)]
    shape: Option<Conv>,
    /// Check one kernel
    #[arg(long, value_name = "ID")]
    kernel: Option<String>,
    /// Input of the shape, .npy of [N, H, W, C] float32
    #[arg(long, value_name = "X.npy", requires_all = ["filter", "expect", "shape"])]
    input: Option<PathBuf>,
    /// Filter of the shape, .npy of [R, S, C, K] float32 (HWIO, as Keras has it)
    #[arg(long, value_name = "W.npy", requires = "input")]
    filter: Option<PathBuf>,
    /// Expected output, .npy of [N, OH, OW, K], float32 or float64; neither bias nor ReLU
    #[arg(long, value_name = "Y.npy", requires = "input")]
    expect: Option<PathBuf>,
    #[command(flatten)]
    host: HostArgs,
}

/// Runs the command; false if a kernel or the expectation is off.
pub fn check(args: &CheckArgs, out: &mut dyn Write) -> Result<bool, Failure> {
    let rows = rows(args.kernel.as_deref())?;
    let cpu = args.host.cpu();
    let threads = threads(args.host.thread_count())?;
    let batch = args.host.batch.map(usize::from);
    let resized = |conv: &Conv| Conv { batch: batch.unwrap_or(conv.batch), ..conv.clone() };
    let checker = Checker { cpu, threads, rows };
    match (&args.shape, &args.input, &args.filter, &args.expect) {
        (Some(conv), Some(input), Some(filter), Some(expect)) => {
            if batch.is_some() {
                return Err("--batch: the shape has the batch of the tensors".into());
            }
            checker.tensors(conv, [input, filter, expect], out)
        }
        (Some(conv), ..) => checker.problems(&[Problem::Conv(resized(conv))], out),
        (None, ..) => {
            let name = args.model.as_deref().unwrap_or("inception_v3");
            let model = Model::by_name(name, None, Some(1000))?;
            let mut problems: Vec<Problem> = Vec::new();
            for kind in [PoolKind::Average, PoolKind::AverageCountingBorder] {
                let graph = Graph::new(&model, batch.unwrap_or(1), kind);
                for (problem, _) in block_variant::problems(&graph) {
                    if !problems.contains(&problem) {
                        problems.push(problem);
                    }
                }
            }
            checker.problems(&problems, out)
        }
    }
}

fn rows(id: Option<&str>) -> Result<Vec<&'static KernelEntry>, Failure> {
    let Some(id) = id else { return Ok(table().iter().collect()) };
    let found = entry(id).ok_or_else(|| {
        let ids: Vec<&str> = table().iter().map(|row| row.id).collect();
        format!("--kernel: found `{id}`, expected one of {}", ids.join(" "))
    })?;
    Ok(vec![found])
}

struct Checker {
    cpu: Cpu,
    threads: Threads,
    rows: Vec<&'static KernelEntry>,
}

/// The worst of a kernel's tunings and formats.
struct Worst {
    verdict: Verdict,
    tuning: String,
    tunings: usize,
}

impl Checker {
    /// Checks all tunings of a kernel in all its formats and gives the one that is nearest to its tolerance or
    /// furthest beyond.
    fn kernel(
        &self,
        kernel: &dyn Kernel,
        problem: &Problem,
        inputs: &Inputs,
        oracle: &Oracle,
    ) -> Result<Worst, Failure> {
        let mut place = BenchContext::new(&self.threads, &self.cpu);
        let mut worst: Option<Worst> = None;
        let tunings = kernel.tunings(problem);
        let in_formats =
            |tuning| kernel.formats(problem, tuning).into_iter().map(move |formats| (tuning, formats));
        for (tuning, formats) in tunings.iter().flat_map(in_formats) {
            let prepared = kernel.prepare(problem, tuning, &formats, &inputs.filters)?;
            let src = Bench::source(prepared.signature().src, &formats.src, &inputs.src);
            let mut bench = Bench::new(prepared, &formats, src, WeightResidency::Dram);
            bench.run(&self.threads, &mut place);
            let verdict = oracle.judge(&bench, &kernel.numerics(problem, tuning));
            let share = |v: &Verdict| v.nearer().error / v.nearer().tolerance;
            let is_worse = |w: &Worst| {
                let (new, old) = (share(&verdict), share(&w.verdict));
                new > old || (!verdict.holds() && w.verdict.holds())
            };
            if worst.as_ref().is_none_or(is_worse) {
                let types = match pair(&formats) {
                    [Dtype::F32, Dtype::F32] => String::new(),
                    [src, dst] => format!(", {src} to {dst}"),
                };
                worst = Some(Worst { verdict, tuning: format!("{tuning}{types}"), tunings: tunings.len() });
            }
        }
        worst.ok_or_else(|| format!("{problem}: a kernel offers no tuning").into())
    }

    /// Prints a line a kernel; true if all hold.
    fn lines(
        &self,
        problem: &Problem,
        inputs: &Inputs,
        oracle: &Oracle,
        out: &mut dyn Write,
    ) -> Result<bool, Failure> {
        let mut table = Table::new(&["kernel", "result", "error", "tolerance", "tunings", "worst tuning"]);
        let (mut all_hold, mut taken, mut reasons) = (true, 0, Vec::new());
        for row in &self.rows {
            let kernel = (row.make)(&self.cpu).and_then(|k| k.supports(problem).map(|()| k));
            let kernel = match kernel {
                Ok(kernel) => kernel,
                Err(refusal) => {
                    reasons.push(refusal.to_string());
                    let reason = format!("left out: {refusal}");
                    table.row([
                        row.id.into(),
                        reason,
                        String::new(),
                        String::new(),
                        String::new(),
                        String::new(),
                    ]);
                    continue;
                }
            };
            taken += 1;
            let worst = self.kernel(&*kernel, problem, inputs, oracle)?;
            let Comparison { error, tolerance, .. } = worst.verdict.nearer();
            all_hold &= worst.verdict.holds();
            table.row([
                row.id.to_string(),
                if worst.verdict.holds() { "ok" } else { "WRONG" }.to_string(),
                format!("{error:.2e}"),
                format!("{tolerance:.2e}"),
                worst.tunings.to_string(),
                worst.tuning,
            ]);
        }
        if taken == 0 {
            let rows = self.rows.iter().map(|row| row.id).collect::<Vec<_>>().join(" ");
            return Err(format!("--kernel: {rows} does not take {problem}: {}", reasons.join(", ")).into());
        }
        writeln!(out, "{problem}\n{table}")?;
        Ok(all_hold)
    }

    fn problems(&self, problems: &[Problem], out: &mut dyn Write) -> Result<bool, Failure> {
        ensure_checked(problems)?;
        let (mut all_hold, mut taken) = (true, false);
        for problem in problems {
            let supported = |row: &&&KernelEntry| {
                (row.make)(&self.cpu).is_ok_and(|kernel| kernel.supports(problem).is_ok())
            };
            if self.rows.len() == 1 && problems.len() > 1 && !self.rows.iter().any(|r| supported(&r)) {
                continue;
            }
            taken = true;
            let inputs = Inputs::synthetic(problem);
            let oracle = Oracle::new(problem, &inputs, sample_pixels(problem.dst()[0], 20));
            all_hold &= self.lines(problem, &inputs, &oracle, out)?;
        }
        if !taken {
            return Err(format!("--kernel: {} takes no problem of the model", self.rows[0].id).into());
        }
        Ok(all_hold)
    }

    /// Compares every kernel, and the oracle, with an output computed elsewhere.
    fn tensors(
        &self,
        conv: &Conv,
        [input, filter, expect]: [&PathBuf; 3],
        out: &mut dyn Write,
    ) -> Result<bool, Failure> {
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
        let inputs = Inputs {
            src: x.into_iter().collect(),
            filters: vec![Filter::new(dims, weights.into_iter().collect())],
        };
        let oracle = Oracle::new(&problem, &inputs, all_pixels(problem.dst()[0]));
        let own = &oracle.given()[0];

        let values: Vec<f64> = y.values.iter().copied().collect();
        let direct = kernels::kernel::Numerics::DIRECT_F32;
        // An output in f64 was summed in f64; one in f32 may have been summed in f32.
        let eps = if y.is_f64 { f64::EPSILON / f32::EPSILON as f64 } else { 1.0 };
        let tolerance = own.tolerance(&direct) * eps;
        let (mut worst, mut at) = (0.0, 0);
        for (index, (own, given)) in own.values.iter().zip(&values).enumerate() {
            let error = (own - given).abs();
            if error > worst || error.is_nan() {
                (worst, at) = (if error.is_nan() { f64::INFINITY } else { error }, index);
            }
        }
        let expectation_holds = worst <= tolerance;
        if !expectation_holds {
            let k = problem.dst()[0].c;
            let Pixel { n, y, x } = oracle.pixels()[at / k];
            writeln!(
                out,
                "expectation is off at [{n}, {y}, {x}, {}]: found {:e}, the oracle has {:e}; error {worst:.2e}, tolerance {tolerance:.2e}",
                at % k,
                values[at],
                own.values[at]
            )?;
        }
        let kernels_hold = self.lines(&problem, &inputs, &oracle.with_values(values), out)?;
        Ok(expectation_holds && kernels_hold)
    }
}
