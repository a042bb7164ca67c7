//! Reports on small plans, right and odd.

use std::collections::{BTreeMap, HashSet};

use engine::plan::{CandidateRecord, ParetoPoint, Plan, PlanStep, TimeUs};
use serde_json::{Value, json};

use super::files::{files, write};

const CONV: &str = "n1h35w35c192k64r1s1";

fn of_json<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a part of a plan")
}

fn around(median: f64) -> TimeUs {
    TimeUs { median, low: median * 0.9, high: median * 1.2 }
}

fn candidate(kernel: &str, order: usize, median: f64) -> CandidateRecord {
    of_json(json!({
        "kernel": kernel, "tuning": { "order": order }, "time_us": around(median), "samples": 3,
        "rel_error": 1e-7, "rms_error": 1e-8, "bytes": 4096, "multiply_adds": 15_052_800, "outcome": "measured",
    }))
}

/// One that writes bf16.
fn rounding(mut candidate: CandidateRecord) -> CandidateRecord {
    candidate.id.formats.dst = "bf16:nhwc".to_string();
    candidate
}

pub fn step(layer: &str, problem: &str, kernel: &str, median: f64) -> PlanStep {
    of_json(json!({
        "layers": [layer], "problem": problem, "kernel": kernel, "tuning": { "order": 0 },
        "formats": { "in": "f32:nhwc", "out": "f32:nhwc" }, "threads": 1, "time_us": around(median), "gflops": 1.0,
        "runner_up": { "kernel": "unfused_avx512", "tuning": {}, "time_us": median * 1.2 },
        "reason": { "faster": { "percent": 19.9 } },
    }))
}

/// Two convolutions of one problem and a pool.
pub fn plan() -> Plan {
    let wrong = json!({ "wrong": { "error": 1.0, "tolerance": 0.0 } });
    of_json(json!({
        "schema": engine::plan::SCHEMA, "model": "mixed0", "batch": 1, "threads": 1,
        "max_rel_error": 1e-5, "rel_error": 1e-7, "tool": "tuner", "created": 0,
        "predicted_ms": 0.7, "measured_ms": 0.8,
        "machine": {
            "cpu": "CPU <&\"'> | A", "signature": [6, 1, 2], "isa": "avx512", "cores": 2,
            "caches_kib": [32, 1024, 0], "os": "linux-x86_64",
        },
        "networks": [
            { "network": "tuned", "time_us": around(800.0) },
            { "network": "rule: direct always", "time_us": around(900.0) },
        ],
        "block_variants": [{
            "block": "mixed0", "variant": "fuse_siblings", "reason": { "saves": { "percent": 14.3 } },
            "alternatives": [
                { "variant": "plain", "time_us": 700.0 },
                { "variant": "fuse_siblings", "time_us": 600.0 },
                { "variant": "conv_before_pool", "time_us": 650.0 },
            ],
        }],
        "steps": [
            step("mixed0.branch1x1", CONV, "direct_avx512", 300.0),
            step("mixed0.branch<5>&x_1", CONV, "direct_avx512", 300.0),
            step("mixed0.pool", "average:n1h35w35c192r3s3", "pool_avx512", 100.0),
        ],
        "measurements": [{
            "problem": CONV,
            "candidates": [
                candidate("direct_avx512", 0, 300.0),
                candidate("unfused_avx512", 0, 360.0),
                rounding(candidate("direct_avx512", 1, 400.0)),
                CandidateRecord { time_us: None, outcome: of_json(wrong), ..candidate("winograd_avx512", 0, 1.0) },
            ],
            "rules": { "direct always": 0 },
            "excluded": { "winograd_plain": "stands aside <for now>" },
            "conditions": { "clock_ghz": 3.0, "core_to_core_ns": 21.0, "peak_gflops": { "avx512": 100.0 } },
            "search": { "evaluated": 3, "space": 9 },
        }],
    }))
}

/// Draws a report into an empty folder and gives its files by name, all pictures checked.
fn drawn(plan: &Plan) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("deep/report");
    write(plan, &[], &out).expect("a report");
    let paths = std::fs::read_dir(&out).expect("the folder").map(|entry| entry.expect("an entry").path());
    let named = paths.map(|path| (path.file_name().expect("a name").display().to_string(), path));
    let files = named.map(|(name, path)| (name, std::fs::read_to_string(path).expect("text"))).collect();
    check_all(&files);
    files
}

/// Pictures are XML. The page has every chart of the JSON, no link that leads out, and no number that
/// is none.
fn check_all(files: &BTreeMap<String, String>) {
    check_pictures(files);
    let page = &files["index.html"];
    let no_names = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for out in ["http://", "https://", "//cdn", "@import", "url("] {
        assert!(!no_names.contains(out), "{out} is in the page");
    }
    let words: HashSet<&str> = page.split(|c: char| !c.is_alphanumeric()).collect();
    for none in ["NaN", "nan", "inf", "Infinity", "undefined"] {
        assert!(!words.contains(none), "{none} is in the page");
    }
    let json: Value = serde_json::from_str(&files["report.json"]).expect("JSON");
    let charts = json["charts"].as_array().expect("charts");
    for chart in charts {
        let of = |field: &str| chart[field].as_str().expect("a text");
        assert!(page.contains(&format!("id=\"{}\"", of("id"))), "{} is not in the page", of("id"));
        assert!(page.contains(&files[of("svg")]), "{} is not in the page", of("svg"));
        let rows = chart["rows"].as_array().expect("rows").len();
        let mut csv = csv::Reader::from_reader(files[of("csv")].as_bytes());
        let lines = csv.records().collect::<Result<Vec<_>, _>>().expect("rows");
        assert_eq!(lines.len(), rows, "{}", of("csv"));
    }
    assert_eq!(page.matches("<svg ").count(), charts.len());
}

fn check_pictures(files: &BTreeMap<String, String>) {
    files.iter().filter(|(name, _)| name.ends_with(".svg")).for_each(|(name, text)| check_xml(name, text));
}

pub fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

/// Every tag is closed in order, no coordinate is no number, and every `&` begins an entity.
fn check_xml(name: &str, text: &str) {
    let mut open = Vec::new();
    for part in text.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap_or_else(|| panic!("{name}: `{part}` has no end"));
        for rest in part.split('&').skip(1) {
            let known = ["lt;", "gt;", "amp;", "quot;", "apos;"];
            assert!(known.iter().any(|entity| rest.starts_with(entity)), "{name}: &{rest}");
        }
        assert!(!tag.contains("NaN") && !tag.contains("inf"), "{name}: <{tag}>");
        let word = tag.split_whitespace().next().unwrap_or_default();
        match word.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "{name}"),
            None if tag.starts_with(['?', '!']) || tag.ends_with('/') => {}
            None => open.push(word),
        }
    }
    assert!(open.is_empty(), "{name}: {open:?} not closed");
}

#[test]
fn a_plan_becomes_a_page_with_its_pictures() {
    let files = drawn(&plan());
    let names: Vec<&str> = files.keys().map(String::as_str).filter(|name| !name.ends_with(".csv")).collect();
    let pictures =
        ["contest.svg", "conv-n1h35w35c192k64r1s1.svg", "network.svg", "roofline.svg", "variants.svg"];
    let pages = ["index.html", "report.json", "report.md"];
    let mut expected = [&pictures[..], &pages].concat();
    expected.sort_unstable();
    assert_eq!(names, expected);
    let parts = [
        "# mixed0 on CPU &lt;&amp;\"'&gt; \\| A",
        "![The steps of the network in order](network.svg)",
        "](conv-n1h35w35c192k64r1s1.svg)",
        "| direct | 2 | 0.600 | 85.7% |",
        "+20.0%",
        "| mixed0 | 700 | 600 | 650 |  | fuse\\_siblings | -14.3% |",
        "take 600 µs, 700 µs in the plain form",
    ];
    assert_has(&files["report.md"], &parts);
    let parts =
        ["direct_avx512", "2 tunings", "winograd_plain: stands aside &lt;for now&gt;", "wrong: error 1"];
    assert_has(&files["conv-n1h35w35c192k64r1s1.svg"], &parts);
    assert_has(&files["network.svg"], &["branch&lt;5&gt;&amp;x_1"]);
}

#[test]
fn plans_by_time_and_error_are_drawn_where_they_were_measured() {
    let point = |ms: f64, rel_error, [bf16_steps, u8_steps]: [usize; 2]| ParetoPoint {
        time_us: around(ms * 1e3),
        rel_error,
        bf16_steps,
        u8_steps,
        multiply_adds: 1,
    };
    let pareto = vec![point(8.0, 4e-2, [3, 2]), point(9.0, 4e-3, [1, 0]), point(12.0, 2e-6, [0, 0])];
    let files = drawn(&Plan { pareto, max_rel_error: 1e-2, ..plan() });
    assert_has(&files["report.md"], &["](pareto.svg)"]);
    let lower = ["3 of 3 steps below f32, 2 in u8", "1 of 3 steps below f32", "all in f32"];
    assert_has(
        &files["pareto.svg"],
        &[&lower[..], &["4.0e-2", "exceeds the bound", "keeps the bound"]].concat(),
    );
}

#[test]
fn candidates_that_may_be_as_fast_are_ties() {
    let mut plan = plan();
    let ratios = [[1.0, 1.0, 1.0], [1.01, 0.99, 1.02], [1.4, 1.3, 1.5]];
    for (candidate, ratio) in plan.measurements[0].candidates.iter_mut().zip(ratios) {
        candidate.ratio_ci95 = Some(ratio);
    }
    let files = drawn(&plan);
    let json: Value = serde_json::from_str(&files["report.json"]).expect("JSON");
    let charts = json["charts"].as_array().expect("charts");
    let chart = charts.iter().find(|chart| chart["id"] == "conv-n1h35w35c192k64r1s1").expect("a chart");
    let ranks: Vec<&Value> = chart["rows"].as_array().expect("rows").iter().map(|row| &row["rank"]).collect();
    assert_eq!(ranks, ["fastest of its types", "tie", "slower", ""]);
    assert_has(&files["conv-n1h35w35c192k64r1s1.svg"], &["order=0, tie"]);
}

#[test]
fn rules_streams_and_plans_of_the_same_folder_are_compared() {
    let rules = json!([{
        "rule": "direct always", "description": "a rule", "isolated_us": 900.0, "fastest_us": 600.0,
    }]);
    let streams = json!([
        { "streams": 1, "threads": 2, "images_per_second": 80.0 },
        { "streams": 2, "threads": 1, "images_per_second": 88.0, "ratio_ci95": [1.1, 1.0, 1.2] },
    ]);
    let plan = Plan { rules: of_json(rules), streams: of_json(streams), ..plan() };
    let others = [
        Plan { threads: 2, measured_ms: Some(0.5), ..plan.clone() },
        Plan { batch: 8, measured_ms: None, ..plan.clone() },
        Plan { batch: 4, max_rel_error: 0.5, ..plan.clone() },
    ];
    let files = files(&plan, &others).expect("a report").into_iter();
    let text = |content| String::from_utf8(content).expect("text");
    let files = files.map(|(name, content)| (name, text(content))).collect();
    check_all(&files);
    assert_has(&files["rules.svg"], &["direct always", "+50.0%"]);
    assert_has(&files["streams.svg"], &["2 streams", "1.10x one inference after the other (1.00 .. 1.20)"]);
    assert_has(&files["scaling.svg"], &["1 thread, batch 1", "2 threads, batch 1", "2000 images/s"]);
    assert_eq!(files["scaling.csv"].lines().count(), 3);
}

#[test]
fn a_plan_without_times_still_becomes_a_page() {
    let mut plan = plan();
    for step in &mut plan.steps {
        (step.time_us, step.gflops, step.runner_up) = (None, None, None);
    }
    (plan.predicted_ms, plan.measured_ms, plan.rel_error) = (None, None, None);
    plan.networks.clear();
    plan.measurements.clear();
    let files = drawn(&plan);
    assert_has(&files["network.svg"], &["no step has a measured time"]);
    assert_has(&files["contest.svg"], &["no contest"]);
    assert_has(&files["report.md"], &["3 steps without a measured time"]);
}

#[test]
fn a_plan_without_measurements_draws_what_its_steps_say() {
    let files = drawn(&Plan { measurements: Vec::new(), ..plan() });
    assert_has(&files["conv-n1h35w35c192k64r1s1.svg"], &["direct_avx512", "unfused_avx512"]);
}

#[test]
fn a_plan_without_steps_or_with_layers_of_no_block_is_drawn() {
    let mut plan = plan();
    plan.steps[0].layers = vec![String::new()];
    plan.steps[1].layers = Vec::new();
    plan.steps[2].kernel = "x\u{1}\n|`".repeat(500);
    drawn(&plan);
    plan.steps.clear();
    drawn(&plan);
}

#[test]
fn times_that_are_none_do_not_get_far() {
    let odd = [0.0, -1.0, 1e-320, 1e308, f64::MAX, -f64::MAX, 1e-3, 1e12];
    for median in odd {
        for other in odd {
            let mut plan = plan();
            let time = TimeUs { median, low: other, high: median };
            (plan.steps[0].time_us, plan.steps[0].gflops) = (Some(time), Some(other));
            plan.steps[0].runner_up.as_mut().expect("one").time_us = other;
            plan.measurements[0].candidates[0].time_us = Some(time);
            plan.networks[0].time_us = time;
            (plan.predicted_ms, plan.measured_ms) = (Some(median), Some(other));
            (
                plan.block_variants[0].alternatives[0].time_us,
                plan.block_variants[0].alternatives[1].time_us,
            ) = (Some(median), Some(other));
            let files = files(&plan, &[]).expect("a report").into_iter();
            let text = |content| String::from_utf8(content).expect("text");
            check_all(&files.map(|(name, content)| (name, text(content))).collect());
        }
    }
}

#[test]
fn a_network_of_many_steps_has_rows_with_all_blocks() {
    let mut plan = plan();
    let step = |i: usize| {
        let layer = format!("block{}.layer{i}", i / 10);
        step(&layer, "max:n1h35w35c288r3s3u2", "pool_avx512", 1.0 + (i % 7) as f64)
    };
    plan.steps = (0..110).map(step).collect();
    let files = drawn(&plan);
    for block in 0..11 {
        assert_has(&files["network.svg"], &[&format!("block{block}, ")]);
    }
}

#[test]
fn a_folder_that_cannot_be_is_named_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plan.json");
    plan().write(&path).expect("written");
    let failure = write(&plan(), &[], &path).expect_err("a file is no folder").to_string();
    assert!(failure.contains("plan.json") && !failure.contains('\n'), "{failure}");
    assert!(Plan::read(&path).is_ok(), "the file is as it was");
}
