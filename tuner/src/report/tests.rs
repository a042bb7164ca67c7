//! Reports on small plans, right and odd.

use engine::network::choice::{CandidateId, StepFormats};
use engine::plan::reasons::{CandidateOutcome, StepReason, VariantReason};
use engine::plan::records::{
    Alternative, BlockVariantRecord, CandidateRecord, ConditionsRecord, NetworkRecord, NetworkVariant,
    ProblemRecord, SearchRecord,
};
use engine::plan::schema::{Plan, SCHEMA};
use engine::plan::step::{PlanStep, RunnerUp, TimeUs};
use serde_json::{Map, Value, json};

use super::files::{files, write};

const CONV: &str = "n1h35w35c192k64r1s1";

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

fn around(median: f64) -> TimeUs {
    TimeUs { median, low: median * 0.9, high: median * 1.2 }
}

fn id(kernel: &str, tuning: Map<String, Value>) -> CandidateId {
    CandidateId { kernel: kernel.to_string(), tuning, formats: StepFormats::default() }
}

fn candidate(kernel: &str, order: usize, median: f64) -> CandidateRecord {
    CandidateRecord {
        ratio_ci95: None,
        disturbed: 0,
        id: id(kernel, object(json!({ "order": order }))),
        time_us: Some(around(median)),
        samples: 3,
        rel_error: 1e-7,
        rms_error: Some(1e-8),
        bytes: 4096,
        multiply_adds: 15_052_800,
        outcome: CandidateOutcome::Measured,
    }
}

/// One that writes bf16.
fn rounding(mut candidate: CandidateRecord) -> CandidateRecord {
    candidate.id.formats.dst = "bf16:nhwc".to_string();
    candidate
}

pub(crate) fn step(layer: &str, problem: &str, kernel: &str, median: f64) -> PlanStep {
    PlanStep {
        worker: None,
        repeats: 1,
        isolated_us: None,
        network_us: None,
        predicted_us: None,
        in_network: Vec::new(),
        layers: vec![layer.to_string()],
        problem: problem.to_string(),
        kernel: kernel.to_string(),
        tuning: object(json!({ "order": 0 })),
        code: None,
        formats: StepFormats::default(),
        threads: 1,
        time_us: Some(around(median)),
        rel_error: None,
        gflops: Some(1.0),
        multiply_adds: None,
        runner_up: Some(RunnerUp { id: id("unfused_avx512", Map::new()), time_us: median * 1.2 }),
        reason: StepReason::Faster { percent: 19.9 },
    }
}

/// Two convolutions of one problem and a pool.
pub(crate) fn plan() -> Plan {
    let machine = json!({
        "cpu": "CPU <&\"'> | A", "signature": [6, 1, 2], "isa": "avx512", "cores": 2,
        "caches_kib": [32, 1024, 0], "os": "linux-x86_64",
    });
    Plan {
        split: None,
        planning: None,
        noise: None,
        schema: SCHEMA.to_string(),
        model: "mixed0".to_string(),
        shape: None,
        batch: 1,
        threads: 1,
        max_rel_error: 1e-5,
        rel_error: Some(1e-7),
        max_memory_mib: None,
        memory_bytes: None,
        machine: serde_json::from_value(machine).expect("a machine"),
        cores_allowed: None,
        tool: "tuner".to_string(),
        created: 0,
        predicted_ms: Some(0.7),
        overhead_us: None,
        measured_ms: Some(0.8),
        pareto: Vec::new(),
        rules: Vec::new(),
        networks: vec![
            NetworkRecord { network: NetworkVariant::Tuned, time_us: around(800.0) },
            NetworkRecord {
                network: NetworkVariant::Rule("direct always".to_string()),
                time_us: around(900.0),
            },
        ],
        block_variants: vec![BlockVariantRecord {
            block: "mixed0".to_string(),
            variant: "fuse_siblings".to_string(),
            alternatives: [("plain", 700.0), ("fuse_siblings", 600.0), ("conv_before_pool", 650.0)]
                .map(|(rewrite, us)| Alternative { variant: rewrite.to_string(), time_us: Some(us) })
                .into(),
            reason: VariantReason::Saves { percent: 14.3 },
        }],
        steps: vec![
            step("mixed0.branch1x1", CONV, "direct_avx512", 300.0),
            step("mixed0.branch<5>&x_1", CONV, "direct_avx512", 300.0),
            step("mixed0.pool", "average:n1h35w35c192r3s3", "pool_avx512", 100.0),
        ],
        measurements: vec![ProblemRecord {
            problem: CONV.to_string(),
            candidates: vec![
                candidate("direct_avx512", 0, 300.0),
                candidate("unfused_avx512", 0, 360.0),
                rounding(candidate("direct_avx512", 1, 400.0)),
                CandidateRecord {
                    time_us: None,
                    outcome: CandidateOutcome::Wrong { error: Some(1.0), tolerance: Some(0.0) },
                    ..candidate("winograd_avx512", 0, 1.0)
                },
            ],
            rules: [("direct always".to_string(), 0)].into(),
            excluded: object(json!({ "winograd_plain": "stands aside <for now>" })),
            conditions: Some(ConditionsRecord {
                clock_ghz: 3.0,
                core_to_core_ns: Some(21.0),
                peak_gflops: [("avx512".to_string(), 100.0)].into(),
            }),
            search: Some(SearchRecord { evaluated: 3, space: 9, regret: None, best_skipped: false }),
        }],
    }
}

/// Draws a report into an empty folder and gives its files by name, all pictures checked.
fn drawn(plan: &Plan) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("deep/report");
    write(plan, &out).expect("a report");
    let mut files: Vec<(String, String)> = std::fs::read_dir(&out)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.file_name().expect("a name").display().to_string(), path))
        .map(|(name, path)| (name, std::fs::read_to_string(path).expect("text")))
        .collect();
    files.sort();
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".svg")) {
        check_xml(name, text);
    }
    files
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

fn text<'a>(files: &'a [(String, String)], name: &str) -> &'a str {
    let found = files.iter().find(|(n, _)| n == name);
    &found.unwrap_or_else(|| panic!("no {name} in {:?}", files.iter().map(|f| &f.0).collect::<Vec<_>>())).1
}

#[test]
fn a_plan_becomes_a_page_with_its_pictures() {
    let files = drawn(&plan());
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["contest.svg", "conv-n1h35w35c192k64r1s1.svg", "network.svg", "report.md"]);
    let page = text(&files, "report.md");
    for part in [
        "# mixed0 on CPU &lt;&amp;\"'&gt; \\| A",
        "![The steps of the network in order](network.svg)",
        "](conv-n1h35w35c192k64r1s1.svg)",
        "| direct | 2 | 0.600 | 85.7% |",
        "+20.0%",
        "| mixed0 | 700 | 600 | 650 |  | fuse\\_siblings | -14.3% |",
        "take 600 µs, 700 µs in the plain form",
    ] {
        assert!(page.contains(part), "`{part}` is not in\n{page}");
    }
    let problem = text(&files, "conv-n1h35w35c192k64r1s1.svg");
    for part in
        ["direct_avx512", "2 tunings", "winograd_plain: stands aside &lt;for now&gt;", "wrong: error 1"]
    {
        assert!(problem.contains(part), "`{part}` is not in\n{problem}");
    }
    assert!(text(&files, "network.svg").contains("branch&lt;5&gt;&amp;x_1"));
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
    assert_eq!(files.len(), 3);
    assert!(text(&files, "network.svg").contains("no step has a measured time"));
    assert!(text(&files, "contest.svg").contains("no contest"));
    assert!(text(&files, "report.md").contains("3 steps without a measured time"));
}

#[test]
fn a_plan_without_measurements_draws_what_its_steps_say() {
    let mut plan = plan();
    plan.measurements.clear();
    let files = drawn(&plan);
    let problem = text(&files, "conv-n1h35w35c192k64r1s1.svg");
    assert!(problem.contains("direct_avx512") && problem.contains("unfused_avx512"));
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
            let files = files(&plan).expect("a report");
            for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".svg")) {
                check_xml(name, text);
            }
        }
    }
}

#[test]
fn a_network_of_many_steps_has_rows_with_all_blocks() {
    let mut plan = plan();
    plan.steps = (0..110)
        .map(|i| {
            let layer = format!("block{}.layer{i}", i / 10);
            step(&layer, "max:n1h35w35c288r3s3u2", "pool_avx512", 1.0 + (i % 7) as f64)
        })
        .collect();
    let files = files(&plan).expect("a report");
    let network = text(&files, "network.svg");
    for block in 0..11 {
        assert!(network.contains(&format!("block{block}, ")), "block{block}");
    }
}

#[test]
fn a_folder_that_cannot_be_is_named_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("plan.json");
    plan().write(&path).expect("written");
    let failure = write(&plan(), &path).expect_err("a file is no folder").to_string();
    assert!(failure.contains("plan.json") && !failure.contains('\n'), "{failure}");
    assert!(Plan::read(&path).is_ok(), "the file is as it was");
}
