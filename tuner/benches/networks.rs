//! Blocks of InceptionV3 and the whole network, on one thread and on all cores that the process may
//! use: by the newest plan of this machine for the model in the folder `TUNER_RESULTS` (else
//! `bench-results`), or by the built-in choice where there is none. A bar says which, and rates are
//! in operations of a direct computation: Gelem/s are GFLOP/s.
//!
//! ```text
//! cargo bench -p tuner                                  conv2d_bn, blocks, the network
//! cargo bench -p tuner -- mixed5                        by regular expression
//! TUNER_RESULTS=/tmp/results cargo bench -p tuner
//! ```

use std::path::PathBuf;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use engine::network::Graph;
use engine::runtime::physical_cores;
use engine::{Model, Plan, Request, Session, Weights};
use kernels::{Conv, PoolKind};

/// Blocks of each kind.
const BLOCKS: [&str; 7] = ["stem", "mixed0", "mixed3", "mixed5", "mixed7", "mixed8", "mixed10"];

/// The convolution of `conv2d_bn`.
const CONV: &str = "n1h35w35c64k96r3s3";

fn models() -> Vec<Model> {
    let conv: Conv = CONV.parse().expect("a shape");
    let blocks = BLOCKS.iter().map(|name| Model::block(name).expect("a block"));
    let mut models = vec![Model::conv2d_bn(&conv)];
    models.extend(blocks);
    models.push(Model::inception_v3());
    models
}

/// The folder of results; cargo runs benches in a package's folder.
fn results() -> PathBuf {
    let folder = std::env::var_os("TUNER_RESULTS");
    folder.map_or_else(|| [env!("CARGO_MANIFEST_DIR"), "../bench-results"].iter().collect(), PathBuf::from)
}

fn networks(criterion: &mut Criterion) {
    let cores = physical_cores();
    for model in models() {
        let weights = Weights::synthetic(&model, 1);
        let mut group = criterion.benchmark_group(&model.name);
        let graph = Graph::new(&model, 1, PoolKind::Average);
        group.throughput(Throughput::Elements(graph.steps.iter().map(|step| step.problem.flops()).sum()));
        for threads in if cores == 1 { vec![1] } else { vec![1, cores] } {
            let request = Request::new(&model).threads(threads);
            let tuned = Plan::find(results(), &request).unwrap_or_else(|e| panic!("{e}"));
            let by = if tuned.is_some() { "plan" } else { "built-in choice" };
            let plan = tuned.unwrap_or_else(|| request.untuned());
            let mut net = None;
            let threads = format!("{threads} thread{}", if threads == 1 { "" } else { "s" });
            group.bench_function(format!("{threads}, {by}"), |bencher| {
                let net = net.get_or_insert_with(|| {
                    Session::builder(&model, &weights).plan(&plan).build().expect("a session")
                });
                let image = vec![0.5; net.input().iter().product()];
                bencher.iter(|| net.run(&image).expect("an image"));
            });
        }
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    networks(&mut criterion);
    criterion.final_summary();
}
