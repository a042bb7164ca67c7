//! `compare` and `bench`: what is faster, and on one shape.

use super::*;

/// The rows of a comparison, by name.
fn row<'a>(comparison: &'a Value, name: &str) -> &'a Value {
    let found = list(comparison, "problems").iter().find(|row| text(row, "name") == name);
    found.unwrap_or_else(|| panic!("{name} in {comparison}"))
}

/// A plan whose candidates of one problem take so many times as long.
fn slower(plan: &Value, place: usize, factor: f64) -> Value {
    let mut plan = plan.clone();
    for candidate in list_mut(&mut list_mut(&mut plan, "measurements")[place], "candidates") {
        for key in ["median", "low", "high"] {
            candidate["time_us"][key] = json!(number(&candidate["time_us"], key) * factor);
        }
    }
    plan
}

#[test]
fn recordings_of_the_same_are_the_same_and_one_slower_problem_fails_the_gate() {
    let (plan, _) = &*BLOCK_PLAN;
    let folder = Folder::with_plan(plan);
    let same = folder.prints_json("compare p.json p.json --fail-above 3% --json");
    assert_eq!(same["is_slower"], json!(false));
    let comparison = &list(&same, "comparisons")[0];
    assert!(list(comparison, "problems").iter().all(|row| text(row, "verdict") != "slower"));
    assert_eq!(number(&comparison["pace"], "ratio"), 1.0);

    // The problem of the step that takes the most.
    let steps = list(plan, "steps").iter().filter(|step| step["isolated_us"].is_number());
    let slowest = steps.max_by(|a, b| number(a, "isolated_us").total_cmp(&number(b, "isolated_us")));
    let name = text(slowest.expect("a step"), "problem");
    let place = list(plan, "measurements").iter().position(|record| text(record, "problem") == name);
    folder.write("slow.json", slower(plan, place.expect("a problem"), 2.0).to_string());
    let ran = folder.run("compare p.json slow.json --fail-above 3% --json --html page.html");
    assert_eq!(ran.status, Some(1), "{}", ran.err);
    let found: Value = serde_json::from_str(&ran.out).expect("JSON");
    let comparison = &list(&found, "comparisons")[0];
    assert_eq!(text(row(comparison, name), "verdict"), "slower", "{comparison}");
    let others = list(comparison, "problems").iter().filter(|row| text(row, "name") != name);
    assert!(others.clone().count() > 1 && others.clone().all(|row| text(row, "verdict") != "slower"));
    let page = String::from_utf8(folder.read("page.html")).expect("text");
    assert_contains(&page, &["<svg", name, "2.000"]);
    folder
        .prints("compare slow.json p.json --fail-above 3%", &["faster", "B is not slower by more than 3.0%"]);
}

#[test]
fn folders_are_compared_plan_by_plan() {
    let folder = Folder::with_plan(&SMALL_PLAN);
    for name in ["a", "b"] {
        fs::create_dir_all(folder.at(name).join("machine")).expect("a folder");
        fs::copy(folder.at("p.json"), folder.at(name).join("machine/plan.json")).expect("a copy");
    }
    let mut other = SMALL_PLAN.clone();
    other["batch"] = json!(7);
    folder.write("b/machine/other.json", other.to_string());
    let out = folder.succeeds("compare a b");
    assert_contains(&out, &["conv2d_bn of n1h9w9c16k24r3s3", "A has no plan for", "batch 7"]);
    folder.refuses("compare a p.json", &["p.json", "expected a folder"]);
    fs::create_dir(folder.at("empty")).expect("a folder");
    folder.refuses("compare a empty", &["empty", "found no plan and no log"]);
    folder.refuses("compare p.json missing.json", &["missing.json"]);
}

#[test]
fn two_programs_run_in_turn_step_by_step() {
    let folder = Folder::with_plan(&SMALL_PLAN);
    let program = env!("CARGO_BIN_EXE_tuner-for-tests");
    let of = format!("{program} {program} --live --rounds 12");
    let found = folder.prints_json(&format!("compare {of} --plan p.json --json"));
    let comparison = &list(&found, "comparisons")[0];
    assert_eq!(comparison["rounds"], json!(12));
    let network = &comparison["network"];
    let [value, low, high] = [0, 1, 2].map(|i| network["ratio"][i].as_f64().expect("a number"));
    assert!(low <= value && value <= high && low > 0.0, "{network}");
    let problem = text(&list(&SMALL_PLAN, "steps")[0], "problem");
    assert!(number(&row(comparison, problem)["a"], "us") > 0.0);
    // Two plans are run by this program.
    folder.prints("compare p.json p.json --live --rounds 12", &["The whole network:", problem]);

    folder.refuses(&format!("compare {program} p.json --live"), &["p.json", "found no program"]);
    folder.refuses(&format!("compare {program} {program}"), &["is a program, which --live runs"]);
    folder.refuses("compare p.json p.json --live --threads 2", &["--threads", "the plans have their own"]);
    folder.refuses("compare p.json p.json --rounds 12", &["--live"]);
    folder.refuses("compare p.json p.json --fail-above x", &["expected a percentage"]);
}

#[cfg(unix)]
#[test]
fn a_program_that_fails_or_prints_something_else_is_named_with_what_it_says() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::with_plan(&SMALL_PLAN);
    let program = env!("CARGO_BIN_EXE_tuner-for-tests");
    for (name, script, part) in [
        ("fails", "echo 'error: no such thing' >&2; exit 2", "no such thing"),
        ("talks", "echo hello", "another output"),
        ("empty", "echo '{\"latency_ms\":[],\"disturbed\":0,\"model\":\"m\",\"batch\":1}'", "no latency"),
    ] {
        let path = folder.write(name, format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
        folder.refuses(&format!("compare {} {program} --live --plan p.json", path.display()), &[name, part]);
    }
}

#[test]
fn a_shape_is_benched_with_every_kernel_that_takes_it() {
    let folder = Folder::new();
    let found = folder.prints_json("bench --shape n1h9w9c16k24r3s3 --budget 1 --threads 1 --json");
    let shape = &list(&found, "shapes")[0];
    let candidates = list(shape, "candidates");
    let kernels: std::collections::BTreeSet<&str> = candidates.iter().map(|c| text(c, "kernel")).collect();
    assert!(kernels.len() > 3, "{kernels:?}");
    assert!(candidates.iter().all(|c| number(c, "rel_error") < 1e-3));
    assert_eq!(number(shape, "multiply_adds"), (9 * 9 * 24 * 16 * 9) as f64);
    let kernel = kernels.first().expect("a kernel");
    let out =
        folder.succeeds(&format!("bench --shape n1h9w9c16k24r3s3 --kernel {kernel} --budget 1 --threads 1"));
    assert_contains(&out, &[kernel, "fastest: ", "GFLOP/s"]);

    folder.write("list.txt", "n1h5w5c8k8r1s1 # a\nn1h5w5c8k8r3s3\n");
    let found = folder.prints_json("bench --shapes list.txt --budget 1 --threads 1 --json");
    assert_eq!(list(&found, "shapes").len(), 2);
    folder.refuses("bench", &["--shape"]);
    folder.refuses("bench --shape n1h5w5c8k8r1s1 --kernel none", &["--kernel", "`none`"]);
    let refused = "bench --shape n1h5w5c8k8r1s1 --kernel winograd_plain --threads 1";
    folder.refuses(refused, &["--kernel", "does not take"]);
}
