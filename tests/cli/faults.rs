//! What goes wrong around the program: streams, disks, signals, and files that are not as they should be.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::*;

const RUN: &str = "run --model conv2d_bn --shape n1h9w9c16k24r3s3 --threads 1";

/// Runs a line of the shell in which `$T` is the program.
fn shell(folder: &Folder, line: &str) -> Ran {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("T", PROGRAM);
    start(folder.prepared(shell, ""))
}

/// Starts the program; what it prints is kept.
fn spawn(folder: &Folder, args: &str) -> Child {
    let mut command = folder.command_for_signals(args);
    command.env("TMPDIR", folder.at("tmp")).stdout(Stdio::piped()).stderr(Stdio::piped());
    fs::create_dir_all(folder.at("tmp")).expect("a folder");
    command.spawn().expect("it starts")
}

/// Sends a signal, once the program handles it.
fn signal(child: &Child, name: &str) {
    let mask_of = |status: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
        u64::from_str_radix(mask.trim(), 16).unwrap_or_default()
    };
    let status = || fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    // The bit of SIGTERM, whose handler is the last.
    wait_until("a handler", || mask_of(&status()) >> 14 & 1 == 1);
    let kill = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(kill.expect("a signal").success());
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what}");
        sleep(Duration::from_millis(1));
    }
}

fn ended(child: Child) -> Ran {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    assert_eq!(status.signal(), None, "{}", String::from_utf8_lossy(&stderr));
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { status: status.code(), out: text(stdout), err: text(stderr) }
}

/// Files whose names begin so.
fn named(folder: &Folder, start: &str) -> Vec<PathBuf> {
    let name =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start));
    walk(folder.0.path()).into_iter().filter(name).collect()
}

fn rounds(folder: &Folder) -> usize {
    let log = find(folder.0.path(), "jsonl").and_then(|log| fs::read_to_string(log).ok());
    log.map_or(0, |text| text.matches(r#""line":"round""#).count())
}

#[test]
fn a_standard_error_that_cannot_be_written_changes_no_status() {
    let folder = Folder::new();
    for redirection in ["2>/dev/full", "2>&-"] {
        for (args, status) in [(RUN, 0), ("run --model nope", 2), ("--nope", 2), ("list", 0)] {
            let ran = shell(&folder, &format!("$T {args} {redirection}"));
            assert_eq!(ran.status, Some(status), "{args} {redirection}");
        }
    }
    for (args, status) in [(RUN, 0), ("run --model nope", 2)] {
        let mut child = spawn(&folder, args);
        drop(child.stderr.take());
        assert_eq!(ended(child).status, Some(status), "{args} into a closed pipe");
    }
    shell(&folder, &format!("$T {RUN} --output y.npy 2>/dev/full"));
    folder.images("y.npy", 1, SMALL_OUTPUT);
}

#[test]
fn a_standard_output_that_cannot_be_written_is_named() {
    let folder = Folder::new();
    for args in ["list", "--help", "--version", RUN, &format!("{RUN} --output -")] {
        let ran = shell(&folder, &format!("$T {args} >/dev/full"));
        assert_eq!(ran.status, Some(2), "{args}");
        assert_contains(&ran.err, &["error: standard output: cannot write: No space left"]);
        assert_eq!(shell(&folder, &format!("$T {args} | true")).status, Some(0));
    }
}

#[test]
fn a_signal_ends_a_tuning_and_leaves_its_log() {
    for (name, status) in [("TERM", 143), ("INT", 130)] {
        let folder = Folder::new();
        let child = spawn(&folder, "--model mixed10 --threads 1 --budget 60 --out p.json");
        wait_until("rounds in the log", || rounds(&folder) > 3);
        signal(&child, name);
        let ran = ended(child);
        assert_eq!(ran.status, Some(status), "{}", ran.err);
        assert_contains(&ran.err, &["error: stopped by signal", "what was measured is in bench-results"]);
        let log = fs::read_to_string(find(folder.0.path(), "jsonl").expect("a log")).expect("text");
        assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "a torn line");
        assert!(!folder.at("p.json").exists());
        assert_eq!(named(&folder, ".t"), [""; 0].map(PathBuf::from));
    }
}

#[test]
fn a_signal_ends_what_measures_and_checks() {
    let folder = Folder::with_plan(&BLOCK_PLAN.0);
    for args in
        ["check --threads 1", "spot --plan p.json --steps 1000", "run --model mixed10 --repeat 1000000"]
    {
        let child = spawn(&folder, args);
        sleep(Duration::from_millis(100));
        signal(&child, "TERM");
        let ran = ended(child);
        assert_eq!(ran.status, Some(143), "{args}: {}", ran.err);
        assert_contains(&ran.err, &["error: stopped by signal 15\n"]);
    }
}

#[test]
fn a_signal_while_a_file_is_written_leaves_none() {
    let folder = Folder::new();
    fs::create_dir(folder.at("d")).expect("a folder");
    let child = spawn(&folder, "run --model inception_v3 --size 75x75 --threads 1 --packed d/p");
    let is_written = || fs::read_dir(folder.at("d")).expect("a folder").count() > 0;
    wait_until("a file", is_written);
    signal(&child, "TERM");
    let ran = ended(child);
    // It may have been written in between.
    assert!([Some(143), Some(0)].contains(&ran.status), "{}", ran.err);
    assert_eq!(named(&folder, ".tuner-"), [""; 0].map(PathBuf::from));
    assert_eq!(folder.at("d/p").exists(), ran.status == Some(0));
}

#[test]
fn what_a_killed_process_left_is_removed_and_what_another_writes_is_not() {
    let folder = Folder::new();
    folder.write(".tuner-Left01", "of a process that was killed");
    let live = fs::File::open(folder.write(".tuner-Live01", "of another process")).expect("a file");
    live.lock().expect("a lock");
    folder.succeeds(&format!("{RUN} --packed w.packed"));
    assert_eq!(named(&folder, ".tuner-"), [folder.at(".tuner-Live01")]);
}

#[test]
fn a_file_beyond_its_limit_is_an_error_that_names_it() {
    let folder = Folder::new();
    let ran = shell(&folder, "ulimit -f 1; $T run --model mixed0 --threads 1 --output y.npy");
    assert_eq!(ran.status, Some(2), "{}", ran.err);
    assert_contains(&ran.err, &["y.npy: cannot write: File too large"]);
    assert_eq!(named(&folder, "y.npy"), [""; 0].map(PathBuf::from));
    let ran = shell(&folder, &format!("ulimit -f 1; $T {RUN} --packed w.packed"));
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    assert_contains(&ran.err, &["note: w.packed: cannot write: File too large"]);
    assert_eq!([named(&folder, ".tuner-"), named(&folder, "w.packed")].concat(), [""; 0].map(PathBuf::from));
}

#[test]
fn a_plan_that_cannot_be_written_is_kept_and_its_summary_printed() {
    let folder = Folder::new();
    let child = spawn(&folder, &format!("tune {SMALL} --threads 1 --budget 2 --out p.json"));
    wait_until("rounds in the log", || rounds(&folder) > 0);
    fs::create_dir(folder.at("p.json")).expect("a folder");
    let ran = ended(child);
    assert_eq!(ran.status, Some(2), "{}", ran.err);
    assert_contains(&ran.err, &["error: p.json: cannot write: ", "the plan is in "]);
    let kept = ran.out.lines().find_map(|line| line.strip_prefix("plan: ")).expect("the plan");
    assert_contains(&ran.out, &["next: tuner run"]);
    assert_contains(&ran.err, &[kept]);
    let plan: Value = serde_json::from_slice(&fs::read(kept).expect("a file")).expect("a plan");
    assert_eq!(plan["model"], "conv2d_bn");
}

/// A refusal of at most 300 characters, without control characters.
fn refuses_in_short(folder: &Folder, args: &str, parts: &[&str]) {
    let err = folder.refuses(args, parts);
    let err = err.trim_end();
    assert!(err.chars().count() <= 300, "{} characters: {err}", err.chars().count());
    assert!(!err.chars().any(char::is_control), "{err:?}");
}

#[test]
fn a_message_is_short_whatever_a_file_has() {
    let long = || format!("\u{1b}[31m{}", "x".repeat(100_000));
    type Change = fn(&mut Value, String);
    let edits: [(&str, Change); 9] = [
        ("steps[0].tuning", |p, _| p["steps"][0]["tuning"] = json!({"m": 17, "pixels": 3})),
        ("steps[0].tuning", |p, long| p["steps"][0]["tuning"] = json!({ long: 1 })),
        ("steps[0].kernel", |p, long| p["steps"][0]["kernel"] = long.into()),
        ("steps[0].layers", |p, long| p["steps"][0]["layers"] = json!([long, "a", "b"])),
        ("steps[0].problem", |p, long| p["steps"][0]["problem"] = long.into()),
        ("threads", |p, long| p["threads"] = long.into()),
        ("schema", |p, long| p["schema"] = long.into()),
        ("model", |p, long| p["model"] = long.into()),
        ("networks", |p, long| p["networks"] = json!([{ "network": long }])),
    ];
    for (field, edit) in edits {
        let mut plan = SMALL_PLAN.clone();
        edit(&mut plan, long());
        let folder = Folder::with_plan(&plan);
        refuses_in_short(&folder, &format!("{RUN} --plan p.json"), &["p.json", field]);
    }
    let folder = Folder::with_plan(&SMALL_PLAN);
    let header = format!(r#"{{"{}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#, "k".repeat(5000));
    let length = (header.len() as u64).to_le_bytes();
    folder.write("w.safetensors", [&length[..], header.as_bytes(), &[0; 4]].concat());
    refuses_in_short(&folder, &format!("{RUN} --weights w.safetensors"), &["w.safetensors"]);
    folder.npy("x.npy", "<f4", &[1; 1000], &[0; 4]);
    refuses_in_short(&folder, &format!("{RUN} --input x.npy"), &["x.npy", "shape"]);
    refuses_in_short(&folder, &format!("run --model {}", "m".repeat(5000)), &["inception_v3"]);
    refuses_in_short(&folder, &format!("check --kernel {}", "m".repeat(5000)), &["--kernel"]);
}

#[test]
fn labels_of_control_characters_are_shown_escaped() {
    let folder = Folder::new();
    let labels: Vec<String> = (0..1000).map(|n| format!("\u{1b}[31mclass\u{7}{n}\u{202e}")).collect();
    folder.write("labels.txt", labels.join("\n"));
    let run = "run --model inception_v3 --size 75x75 --threads 1 --labels labels.txt";
    let out = folder.succeeds(run);
    assert_contains(&out, &["\\u{1b}[31mclass\\u{7}"]);
    assert!(!out.chars().any(|c| c != '\n' && c.is_control() || c == '\u{202e}'), "{out:?}");
}

#[test]
fn more_threads_than_are_of_use_are_refused_by_option_or_field() {
    let most = engine::runtime::most_threads();
    let expected = format!("1 to {most}, for the cores that this process may use");
    let folder = Folder::with_plan(&SMALL_PLAN);
    for option in ["--threads", "--streams"] {
        refuses_in_short(&folder, &format!("run {SMALL} {option} {}", most + 1), &[option, &expected]);
    }
    refuses_in_short(&folder, &format!("tune {SMALL} --threads 1024"), &["--threads", &expected]);
    refuses_in_short(&folder, "peak --threads 1024", &["--threads", &expected]);
    let streams = json!([{"streams": 4000, "threads": 1, "images_per_second": 1.0, "ratio_ci95": null}]);
    for (field, value) in [("threads", json!(4000)), ("streams", streams)] {
        let mut plan = SMALL_PLAN.clone();
        plan[field] = value;
        folder.write("p.json", plan.to_string());
        let run = format!("run {SMALL} --plan p.json");
        refuses_in_short(&folder, &run, &["p.json: ", field, "4000", &expected]);
    }
    folder.succeeds(&format!("run {SMALL} --threads {most}"));
}

#[test]
fn the_stack_of_workers_does_not_depend_on_the_environment() {
    let folder = Folder::new();
    let mut command = folder.command("run --model mixed10 --threads 2 --batch 2 --streams 2");
    let ran = start({
        command.env("RUST_MIN_STACK", "1");
        command
    });
    assert_eq!(ran.status, Some(0), "{}", ran.err);
}
