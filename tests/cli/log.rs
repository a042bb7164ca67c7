//! The log of measurements: what tunings append to it, take from it, and what is made of it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::tune::walk;
use super::*;

const TUNE: &str = "tune --model conv2d_bn --shape n1h9w9c16k24r3s3 --threads 1 --results r";

/// The log in a folder of results, once there is one.
fn log_of(folder: &Path) -> Option<PathBuf> {
    let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jsonl");
    let results = folder.join("r");
    results.is_dir().then(|| walk(&results).into_iter().find(is_log)).flatten()
}

/// The log in a folder of results.
fn log(folder: &Path) -> PathBuf {
    log_of(folder).expect("a log")
}

/// Its lines.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// How many lines of a kind a log has.
fn count(lines: &[Value], kind: &str) -> usize {
    lines.iter().filter(|line| line["line"] == kind).count()
}

/// Strikes from a log that runs were disturbed: beside other tests some are, and a busy time is not taken again.
fn calm(path: &Path) {
    let calmed = |mut line: Value| {
        let times = line["times"].as_array_mut().into_iter().flatten();
        times.for_each(|time| time[2] = Value::from(0));
        line.to_string() + "\n"
    };
    let text: String = lines(path).into_iter().map(calmed).collect();
    std::fs::write(path, text).expect("a log");
}

#[test]
fn a_second_tuning_takes_what_the_first_has_measured_and_a_fresh_one_does_not() {
    let folder = folder();
    let times = |name: &str, flags: &str| {
        succeeds(folder.path(), &format!("{TUNE} --budget 2 --out {name} {flags}"));
        let plan = json(&folder.path().join(name));
        let candidates = plan["measurements"][0]["candidates"].as_array().expect("candidates").clone();
        candidates.iter().map(|candidate| candidate["time_us"].clone()).collect::<Vec<_>>()
    };
    let first = times("a.json", "");
    calm(&log(folder.path()));
    let before = lines(&log(folder.path()));
    assert!(count(&before, "round") > 3 && count(&before, "done") > 0);
    assert_eq!(times("b.json", ""), first);
    let after = lines(&log(folder.path()));
    assert_eq!(count(&after, "run"), 2);
    assert_eq!(count(&after, "round"), count(&before, "round"));
    assert_ne!(times("c.json", "--fresh"), first);
    assert!(count(&lines(&log(folder.path())), "round") > count(&before, "round") + 3);
}

#[test]
fn candidates_whose_code_has_changed_are_measured_again_and_the_others_are_kept() {
    let folder = folder();
    succeeds(folder.path(), &format!("{TUNE} --budget 2"));
    let path = log(folder.path());
    calm(&path);
    let text = std::fs::read_to_string(&path).expect("a log");
    let direct = kernels::table().iter().find(|row| row.family == "direct").expect("a row").code();
    std::fs::write(&path, text.replace(direct, "0123456789abcdef")).expect("a log");
    succeeds(folder.path(), &format!("{TUNE} --budget 2"));
    let all = lines(&path);
    let second = all.iter().rposition(|line| line["line"] == "run").expect("a run");
    let entered: Vec<&Value> = all[second..]
        .iter()
        .filter(|line| line["line"] == "candidates")
        .flat_map(|line| line["list"].as_array().expect("a list"))
        .collect();
    assert!(!entered.is_empty(), "nothing was measured again");
    for candidate in entered {
        assert_eq!(candidate["code"], direct, "{candidate}");
    }
}

#[test]
fn a_tuner_that_is_killed_leaves_the_plan_and_every_round_but_the_last() {
    let folder = folder();
    let plan = write(folder.path(), "p.json", "an earlier plan");
    let args = "tune --model mixed10 --threads 1 --results r --budget 600 --out p.json";
    for after in [1, 4] {
        let mut killed = command(folder.path(), args);
        let mut child = killed.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
        let start = Instant::now();
        let rounds = |whole: bool| {
            let Some(path) = log_of(folder.path()) else { return 0 };
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let (done, torn) = text.rsplit_once('\n').unwrap_or_default();
            assert!(!whole || torn.is_empty() || torn.starts_with('{'));
            done.lines().filter(|line| line.contains(r#""line":"round""#)).count()
        };
        let before = rounds(false);
        while rounds(false) < before + after {
            assert!(start.elapsed() < Duration::from_secs(120), "no round in the log");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().expect("it is killed");
        child.wait().expect("it has ended");
        assert!(rounds(true) >= before + after);
        assert_eq!(std::fs::read(&plan).expect("the plan"), b"an earlier plan");
    }
    let torn = "{\"line\":\"round\",\"run\":\"";
    let path = log(folder.path());
    calm(&path);
    let whole = std::fs::read_to_string(&path).expect("a log");
    std::fs::write(&path, whole.trim_end().to_string() + "\n" + torn).expect("a log");
    succeeds(folder.path(), "tune --model mixed10 --threads 1 --results r --budget 2 --out p.json");
    assert_eq!(json(&plan)["schema"], "convolution-plan-2");
    let text = std::fs::read_to_string(&path).expect("a log");
    assert_eq!(text.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count(), 1);
    assert!(text.contains(r#""line":"resumes""#), "the next tuning does not go on from the log");
}

#[test]
fn two_tuners_at_once_write_whole_lines() {
    let folder = folder();
    std::thread::scope(|scope| {
        for name in ["a.json", "b.json"] {
            let folder = folder.path();
            scope.spawn(move || succeeds(folder, &format!("{TUNE} --budget 2 --fresh --out {name}")));
        }
    });
    let all = lines(&log(folder.path()));
    assert_eq!(count(&all, "run"), 2);
    let runs: HashSet<&str> = all.iter().filter_map(|line| line["run"].as_str()).collect();
    for run in runs {
        let own: Vec<Value> = all.iter().filter(|line| line["run"] == run).cloned().collect();
        assert_is_visited_twice(&own);
    }
}

/// Asserts that a run has visited its one problem twice and went on with it where it was.
fn assert_is_visited_twice(lines: &[Value]) {
    let done: Vec<usize> = (0..lines.len()).filter(|&index| lines[index]["line"] == "done").collect();
    let &[first, second] = &done[..] else { panic!("found {} visits, expected 2", done.len()) };
    assert_eq!(second + 1, lines.len());
    let share = |index: usize| lines[index]["share"].as_f64().expect("a share");
    assert!(share(first) < 0.9 * share(second), "{} .. {}", share(first), share(second));
    let rounds = |lines: &[Value]| {
        let rounds = lines.iter().filter(|line| line["line"] == "round");
        rounds.map(|line| line["round"].as_u64().expect("a number")).collect::<Vec<u64>>()
    };
    let all = rounds(lines);
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<u64>>());
    assert!(!rounds(&lines[first..]).is_empty());
}

#[test]
fn logs_are_united_without_doubles_and_choices_are_priced_elsewhere() {
    let folder = folder();
    succeeds(folder.path(), &format!("{TUNE} --budget 1 --out a.json"));
    let path = log(folder.path());
    std::fs::copy(&path, folder.path().join("first.jsonl")).expect("a copy");
    succeeds(folder.path(), &format!("{TUNE} --budget 1 --fresh --out b.json"));
    let both = path.strip_prefix(folder.path()).expect("inside").display().to_string();
    let out = succeeds(folder.path(), &format!("merge first.jsonl {both} --out all.jsonl"));
    assert!(out.contains("2 runs"), "{out}");
    assert_eq!(lines(&folder.path().join("all.jsonl")), lines(&path));

    let out = succeeds(folder.path(), "transfer a.json b.json");
    assert!(out.contains("a regret of ") && out.contains("n1h9w9c16k24r3s3"), "{out}");
    let out = succeeds(folder.path(), "transfer b.json b.json");
    assert!(out.contains("a regret of "), "{out}");
    let out = succeeds(folder.path(), "transfer a.json all.jsonl");
    assert!(out.contains("a regret of "), "{out}");
}

#[test]
fn what_is_no_log_is_refused_by_file() {
    let folder = folder();
    write(folder.path(), "text", "no log\n");
    write(folder.path(), "other.jsonl", "{\"line\":\"run\",\"schema\":\"measurements-9\"}\n");
    refuses(folder.path(), "merge text --out all.jsonl", &["text", "no line of a log"]);
    refuses(folder.path(), "merge nowhere --out all.jsonl", &["nowhere"]);
    refuses(folder.path(), "transfer text text", &["text", "no line of a log"]);
    assert_eq!(walk(folder.path()).len(), 2);
    succeeds(folder.path(), &format!("{TUNE} --budget 1"));
    let path = log(folder.path());
    let text = std::fs::read_to_string(&path).expect("a log").replace("measurements-1", "measurements-9");
    std::fs::write(&path, &text).expect("a log");
    refuses(
        folder.path(),
        &format!("{TUNE} --budget 1"),
        &["measurements.jsonl", "schema", "measurements-9"],
    );
    assert_eq!(std::fs::read_to_string(&path).expect("a log"), text);
}
