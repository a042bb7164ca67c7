//! Lists of convolutions: tuned, and read by the commands that read a plan.

use super::*;

const LIST: &str = "n1h9w9c16k24r3s3 *3\nn1h9w9c16k32r1s1\nn2h9w9c8k8r3s3p0q0\n";

/// The plan of [`LIST`] with one thread, made once.
static LIST_PLAN: LazyLock<Value> = LazyLock::new(|| {
    let folder = Folder::new();
    folder.write("three.txt", LIST);
    folder.succeeds("--shapes three.txt --budget 1 --threads 1 --out p.json");
    folder.json("p.json")
});

#[test]
fn a_list_is_tuned_into_a_plan_whose_times_are_of_all_that_it_counts() {
    let plan = &*LIST_PLAN;
    assert_eq!((text(plan, "schema"), text(plan, "model")), ("convolution-plan-2", "shapes:three"));
    let steps = list(plan, "steps");
    let shapes: Vec<&Value> = steps.iter().map(|step| &step["layers"][0]).collect();
    assert_eq!(shapes, ["n1h9w9c16k24r3s3", "n1h9w9c16k32r1s1", "n2h9w9c8k8r3s3p0q0"]);
    assert_eq!(steps[0]["repeats"], 3);
    let total: f64 = steps.iter().map(|step| number(step, "isolated_us")).sum();
    assert!((total / 1e3 - number(plan, "predicted_ms")).abs() < 1e-6 * total, "{total} us");
    let of_one = number(&plan["measurements"][0]["candidates"][0]["time_us"], "median");
    assert!(number(&steps[0], "isolated_us") >= 2.9 * of_one, "{of_one} us, {}", steps[0]);
}

#[test]
fn a_list_is_explained_reported_rechecked_and_compared() {
    let folder = Folder::with_plan(&LIST_PLAN);
    let parts = ["n1h9w9c16k24r3s3 of shapes:three", "9x9x16 to 9x9x24", "repeats  3 times", "because"];
    folder.prints("explain n1h9w9c16k24r3s3 --plan p.json", &parts);
    let explained = folder.succeeds("explain n2h9w9c8k8r3s3p0q0 --plan p.json");
    assert_eq!(folder.succeeds("explain s3r3k8c8w9h9n2q0p0 --plan p.json"), explained);

    folder.succeeds("report --plan p.json --out r");
    let page = fs::read_to_string(folder.at("r/report.md")).expect("a page");
    assert_contains(&page, &["# shapes:three on ", "n1h9w9c16k32r1s1"]);
    assert!(!page.contains("whole network") && !page.contains("| block |"), "{page}");

    let Ran { status, out, err } = folder.run("spot --plan p.json --json");
    assert!(matches!(status, Some(0 | 1)), "{err}");
    let spot: Value = serde_json::from_str(&out).expect("JSON");
    assert!(!list(&spot, "entries").is_empty(), "{out}");

    let compared = folder.prints_json("transfer p.json p.json --json");
    let problems = list(&compared["comparisons"][0], "problems");
    let count = |problem: &Value| (text(problem, "problem").to_string(), problem["count"].as_u64());
    assert!(problems.iter().map(count).any(|c| c == ("n1h9w9c16k24r3s3".into(), Some(3))), "{compared}");
}

#[test]
fn a_shape_is_shown_with_the_size_of_its_output() {
    let folder = Folder::new();
    let model = "--model conv2d_bn --shape n1h9w9c4k8r3s3u2same --threads 1";
    folder.prints(&format!("run {model}"), &["built-in image 0: 5x5x8 values"]);
    folder.prints(&format!("tune {model} --budget 1"), &["conv2d_bn of n1h9w9c4k8r3s3u2p1q1 to 5x5x8: "]);
    folder.prints("check --shape n1h9w9c4k8r3s3u2 --threads 1", &["n1h9w9c4k8r3s3u2, 9x9x4 to 4x4x8, "]);
    folder.prints("shapes --model conv2d_bn --shape n1h9w9c4k8r3s3u2", &["[1, 4, 4, 8]"]);
    folder.write("l.txt", "n1h9w9c4k8r3s3u2same*2\n");
    folder.prints("tune --shapes l.txt --budget 1 --threads 1 --wide", &["n1h9w9c4k8r3s3u2p1q1", "5x5x8"]);
}

#[test]
fn a_shape_that_is_not_in_a_list_gets_the_nearest_that_is() {
    let folder = Folder::with_plan(&LIST_PLAN);
    for (shape, nearest) in [
        ("n1h9w9c16k24r5s5", "n1h9w9c16k24r3s3, which is the nearest"),
        ("n7h123w9c8k8r3s3u2", "n2h9w9c8k8r3s3p0q0, which is the nearest"),
        ("n1h9w9c16", "n1h9w9c16k24r3s3 n1h9w9c16k32r1s1"),
    ] {
        folder.refuses(&format!("explain {shape} --plan p.json"), &["p.json", shape, nearest]);
    }
}

#[test]
fn a_list_is_found_and_listed_but_is_no_network_to_run() {
    let folder = Folder::new();
    folder.write("three.txt", LIST);
    folder.succeeds("--shapes three.txt --budget 1 --threads 1");
    folder.prints("plans", &["shapes:three"]);
    folder.prints("plans --model shapes:three", &["shapes-three-"]);
    folder.prints("explain n1h9w9c16k32r1s1 --model shapes:three", &["of shapes:three"]);
    folder.write("p.json", LIST_PLAN.to_string());
    let run = format!("run {SMALL} --plan p.json");
    folder.refuses(&run, &["p.json: model is shapes:three, expected conv2d_bn: a list of convolutions"]);
    assert_contains(&folder.notes(&format!("run {SMALL} --threads 1")), &["using the built-in choice"]);
}

#[test]
fn results_of_lists_of_earlier_versions_are_refused_with_what_to_do() {
    let folder = Folder::new();
    folder.write("p.json", r#"{"schema": "convolution-shapes-2", "list": "three", "shapes": []}"#);
    for command in ["explain x --plan", "report --out r --plan", "spot --plan", "transfer p.json"] {
        let parts = ["p.json", "\"convolution-shapes-2\"", "`tuner tune --shapes LIST` writes now"];
        folder.refuses(&format!("{command} p.json"), &parts);
    }
}
