//! How results are printed: their width, as JSON, and by which words commands are called.

use super::*;

/// Columns and lines of a screen.
const COLUMNS: usize = 100;
const LINES: usize = 60;

/// A folder with a plan of a block, `p.json`, and a log, `l.jsonl`.
fn prepared() -> Folder {
    let folder = Folder::with_plan(&BLOCK_PLAN.0);
    folder.write("two.txt", "n1h9w9c16k24r3s3 *2\nn1h9w9c16k32r1s1\n");
    folder.succeeds(&format!("tune {SMALL} --budget 1 --threads 1 --results log --out small.json"));
    fs::copy(find(&folder.at("log"), "jsonl").expect("a log"), folder.at("l.jsonl")).expect("a copy");
    folder
}

/// Every command that prints results.
const COMMANDS: [&str; 18] = [
    "tune --model conv2d_bn --shape n1h9w9c16k24r3s3 --budget 1 --threads 1 --out q.json",
    "tune --shapes two.txt --budget 1 --threads 1 --out s.json",
    "run --model mixed10 --plan p.json --repeat 5",
    "check --shape n1h9w9c16k24r3s3 --threads 1",
    "list",
    "shapes",
    "explain mixed10.branch1x1 --plan p.json",
    "spot --plan p.json --steps 2",
    "transfer p.json p.json",
    "compare p.json p.json",
    "compare small.json small.json --live --rounds 12",
    "bench --shape n1h9w9c16k24r3s3 --budget 1 --threads 1",
    "transfer small.json l.jsonl",
    "merge l.jsonl l.jsonl --out m.jsonl",
    "report --plan p.json --out r",
    "peak --threads 1",
    "machine --threads 2",
    "plans",
];

fn assert_fits(args: &str, out: &str) {
    for line in out.lines() {
        assert!(line.chars().count() <= COLUMNS, "{args}: {} columns: {line}", line.chars().count());
    }
    assert!(!out.contains('\x1b'), "{args}: colours without a terminal");
}

#[test]
fn every_command_fits_the_columns_of_a_screen_or_prints_one_json_object() {
    let folder = prepared();
    let run = |args: &str| {
        let Ran { status, out, err } = folder.run(args);
        assert!(matches!(status, Some(0 | 1)), "{args}: {err}");
        assert!(!out.is_empty(), "{args}");
        out
    };
    let more = [format!("{} --verbose", COMMANDS[0]), format!("{} --profile", COMMANDS[2])];
    for args in COMMANDS.into_iter().chain(more.iter().map(String::as_str)) {
        assert_fits(args, &run(args));
    }
    for args in COMMANDS {
        let out = run(&format!("{args} --json"));
        let object: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args}: {e}\n{out}"));
        assert!(object.is_object() && out.lines().count() == 1, "{args}: {out}");
    }
    let wide = folder.succeeds("shapes --wide");
    assert!(wide.lines().any(|line| line.chars().count() > COLUMNS), "{wide}");
}

#[test]
fn a_tuning_ends_with_a_screen_of_the_result_and_of_the_next_command() {
    let folder = Folder::new();
    let out = folder.succeeds("--model mixed10 --budget 2 --threads 1 --out p.json");
    assert_fits("tune", &out);
    assert!(out.lines().count() <= LINES, "{out}");
    let parts = [
        " an image on 1 thread, ",
        " images a second",
        "times as fast as the built-in choice",
        "relative error ",
        "memory of a process",
        "where the time goes",
        "what measuring has found",
        "the machine was ",
        "plan: p.json",
        "next: tuner run --model mixed10 --plan p.json",
    ];
    assert_contains(&out, &parts);
    let next = out.lines().find_map(|line| line.strip_prefix("next: tuner ")).expect("a command");
    folder.succeeds(next);
}

#[test]
fn old_and_new_words_are_the_same() {
    let folder = prepared();
    for (old, new) in [
        ("list", "kernels"),
        ("shapes", "problems"),
        ("merge l.jsonl --out m.jsonl", "merge-logs l.jsonl --out m.jsonl"),
    ] {
        assert_eq!(folder.succeeds(old), folder.succeeds(new));
    }
    let recheck = folder.run("recheck --plan p.json --steps 1");
    assert!(matches!(recheck.status, Some(0 | 1)) && recheck.out.contains("entry"), "{}", recheck.err);
    folder.succeeds("tune --problems two.txt --budget 1 --threads 1 --out s.json");
    for option in ["--packed a.cache", "--weight-cache b.cache"] {
        folder.succeeds(&format!("run {SMALL} --threads 1 {option}"));
    }
    assert_eq!(folder.read("a.cache"), folder.read("b.cache"));
}

#[test]
fn a_run_names_its_plan_and_counts_images() {
    let folder = prepared();
    let out = folder.succeeds(&format!("{RUN_BLOCK} --repeat 5 --plan p.json"));
    assert!(out.starts_with("plan: p.json\n5 inferences of 1 image: median "), "{out}");
    assert_contains(&out, &[" images a second"]);
    let out = folder.succeeds(&format!("{RUN_BLOCK} --repeat 5 --batch 2 --threads 1"));
    assert!(out.starts_with("plan: built-in choice\n5 inferences of 2 images: "), "{out}");
}

#[test]
fn layers_are_found_by_the_names_of_torchvision_and_keras() {
    let folder = prepared();
    let explain = |layer: &str| folder.succeeds(&format!("explain {layer} --plan p.json"));
    let explained = explain("mixed10.branch1x1");
    assert_eq!(explain("Mixed_7c.branch1x1"), explained);
    assert_eq!(explain("conv2d_85"), explained);
    folder.refuses("explain mixed10.brnch1x1 --plan p.json", &["mixed10.branch1x1"]);
}
