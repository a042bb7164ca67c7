//! Tuning, and the plan it writes.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::*;

#[test]
fn tuning_writes_a_plan_that_states_everything_and_prints_tables() {
    let (plan, Ran { status, out, err }) = &*BLOCK_PLAN;
    assert_eq!(*status, Some(0), "{err}");
    for key in ["schema", "model", "batch", "threads", "max_rel_error", "machine", "tool"] {
        assert!(!plan[key].is_null(), "`{key}` is missing");
    }
    assert_eq!((&plan["model"], &plan["batch"], &plan["threads"]), (&"mixed10".into(), &1.into(), &1.into()));
    assert_eq!(plan["max_rel_error"], 1e-5);
    assert!(number(plan, "rel_error") <= 1e-5);
    assert!(number(plan, "measured_ms") > 0.0);
    let steps = list(plan, "steps");
    let mut layers: Vec<&Value> = steps.iter().flat_map(|step| list(step, "layers")).collect();
    layers.sort_by_key(|layer| layer.as_str());
    layers.dedup();
    assert_eq!(layers.len(), 10, "every layer once: {layers:?}");
    for step in steps {
        assert!(!list(step, "layers").is_empty());
        assert!(kernels::entry(text(step, "kernel")).is_some(), "{step}");
        assert!(step["tuning"].as_object().expect("tuning").values().all(Value::is_u64), "{step}");
        assert!(step["formats"]["in"].is_string() && step["formats"]["out"].is_string(), "{step}");
        assert_eq!(step["threads"], 1);
        let times = ["low", "median", "high"].map(|key| number(&step["time_us"], key));
        assert!(0.0 < times[0] && times.is_sorted(), "{step}");
        assert!(number(step, "rel_error") < 1e-4, "{step}");
        assert_contains(out, &[text(step, "problem")]);
    }
    assert_contains(out, &["whole network", "against f64", "the steps that block variants change take"]);
    for key in ["weights", "activations"] {
        assert!(plan["memory_bytes"][key].as_u64().expect(key) > 1 << 20, "{key}");
    }
    let is_warning = |line: &str| line.starts_with("warning: the network takes");
    assert!(err.lines().all(is_warning), "progress shows on terminals only: {err}");
    assert_contains(out, &["in the network: ", "noise: the machine was "]);
    // Only a choice step by step says what the whole should take, and another may be the fastest.
    assert_eq!(out.contains("predicted"), is_by_step(plan), "{out}");
    assert_eq!(plan["predicted_ms"].as_f64().is_some_and(|ms| ms > 0.0), is_by_step(plan));
    let clock: Vec<f64> = serde_json::from_value(plan["noise"]["clock_ghz"].clone()).expect("three numbers");
    assert!(clock.is_sorted() && clock[0] > 0.1 && clock[2] < 10.0, "{clock:?}");
    let conditions = &plan["measurements"][0]["conditions"];
    assert!(number(conditions, "clock_ghz") > 0.1, "{conditions}");
    assert!(conditions["peak_gflops"].as_object().is_some_and(|peaks| peaks.len() == 1), "{conditions}");
    let noise = |key: &str| number(&plan["noise"], key);
    assert!(noise("noise_floor") >= 0.0 && (0.01..=0.02).contains(&noise("tie")));
    assert!((0.0..=1.0).contains(&noise("disturbed")) && (0.0..=1.0).contains(&noise("steal_share")));
}

/// Whether the fastest network was chosen step by step, not as a whole.
fn is_by_step(plan: &Value) -> bool {
    ["tuned", "plain blocks"].contains(&text(&plan["networks"][0], "network"))
}

#[test]
fn in_network_times_hold_the_chosen_candidate_and_the_prediction_adds_up() {
    let (plan, _) = &*BLOCK_PLAN;
    let steps = list(plan, "steps");
    if !is_by_step(plan) {
        for step in steps {
            assert!(step["predicted_us"].is_null() && number(step, "network_us") > 0.0, "{step}");
        }
        return;
    }
    let mut sum = 0.0;
    let tie = plan["noise"]["tie"].as_f64().expect("a tie");
    for step in steps {
        let number = |key: &str| step[key].as_f64().unwrap_or_else(|| panic!("{key} of {step}"));
        assert!(number("isolated_us") > 0.0 && number("network_us") > 0.0);
        sum += number("predicted_us");
        let in_network = list(step, "in_network");
        let is_chosen = |c: &&Value| ["kernel", "tuning", "formats"].iter().all(|key| c[key] == step[key]);
        let Some(chosen) = in_network.iter().find(is_chosen) else {
            // A loaded machine may leave no time for it.
            assert!(in_network.is_empty(), "{step} was not timed in the network");
            assert_eq!(number_in(step, "time_us"), number("isolated_us"));
            continue;
        };
        assert_eq!(chosen["time_us"], step["time_us"]);
        let median = |c: &&Value| c["time_us"]["median"].as_f64().expect("a time");
        let fastest = in_network.iter().min_by(|a, b| median(a).total_cmp(&median(b))).expect("a candidate");
        // It is as fast as the fastest, but for a tie: the bound on the error is far away.
        let allowed = median(&fastest) * (1.0 + tie) + 1e-3;
        assert!(median(&chosen) <= allowed, "the fastest is {fastest}: {step}");
    }
    sum += plan["overhead_us"].as_f64().expect("a time");
    let predicted = plan["predicted_ms"].as_f64().expect("a time");
    assert!((sum / 1e3 - predicted).abs() < 1e-3 * predicted, "{sum} us, {predicted} ms");
}

fn number_in(step: &Value, key: &str) -> f64 {
    step[key]["median"].as_f64().expect("a median")
}

#[test]
fn tuning_is_what_happens_without_a_command() {
    let folder = Folder::new();
    let tail = format!("{SMALL} --budget 1 --threads 1 --batch 2");
    folder.succeeds(&format!("{tail} --results a"));
    folder.succeeds(&format!("tune {tail} --results b"));
    let plan = |results: &str| {
        let path = find(&folder.at(results), "json").expect("a plan");
        (path.file_name().expect("a name").to_owned(), folder.json(path.to_str().expect("text")))
    };
    let ((name, plain), (other_name, other)) = (plan("a"), plan("b"));
    assert_eq!(name, other_name);
    for key in ["model", "shape", "batch", "threads", "max_rel_error", "machine"] {
        assert_eq!(plain[key], other[key]);
    }
    assert_eq!(plain["batch"], 2);
}

#[test]
fn the_named_plan_is_replaced_and_nothing_else_is_written_but_the_log() {
    let folder = Folder::new();
    let old = folder.write("p.json", "old");
    fs::hard_link(&old, folder.at("same")).expect("a link");
    folder.succeeds(&format!("tune {SMALL} --budget 1 --threads 1 --out p.json"));
    assert_eq!(folder.json("p.json")["schema"], "convolution-plan-2");
    assert_eq!(folder.read("same"), b"old");
    assert_eq!(walk(folder.0.path()).len(), 3);
}

#[test]
fn a_plan_that_cannot_be_written_is_refused_before_measuring() {
    let folder = Folder::new();
    folder.write("file", "");
    let start = Instant::now();
    for out in ["nowhere/p.json", ".", "file/p.json"] {
        folder.refuses(&format!("tune {SMALL} --budget 600 --out {out}"), &[out, "cannot write"]);
    }
    folder.refuses(&format!("tune {SMALL} --budget 600 --results file"), &["file"]);
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn wrong_arguments_are_refused() {
    let folder = Folder::new();
    for (args, part) in [
        ("", "--model"),
        ("frobnicate", "frobnicate"),
        ("--model", "--model"),
        ("--model nope", "`nope`"),
        ("--model conv2d_bn", "--shape"),
        ("--model mixed10 --shape n1h9w9c16k24r3s3", "--shape"),
        ("--model mixed10 --threads 0", "--threads"),
        ("--model mixed10 --batch 0", "--batch"),
        ("--model mixed10 --batch x", "--batch"),
        ("--model mixed10 --budget 0", "--budget"),
        ("--model mixed10 --max-memory 0", "--max-memory"),
        ("--model mixed10 --max-rel-error nan", "--max-rel-error"),
        ("--model mixed10 --max-rel-error 0", "--max-rel-error"),
        ("--model mixed10 --precision f16", "--precision"),
        ("--model mixed10 --precision f32 --max-rel-error 1", "--precision"),
        ("--model mixed10 --isa sse9", "sse9"),
        ("--model mixed10 --weights nothing.h5", "nothing.h5"),
    ] {
        folder.refuses(args, &[part]);
    }
}

/// The number before a unit or at the end of a refusal.
fn number_after(err: &str, words: &str) -> f64 {
    let (_, rest) = err.split_once(words).unwrap_or_else(|| panic!("`{words}` is not in {err}"));
    rest.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{err}"))
}

#[test]
fn an_error_bound_is_kept_or_refused_with_the_best_possible() {
    let folder = Folder::new();
    let tune = "tune --model mixed10 --budget 2 --threads 1 --out p.json --max-rel-error";
    let refused = folder.refuses(&format!("{tune} 1e-12"), &[]);
    assert!(!folder.at("p.json").exists());
    // The best is printed with two digits.
    let bound = 1.05 * number_after(&refused, "the best reaches ");
    folder.succeeds(&format!("{tune} {bound:e}"));
    let plan = folder.json("p.json");
    assert!(number(&plan, "rel_error") <= bound, "{} {bound}", plan["rel_error"]);
    assert_eq!(plan["max_rel_error"], bound);
}

#[test]
fn a_memory_bound_is_kept_by_the_process_or_refused_with_the_least_possible() {
    let folder = Folder::new();
    let tune = "tune --model mixed10 --budget 2 --threads 1 --out p.json --max-memory";
    let least = |refused: &str| number_after(refused, "a process takes ") as u64;
    // Before anything is measured, and then what the kernels need.
    let before = least(&folder.refuses(&format!("{tune} 1"), &[]));
    let results = fs::read_dir(folder.at("bench-results")).expect("a folder").count();
    assert_eq!(results, 0, "nothing is measured for a bound that cannot be kept");
    let Ran { status, err, .. } = folder.run(&format!("{tune} {before}"));
    // Each tuning knows what it has measured itself, so that its least may be a MiB off.
    let least = if status == Some(0) { before } else { least(&err) + 1 };
    assert!((before..=before + before / 10).contains(&least), "{before} MiB before, {least} after: {err}");
    folder.succeeds(&format!("{tune} {least}"));
    let plan = folder.json("p.json");
    assert_eq!(plan["max_memory_mib"], least);
    #[cfg(target_os = "linux")]
    {
        // Images of 60 times half a MiB do not add up, nor do batches of them.
        let shape = [60, 8, 8, 2048];
        folder.npy("many.npy", "<f4", &shape, &vec![0; 4 * shape.iter().product::<usize>()]);
        let run = |args: &str| peak_kib(folder.command(&format!("{RUN_BLOCK} --plan p.json {args}")));
        let many = run("--input many.npy --output y.npy");
        let peak = run("--repeat 20");
        assert!(peak.max(many) <= least << 10, "{peak} and {many} KiB, the bound is {least} MiB");
        let weights = plan["memory_bytes"]["weights"].as_u64().expect("bytes");
        assert!(peak > weights >> 10, "{peak} KiB can not be the peak of {weights} bytes of weights");
    }
}

/// The most memory that a process has had, in KiB, seen while it runs. What the system counts for a
/// process that has ended includes what its parent had when it was started.
#[cfg(target_os = "linux")]
pub fn peak_kib(mut command: Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("VmHWM:"));
        let now = lines.find_map(|size| size.split_whitespace().next()?.parse().ok());
        peak = peak.max(now.unwrap_or(0));
        if let Some(status) = child.try_wait().expect("a child") {
            assert!(status.success());
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_micros(500));
    }
}

#[test]
fn the_error_is_measured_on_the_images_that_are_given() {
    let folder = Folder::new();
    let tune = format!("tune {SMALL} --threads 1 --budget 1 --out p.json");
    let error = |args: &str| -> f64 {
        folder.succeeds(&format!("{tune} {args}"));
        number(&folder.json("p.json"), "rel_error")
    };
    let [h, w, c] = SMALL_INPUT;
    // Of zeros there is nothing to round but the bias.
    folder.npy_f32("zeros.npy", &[2, h, w, c], &vec![0.0; 2 * h * w * c]);
    assert!(error("") > error("--input zeros.npy"));
    folder.refuses(&format!("{tune} --input none.npy"), &["none.npy"]);
    folder.refuses(&format!("{tune} --image a.jpg"), &["--image", "takes [9, 9, 16]"]);
}

#[test]
fn the_convolutions_of_a_list_are_tuned_without_a_model_and_rules_are_priced() {
    let folder = Folder::new();
    folder.write("two.txt", "n1h9w9c16k24r3s3 *2 # twice\n\nn1h9w9c16k32r1s1\n");
    let out = folder.succeeds("--shapes two.txt --budget 2 --threads 1 --results r --out out.json");
    let rules = ["winograd if valid", "direct always"];
    assert_contains(&out, &["n1h9w9c16k24r3s3", "3 convolutions, 2 distinct", rules[0], rules[1]]);
    let results = folder.json("out.json");
    assert_eq!(results["schema"], "convolution-plan-2");
    for rule in list(&results, "rules") {
        let [isolated, fastest] = ["isolated_us", "fastest_us"].map(|key| number(rule, key));
        assert!(isolated > 0.0 && fastest > 0.0, "{rule}");
        // The others may choose the baseline, which no plan may.
        if ["direct always", "op count"].contains(&text(rule, "rule")) {
            assert!(isolated >= fastest, "{rule}");
        }
    }
    folder.write("wrong.txt", "n1h9w9c16k24r3s3\nn1h9w9\n");
    folder.refuses("--shapes wrong.txt", &["wrong.txt", "line 2"]);
    folder.refuses("--shapes nowhere.txt", &["nowhere.txt"]);
    folder.refuses("--shapes two.txt --model mixed0", &["--shapes", "--model"]);
    // Lists of one name in two folders have results of their own.
    for name in ["la", "lb"] {
        fs::create_dir(folder.at(name)).expect("a folder");
        folder.write(&format!("{name}/l.txt"), "n1h9w9c16k32r1s1\n");
        folder.succeeds(&format!("--shapes {name}/l.txt --budget 1 --threads 1 --results r2"));
    }
    let is_result = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "json");
    assert_eq!(walk(&folder.at("r2")).iter().filter(is_result).count(), 2);
}

#[test]
fn the_pareto_list_of_time_and_error_has_no_plan_that_beats_another() {
    let folder = Folder::new();
    let args = "tune --model mixed10 --threads 1 --budget 2 --precision bf16 --pareto --out p.json";
    folder.prints(args, &["steps below f32"]);
    let plan = folder.json("p.json");
    let points = list(&plan, "pareto");
    let of = |point: &Value| (number_in(point, "time_us"), number(point, "rel_error"));
    assert!(!points.is_empty());
    for pair in points.windows(2) {
        let ((fast, loose), (slow, exact)) = (of(&pair[0]), of(&pair[1]));
        assert!(fast <= slow && loose > exact, "{points:?}");
    }
    assert!(of(points.last().expect("a point")).1 < 1e-5, "the last is in f32: {points:?}");
}

#[test]
fn an_exhaustive_search_measures_the_regret_of_the_guided_one() {
    let folder = Folder::new();
    let args = format!("tune {SMALL} --threads 1 --budget 1 --exhaustive --out p.json --results r");
    let out = folder.succeeds(&args);
    let plan = folder.json("p.json");
    let problem = &plan["measurements"][0];
    let number = |key: &str| problem["search"][key].as_u64().expect(key) as usize;
    let (tried, offered) = (number("evaluated"), number("space"));
    assert!(0 < tried && tried <= offered, "{tried} of {offered}");
    let pair = |c: &Value| (c["kernel"].to_string(), c["tuning"].to_string());
    assert_eq!(list(problem, "candidates").iter().map(pair).collect::<HashSet<_>>().len(), offered);
    let regret = problem["search"]["regret"].clone();
    let [regret, low, high]: [f64; 3] = serde_json::from_value(regret).expect("three numbers");
    assert!(low <= regret && regret <= high && regret > 0.5, "{low} <= {regret} <= {high}");
    assert_contains(&out, &[&format!("the search has tried {tried} of {offered} tunings")]);
    let parts = ["all of them were tried afterwards", "of peak", "GHz", "at its peak"];
    folder.prints("explain conv2d_bn.conv --wide --plan p.json", &parts);
}
