//! A trained network on photographs against Keras: the 2048 features of each, by every plan, from
//! all three formats of weights.
//!
//! `trained/fetch.py` makes the weights and the inputs in a cache folder; `trained/golden.py`
//! computed the features. Where the cache is missing the tests are left out, and say so: with the
//! standard harness a test that was left out would pass.

use std::iter::zip;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use cross_checks::network::{Network, plans};
use engine::network::{BF16_ERROR, F32_ERROR, Model, default_choices};
use engine::runtime::Reference;
use engine::util::relative_l2;
use engine::weights::Weights;
use kernels::PoolKind;
use serde_json::Value;
use tuner::cli::npy::{load_npy, load_npy_dyn};

/// The bound on the relative L2 error of the features of one photograph. With all in bf16 that can
/// be, one photograph is off by more than a plan for that precision may be, which keeps some steps
/// in f32 where its error is measured to be too large; twice that is the bound here.
fn bound(plan: &str) -> f64 {
    if plan == "bf16" { 2.0 * BF16_ERROR } else { F32_ERROR }
}

/// Values of an image.
const IMAGE: usize = 299 * 299 * 3;
/// Keras's features of the photographs.
const KERAS: &str = "golden_features_keras.npy";

struct Trained {
    cache: PathBuf,
    inputs: Vec<f32>,
}

/// The features of the six photographs.
fn golden(name: &str) -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("trained").join(name);
    let loaded = load_npy_dyn(&path, "golden", &[6, 2048]);
    loaded.unwrap_or_else(|e| panic!("{e}")).into_iter().collect()
}

impl Trained {
    fn network(&self, file: &str, average: PoolKind, batch: usize) -> Network {
        let weights = Weights::open(self.cache.join(file), &Model::inception_v3());
        Network::on(weights.unwrap_or_else(|e| panic!("{e}")), average, batch, 2)
    }

    fn features_are_those_of(&self, file: &str, average: PoolKind, golden_file: &str) {
        let exact = golden(golden_file);
        let network = self.network(file, average, 3);
        let top: Value = serde_json::from_str(include_str!("trained/golden.json")).expect("JSON");
        for (plan, rule) in plans() {
            let (mut session, _) = network.session_by(rule);
            let (mut worst, bound) = (0.0f64, bound(plan));
            for (chunk, images) in self.inputs.chunks(3 * IMAGE).enumerate() {
                session.run(&network.threads, images, 3);
                let features = session.features(3).expect("features");
                let outputs = session.output(3);
                let outputs = outputs.chunks(outputs.len() / 3);
                for (image, (features, classes)) in zip(features.chunks(2048), outputs).enumerate() {
                    let at = 3 * chunk + image;
                    let context = format!("plan `{plan}`, photograph {at}");
                    let error = relative_l2(features, &exact[at * 2048..][..2048]);
                    worst = worst.max(error);
                    assert!(error <= bound, "{context}: error {error:.1e} above {bound:.0e}");
                    let best = (0..classes.len()).max_by(|&a, &b| classes[a].total_cmp(&classes[b]));
                    let (best, expected) = (best.expect("classes"), &top["top"][at]["class"]);
                    let is_same = average != PoolKind::Average || *expected == best;
                    assert!(is_same, "{context}: class {best}, Keras has {expected}");
                }
            }
            println!("    {file}, plan `{plan}`: largest error {worst:.2e}");
        }
    }

    /// The f64 network that plans are measured against has the features of Keras, rounded as they
    /// were written: to f32.
    fn the_network_in_f64_is_that_of_keras(&self) {
        let golden = golden(KERAS);
        let network = self.network("legacy.h5", PoolKind::Average, 1);
        let images = self.inputs.chunks(IMAGE).map(<[f32]>::to_vec).collect();
        let exact = Reference::of(&network.graph, &network.weights, &network.threads, images);
        let exact = exact.expect("weights of the network");
        for (at, (features, keras)) in zip(exact.results(), golden.chunks(2048)).enumerate() {
            let error = relative_l2(keras, features);
            assert!(error <= f32::EPSILON as f64 / 2.0, "photograph {at}: error {error:.1e}");
        }
        let (mut session, _) = network.session_by(default_choices);
        let (error, _) = exact.error(&mut session, &network.threads);
        println!("    largest error of the default choice against f64: {error:.2e}");
    }
}

/// The cache folder, or why there is none.
fn open() -> Result<Trained, String> {
    let cache = match std::env::var_os("INCEPTION_V3_TRAINED") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
            home.ok_or("no home folder")?.join("inception-v3-trained")
        }
    };
    if !cache.join("manifest.json").exists() {
        return Err(format!("{} has no trained weights; tests/trained/fetch.py makes them", cache.display()));
    }
    let inputs = load_npy(&cache.join("inputs.npy"), [299, 299, 3]).map_err(|e| e.to_string())?;
    Ok(Trained { inputs: inputs.into_iter().collect(), cache })
}

fn main() -> ExitCode {
    type Test = fn(&Trained);
    let tests: [(&str, Test); 4] = [
        ("safetensors_give_the_features_of_torchvision", |t| {
            let golden = "golden_features_torchvision.npy";
            t.features_are_those_of("inception_v3.safetensors", PoolKind::AverageCountingBorder, golden)
        }),
        ("the_legacy_keras_file_gives_the_features_of_keras", |t| {
            t.features_are_those_of("legacy.h5", PoolKind::Average, KERAS)
        }),
        ("the_keras_3_file_gives_the_features_of_keras", |t| {
            t.features_are_those_of("keras3.weights.h5", PoolKind::Average, KERAS)
        }),
        ("the_network_in_f64_is_that_of_keras", Trained::the_network_in_f64_is_that_of_keras),
    ];
    if std::env::args().any(|arg| arg == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_chosen = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
    let chosen: Vec<_> = tests.iter().filter(|(name, _)| is_chosen(name)).collect();
    let trained = open();
    let (mut passed, mut failed, mut ignored, start) = (0, 0, 0, Instant::now());
    println!("\nrunning {} tests", chosen.len());
    for (name, test) in &chosen {
        let (count, outcome) = match trained.as_ref().map(|trained| catch_unwind(|| test(trained))) {
            Err(reason) => (&mut ignored, format!("ignored, left out: {reason}")),
            Ok(Ok(())) => (&mut passed, "ok".to_string()),
            Ok(Err(_)) => (&mut failed, "FAILED".to_string()),
        };
        *count += 1;
        println!("test {name} ... {outcome}");
    }
    let (word, code) = if failed == 0 { ("ok", 0) } else { ("FAILED", 101) };
    let filtered = tests.len() - chosen.len();
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
        start.elapsed().as_secs_f64()
    );
    ExitCode::from(code)
}
