//! Plans that store activations in bf16.

use cross_checks::network::in_bf16;
use engine::network::block_variant::BlockVariant;
use serde_json::json;

use super::rewrites::plan_by;
use super::*;

const OUTPUT: usize = 8 * 8 * 2048;

/// A plan whose steps all read and write bf16.
fn plan() -> Value {
    let mut plan = plan_by(in_bf16, BlockVariant::PLAIN);
    plan["max_rel_error"] = 1e-2.into();
    for step in plan["steps"].as_array().expect("steps") {
        let formats = &step["formats"];
        let is = |side: &str| formats[side].as_str().is_some_and(|format| format.starts_with("bf16:nhwc"));
        assert!(is("in") && is("out"), "{formats}");
    }
    plan
}

#[test]
fn a_plan_in_bf16_gives_the_results_of_f32_within_its_bound() {
    let folder = folder();
    write(folder.path(), "p.json", plan().to_string());
    write(folder.path(), "f32.json", BLOCK_PLAN.0.to_string());
    let run = |plan: &str, threads: &str| -> Vec<f32> {
        succeeds(folder.path(), &format!("run --model mixed10 --plan {plan} --output y.npy {threads}"));
        result(folder.path(), "y.npy", &[1, OUTPUT])
    };
    let (lower, exact) = (run("p.json", "--threads 1"), run("f32.json", ""));
    let error = engine::util::stats::relative_l2(&lower, &exact);
    assert!((1e-4..=1e-2).contains(&error), "results differ by {error:e}");
    let rounded = lower.iter().filter(|value| value.to_bits() & 0xffff == 0).count();
    assert_eq!(rounded, OUTPUT, "results that are stored in bf16");
}

#[test]
fn steps_that_do_not_agree_on_the_type_of_a_tensor_are_refused() {
    let folder = folder();
    let mut edited = plan();
    let steps = edited["steps"].as_array_mut().expect("steps");
    // The second step of a branch reads what its first has written.
    let index = steps.iter().position(|step| step["layers"][0] == "mixed10.branch3x3_2a").expect("a step");
    let default = plan_by(engine::network::candidates::default_choices, BlockVariant::PLAIN);
    steps[index] = default["steps"][index].clone();
    write(folder.path(), "p.json", edited.to_string());
    let field = format!("steps[{index}].formats.in is f32, expected bf16");
    refuses(folder.path(), "run --model mixed10 --plan p.json", &["p.json", &field]);
}

#[test]
fn a_plan_in_bf16_is_for_runs_that_ask_for_it() {
    let folder = folder();
    let tune = "tune --model mixed10 --budget 1 --threads 1 --results r --precision";
    succeeds(folder.path(), &format!("{tune} bf16"));
    let run = |precision: &str| {
        let ran = tuner(folder.path(), &format!("run --model mixed10 --threads 1 --results r {precision}"));
        assert_eq!(ran.status, Some(0), "{}", ran.err);
        ran.err
    };
    assert!(run("").contains("no plan"), "an f32 run takes no plan of bf16");
    assert!(run("--max-rel-error 1e-3").contains("no plan"));
    assert_eq!(run("--precision bf16"), "");
    assert_eq!(run("--max-rel-error 1e-2"), "");
    // With both there, each run takes its own.
    succeeds(folder.path(), &format!("{tune} f32"));
    for (precision, bound) in [("", 1e-5), ("--precision bf16", 1e-2)] {
        let line = format!("run --model mixed10 --threads 1 --results r --repeat 1 --json {precision}");
        let answer: Value = serde_json::from_str(&succeeds(folder.path(), &line)).expect("JSON");
        let path = folder.path().join(answer["plan"].as_str().expect("a plan"));
        assert_eq!(json(&path)["max_rel_error"], json!(bound), "{precision}");
    }
    let explained = succeeds(folder.path(), "explain mixed10.branch1x1 --results r");
    assert!(!explained.contains("bf16 to f32"), "{explained}");
}

#[test]
fn tuning_for_bf16_measures_pairs_of_types() {
    let folder = folder();
    let tune = "tune --model conv2d_bn --shape n1h9w9c16k24r3s3 --budget 1 --threads 1 --out p.json";
    succeeds(folder.path(), &format!("{tune} --precision bf16"));
    let plan = json(&folder.path().join("p.json"));
    let candidates = plan["measurements"][0]["candidates"].as_array().expect("candidates");
    let starts = |c: &Value, side: &str, dtype: &str| {
        c["formats"][side].as_str().is_some_and(|format| format.starts_with(&format!("{dtype}:")))
    };
    for [src, dst] in [["f32", "f32"], ["f32", "bf16"], ["bf16", "f32"], ["bf16", "bf16"]] {
        let found = candidates.iter().any(|c| starts(c, "in", src) && starts(c, "out", dst));
        assert!(found, "{src} to {dst} was not measured");
    }
    let explained = succeeds(folder.path(), "explain conv2d_bn.conv --plan p.json");
    assert!(explained.contains("bf16 to f32") && explained.contains("direct_bf16"), "{explained}");
}
