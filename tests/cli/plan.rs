//! Plans given to `run`: found, edited, damaged.

use super::*;

const RUN: &str = "run --model conv2d_bn --shape n1h9w9c16k24r3s3";

/// A plan with one edit, and the field that the refusal names.
type Edit<'a> = (&'a str, fn(&mut Value));

#[test]
fn an_edited_plan_is_refused_by_file_and_field() {
    let folder = folder();
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
    for (index, (field, edit)) in edits.iter().enumerate() {
        let mut plan = SMALL_PLAN.clone();
        edit(&mut plan);
        let name = format!("edited-{index}.json");
        write(folder.path(), &name, plan.to_string());
        write(folder.path(), "y.npy", "old");
        refuses(folder.path(), &format!("{RUN} --plan {name} --output y.npy"), &[&name, field]);
        assert_eq!(std::fs::read(folder.path().join("y.npy")).expect("readable"), b"old");
    }
}

#[test]
fn a_plan_with_steps_left_out_twice_or_swapped_is_refused() {
    let folder = folder();
    let count = BLOCK_PLAN.0["steps"].as_array().expect("steps").len();
    let [less, more] = [count - 1, count + 1].map(|count| format!("steps is {count}"));
    let edits: [Edit; 3] = [
        (&less, |p| drop(p["steps"].as_array_mut().expect("steps").remove(3))),
        (&more, |p| {
            let steps = p["steps"].as_array_mut().expect("steps");
            steps.push(steps[0].clone());
        }),
        ("steps[0].layers", |p| p["steps"].as_array_mut().expect("steps").swap(0, 1)),
    ];
    for (field, edit) in edits {
        let mut plan = BLOCK_PLAN.0.clone();
        edit(&mut plan);
        write(folder.path(), "p.json", plan.to_string());
        refuses(folder.path(), "run --model mixed10 --plan p.json", &["p.json", field]);
    }
}

#[test]
fn what_is_no_plan_is_refused_by_every_command_that_reads_one() {
    let folder = folder();
    let text = SMALL_PLAN.to_string();
    let mut random = cross_checks::Random::of("no plan");
    let mut contents: Vec<Vec<u8>> = [
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
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    contents.extend((0..8).map(|_| (0..200).map(|_| random.bits() as u8).collect()));
    for bytes in contents {
        assert_ne!(bytes, text.as_bytes());
        write(folder.path(), "p.json", &bytes);
        for command in [RUN, "explain conv2d_bn.conv", "report --out report"] {
            refuses(folder.path(), &format!("{command} --plan p.json"), &["p.json"]);
        }
        assert!(!folder.path().join("report").exists());
    }
    std::fs::create_dir(folder.path().join("dir")).expect("a folder");
    refuses(folder.path(), &format!("{RUN} --plan dir"), &["dir"]);
    refuses(folder.path(), &format!("{RUN} --plan nothing.json"), &["nothing.json"]);
}

#[test]
fn a_run_takes_the_steps_and_leaves_the_measurements_to_who_explains_them() {
    let folder = folder();
    let mut plan = SMALL_PLAN.clone();
    plan["measurements"][0]["candidates"] = "none".into();
    write(folder.path(), "p.json", plan.to_string());
    let ran = tuner(folder.path(), &format!("{RUN} --plan p.json"));
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
    refuses(folder.path(), "report --plan p.json --out r", &["p.json", "measurements[0].candidates"]);
    // What is wrong behind the measurements is at its line of the file.
    let mut plan = SMALL_PLAN.clone();
    let fields = plan.as_object_mut().expect("an object");
    fields.remove("batch");
    fields.insert("batch".to_string(), "one".into());
    let text = serde_json::to_string_pretty(&plan).expect("JSON");
    let line = text.lines().count() - 1;
    write(folder.path(), "p.json", text);
    refuses(folder.path(), &format!("{RUN} --plan p.json"), &["p.json", "batch", &format!("line {line} ")]);
}

#[test]
fn what_differs_from_the_plan_is_refused_by_name() {
    let folder = folder();
    write(folder.path(), "p.json", SMALL_PLAN.to_string());
    for (args, field) in [
        ("--threads 2", "threads is 1"),
        ("--batch 2", "batch is 1"),
        ("--max-rel-error 1e-9", "max_rel_error is 1e-5"),
    ] {
        refuses(folder.path(), &format!("{RUN} --plan p.json {args}"), &["p.json", field]);
    }
    succeeds(folder.path(), &format!("{RUN} --plan p.json --threads 1 --batch 1 --precision bf16"));
    refuses(folder.path(), "run --model mixed9 --plan p.json", &["p.json", "model is conv2d_bn"]);
}

#[test]
fn another_valid_kernel_gives_the_same_result() {
    let folder = folder();
    let mut plan = SMALL_PLAN.clone();
    write(folder.path(), "p.json", plan.to_string());
    succeeds(folder.path(), &format!("{RUN} --plan p.json --output tuned.npy"));
    plan["steps"][0]["kernel"] = "reference".into();
    plan["steps"][0]["tuning"] = Value::Object(Default::default());
    plan["steps"][0]["formats"] = serde_json::json!({"in": "f32:nhwc", "out": "f32:nhwc"});
    write(folder.path(), "p.json", plan.to_string());
    succeeds(folder.path(), &format!("{RUN} --plan p.json --output edited.npy"));
    let [tuned, edited] = ["tuned.npy", "edited.npy"].map(|y| result(folder.path(), y, &[1, SMALL_OUTPUT]));
    alike(&tuned, &edited);
}

#[test]
fn the_newest_plan_is_taken_and_without_one_the_default_with_a_notice() {
    let folder = folder();
    let line = format!("{RUN} --threads 1 --repeat 1 --json");
    let plan_of = |ran: &Ran| -> String {
        let line: Value = serde_json::from_str(&ran.out).expect("JSON");
        line["plan"].as_str().expect("a plan").to_string()
    };
    let none = tuner(folder.path(), &line);
    assert_eq!((none.status, plan_of(&none).as_str()), (Some(0), "default"));
    assert!(none.err.lines().count() == 1 && none.err.contains("no plan"), "{}", none.err);

    succeeds(folder.path(), &format!("tune {SMALL} --budget 1 --threads 1"));
    let first = tuner(folder.path(), &line);
    assert_eq!((first.status, first.err.as_str()), (Some(0), ""));
    let path = folder.path().join(plan_of(&first));

    let mut newer = json(&path);
    newer["created"] = (newer["created"].as_u64().expect("seconds") + 1).into();
    std::fs::write(path.with_file_name("newer.json"), newer.to_string()).expect("written");
    newer["created"] = (newer["created"].as_u64().expect("seconds") + 1).into();
    newer["threads"] = 2.into();
    std::fs::write(path.with_file_name("for-others.json"), newer.to_string()).expect("written");
    std::fs::write(path.with_file_name("damaged.json"), "{").expect("written");
    let second = tuner(folder.path(), &line);
    assert!(plan_of(&second).ends_with("newer.json"), "{}", second.out);
    assert_eq!(second.err, "");

    let other_batch = tuner(folder.path(), &format!("{line} --batch 2"));
    assert_eq!(plan_of(&other_batch), "default");
}

#[test]
fn a_plan_of_another_machine_is_refused_unless_it_is_asked_for() {
    let folder = folder();
    let mut plan = SMALL_PLAN.clone();
    plan["machine"]["cpu"] = "Another Processor".into();
    write(folder.path(), "p.json", plan.to_string());
    refuses(
        folder.path(),
        &format!("{RUN} --plan p.json"),
        &["p.json", "machine.cpu is Another Processor", "--any-machine"],
    );
    let ran = tuner(folder.path(), &format!("{RUN} --plan p.json --any-machine"));
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
    plan["steps"][0]["kernel"] = "direct_of_that_machine".into();
    write(folder.path(), "p.json", plan.to_string());
    let args = format!("{RUN} --plan p.json --any-machine");
    refuses(folder.path(), &args, &["p.json", "steps[0].kernel", "direct_of_that_machine"]);
}

#[test]
fn what_has_changed_since_the_plan_was_made_is_named() {
    let folder = folder();
    let mut plan = SMALL_PLAN.clone();
    let note = |plan: &Value| {
        write(folder.path(), "p.json", plan.to_string());
        let ran = tuner(folder.path(), &format!("{RUN} --plan p.json"));
        assert_eq!(ran.status, Some(0), "{}", ran.err);
        ran.err
    };
    assert_eq!(note(&plan), "");
    plan["steps"][0]["code"] = "0123456789abcdef".into();
    plan["machine"]["cores"] = (plan["machine"]["cores"].as_u64().expect("cores") + 1).into();
    let text = note(&plan);
    let kernel = plan["steps"][0]["kernel"].as_str().expect("a kernel");
    for part in ["note: p.json: ", "cores were online", &format!("the code of {kernel} has changed")] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
    assert_eq!(text.lines().count(), 1);
}

/// What was measured of a step's problem, and the baseline in it.
fn baseline(step: &Value) -> Option<(&'static Value, &'static Value)> {
    let measured = BLOCK_PLAN.0["measurements"].as_array().expect("measurements");
    let record = measured.iter().find(|record| record["problem"] == step["problem"])?;
    let mut candidates = record["candidates"].as_array()?.iter();
    Some((record, candidates.find(|c| c["kernel"] == "im2col_gemm")?))
}

#[test]
fn some_entries_of_a_plan_are_measured_again() {
    let folder = folder();
    let mut plan = BLOCK_PLAN.0.clone();
    write(folder.path(), "p.json", plan.to_string());
    let ran = tuner(folder.path(), "spot --plan p.json --steps 3");
    assert!(ran.status == Some(0) || ran.status == Some(1), "{}", ran.err);
    let verdicts = ran.out.lines().filter(|line| line.ends_with("holds") || line.ends_with("lost")).count();
    assert_eq!(verdicts, 3, "{}", ran.out);
    // What the plan says was far behind is chosen instead, where it is by the most time: small ratios are noise.
    let behind = |step: &Value| {
        let time = |c: &Value| c["time_us"]["median"].as_f64();
        baseline(step)
            .and_then(|(record, slow)| Some(time(slow)? - time(&record["candidates"][0])?))
            .unwrap_or(0.0)
    };
    let steps = plan["steps"].as_array_mut().expect("steps");
    let conv = steps.iter_mut().max_by(|a, b| behind(a).total_cmp(&behind(b))).expect("a step");
    let (record, slow) = baseline(conv).expect("a baseline");
    let best = serde_json::json!({ "kernel": conv["kernel"], "tuning": conv["tuning"], "time_us": 1.0 });
    conv["runner_up"] = best;
    for key in ["kernel", "tuning", "formats"] {
        conv[key] = slow[key].clone();
    }
    let layer = conv["layers"][0].as_str().expect("a layer").to_string();
    let mut text = plan.to_string();
    // In the plan's own words the two were level.
    let own = slow["time_us"].to_string();
    text = text.replace(&own, &record["candidates"][0]["time_us"].to_string());
    write(folder.path(), "p.json", text);
    // Other tests use the cores meanwhile, and may hide it once.
    let recheck = || tuner(folder.path(), "spot --plan p.json --steps 40 --wide");
    let mut ran = recheck();
    for _ in 0..2 {
        if ran.status == Some(0) {
            ran = recheck();
        }
    }
    assert_eq!(ran.status, Some(1), "{}{}", ran.out, ran.err);
    assert!(ran.out.lines().any(|line| line.contains(&layer) && line.ends_with("lost")), "{}", ran.out);
    refuses(folder.path(), "spot --plan nowhere.json", &["nowhere.json"]);
}

/// Fields of the first schema, each with its name in the second.
const FIRST_NAMES: [(&str, &str); 27] = [
    ("around_us", "overhead_us"),
    ("contest", "networks"),
    ("plan", "network"),
    ("rewrites", "block_variants"),
    ("rewrite", "variant"),
    ("in_place", "in_network"),
    ("turns", "repeats"),
    ("floor", "noise_floor"),
    ("cold", "weights_from"),
    ("stolen", "steal_share"),
    ("apart", "core_distance"),
    ("apart", "per_worker"),
    ("versus", "ratio_ci95"),
    ("tried", "evaluated"),
    ("offered", "space"),
    ("missed", "regret"),
    ("left_out", "best_skipped"),
    ("left_out", "excluded"),
    ("beside", "conditions"),
    ("says", "description"),
    ("alone_us", "isolated_us"),
    ("lower_steps", "bf16_steps"),
    ("greedy_ms", "layerwise_ms"),
    ("least_ms", "bound_ms"),
    ("chosen_ms", "plan_ms"),
    ("siblings", "fuse_siblings"),
    ("swap", "conv_before_pool"),
];

/// A value of a plan as the first schema has it; `isolated_us` of a step had that name already.
fn in_first_schema(value: &Value) -> Value {
    let first = |name: &str| FIRST_NAMES.iter().find(|(_, now)| *now == name).map(|(then, _)| *then);
    match value {
        Value::Object(fields) => {
            let is_step = fields.contains_key("layers");
            // A runner-up, or a candidate in the network, was said to have no formats.
            let has_formats = fields.contains_key("problem") || fields.contains_key("outcome");
            let kept = fields.iter().filter(|(name, _)| has_formats || *name != "formats");
            let renamed = kept.map(|(name, value)| {
                let then = first(name).filter(|_| !(is_step && name == "isolated_us")).unwrap_or(name);
                let value = match name.as_str() {
                    "reason" => "told in words".into(),
                    _ => in_first_schema(value),
                };
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
    let folder = folder();
    let mut plan = in_first_schema(&BLOCK_PLAN.0);
    plan["schema"] = "convolution-plan-1".into();
    for field in ["contest", "rewrites", "around_us"] {
        assert!(!plan[field].is_null(), "{field}");
    }
    assert!(plan["noise"]["floor"].is_number() && plan["steps"][0]["in_place"].is_array());
    write(folder.path(), "old.json", plan.to_string());
    write(folder.path(), "new.json", BLOCK_PLAN.0.to_string());
    let layer = plan["steps"][0]["layers"][0].as_str().expect("a layer");
    let [old, new] = ["old.json", "new.json"].map(|file| {
        succeeds(folder.path(), &format!("run --model mixed10 --plan {file} --output y.npy"));
        let explained = succeeds(folder.path(), &format!("explain {layer} --plan {file} --json"));
        let mut explained: Value = serde_json::from_str(&explained).expect("JSON");
        explained["plan"] = Value::Null;
        explained["block_variant"] = Value::Null;
        explained["step"]["reason"] = Value::Null;
        (result(folder.path(), "y.npy", &[1, 8 * 8 * 2048]), explained)
    });
    assert_eq!(old, new);
    succeeds(folder.path(), &format!("explain {layer} --plan old.json"));
    succeeds(folder.path(), "report --plan old.json --out r");
}
