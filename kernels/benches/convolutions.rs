//! Every kernel on convolutions of InceptionV3: a group a problem, a bar a row of the table with
//! its default tuning, on one thread, in GFLOP/s of a direct computation.
//!
//! ```text
//! cargo bench -p kernels                            six problems that stand for the network
//! BENCH_PROBLEMS=all cargo bench -p kernels         all of inception_v3.txt
//! BENCH_PROBLEMS=n1h35w35c48k64r5s5,n1h8w8c2048k320r1s1 cargo bench -p kernels
//! cargo bench -p kernels -- direct_avx512           rows, or `shape/row`, by regular expression
//! cargo bench -p kernels -- --quick                 for a first look, and for CI
//! cargo bench -p kernels -- --test                  each bar once, without a measurement
//! ```
//!
//! The rows `direct_*` and `unfused_*` are the same convolution with BatchNorm and ReLU fused and
//! as passes over memory. A problem that a kernel refuses has no bar for it.

use std::time::{Duration, Instant};

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput};
use kernels::{
    BatchNorm, Buffer, Cpu, Filter, Io, Kernel, Prepared, Problem, Role, Tensor, run_alone, scratch_for,
    table,
};

/// Wall-clock time whose [`Throughput::Elements`] are floating-point operations.
struct Flops;

impl Measurement for Flops {
    type Intermediate = Instant;
    type Value = Duration;

    fn start(&self) -> Instant {
        WallTime.start()
    }

    fn end(&self, start: Instant) -> Duration {
        WallTime.end(start)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        WallTime.add(a, b)
    }

    fn zero(&self) -> Duration {
        WallTime.zero()
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Self
    }
}

impl ValueFormatter for Flops {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_values(typical, values)
    }

    fn scale_throughputs(&self, typical: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        let Throughput::Elements(flops) = throughput else {
            return WallTime.formatter().scale_throughputs(typical, throughput, values);
        };
        // Operations a nanosecond are billions a second.
        values.iter_mut().for_each(|ns| *ns = *flops as f64 / *ns);
        "GFLOP/s"
    }

    fn scale_for_machines(&self, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_for_machines(values)
    }
}

/// One of each kind: large map, reduction, pointwise on a large and on a small map, line, and
/// square on a small map.
const FEW: [&str; 6] = [
    "n1h147w147c32k64r3s3",
    "n1h35w35c288k384r3s3u2",
    "n1h35w35c288k64r1s1",
    "n1h17w17c192k192r1s7",
    "n1h8w8c2048k320r1s1",
    "n1h8w8c448k384r3s3",
];

/// The problems that the environment asks for.
fn problems() -> Vec<Problem> {
    let asked = std::env::var("BENCH_PROBLEMS").unwrap_or_default();
    let shapes: Vec<&str> = match asked.as_str() {
        "" => FEW.into(),
        "all" => {
            let lines = include_str!("inception_v3.txt").lines();
            lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next()).collect()
        }
        list => list.split(',').collect(),
    };
    let problem = |shape: &str| shape.parse().unwrap_or_else(|e| panic!("BENCH_PROBLEMS: {e}"));
    shapes.into_iter().map(|shape| Problem::Conv(problem(shape))).collect()
}

/// Repeating values in `[-1, 1)`.
fn values(count: usize) -> Vec<f32> {
    let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 8 & 0xffff) as f32 / 32_768.0 - 1.0;
    (0..count).map(value).collect()
}

/// A kernel ready to run.
struct Step {
    prepared: Box<dyn Prepared>,
    src: Tensor,
    dst: Vec<Tensor>,
    scratch: Buffer,
}

impl Step {
    fn new(kernel: &dyn Kernel, problem: &Problem) -> Self {
        let filter = |dims: [usize; 4]| {
            let (beta, variance) = (values(dims[3]), vec![1.0; dims[3]]);
            let norm = BatchNorm { gamma: None, mean: beta.clone(), beta, variance, epsilon: 1e-3 };
            Filter { norms: vec![norm], ..Filter::new(dims, values(dims.iter().product())) }
        };
        let filters: Vec<Filter> = problem.filter_dims().into_iter().map(filter).collect();
        let tuning = &kernel.tunings(problem)[0];
        let formats = kernel.formats(problem, tuning)[0];
        let prepared = kernel
            .prepare(problem, tuning, &formats, &filters)
            .unwrap_or_else(|refusal| panic!("{problem}: {refusal}"));
        let shape = problem.src();
        let mut src = Tensor::new(shape, &formats.src);
        src.fill_nhwc(&values(shape.elements()));
        Self {
            scratch: scratch_for(&*prepared, 1),
            prepared,
            src,
            dst: problem.dst().into_iter().map(|shape| Tensor::new(shape, &formats.dst)).collect(),
        }
    }

    fn run(&mut self) {
        let io = Io::new(self.src.view(), self.dst.iter_mut().map(Tensor::view_mut));
        run_alone(&*self.prepared, &io, &self.scratch);
    }
}

fn convolutions(criterion: &mut Criterion<Flops>) {
    let cpu = Cpu::detect();
    for problem in problems() {
        let mut group = criterion.benchmark_group(problem.to_string());
        group.throughput(Throughput::Elements(problem.flops()));
        for row in table().iter().filter(|row| row.role != Role::Oracle) {
            let Ok(kernel) = (row.make)(&cpu) else { continue };
            if kernel.supports(&problem).is_err() {
                continue;
            }
            // A bar that is filtered out is not prepared.
            let mut step = None;
            group.bench_function(row.id, |bencher| {
                let step = step.get_or_insert_with(|| Step::new(&*kernel, &problem));
                bencher.iter(|| step.run());
            });
        }
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .with_measurement(Flops)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    convolutions(&mut criterion);
    criterion.final_summary();
}
