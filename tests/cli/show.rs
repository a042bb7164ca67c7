//! What only shows: list, shapes, explain, report, help.

use super::*;

#[test]
fn list_has_every_kernel_and_says_what_is_missing() {
    let folder = folder();
    let out = succeeds(folder.path(), "list --isa plain");
    for row in kernels::table() {
        let line = out.lines().find(|line| line.split_whitespace().next() == Some(row.id));
        let line = line.unwrap_or_else(|| panic!("{} is not in\n{out}", row.id));
        let (plain, wider) = (row.id.ends_with("_plain"), row.id.contains("_avx"));
        assert!(!(plain && line.contains("no: ") || wider && line.ends_with("yes")), "{line}");
    }
}

#[test]
fn shapes_are_those_of_the_paper() {
    let folder = folder();
    let out = succeeds(folder.path(), "shapes");
    let last = out.lines().last().expect("lines");
    assert_eq!(last, "94 convolutions, 43 distinct problems, 5711.2 M multiply-adds");
    assert!(out.contains("n1h17w17c192k192r1s7"), "{out}");
    let two = succeeds(folder.path(), "shapes --model mixed0 --batch 2");
    assert!(two.contains("n2h35w35c192k64r1s1"), "{two}");
    refuses(folder.path(), "shapes --model nope", &["`nope`"]);
}

#[test]
fn a_plan_is_explained_and_reported() {
    let folder = folder();
    write(folder.path(), "p.json", BLOCK_PLAN.0.to_string());
    let step = &BLOCK_PLAN.0["steps"][0];
    let [layer, kernel, problem] =
        [&step["layers"][0], &step["kernel"], &step["problem"]].map(|v| v.as_str().expect("text"));
    let out = succeeds(folder.path(), &format!("explain {layer} --plan p.json"));
    assert!(out.contains(kernel) && out.contains(problem) && out.contains("because"), "{out}");
    refuses(folder.path(), "explain nothing --plan p.json", &["p.json", "`nothing`", layer]);
    refuses(folder.path(), &format!("explain {layer}"), &["no plan"]);

    let out = succeeds(folder.path(), "report --plan p.json --out new/report");
    assert_eq!(out.lines().count(), 1, "{out}");
    let page = std::fs::read_to_string(folder.path().join("new/report/report.md")).expect("a page");
    assert!(page.contains("mixed10") && page.contains(".svg"), "{page}");
    refuses(folder.path(), "report --plan p.json --out p.json", &["p.json"]);
    refuses(folder.path(), "report --plan p.json", &["--out"]);
}

#[test]
fn help_and_version_are_results() {
    let folder = folder();
    for args in ["--help", "--version", "run --help", "help check"] {
        let Ran { status, out, err } = tuner(folder.path(), args);
        assert_eq!((status, err.as_str()), (Some(0), ""), "{args}");
        assert!(!out.is_empty(), "{args}");
    }
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let folder = folder();
    for args in
        ["list", "shapes", "--help", "check --shape n1h5w5c4k8r1s1", "run --model mixed10 --threads 1"]
    {
        let mut command = command(folder.path(), args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(!err.contains("panicked") && !err.contains("error"), "{args}: {err}");
        assert_eq!(output.status.code(), Some(0), "{args}: {err}");
    }
}

#[test]
fn the_peak_is_measured_for_each_tier_and_number_of_threads() {
    let folder = folder();
    let peaks = |args: &str| {
        let out = succeeds(folder.path(), &format!("peak --json {args}"));
        assert_eq!(out.lines().count(), 1, "{out}");
        serde_json::from_str::<Value>(&out).expect("JSON")["peaks"].as_array().expect("a list").clone()
    };
    let plain = peaks("--threads 3 --isa plain");
    let threads: Vec<_> = plain.iter().map(|peak| peak["threads"].as_u64().expect("a number")).collect();
    assert_eq!(threads, [1, 2, 3]);
    for peak in &plain {
        assert_eq!(peak["isa"], "plain");
        // Any core of the last decades does some, and none does a hundred times as much.
        assert!(peak["gflops_a_core"].as_f64().is_some_and(|g| (0.1..1000.0).contains(&g)), "{peak}");
    }
    let tier = kernels::cpu::Cpu::detect().tier().to_string();
    assert!(peaks("--threads 1").iter().any(|peak| peak["isa"] == tier.as_str()));
    assert!(succeeds(folder.path(), "peak --threads 1").contains(&tier));
    refuses(folder.path(), "peak --threads 0", &["--threads"]);
}
