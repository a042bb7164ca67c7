//! What only shows: list, shapes, explain, report, help.

use super::*;

#[test]
fn list_has_every_kernel_and_says_what_is_missing() {
    let folder = Folder::new();
    let out = folder.succeeds("list --isa plain");
    for row in kernels::table() {
        let line = out.lines().find(|line| line.split_whitespace().next() == Some(row.id));
        let line = line.unwrap_or_else(|| panic!("{} is not in\n{out}", row.id));
        let (plain, wider) = (row.id.ends_with("_plain"), row.id.contains("_avx"));
        assert!(!(plain && line.contains("no: ") || wider && line.ends_with("yes")), "{line}");
    }
}

#[test]
fn shapes_are_those_of_the_paper() {
    let folder = Folder::new();
    let out = folder.succeeds("shapes");
    let last = out.lines().last().expect("lines");
    assert_eq!(last, "94 convolutions, 43 distinct problems, 5711.2 M multiply-adds");
    assert_contains(&out, &["n1h17w17c192k192r1s7"]);
    folder.prints("shapes --model mixed0 --batch 2", &["n2h35w35c192k64r1s1"]);
    folder.refuses("shapes --model nope", &["`nope`"]);
    let parts = ["n2h9w9c16k24r3s3", "1 convolution, 1 distinct problem"];
    folder.prints("shapes --model conv2d_bn --shape n2h9w9c16k24r3s3", &parts);
    folder.refuses("shapes --model conv2d_bn", &["--shape is missing"]);
    folder.refuses("shapes --shape n2h9w9c16k24r3s3", &["--shape", "conv2d_bn"]);
    folder.prints("shapes --size 75x100", &["n1h75w100c3k32r3s3u2"]);
    folder.refuses("shapes --size 74x100", &["sides from 75"]);
    folder.refuses("shapes --model mixed0 --size 99x99", &["only a whole network"]);
}

#[test]
fn a_plan_is_explained_and_reported() {
    let folder = Folder::with_plan(&BLOCK_PLAN.0);
    let step = &BLOCK_PLAN.0["steps"][0];
    let layer = step["layers"][0].as_str().expect("a layer");
    let parts = [text(step, "kernel"), text(step, "problem"), "because"];
    folder.prints(&format!("explain {layer} --plan p.json"), &parts);
    folder.refuses("explain nothing --plan p.json", &["p.json", "`nothing`", layer]);
    folder.refuses(&format!("explain {layer}"), &["no plan"]);

    let out = folder.succeeds("report --plan p.json --out new/report");
    assert_eq!(out.lines().count(), 1, "{out}");
    let page = fs::read_to_string(folder.at("new/report/report.md")).expect("a page");
    assert_contains(&page, &["mixed10", ".svg"]);
    let page = fs::read_to_string(folder.at("new/report/index.html")).expect("a page");
    assert_contains(&page, &["mixed10", "<svg ", "report.json"]);
    folder.refuses("report --plan p.json --out p.json", &["p.json"]);
    folder.refuses("report --plan p.json", &["--out"]);
}

#[test]
fn help_and_version_are_results() {
    let folder = Folder::new();
    for args in ["--help", "--version", "run --help", "help check"] {
        let Ran { status, out, err } = folder.run(args);
        assert_eq!((status, err.as_str()), (Some(0), ""), "{args}");
        assert!(!out.is_empty(), "{args}");
    }
}

#[test]
fn a_closed_standard_output_changes_neither_results_nor_status() {
    let folder = Folder::new();
    let run = format!("{RUN_BLOCK} --threads 1 --output y.npy");
    for args in ["list", "shapes", "--help", "check --shape n1h5w5c4k8r1s1", &run] {
        let mut command = folder.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(!err.contains("panicked") && !err.contains("error"), "{args}: {err}");
        assert_eq!(output.status.code(), Some(0), "{args}: {err}");
    }
    assert!(folder.at("y.npy").exists());
}

#[test]
fn the_peak_is_measured_for_each_tier_and_number_of_threads() {
    let folder = Folder::new();
    let peaks = |args: &str| list(&folder.prints_json(&format!("peak --json {args}")), "peaks").clone();
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
    assert!(folder.succeeds("peak --threads 1").contains(&tier));
    folder.refuses("peak --threads 0", &["--threads"]);
}
