//! Plans other than plain ones in f32: variants of blocks, split batches, activations in bf16 and
//! u8.

use cross_checks::network::{Network, Rule, in_bf16, in_u8};
use engine::network::{
    BlockVariant, Calibration, Choice, Graph, Model, Step, default_choices, problem_name, tuning_to_json,
    with_variant,
};
use engine::runtime::{LayerRule, Outputs, RangeRule};
use engine::weights::synthetic;
use kernels::{Cpu, PoolKind};

use super::*;

/// A plan of mixed10 in a form by a rule, without measurements.
fn plan_by(rule: Rule, variant: BlockVariant) -> Value {
    let graph = Graph::new(&Model::block("mixed10").expect("a block"), 1, PoolKind::Average);
    let mut plan = plan_of(with_variant(&graph, "mixed10", variant).expect("a form of the block"), rule);
    plan["block_variants"] = json!([variant_of("mixed10", &variant.to_string())]);
    plan
}

fn variant_of(block: &str, variant: &str) -> Value {
    json!({"block": block, "variant": variant, "alternatives": [], "reason": ""})
}

/// A plan of a graph of mixed10.
fn plan_of(graph: Graph, rule: Rule) -> Value {
    let cpu = Cpu::detect();
    let step = |(step, choice): (&Step, Choice)| {
        let Choice { row, tuning, formats } = choice;
        json!({
            "layers": step.layers,
            "problem": problem_name(step),
            "kernel": row.id,
            "tuning": tuning_to_json(&tuning),
            "formats": {"in": formats.src.to_string(), "out": formats.dst.to_string()},
            "threads": 1,
            "reason": "",
        })
    };
    let mut plan = BLOCK_PLAN.0.clone();
    plan["steps"] = graph.steps.iter().zip(rule(&graph, &cpu)).map(step).collect();
    plan
}

/// A default plan of mixed10 for three images, image by image if it is split.
fn plan_of_three(is_split: bool) -> Value {
    let mut graph = Graph::new(&Model::block("mixed10").expect("a block"), 3, PoolKind::Average);
    if is_split {
        graph = graph.split_before("", 1);
    }
    let mut plan = plan_of(graph, default_choices);
    plan["batch"] = 3.into();
    plan["block_variants"] = json!([]);
    if is_split {
        plan["split"] = json!({"before": null, "images": 1});
    }
    plan
}

/// With default choices.
fn plan_in(variant: BlockVariant) -> Value {
    plan_by(default_choices, variant)
}

#[test]
fn a_batch_is_split_as_the_plan_says() {
    let folder = Folder::new();
    let at_once = folder.block_output(&plan_of_three(false), 3);
    assert_close(&folder.block_output(&plan_of_three(true), 3), &at_once);
    let mut per_worker = plan_of_three(true);
    per_worker["split"]["per_worker"] = true.into();
    per_worker["threads"] = 2.into();
    assert_close(&folder.block_output(&per_worker, 3), &at_once);
    let edits: [Edit; 6] = [
        ("steps[0].threads is 1, expected 2, as the plan", |p| p["threads"] = 2.into()),
        ("split.images is 0, expected a number from 1 to 2", |p| p["split"]["images"] = 0.into()),
        ("split.images is 3", |p| p["split"]["images"] = 3.into()),
        ("split.before is mixed10, expected null", |p| p["split"]["before"] = "mixed10".into()),
        ("split", |p| p["split"] = 1.into()),
        ("steps[0].problem", |p| drop(p.as_object_mut().expect("an object").remove("split"))),
    ];
    folder.refuses_edits(RUN_BLOCK, &plan_of_three(true), &edits);
}

/// Plans of earlier versions could give the branches of a block to one worker each.
#[test]
fn an_earlier_plan_with_branches_in_parallel_runs_with_its_steps_shared() {
    let folder = Folder::new();
    let mut plan = plan_in(BlockVariant::PLAIN);
    plan["threads"] = 2.into();
    list_mut(&mut plan, "steps").iter_mut().for_each(|step| step["threads"] = 2.into());
    let shared = folder.block_output(&plan, 1);
    let steps = list_mut(&mut plan, "steps");
    let is_branch = |step: &Value| step["layers"][0].as_str().is_some_and(|l| l.contains("branch3x3dbl"));
    steps.sort_by_key(is_branch);
    steps.iter_mut().filter(|step| is_branch(step)).for_each(|step| {
        step["threads"] = 1.into();
        step["worker"] = 1.into();
    });
    assert_eq!(folder.block_output(&plan, 1), shared);
}

#[test]
fn a_plan_is_run_in_its_form_and_gives_the_same_result() {
    let folder = Folder::new();
    let mut older = plan_in(BlockVariant::PLAIN);
    older.as_object_mut().expect("an object").remove("block_variants");
    let plain = folder.block_output(&older, 1);
    for variant in BlockVariant::ALL {
        assert_close(&folder.block_output(&plan_in(variant), 1), &plain);
    }
    assert_close(&folder.block_output(&BLOCK_PLAN.0, 1), &plain);
}

#[test]
fn the_steps_of_a_form_are_shown_by_layer() {
    let folder = Folder::with_plan(&plan_in(BlockVariant::ALL[3]));
    folder.prints(&format!("{RUN_BLOCK} --plan p.json --profile --wide"), &["k320+384+448+192r1s1"]);
    for layer in ["mixed10.branch3x3_1", "mixed10.branch_pool"] {
        let form = "fuse_siblings+conv_before_pool of mixed10";
        let parts = [form, "mixed10.branch1x1 + mixed10.branch3x3_1", "320+384+448+192"];
        folder.prints(&format!("explain {layer} --wide --plan p.json"), &parts);
    }
    folder.prints("explain mixed10.pool --plan p.json", &["average:n1h8w8c192r3s3:bias_relu"]);
}

#[test]
fn a_tuned_plan_says_what_each_form_costs() {
    let (plan, Ran { out, .. }) = &*BLOCK_PLAN;
    let [variant] = &list(plan, "block_variants")[..] else { panic!("{}", plan["block_variants"]) };
    assert_eq!(variant["block"], "mixed10");
    let forms = list(variant, "alternatives");
    let names: Vec<String> = BlockVariant::ALL.map(|variant| variant.to_string()).into();
    assert!(forms.iter().map(|form| &form["variant"]).eq(&names), "{forms:?}");
    assert!(forms.iter().all(|form| number(form, "time_us") > 0.0), "{forms:?}");
    let networks: Vec<&str> = list(plan, "networks").iter().filter_map(|c| c["network"].as_str()).collect();
    let has = |name: &str| networks.contains(&name);
    assert!(has("tuned") && has("built-in choice"), "{networks:?}");
    // The built-in choice has forms of its own, whatever measuring has found.
    let is_built_in = networks[0] == "built-in choice";
    assert!(has("plain blocks") || variant["variant"] == "plain" || is_built_in, "{networks:?}");
    assert_contains(out, &["both: fuse_siblings+conv_before_pool"]);
}

#[test]
fn a_form_that_the_block_or_the_steps_do_not_have_is_refused_by_field() {
    let folder = Folder::new();
    let edits: &[Edit] = &[
        ("block_variants[0].block is mixed9", |p| p["block_variants"][0]["block"] = "mixed9".into()),
        ("block_variants[0].block", |p| p["block_variants"][0]["block"] = 7.into()),
        ("block_variants[0].variant is sideways, expected one of plain fuse_siblings", |p| {
            p["block_variants"][0]["variant"] = "sideways".into()
        }),
        ("block_variants[1].block is mixed10, expected each block once", |p| {
            let list = list_mut(p, "block_variants");
            list.push(list[0].clone());
        }),
        ("block_variants", |p| p["block_variants"] = 3.into()),
        ("steps is 7, expected 8 steps of mixed10 with mixed10 fuse_siblings", |p| {
            p["block_variants"][0]["variant"] = "fuse_siblings".into()
        }),
        ("steps is 7, expected 10 steps of mixed10 before", |p| p["block_variants"] = json!([])),
        ("steps is 7, expected 10 steps", |p| {
            drop(p.as_object_mut().expect("an object").remove("block_variants"))
        }),
        ("steps is 7, expected 10 steps", |p| p["block_variants"][0]["variant"] = "conv_before_pool".into()),
        ("steps[0].layers", |p| list_mut(&mut p["steps"][0], "layers").swap(0, 1)),
        ("steps[0].layers", |p| drop(list_mut(&mut p["steps"][0], "layers").pop())),
        ("steps[0].problem", |p| p["steps"][0]["problem"] = "n1h8w8c2048k320+384+448+192r1s1".into()),
    ];
    folder.refuses_edits(RUN_BLOCK, &plan_in(BlockVariant::ALL[3]), edits);
    let mut plan = plan_in(BlockVariant::PLAIN);
    for (model, field) in [
        ("mixed8", "block_variants[0].variant is conv_before_pool, expected one of plain fuse_siblings"),
        ("stem", "block_variants[0].block is stem, expected no block variants"),
    ] {
        plan["model"] = model.into();
        plan["block_variants"][0] = variant_of(model, "conv_before_pool");
        folder.write("p.json", plan.to_string());
        folder.refuses(&format!("run --model {model} --plan p.json"), &["p.json", field]);
    }
}

/// A plan whose steps all read and write bf16.
fn plan_of_bf16() -> Value {
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
    let (lower, exact) = (folder.block_output(&plan_of_bf16(), 1), folder.block_output(&BLOCK_PLAN.0, 1));
    let error = engine::util::stats::relative_l2(&lower, &exact);
    assert!((1e-4..=1e-2).contains(&error), "results differ by {error:e}");
    let rounded = lower.iter().filter(|value| value.to_bits() & 0xffff == 0).count();
    assert_eq!(rounded, lower.len(), "results that are stored in bf16");
}

#[test]
fn steps_that_do_not_agree_on_the_type_of_a_tensor_are_refused() {
    let mut edited = plan_of_bf16();
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

/// A plan whose steps all read and write u8, but for those that can't.
fn plan_of_u8(variant: BlockVariant) -> Value {
    let mut plan = plan_by(in_u8, variant);
    plan["max_rel_error"] = 5e-2.into();
    let Network { graph, weights, cpu, threads, .. } = Network::block("mixed10", PoolKind::Average, 1, 1);
    let input = graph.tensors[0];
    let images = [synthetic::image(1, input.h, input.w, input.c, 0)];
    let outputs = Outputs::of(&graph, &weights, &cpu, &threads, &images).expect("outputs");
    let ranges = outputs.ranges(RangeRule { layer: LayerRule::LeastSquares, own: 0.25 });
    let calibration = Calibration { weights: weights.description(), images: 1, ..ranges };
    plan["calibration"] = serde_json::to_value(calibration).expect("finite numbers");
    let is_u8 = |step: &&Value| text(&step["formats"], "in").starts_with("u8:nhwc");
    let kernels: Vec<&str> =
        list(&plan, "steps").iter().filter(is_u8).map(|step| text(step, "kernel")).collect();
    assert!(kernels.len() >= 2 && kernels.iter().any(|kernel| kernel.contains("int")), "{kernels:?}");
    plan
}

#[test]
fn a_plan_in_u8_gives_the_results_of_f32_within_its_bound_in_every_form() {
    let folder = Folder::new();
    let exact = folder.block_output(&BLOCK_PLAN.0, 1);
    for variant in BlockVariant::ALL {
        let lower = folder.block_output(&plan_of_u8(variant), 1);
        let error = engine::util::stats::relative_l2(&lower, &exact);
        assert!((1e-3..=5e-2).contains(&error), "{variant}: results differ by {error:e}");
        // Weights that were packed before.
        let outputs = ["a.npy", "b.npy"].map(|output| {
            folder.succeeds(&format!("{RUN_BLOCK} --plan p.json --packed w-{variant} --output {output}"));
            folder.read(output)
        });
        assert!(outputs[0] == outputs[1], "{variant}");
    }
}

#[test]
fn a_plan_in_u8_is_refused_without_the_ranges_of_its_weights() {
    let edits: [Edit; 4] = [
        ("calibration.weights", |plan| plan["calibration"]["weights"] = "crc32 00000000".into()),
        ("mixed10.branch3x3_1", |plan| plan["calibration"]["ranges"]["mixed10.branch3x3_1"] = (-1.0).into()),
        ("calibration", |plan| plan["calibration"] = Value::Null),
        ("calibration.ranges", |plan| plan["calibration"]["ranges"] = 3.into()),
    ];
    Folder::new().refuses_edits(RUN_BLOCK, &plan_of_u8(BlockVariant::PLAIN), &edits);
}

#[test]
fn tuning_for_int8_finds_ranges_and_measures_u8() {
    let folder = Folder::new();
    folder.succeeds("tune --model mixed10 --budget 1 --threads 1 --out p.json --precision int8");
    let plan = folder.json("p.json");
    assert!(number(&plan, "rel_error") <= 5e-2);
    let all = || list(&plan, "measurements").iter().flat_map(|problem| list(problem, "candidates"));
    let reads_u8 = |c: &Value| text(&c["formats"], "in").starts_with("u8:");
    assert!(all().any(|c| reads_u8(c) && text(c, "kernel").starts_with("im2col_int8")));
    assert!(all().any(|c| reads_u8(c) && text(c, "kernel").starts_with("pool")));
    if plan["calibration"].is_null() {
        let is_u8 = |step: &Value| step["formats"].to_string().contains("u8");
        assert!(!list(&plan, "steps").iter().any(is_u8), "u8 without ranges");
    } else {
        assert_eq!(plan["calibration"]["weights"], "synthetic (seed 1)");
        assert!(number(&plan["calibration"], "rel_error") > 1e-3);
    }
    folder.succeeds(&format!("{RUN_BLOCK} --plan p.json"));
}

#[test]
fn tunings_for_int8_and_bf16_share_a_folder_and_a_list_is_checked_again() {
    let folder = Folder::new();
    let tune = "tune --model mixed10 --budget 1 --threads 1 --results r --precision";
    for (precision, bound) in [("int8", 5e-2), ("bf16", 1e-2)] {
        folder.succeeds(&format!("{tune} {precision}"));
        let args = format!("{RUN_BLOCK} --threads 1 --results r --repeat 1 --json --precision {precision}");
        let plan = folder.json(text(&folder.prints_json(&args), "plan"));
        assert_eq!(plan["max_rel_error"], bound);
        let has_u8 = plan["measurements"].to_string().contains("u8:nhwc");
        assert_eq!(has_u8, precision == "int8");
    }
    folder.write("l.txt", "n1h9w9c16k24r1s1\n");
    folder.succeeds("tune --shapes l.txt --budget 1 --threads 1 --precision int8 --out list.json");
    // Its status says whether an entry still holds.
    let Ran { status, err, .. } = folder.run("spot --plan list.json");
    assert!(matches!(status, Some(0 | 1)), "{err}");
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
    folder.prints("explain conv2d_bn.conv --all --wide --plan p.json", &["bf16 to f32", "direct_bf16"]);
}
