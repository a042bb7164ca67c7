//! The whole network on synthetic weights against Keras in f64, block by block.
//!
//! `golden/synthetic.py` made `golden/synthetic.json`: samples of the output of each block, the
//! pooled features and the probabilities, with the average pooling of Keras and of torchvision.
//!
//! Tolerance: each of `L` layers before a checkpoint adds an independent error of about
//! `2 * rounding` of its output's root mean square. `rounding` is the spacing of numbers of the
//! lowest type, times the largest growth of errors of the kernels: a sum of hundreds of products in
//! turn is off by more than its last rounding. The largest of a few hundred samples, whose channels
//! differ in size, lies within 8 of the resulting deviations: `16 * rounding * sqrt(L) * rms`. An
//! error of a logit is a relative error of its probability, so that the largest probability takes
//! the place of the root mean square there.

use cross_checks::network::{Network, Rule, in_bf16, plans};
use engine::network::{BlockInfo, BlockVariant, Graph, Model, NETWORK, Slice, default_choices, with_variant};
use engine::runtime::Reference;
use engine::util::relative_l2;
use engine::weights::synthetic;
use engine::{Request, Session, Weights};
use kernels::{Cpu, PoolKind, Problem, Shape, Tier};
use serde_json::Value;

/// Nodes at which Keras's outputs were taken.
fn node_of(checkpoint: &str) -> String {
    match checkpoint {
        "stem.conv1a" => "stem.Conv2d_1a_3x3".into(),
        "stem.conv2a" => "stem.Conv2d_2a_3x3".into(),
        "stem.conv2b" => "stem.Conv2d_2b_3x3".into(),
        "stem.pool1" => "stem.maxpool1".into(),
        "stem.conv3b" => "stem.Conv2d_3b_1x1".into(),
        "stem.conv4a" => "stem.Conv2d_4a_3x3".into(),
        "stem.pool2" => "stem.maxpool2".into(),
        "features" => "top.avg_pool".into(),
        "probabilities" => "top.softmax".into(),
        block => format!("{block}.concat"),
    }
}

/// The checkpoints of Keras, or of torchvision where pools count the border.
fn golden(average: PoolKind) -> Vec<Value> {
    let golden: Value =
        serde_json::from_str(include_str!("golden/synthetic.json")).expect("the golden file is JSON");
    let list = if average == PoolKind::Average { "checkpoints" } else { "torchvision" };
    golden[list].as_array().expect("a list").clone()
}

fn rms(checkpoint: &Value) -> f64 {
    checkpoint["rms"].as_f64().expect("a number")
}

/// All values of a checkpoint, or samples, with their indices.
fn values(checkpoint: &Value) -> Vec<(usize, f64)> {
    match serde_json::from_value::<Vec<f64>>(checkpoint["values"].clone()) {
        Ok(all) => all.into_iter().enumerate().collect(),
        Err(_) => serde_json::from_value(checkpoint["samples"].clone()).expect("samples or values"),
    }
}

/// The largest error after so many layers, see the module.
fn tolerance(rounding: f64, layers: usize, rms: f64) -> f64 {
    16.0 * rounding * (layers as f64).sqrt() * rms
}

fn check(average: PoolKind, variant: BlockVariant, plans: &[(&str, Rule)], threads: &[usize]) {
    let checkpoints = golden(average);
    assert!(checkpoints.len() >= 11, "a checkpoint a block");
    for &threads in threads {
        for (plan, choose) in plans {
            let network = Network::synthetic(average, 1, threads).in_form(variant);
            let (mut session, rounding) = network.session_by(*choose);
            let Shape { n, .. } = network.graph.tensors[0];
            let images = synthetic::image(1, 299, 299, 3, 0).repeat(n);
            let name = |checkpoint: &Value| checkpoint["name"].as_str().expect("a name").to_string();
            let slices: Vec<(usize, &Slice)> = checkpoints
                .iter()
                .map(|checkpoint| network.output_of(&node_of(&name(checkpoint))))
                .map(|(slice, steps)| (steps, slice))
                .collect();
            let outputs = session.run_reading(&network.threads, &images, n, &slices);
            for ((checkpoint, outputs), (steps, _)) in checkpoints.iter().zip(&outputs).zip(&slices) {
                let (name, steps) = (name(checkpoint), *steps);
                let exact = values(checkpoint);
                assert!(exact.len() >= 200, "{name}: {} samples", exact.len());
                let largest = exact.iter().fold(0.0f64, |m, (_, v)| m.max(v.abs()));
                let scale = if name == "probabilities" { largest } else { rms(checkpoint) };
                let tolerance = tolerance(rounding, steps, scale);
                for (image, output) in outputs.chunks(outputs.len() / n).enumerate() {
                    for &(index, exact) in &exact {
                        let found = output[index] as f64;
                        assert!(
                            (found - exact).abs() <= tolerance,
                            "{name} is the first wrong block by plan `{plan}`, {variant}, {threads} threads: \
                             image {image}, element {index} is {found}, Keras has {exact}, \
                             tolerance {tolerance:.1e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn every_block_is_that_of_keras() {
    check(PoolKind::Average, BlockVariant::PLAIN, &plans(), &[1, 2]);
}

/// Emulated where there are none.
#[test]
fn every_block_by_tiles_is_that_of_keras() {
    check(PoolKind::Average, BlockVariant::PLAIN, &[("bf16", in_bf16)], &[2]);
}

#[test]
fn every_block_is_that_of_keras_in_every_form() {
    for variant in &BlockVariant::ALL[1..] {
        // The default choice and direct kernels: the others are checked on each isolated block.
        check(PoolKind::Average, *variant, &plans()[..2], &[2]);
    }
}

#[test]
fn every_block_is_that_of_torchvision_where_pools_count_the_border() {
    let [plain, .., both] = BlockVariant::ALL;
    check(PoolKind::AverageCountingBorder, plain, &plans(), &[1, 2]);
    check(PoolKind::AverageCountingBorder, both, &plans()[..1], &[2]);
}

#[test]
fn a_block_computes_the_same_in_every_form() {
    for average in [PoolKind::Average, PoolKind::AverageCountingBorder] {
        for &BlockInfo { name: block, input: [h, w, c], .. } in NETWORK.blocks {
            let images = synthetic::image(2, h, w, c, 0);
            for (plan, choose) in plans() {
                let output = |variant: BlockVariant| {
                    let network = Network::block(block, average, 2, 2).in_form(variant);
                    let (mut session, rounding) = network.session_by(choose);
                    session.run(&network.threads, &images, 2);
                    (session.output(2), rounding, network.graph.steps.len())
                };
                let (plain, rounding, layers) = output(BlockVariant::PLAIN);
                let graph = Network::block(block, average, 2, 2).graph;
                let has_form = |variant: &&BlockVariant| with_variant(&graph, block, **variant).is_some();
                for variant in BlockVariant::ALL[1..].iter().filter(has_form) {
                    let (values, its_rounding, its_layers) = output(*variant);
                    let error = relative_l2(&values, &plain);
                    // Errors of both add up, and those of all elements are one deviation together.
                    let tolerance = tolerance(rounding.max(its_rounding), layers + its_layers, 1.0) / 8.0;
                    assert!(
                        error <= tolerance,
                        "{block}, {variant}, plan `{plan}`: differs by {error:.1e} from the plain form, \
                         tolerance {tolerance:.1e}"
                    );
                }
            }
        }
    }
}

/// Whatever the instructions for bf16, a plan gives the same within its rounding.
#[test]
fn a_block_in_bf16_is_that_of_f64_at_every_tier() {
    let network = Network::block("mixed10", PoolKind::Average, 1, 2);
    let exact = Reference::new(&network.graph, &network.weights, &network.threads).expect("weights");
    for tier in Tier::ALL.into_iter().filter(|tier| network.cpu.tier().includes(*tier)) {
        let choices = in_bf16(&network.graph, &network.cpu.clone().limited_to(tier));
        let rounding = network.rounding_of(&choices);
        let (error, _) = exact.error(&mut network.session(&choices), &network.threads);
        assert!(error > rounding / 16.0 && error <= rounding, "{tier}: {error:e}, rounding {rounding:e}");
    }
}

/// Run all at once or some at a time, by the first steps or by all, in any form.
#[test]
fn images_of_a_batch_do_not_touch_each_other() {
    let network = Network::synthetic(PoolKind::Average, 1, 1);
    let (mut single, _) = network.session_by(default_choices);
    let images = synthetic::image(3, 299, 299, 3, 0);
    let size = 299 * 299 * 3;
    let expected = images.chunks(size).map(|image| {
        single.run(&network.threads, image, 1);
        single.features(1).expect("features")
    });
    let expected: Vec<Vec<f32>> = expected.collect();
    let both = BlockVariant { fuse_siblings: true, conv_before_pool: true };
    for (split, form, threads) in [
        (None, BlockVariant::PLAIN, 2),
        (Some(("mixed4", 1, false)), BlockVariant::PLAIN, 2),
        (Some(("mixed4", 1, true)), both, 2),
        (Some(("mixed9", 2, false)), both, 2),
        (Some(("mixed9", 2, true)), BlockVariant::PLAIN, 2),
        (Some(("", 1, false)), both, 2),
        (Some(("", 1, true)), both, 3),
        (Some(("top", 2, false)), BlockVariant::PLAIN, 2),
        (Some(("top", 1, true)), BlockVariant::PLAIN, 1),
    ] {
        let mut network = Network::synthetic(PoolKind::Average, 3, threads);
        if let Some((before, at_a_time, is_per_worker)) = split {
            network.graph = network.graph.split_before(before, at_a_time);
            if is_per_worker {
                network.graph = network.graph.per_worker();
            }
        }
        let network = network.in_form(form);
        let (mut batch, _) = network.session_by(default_choices);
        for n in [3, 2, 1] {
            batch.run(&network.threads, &images[..n * size], n);
            let together = batch.features(n).expect("features");
            for (features, expected) in together.chunks(2048).zip(&expected) {
                let error = relative_l2(features, expected);
                assert!(error < 1e-5, "a batch of {n} differs by {error:.1e} from one, {split:?} {form}");
            }
            let seconds = batch.step_seconds();
            assert_eq!(seconds.len(), network.graph.steps.len());
            assert!(seconds.iter().all(|&seconds| seconds > 0.0), "{split:?} {form}");
        }
    }
}

#[test]
fn a_session_gives_the_same_result_every_time() {
    let network = Network::synthetic(PoolKind::Average, 1, 2);
    let (mut session, _) = network.session_by(default_choices);
    let image = synthetic::image(1, 299, 299, 3, 0);
    session.run(&network.threads, &image, 1);
    let first = session.output(1);
    assert!((first.iter().sum::<f32>() - 1.0).abs() < 1e-5, "probabilities sum to 1");
    for _ in 0..3 {
        session.run(&network.threads, &image, 1);
        assert_eq!(session.output(1), first);
    }
}

/// FNV-1a of the bits of the features and probabilities of three images, by the reproducible choice.
const REPRODUCIBLE_BITS: u64 = 0x2e3a_92c0_c3f5_fd19;

#[test]
fn the_reproducible_choice_gives_the_same_bits_on_all_tiers_threads_and_batches() {
    let model = Model::inception_v3();
    let weights = Weights::synthetic(&model, 1);
    let images = synthetic::image(3, 299, 299, 3, 0);
    for (tier, threads, batch) in
        [(Tier::Avx2, 1, 1), (Tier::Avx512, 2, 3), (Tier::Avx2, 3, 2), (Tier::Amx, 2, 1)]
    {
        let cpu = Cpu::detect().limited_to(tier);
        let request = Request::new(&model).cpu(&cpu).threads(threads).batch(batch);
        let plan = match request.reproducible(&weights) {
            Ok(choice) => choice.plan,
            Err(error) => {
                assert!(cpu.tier() == Tier::Plain && error.to_string().contains("expected avx2"), "{error}");
                continue;
            }
        };
        let session = Session::builder(&model, &weights).plan(&plan).any_machine().build();
        let output = session.expect("a session").run(&images).expect("images");
        let values = [output.features(), output.probabilities()].map(|values| values.expect("a network"));
        let bytes = values.concat().into_iter().flat_map(|value| value.to_bits().to_le_bytes());
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let found = bytes.fold(0xcbf2_9ce4_8422_2325, hash);
        assert_eq!(found, REPRODUCIBLE_BITS, "{found:#x}: {tier}, {threads} threads, batch {batch}");
    }
    let plain = Cpu::detect().limited_to(Tier::Plain);
    let refusal = Request::new(&model).cpu(&plain).reproducible(&weights).expect_err("no fused operations");
    assert!(refusal.to_string().contains("expected avx2"), "{refusal}");
}

#[test]
fn activations_of_synthetic_weights_stay_in_range() {
    for checkpoint in golden(PoolKind::Average) {
        if checkpoint["name"] != "probabilities" {
            let rms = rms(&checkpoint);
            assert!((0.1..10.0).contains(&rms), "{}: rms {rms}", checkpoint["name"]);
        }
    }
}

/// Features of the networks that are closest to f64 are off by some roundings, and by no more.
#[test]
fn errors_are_measured_against_f64() {
    let network = Network::synthetic(PoolKind::Average, 2, 2);
    let exact = Reference::new(&network.graph, &network.weights, &network.threads).expect("weights");
    for (plan, choose) in plans() {
        let (mut session, rounding) = network.session_by(choose);
        let (error, image) = exact.error(&mut session, &network.threads);
        let least = if plan.starts_with("bf16") { rounding } else { f32::EPSILON as f64 } / 4.0;
        assert!(error > least && error < 10.0 * rounding, "plan `{plan}`: {error:e}");
        assert_eq!(image.len(), 299 * 299 * 3);
    }
}

/// A change of a step's outputs reaches the features, and nothing else changes with it.
#[test]
fn a_change_of_one_step_is_all_that_changes() {
    let network = Network::synthetic(PoolKind::Average, 1, 2);
    let (mut session, _) = network.session_by(default_choices);
    let image = synthetic::image(1, 299, 299, 3, 0);
    session.run(&network.threads, &image, 1);
    let features = session.result(1);
    let last = network.graph.steps.len() - 1;
    for step in (0..=last).step_by(7).chain([last]) {
        let same = session.run_changed(&network.threads, &image, step, |_| ());
        assert_eq!(same, features, "step {step}");
        let changed = session.run_changed(&network.threads, &image, step, |values| values.fill(0.5));
        let is_before = !network.graph.steps[step].layers[0].starts_with("top.");
        let is_pool = network.graph.steps[step].layers[0] == "top.avg_pool";
        assert_eq!(changed != features, is_before || is_pool, "step {step}");
    }
}

#[test]
fn the_benches_list_every_convolution_of_inception_v3() {
    let listed = include_str!("../kernels/benches/inception_v3.txt");
    let listed: Vec<&str> = listed.lines().filter(|line| !line.starts_with('#')).collect();
    let graph = Graph::new(&Model::inception_v3().with_classes(None), 1, PoolKind::Average);
    let problems = graph.problems();
    let convs = problems.iter().filter(|(problem, _)| matches!(problem, Problem::Conv(_)));
    let lines = convs.map(|(problem, steps)| {
        let (shape, layer) = (problem.to_string(), &graph.steps[steps[0]].layers[0]);
        format!("{shape:<32} *{:<2} # {layer}", steps.len())
    });
    let lines: Vec<String> = lines.collect();
    assert_eq!(listed, lines, "expected:\n{}\n", lines.join("\n"));
}
