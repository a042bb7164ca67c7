//! Plans that store activations in bf16.

use cross_checks::network::in_bf16;
use engine::network::{BlockVariant, default_choices};

use super::rewrites::plan_by;
use super::*;

/// A plan whose steps all read and write bf16.
fn plan() -> Value {
    let mut plan = plan_by(in_bf16, BlockVariant::PLAIN);
    plan["max_rel_error"] = 1e-2.into();
    for step in list(&plan, "steps") {
        let formats = &step["formats"];
        let is = |side: &str| text(formats, side).starts_with("bf16:nhwc");
        assert!(is("in") && is("out"), "{formats}");
    }
    plan
}

#[test]
fn a_plan_in_bf16_gives_the_results_of_f32_within_its_bound() {
    let folder = Folder::new();
    let (lower, exact) = (folder.block_output(&plan(), 1), folder.block_output(&BLOCK_PLAN.0, 1));
    let error = engine::util::stats::relative_l2(&lower, &exact);
    assert!((1e-4..=1e-2).contains(&error), "results differ by {error:e}");
    let rounded = lower.iter().filter(|value| value.to_bits() & 0xffff == 0).count();
    assert_eq!(rounded, BLOCK_OUTPUT, "results that are stored in bf16");
}

#[test]
fn steps_that_do_not_agree_on_the_type_of_a_tensor_are_refused() {
    let mut edited = plan();
    let steps = list_mut(&mut edited, "steps");
    // The second step of a branch reads what its first has written.
    let index = steps.iter().position(|step| step["layers"][0] == "mixed10.branch3x3_2a").expect("a step");
    let default = plan_by(default_choices, BlockVariant::PLAIN);
    steps[index] = default["steps"][index].clone();
    let field = format!("steps[{index}].formats.in is f32, expected bf16");
    Folder::with_plan(&edited).refuses(&format!("{RUN_BLOCK} --plan p.json"), &["p.json", &field]);
}

#[test]
fn a_plan_in_bf16_is_for_runs_that_ask_for_it() {
    let folder = Folder::new();
    let tune = "tune --model mixed10 --budget 1 --threads 1 --results r --precision";
    folder.succeeds(&format!("{tune} bf16"));
    let run = |precision: &str| folder.notes(&format!("{RUN_BLOCK} --threads 1 --results r {precision}"));
    assert!(run("").contains("no plan"), "an f32 run uses no plan of bf16");
    assert!(run("--max-rel-error 1e-3").contains("no plan"));
    assert_eq!(run("--precision bf16"), "");
    assert_eq!(run("--max-rel-error 1e-2"), "");
    // With both there, each run uses that of its precision.
    folder.succeeds(&format!("{tune} f32"));
    for (precision, bound) in [("", 1e-5), ("--precision bf16", 1e-2)] {
        let args = format!("{RUN_BLOCK} --threads 1 --results r --repeat 1 --json {precision}");
        let plan = folder.json(text(&folder.prints_json(&args), "plan"));
        assert_eq!(plan["max_rel_error"], bound, "{precision}");
    }
    let explained = folder.succeeds("explain mixed10.branch1x1 --all --wide --results r");
    assert!(!explained.contains("bf16 to f32"), "{explained}");
}

#[test]
fn tuning_for_bf16_measures_pairs_of_types() {
    let folder = Folder::new();
    folder.succeeds(&format!("tune {SMALL} --budget 1 --threads 1 --out p.json --precision bf16"));
    let plan = folder.json("p.json");
    let candidates = list(&plan["measurements"][0], "candidates");
    let starts = |format: &Value, dtype: &str| format.as_str().is_some_and(|text| text.starts_with(dtype));
    for [src, dst] in [["f32:", "f32:"], ["f32:", "bf16:"], ["bf16:", "f32:"], ["bf16:", "bf16:"]] {
        let is_pair = |c: &Value| starts(&c["formats"]["in"], src) && starts(&c["formats"]["out"], dst);
        assert!(candidates.iter().any(is_pair), "{src} to {dst} was not measured");
    }
    let explained = folder.succeeds("explain conv2d_bn.conv --all --wide --plan p.json");
    assert_contains(&explained, &["bf16 to f32", "direct_bf16"]);
}
