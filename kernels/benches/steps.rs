//! What is done around the products: pools and softmax, conversions, packing, transforms.
//!
//! ```text
//! cargo bench -p kernels --bench steps
//! ```
//!
//! - **Pools and softmax** of InceptionV3: a bar a row of the table and pair of types, in GB/s of what is
//!   read and written. Two types differ where the pool converts.
//! - **Packing**: a bar a row that packs weights, in GB/s of the weights. Winograd and Strassen transform
//!   them too.
//! - **Transforms**: Winograd with one vector of output channels, so that the transform of the source is
//!   nearly all there is, in GB/s of what is read and written.

mod support;

use criterion::{Criterion, Throughput};
use kernels::{Epilogue, Padding, Pool, PoolKind, Problem, Window};

use support::measurement::{Flops, criterion};
use support::step::{Step, filters, kernels};

/// A pool over `kernel`, each window `stride` from the next.
fn pool(
    kind: PoolKind,
    side: usize,
    channels: usize,
    [kernel, stride]: [usize; 2],
    padding: usize,
) -> Problem {
    let padding = Padding::symmetric(padding, padding);
    let window = Window { kernel: [kernel; 2], stride: [stride; 2], padding };
    Problem::Pool(Pool { batch: 1, image: [side; 2], channels, window, kind, epilogue: Epilogue::NONE })
}

/// Kernels on problems, in each pair of types that the first tuning has.
fn rates(criterion: &mut Criterion<Flops>, group: &str, families: &[&str], problem: &Problem) {
    let mut group = criterion.benchmark_group(group);
    for (id, family, kernel) in kernels() {
        if !families.is_empty() && !families.contains(&family) || kernel.supports(problem).is_err() {
            continue;
        }
        for formats in kernel.formats(problem, &kernel.tunings(problem)[0]) {
            let mut step = Step::with_formats(&*kernel, problem, formats);
            group.throughput(Throughput::BytesDecimal(step.bytes()));
            let name = format!("{id} {} to {}", formats.src.dtype, formats.dst.dtype);
            group.bench_function(name, |bencher| bencher.iter(|| step.run()));
        }
    }
    group.finish();
}

fn pools(criterion: &mut Criterion<Flops>) {
    let all = [
        pool(PoolKind::Max, 147, 64, [3, 2], 0),
        pool(PoolKind::Average, 35, 192, [3, 1], 1),
        pool(PoolKind::Average, 8, 2048, [8, 1], 0),
        Problem::Softmax { batch: 1, channels: 1000 },
    ];
    for problem in all {
        // No `:` in the name of a group: it is a folder.
        rates(criterion, &problem.to_string().replace(':', " "), &[], &problem);
    }
}

fn packing(criterion: &mut Criterion<Flops>) {
    for shape in ["n1h17w17c192k192r1s7", "n1h8w8c448k384r3s3", "n1h8w8c2048k320r1s1"] {
        let problem = Problem::Conv(shape.parse().expect("a shape"));
        let filters = filters(&problem);
        let bytes = filters.iter().map(|filter| filter.weights.len() * size_of::<f32>()).sum::<usize>();
        let mut group = criterion.benchmark_group(format!("packing {shape}"));
        group.throughput(Throughput::BytesDecimal(bytes as u64));
        for (id, _, kernel) in kernels() {
            if kernel.supports(&problem).is_err() {
                continue;
            }
            let tuning = &kernel.tunings(&problem)[0];
            let formats = kernel.formats(&problem, tuning)[0];
            group.bench_function(id, |bencher| {
                bencher.iter(|| kernel.prepare(&problem, tuning, &formats, &filters).map(drop));
            });
        }
        group.finish();
    }
}

fn transforms(criterion: &mut Criterion<Flops>) {
    let families = ["winograd", "separable", "winograd_int16", "separable_int16"];
    for shape in ["n1h35w35c96k16r3s3", "n1h17w17c192k16r1s7"] {
        let problem = Problem::Conv(shape.parse().expect("a shape"));
        rates(criterion, &format!("transforms {shape}"), &families, &problem);
    }
}

fn main() {
    let mut criterion = criterion();
    pools(&mut criterion);
    packing(&mut criterion);
    transforms(&mut criterion);
    criterion.final_summary();
}
