//! Every kernel on convolutions of InceptionV3: a group a problem, a bar a row of the table with
//! its default tuning, on one thread, in GFLOP/s of a direct computation.
//!
//! ```text
//! cargo bench -p kernels                            six problems that stand for the network
//! BENCH_PROBLEMS=all cargo bench -p kernels         all of inception_v3.txt
//! BENCH_PROBLEMS=n1h35w35c48k64r5s5,n1h8w8c2048k320r1s1 cargo bench -p kernels
//! BENCH_PROBLEMS=tuner/shapes/resnet50.txt cargo bench -p kernels
//! BENCH_BY=family cargo bench -p kernels            a group a family, a bar a problem and a row
//! BENCH_COLD=1 cargo bench -p kernels               data and weights from memory in each run
//! cargo bench -p kernels -- direct_avx512           rows, or `shape/row`, by regular expression
//! cargo bench -p kernels -- --quick                 for a first look, and for CI
//! cargo bench -p kernels -- --test                  each bar once, without a measurement
//! ```
//!
//! The rows `direct_*` and `unfused_*` are the same convolution with BatchNorm and ReLU fused and
//! as passes over memory. A problem that a kernel refuses has no bar for it.

mod support;

use criterion::measurement::Measurement;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput};
use kernels::{Kernel, Problem};

use support::measurement::{Flops, criterion};
use support::problems::problems;
use support::step::{CACHES, Step, evict, kernels};

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// A bar, if the kernel supports the problem. One that is filtered out is not prepared.
fn bar<M: Measurement>(group: &mut BenchmarkGroup<M>, name: &str, kernel: &dyn Kernel, problem: &Problem) {
    if kernel.supports(problem).is_err() {
        return;
    }
    let (is_cold, mut step) = (is_set("BENCH_COLD"), None);
    let mut other = vec![0.0; if is_cold { CACHES } else { 0 }];
    group.throughput(Throughput::Elements(problem.flops()));
    group.bench_function(name, |bencher| {
        let step = step.get_or_insert_with(|| Step::new(kernel, problem));
        if is_cold {
            bencher.iter_batched(|| evict(&mut other), |()| step.run(), BatchSize::PerIteration);
        } else {
            bencher.iter(|| step.run());
        }
    });
}

fn by_problem(criterion: &mut Criterion<Flops>) {
    let kernels = kernels();
    for problem in problems() {
        let mut group = criterion.benchmark_group(problem.to_string());
        for (id, _, kernel) in &kernels {
            bar(&mut group, id, &**kernel, &problem);
        }
        group.finish();
    }
}

fn by_family(criterion: &mut Criterion<Flops>) {
    let (kernels, problems) = (kernels(), problems());
    let mut families: Vec<&str> = kernels.iter().map(|(_, family, _)| *family).collect();
    families.dedup();
    for family in families {
        let mut group = criterion.benchmark_group(family);
        for problem in &problems {
            for (id, _, kernel) in kernels.iter().filter(|(_, of, _)| *of == family) {
                bar(&mut group, &format!("{problem} {id}"), &**kernel, problem);
            }
        }
        group.finish();
    }
}

fn main() {
    let mut criterion = criterion();
    if std::env::var("BENCH_BY").is_ok_and(|by| by == "family") {
        by_family(&mut criterion);
    } else {
        by_problem(&mut criterion);
    }
    criterion.final_summary();
}
