//! Plans whose blocks have other forms than the plain one.

use cross_checks::network::Rule;
use engine::network::block_variant::{BlockVariant, with_variant};
use engine::network::candidates::default_choices;
use engine::network::choice::{Choice, problem_name, tuning_to_json};
use engine::network::graph::{Graph, Step};
use engine::network::model::Model;
use kernels::cpu::Cpu;
use kernels::problem::PoolKind;
use serde_json::json;

use super::*;

const OUTPUT: usize = 8 * 8 * 2048;

/// A plan of mixed10 in a form by a rule, without measurements.
pub fn plan_by(rule: Rule, rewrite: BlockVariant) -> Value {
    let graph = Graph::new(&Model::block("mixed10").expect("a block"), 1, PoolKind::Average);
    let mut plan = plan_of(with_variant(&graph, "mixed10", rewrite).expect("a form of the block"), rule);
    plan["rewrites"] = json!([{
        "block": "mixed10",
        "rewrite": rewrite.to_string(),
        "alternatives": [],
        "reason": "",
    }]);
    plan
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
    plan["rewrites"] = json!([]);
    if is_split {
        plan["split"] = json!({"before": null, "images": 1});
    }
    plan
}

#[test]
fn a_batch_is_split_as_the_plan_says() {
    let folder = folder();
    let run = |plan: &Value| -> Vec<f32> {
        write(folder.path(), "p.json", plan.to_string());
        succeeds(folder.path(), "run --model mixed10 --batch 3 --plan p.json --output y.npy");
        result(folder.path(), "y.npy", &[3, OUTPUT])
    };
    let at_once = run(&plan_of_three(false));
    alike(&run(&plan_of_three(true)), &at_once);
    let mut apart = plan_of_three(true);
    apart["split"]["apart"] = true.into();
    apart["threads"] = 2.into();
    alike(&run(&apart), &at_once);
    type Edit = (&'static str, fn(&mut Value));
    let edits: [Edit; 6] = [
        ("steps[0].threads is 1, expected 2, as the plan", |p| p["threads"] = 2.into()),
        ("split.images is 0, expected a number from 1 to 2", |p| p["split"]["images"] = 0.into()),
        ("split.images is 3", |p| p["split"]["images"] = 3.into()),
        ("split.before is mixed10, expected null", |p| p["split"]["before"] = "mixed10".into()),
        ("split", |p| p["split"] = 1.into()),
        ("steps[0].problem", |p| drop(p.as_object_mut().expect("an object").remove("split"))),
    ];
    for (field, edit) in edits {
        let mut plan = plan_of_three(true);
        edit(&mut plan);
        write(folder.path(), "p.json", plan.to_string());
        refuses(folder.path(), "run --model mixed10 --plan p.json", &["p.json", field]);
    }
}

/// Plans of earlier versions could give the branches of a block to one worker each, next to each other.
#[test]
fn an_earlier_plan_with_branches_in_parallel_runs_with_its_steps_shared() {
    let folder = folder();
    let run = |plan: &Value| -> Vec<f32> {
        write(folder.path(), "p.json", plan.to_string());
        succeeds(folder.path(), "run --model mixed10 --plan p.json --output y.npy");
        result(folder.path(), "y.npy", &[1, OUTPUT])
    };
    let mut plan = plan_in(BlockVariant::PLAIN);
    plan["threads"] = 2.into();
    let steps = plan["steps"].as_array_mut().expect("a list");
    steps.iter_mut().for_each(|step| step["threads"] = 2.into());
    let shared = run(&plan);
    let steps = plan["steps"].as_array_mut().expect("a list");
    let is_branch = |step: &Value| step["layers"][0].as_str().is_some_and(|l| l.contains("branch3x3dbl"));
    steps.sort_by_key(is_branch);
    steps.iter_mut().filter(|step| is_branch(step)).for_each(|step| {
        step["threads"] = 1.into();
        step["worker"] = 1.into();
    });
    assert_eq!(run(&plan), shared);
}

/// With default choices.
fn plan_in(rewrite: BlockVariant) -> Value {
    plan_by(default_choices, rewrite)
}

#[test]
fn a_plan_is_run_in_its_form_and_gives_the_same_result() {
    let folder = folder();
    let run = |plan: &Value| -> Vec<f32> {
        write(folder.path(), "p.json", plan.to_string());
        succeeds(folder.path(), "run --model mixed10 --plan p.json --output y.npy");
        result(folder.path(), "y.npy", &[1, OUTPUT])
    };
    let mut older = plan_in(BlockVariant::PLAIN);
    older.as_object_mut().expect("an object").remove("rewrites");
    let plain = run(&older);
    for rewrite in BlockVariant::ALL {
        alike(&run(&plan_in(rewrite)), &plain);
    }
    alike(&run(&BLOCK_PLAN.0), &plain);
}

#[test]
fn the_steps_of_a_form_are_shown_by_layer() {
    let folder = folder();
    write(folder.path(), "p.json", plan_in(BlockVariant::ALL[3]).to_string());
    let profile = succeeds(folder.path(), "run --model mixed10 --plan p.json --profile");
    assert!(profile.contains("k320+384+448+192r1s1"), "{profile}");
    for layer in ["mixed10.branch3x3_1", "mixed10.branch_pool"] {
        let out = succeeds(folder.path(), &format!("explain {layer} --plan p.json"));
        for part in ["siblings+swap of mixed10", "mixed10.branch1x1 + mixed10.branch3x3_1", "320+384+448+192"]
        {
            assert!(out.contains(part), "`{part}` is not in\n{out}");
        }
    }
    let out = succeeds(folder.path(), "explain mixed10.pool --plan p.json");
    assert!(out.contains("average:n1h8w8c192r3s3:bias_relu"), "{out}");
}

#[test]
fn a_tuned_plan_says_what_each_form_costs() {
    let (plan, Ran { out, .. }) = &*BLOCK_PLAN;
    let rewrites = plan["rewrites"].as_array().expect("rewrites");
    assert_eq!(rewrites.len(), 1);
    assert_eq!(rewrites[0]["block"], "mixed10");
    let forms = rewrites[0]["alternatives"].as_array().expect("alternatives");
    let names: Vec<String> = BlockVariant::ALL.map(|rewrite| rewrite.to_string()).into();
    assert!(forms.iter().map(|form| &form["rewrite"]).eq(&names), "{forms:?}");
    assert!(forms.iter().all(|form| form["time_us"].as_f64().is_some_and(|us| us > 0.0)), "{forms:?}");
    let contest: Vec<&str> =
        plan["contest"].as_array().expect("a contest").iter().filter_map(|c| c["plan"].as_str()).collect();
    let compared =
        ["tuned, without rewrites", "tuned, with rewrites"].iter().any(|name| contest.contains(name));
    assert_eq!(contest[0], "tuned");
    assert!(compared || rewrites[0]["rewrite"] == "plain", "{contest:?}");
    assert!(out.contains("siblings+swap, us"), "{out}");
}

#[test]
fn a_form_that_the_block_or_the_steps_do_not_have_is_refused_by_field() {
    let folder = folder();
    type Edit = (&'static str, fn(&mut Value));
    let edits: &[Edit] = &[
        ("rewrites[0].block is mixed9", |p| p["rewrites"][0]["block"] = "mixed9".into()),
        ("rewrites[0].block", |p| p["rewrites"][0]["block"] = 7.into()),
        ("rewrites[0].rewrite is sideways, expected one of plain siblings", |p| {
            p["rewrites"][0]["rewrite"] = "sideways".into()
        }),
        ("rewrites[1].block is mixed10, expected each block once", |p| {
            let list = p["rewrites"].as_array_mut().expect("rewrites");
            list.push(list[0].clone());
        }),
        ("rewrites", |p| p["rewrites"] = 3.into()),
        ("steps is 7, expected 8 steps of mixed10 with mixed10 siblings", |p| {
            p["rewrites"][0]["rewrite"] = "siblings".into()
        }),
        ("steps is 7, expected 10 steps of mixed10 before", |p| p["rewrites"] = json!([])),
        ("steps is 7, expected 10 steps", |p| drop(p.as_object_mut().expect("an object").remove("rewrites"))),
        ("steps is 7, expected 10 steps", |p| p["rewrites"][0]["rewrite"] = "swap".into()),
        ("steps[0].layers", |p| p["steps"][0]["layers"].as_array_mut().expect("layers").swap(0, 1)),
        ("steps[0].layers", |p| drop(p["steps"][0]["layers"].as_array_mut().expect("layers").pop())),
        ("steps[0].problem", |p| p["steps"][0]["problem"] = "n1h8w8c2048k320+384+448+192r1s1".into()),
    ];
    for (field, edit) in edits {
        let mut plan = plan_in(BlockVariant::ALL[3]);
        edit(&mut plan);
        write(folder.path(), "p.json", plan.to_string());
        refuses(folder.path(), "run --model mixed10 --plan p.json", &["p.json", field]);
    }
    let mut plan = plan_in(BlockVariant::PLAIN);
    for (model, block, field) in [
        ("mixed8", "mixed8", "rewrites[0].rewrite is swap, expected one of plain siblings"),
        ("stem", "stem", "rewrites[0].block is stem, expected no rewrites"),
    ] {
        plan["model"] = model.into();
        plan["rewrites"][0] = json!({"block": block, "rewrite": "swap", "alternatives": [], "reason": ""});
        write(folder.path(), "p.json", plan.to_string());
        refuses(folder.path(), &format!("run --model {model} --plan p.json"), &["p.json", field]);
    }
}
