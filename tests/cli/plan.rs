//! Plans given to `run`: found, edited, damaged.

use std::collections::HashMap;

use super::*;

const RUN: &str = "run --model conv2d_bn --shape n1h9w9c16k24r3s3";

#[test]
fn an_edited_plan_is_refused_by_file_and_field() {
    let folder = Folder::new();
    let edits: &[Edit] = &[
        ("schema", |p| p["schema"] = "convolution-plan-0".into()),
        ("model", |p| p["model"] = "mixed0".into()),
        ("shape", |p| p["shape"] = "n1h9w9c16k24r1s1".into()),
        ("threads is 0", |p| p["threads"] = 0.into()),
        ("threads", |p| p["threads"] = (-1).into()),
        ("threads", |p| p["threads"] = "one".into()),
        ("threads", |p| p["threads"] = 1.5.into()),
        ("batch is 1000000000", |p| p["batch"] = 1_000_000_000.into()),
        ("steps[0].problem", |p| p["batch"] = 2.into()),
        ("max_rel_error", |p| p["max_rel_error"] = (-1.0).into()),
        ("max_rel_error", |p| p["max_rel_error"] = Value::Null),
        ("steps", |p| p["steps"] = Value::Array(Vec::new())),
        ("steps", |p| p["steps"] = 3.into()),
        ("steps[0].layers", |p| p["steps"][0]["layers"][0] = "mixed0.conv".into()),
        ("steps[0].layers", |p| p["steps"][0]["layers"] = Value::Array(Vec::new())),
        ("steps[0].problem", |p| p["steps"][0]["problem"] = "n1h9w9c16k24r1s1".into()),
        ("steps[0].threads", |p| p["steps"][0]["threads"] = 2.into()),
        ("steps[0].kernel", |p| p["steps"][0]["kernel"] = "no_such_kernel".into()),
        ("steps[0].kernel", |p| p["steps"][0]["kernel"] = "pool_plain".into()),
        ("steps[0].tuning", |p| p["steps"][0]["tuning"]["pixels"] = 777.into()),
        ("steps[0].tuning", |p| p["steps"][0]["tuning"]["no such name"] = 1.into()),
        ("steps[0].formats", |p| p["steps"][0]["formats"]["in"] = "bf16:nchw".into()),
        ("steps[0].formats", |p| p["steps"][0]["formats"] = Value::Null),
        ("steps[0].time_us", |p| p["steps"][0]["time_us"]["median"] = "fast".into()),
    ];
    folder.refuses_edits(RUN, &SMALL_PLAN, edits);
    // Steps that are left out, given twice or swapped.
    let count = list(&BLOCK_PLAN.0, "steps").len();
    let [less, more] = [count - 1, count + 1].map(|count| format!("steps is {count}"));
    let edits: [Edit; 3] = [
        (&less, |p| drop(list_mut(p, "steps").remove(3))),
        (&more, |p| {
            let steps = list_mut(p, "steps");
            steps.push(steps[0].clone());
        }),
        ("steps[0].layers", |p| list_mut(p, "steps").swap(0, 1)),
    ];
    folder.refuses_edits(RUN_BLOCK, &BLOCK_PLAN.0, &edits);
}

#[test]
fn what_is_no_plan_is_refused_by_every_command_that_reads_one() {
    let folder = Folder::new();
    let text = SMALL_PLAN.to_string();
    let mut random = cross_checks::Random::of("no plan");
    let texts = [
        "",
        "{",
        "[]",
        "null",
        "not JSON",
        r#"{"schema": "convolution-plan-1"}"#,
        r#"{"schema": "convolution-plan-2"}"#,
        &text[..text.len() / 2],
        &text.replacen("\"max_rel_error\":0.00001", "\"max_rel_error\":NaN", 1),
        &text.replacen("\"threads\":1", "\"threads\":1e999", 1),
        &format!("{text}{text}"),
        &"[".repeat(100_000),
    ];
    let mut contents = texts.map(|text| text.as_bytes().to_vec()).to_vec();
    contents.extend((0..8).map(|_| (0..200).map(|_| random.bits() as u8).collect()));
    for bytes in contents {
        assert_ne!(bytes, text.as_bytes());
        folder.write("p.json", &bytes);
        for command in [RUN, "explain conv2d_bn.conv", "report --out report"] {
            folder.refuses(&format!("{command} --plan p.json"), &["p.json"]);
        }
        assert!(!folder.at("report").exists());
    }
    fs::create_dir(folder.at("dir")).expect("a folder");
    for name in ["dir", "nothing.json"] {
        folder.refuses(&format!("{RUN} --plan {name}"), &[name]);
    }
}

#[test]
fn a_run_reads_the_steps_and_only_explanations_read_the_measurements() {
    let mut plan = SMALL_PLAN.clone();
    plan["measurements"][0]["candidates"] = "none".into();
    let folder = Folder::with_plan(&plan);
    assert_eq!(folder.notes(&format!("{RUN} --plan p.json")), "");
    folder.refuses("report --plan p.json --out r", &["p.json", "measurements[0].candidates"]);
    // What is wrong behind the measurements is at its line of the file.
    let mut plan = SMALL_PLAN.clone();
    let fields = plan.as_object_mut().expect("an object");
    fields.remove("batch");
    fields.insert("batch".to_string(), "one".into());
    let text = serde_json::to_string_pretty(&plan).expect("JSON");
    let line = text.lines().count() - 1;
    folder.write("p.json", text);
    folder.refuses(&format!("{RUN} --plan p.json"), &["p.json", "batch", &format!("line {line} ")]);
}

#[test]
fn what_differs_from_the_plan_is_refused_by_name() {
    let folder = Folder::with_plan(&SMALL_PLAN);
    for (args, field) in [
        ("--threads 2", "threads is 1"),
        ("--batch 2", "batch is 1"),
        ("--max-rel-error 1e-9", "max_rel_error is 1e-5"),
    ] {
        folder.refuses(&format!("{RUN} --plan p.json {args}"), &["p.json", field]);
    }
    folder.succeeds(&format!("{RUN} --plan p.json --threads 1 --batch 1 --precision bf16"));
    folder.refuses("run --model mixed9 --plan p.json", &["p.json", "model is conv2d_bn"]);
}

#[test]
fn a_field_that_no_plan_has_is_told() {
    let mut edited = SMALL_PLAN.clone();
    edited["version"] = 99.into();
    edited["steps"][0]["tunings"] = json!([]);
    let folder = Folder::with_plan(&edited);
    for command in [RUN, "explain conv2d_bn.conv"] {
        let Ran { err, .. } = folder.run_well(&format!("{command} --plan p.json"));
        assert_contains(&err, &["p.json: found the field ", " (and 1 more), which no plan has"]);
        assert!(["version", "steps.0.tunings"].iter().any(|name| err.contains(name)), "{err}");
    }
}

#[test]
fn another_valid_kernel_gives_the_same_result() {
    let mut edited = SMALL_PLAN.clone();
    edited["steps"][0]["kernel"] = "reference".into();
    edited["steps"][0]["tuning"] = json!({});
    edited["steps"][0]["formats"] = json!({"in": "f32:nhwc", "out": "f32:nhwc"});
    let [tuned, edited] = [&SMALL_PLAN, &edited].map(|plan| {
        let folder = Folder::with_plan(plan);
        folder.succeeds(&format!("{RUN} --plan p.json --output y.npy"));
        folder.images("y.npy", 1, SMALL_OUTPUT)
    });
    assert_close(&tuned, &edited);
}

#[test]
fn the_newest_plan_is_used_and_without_one_the_default_with_a_notice() {
    let folder = Folder::new();
    let run = |more: &str| -> (String, String) {
        let Ran { out, err, .. } = folder.run_well(&format!("{RUN} --threads 1 --repeat 1 --json {more}"));
        let object: Value = serde_json::from_str(&out).expect("JSON");
        (text(&object, "plan").to_string(), err)
    };
    let (plan, err) = run("");
    assert_eq!(plan, "default");
    assert!(err.lines().count() == 1 && err.contains("no plan"), "{err}");

    folder.succeeds(&format!("tune {SMALL} --budget 1 --threads 1"));
    let (first, err) = run("");
    assert_eq!(err, "");
    let write = |name: &str, text: &str| {
        fs::write(folder.at(&first).with_file_name(name), text).expect("written");
    };
    let mut newer = folder.json(&first);
    newer["created"] = (newer["created"].as_u64().expect("seconds") + 1).into();
    write("newer.json", &newer.to_string());
    newer["created"] = (newer["created"].as_u64().expect("seconds") + 1).into();
    newer["threads"] = 2.into();
    write("for-others.json", &newer.to_string());
    write("damaged.json", "{");
    let (second, err) = run("");
    assert!(second.ends_with("newer.json"), "{second}");
    assert_eq!(err, "");

    // A plan with a bound on memory is for runs that ask for one.
    newer["created"] = (newer["created"].as_u64().expect("seconds") + 1).into();
    newer["threads"] = 1.into();
    newer["max_memory_mib"] = 64.into();
    write("bounded.json", &newer.to_string());
    assert_eq!(run("").0, second);
    assert!(run("--max-memory 64").0.ends_with("bounded.json"));
    assert_eq!(run("--max-memory 63").0, second, "without a bound, and within it");
    let found = "no plan for conv2d_bn of n1h9w9c16k24r3s3 with 1 thread and batch 1 in";
    let command = format!("`tuner {SMALL} --threads 1 --max-rel-error 1e-9` makes one");
    folder.refuses(
        &format!("{RUN} --threads 1 --max-rel-error 1e-9"),
        &[found, "the built-in choice keeps no such bound", &command],
    );
    folder.refuses(
        &format!("{RUN} --threads 1 --max-memory 9"),
        &["--max-memory 9 MiB: no plan keeps it, a process takes"],
    );

    // For another batch the nearest plan is adapted, unless that is unwanted.
    let (nearest, err) = run("--batch 2");
    assert_eq!(nearest, second);
    let command = format!("`tuner {SMALL} --threads 1 --batch 2` makes one");
    assert_contains(&err, &["with 1 thread and batch 2", "using the one for 1 thread and batch 1", &command]);
    folder.refuses(&format!("{RUN} --threads 1 --batch 2 --require-plan"), &["no plan for", "--batch 2`"]);
}

#[test]
fn without_a_folder_of_results_they_are_the_users_and_found_from_any_folder() {
    let (one, other) = (Folder::new(), Folder::new());
    for folder in [&one, &other] {
        fs::remove_dir(folder.at("bench-results")).expect("an empty folder");
    }
    one.succeeds(&format!("tune {SMALL} --budget 1 --threads 1"));
    assert!(find(&one.at("data/tuner"), "json").is_some());
    let mut command = other.command(&format!("{RUN} --threads 1"));
    command.env("XDG_DATA_HOME", one.at("data"));
    let ran = start(command);
    assert!(
        ran.out.starts_with(&format!("plan: {}", one.at("data/tuner").display())),
        "{}{}",
        ran.out,
        ran.err
    );
}

#[test]
fn plans_are_listed_and_chosen_by_what_they_are_for() {
    let folder = Folder::new();
    folder.prints("plans", &["no plans in bench-results"]);
    for threads in [1, 2] {
        folder.succeeds(&format!("tune {SMALL} --budget 1 --threads {threads}"));
    }
    folder.prints("plans --wide", &["n1h9w9c16k24r3s3-t1-b1", "n1h9w9c16k24r3s3-t2-b1", "valid"]);
    let plans = folder.prints_json("plans --threads 1 --json");
    let [plan] = &list(&plans, "plans")[..] else { panic!("{plans}") };
    assert_eq!(
        (&plan["model"], &plan["threads"], &plan["stale"]),
        (&json!("conv2d_bn"), &json!(1), &Value::Null)
    );
    for threads in [1, 2] {
        let file = format!("-t{threads}-b1");
        folder.prints(&format!("explain conv2d_bn.conv --threads {threads} --json"), &[&file]);
    }
    folder.refuses("explain conv2d_bn.conv --model mixed0", &["no plan"]);
}

#[test]
fn a_plan_of_another_machine_is_refused_unless_it_is_asked_for() {
    let mut plan = SMALL_PLAN.clone();
    plan["machine"]["cpu"] = "Another Processor".into();
    let folder = Folder::with_plan(&plan);
    let parts = ["p.json", "machine.cpu is Another Processor", "--any-machine"];
    folder.refuses(&format!("{RUN} --plan p.json"), &parts);
    let any_machine = format!("{RUN} --plan p.json --any-machine");
    assert_eq!(folder.notes(&any_machine), "");
    plan["steps"][0]["kernel"] = "direct_of_that_machine".into();
    folder.write("p.json", plan.to_string());
    folder.refuses(&any_machine, &["p.json", "steps[0].kernel", "direct_of_that_machine"]);
}

#[test]
fn what_has_changed_since_the_plan_was_made_is_named() {
    let folder = Folder::new();
    let mut plan = SMALL_PLAN.clone();
    let note = |plan: &Value| {
        folder.write("p.json", plan.to_string());
        folder.notes(&format!("{RUN} --plan p.json"))
    };
    assert_eq!(note(&plan), "");
    plan["steps"][0]["code"] = "0123456789abcdef".into();
    plan["machine"]["cores"] = (plan["machine"]["cores"].as_u64().expect("cores") + 1).into();
    let note = note(&plan);
    let code = format!("the code of {} has changed", text(&plan["steps"][0], "kernel"));
    assert_contains(&note, &["note: p.json: ", "cores were online", &code]);
    assert_eq!(note.lines().count(), 1);
}

/// What was measured of a step's problem, and the baseline in it.
fn baseline(step: &Value) -> Option<(&'static Value, &'static Value)> {
    let records = list(&BLOCK_PLAN.0, "measurements");
    let record = records.iter().find(|record| record["problem"] == step["problem"])?;
    Some((record, list(record, "candidates").iter().find(|c| c["kernel"] == "im2col_gemm")?))
}

#[test]
fn some_entries_of_a_plan_are_measured_again() {
    let folder = Folder::with_plan(&BLOCK_PLAN.0);
    let mut plan = BLOCK_PLAN.0.clone();
    let ran = folder.run("spot --plan p.json --steps 3");
    assert!(ran.status == Some(0) || ran.status == Some(1), "{}", ran.err);
    let verdicts = ran
        .out
        .lines()
        .filter(|line| ["holds", "lost", "cannot tell"].iter().any(|verdict| line.ends_with(verdict)))
        .count();
    assert_eq!(verdicts, 3, "{}", ran.out);
    // The baseline is chosen where it is behind by the most time: small ratios are noise.
    let behind = |step: &Value| {
        let (record, slow) = baseline(step)?;
        Some(number(&slow["time_us"], "median") - number(&record["candidates"][0]["time_us"], "median"))
    };
    let steps = list_mut(&mut plan, "steps").iter_mut();
    let conv = steps.max_by(|a, b| behind(a).partial_cmp(&behind(b)).expect("numbers")).expect("a step");
    let (record, slow) = baseline(conv).expect("a baseline");
    conv["runner_up"] = json!({ "kernel": conv["kernel"], "tuning": conv["tuning"], "time_us": 1.0 });
    for key in ["kernel", "tuning", "formats"] {
        conv[key] = slow[key].clone();
    }
    // What was edited by hand is left out; here the plan says that this was chosen.
    conv["isolated_us"] = record["candidates"][0]["time_us"]["median"].clone();
    let id = slow["kernel"].as_str().expect("a kernel").to_string();
    // By the plan's measurements the two were level.
    let [slow, fast] = [slow, &record["candidates"][0]].map(|candidate| candidate["time_us"].to_string());
    folder.write("p.json", plan.to_string().replace(&slow, &fast));
    // Other tests use the cores meanwhile, and may hide it once.
    let recheck = || folder.run("spot --plan p.json --steps 40 --wide");
    let is_lost = |ran: &Ran| ran.out.lines().any(|line| line.contains(&id) && line.ends_with("lost"));
    let mut ran = recheck();
    for _ in 0..2 {
        if !is_lost(&ran) {
            ran = recheck();
        }
    }
    assert!(ran.status == Some(1) && is_lost(&ran), "{}{}", ran.out, ran.err);
    folder.refuses("spot --plan nowhere.json", &["nowhere.json"]);
}

/// Fields of the second schema, each with its name in the first.
static FIRST_NAMES: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
    let pairs = "overhead_us=around_us networks=contest network=plan block_variants=rewrites variant=rewrite \
                 in_network=in_place repeats=turns noise_floor=floor weights_from=cold steal_share=stolen \
                 core_distance=apart per_worker=apart ratio_ci95=versus evaluated=tried space=offered \
                 regret=missed best_skipped=left_out excluded=left_out conditions=beside description=says \
                 isolated_us=alone_us bf16_steps=lower_steps layerwise_ms=greedy_ms bound_ms=least_ms \
                 plan_ms=chosen_ms fuse_siblings=siblings conv_before_pool=swap";
    pairs.split(' ').filter_map(|pair| pair.split_once('=')).collect()
});

/// A value of a plan as the first schema has it; `isolated_us` of a step had that name already.
fn in_first_schema(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let is_step = fields.contains_key("layers");
            // A runner-up, or a candidate in the network, was said to have no formats.
            let has_formats = fields.contains_key("problem") || fields.contains_key("outcome");
            let kept = fields.iter().filter(|(name, _)| has_formats || *name != "formats");
            let renamed = kept.map(|(name, value)| {
                let is_kept = is_step && name == "isolated_us";
                let then = FIRST_NAMES.get(&name[..]).filter(|_| !is_kept).map_or(&name[..], |then| *then);
                let value = if name == "reason" { "told in words".into() } else { in_first_schema(value) };
                (then.to_string(), value)
            });
            Value::Object(renamed.collect())
        }
        Value::Array(list) => list.iter().map(in_first_schema).collect(),
        Value::String(text) if text == "built-in choice" => "default".into(),
        Value::String(text) if text == "dropped_early" => "dropped early".into(),
        Value::String(text) if text == "plain blocks" => "tuned, without rewrites".into(),
        Value::String(text) if text.contains("fuse_siblings") || text.contains("conv_before_pool") => {
            text.replace("fuse_siblings", "siblings").replace("conv_before_pool", "swap").into()
        }
        other => other.clone(),
    }
}

#[test]
fn a_plan_of_the_first_schema_still_runs_and_explains() {
    let folder = Folder::new();
    let mut plan = in_first_schema(&BLOCK_PLAN.0);
    plan["schema"] = "convolution-plan-1".into();
    for field in ["contest", "rewrites", "around_us"] {
        assert!(!plan[field].is_null(), "{field}");
    }
    assert!(plan["noise"]["floor"].is_number() && plan["steps"][0]["in_place"].is_array());
    folder.write("old.json", plan.to_string());
    folder.write("new.json", BLOCK_PLAN.0.to_string());
    let layer = plan["steps"][0]["layers"][0].as_str().expect("a layer");
    let [old, new] = ["old.json", "new.json"].map(|file| {
        folder.succeeds(&format!("{RUN_BLOCK} --plan {file} --output y.npy"));
        let mut explained = folder.prints_json(&format!("explain {layer} --plan {file} --json"));
        explained["plan"] = Value::Null;
        explained["block_variant"] = Value::Null;
        explained["step"]["reason"] = Value::Null;
        (folder.images("y.npy", 1, BLOCK_OUTPUT), explained)
    });
    assert_eq!(old, new);
    folder.succeeds(&format!("explain {layer} --plan old.json"));
    folder.succeeds("report --plan old.json --out r");
}
