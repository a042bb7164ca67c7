//! The log of measurements: what tunings append to it, take from it, and what is made of it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::*;

const TUNE: &str = "tune --model conv2d_bn --shape n1h9w9c16k24r3s3 --threads 1 --results r";

/// The log in the folder of results.
fn log(folder: &Folder) -> PathBuf {
    find(&folder.at("r"), "jsonl").expect("a log")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a log")
}

fn lines(path: &Path) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    read(path).lines().map(parse).collect()
}

/// How many lines of a kind a log has.
fn count(lines: &[Value], kind: &str) -> usize {
    lines.iter().filter(|line| line["line"] == kind).count()
}

/// Strikes from a log that runs were disturbed: with other tests running some are, and a disturbed
/// time is not reused.
fn calm(path: &Path) {
    let calmed = |mut line: Value| {
        let times = line["times"].as_array_mut().into_iter().flatten();
        times.for_each(|time| time[2] = Value::from(0));
        line.to_string() + "\n"
    };
    let text: String = lines(path).into_iter().map(calmed).collect();
    fs::write(path, text).expect("a log");
}

#[test]
fn a_second_tuning_reuses_what_the_first_has_measured_and_a_fresh_one_does_not() {
    let folder = Folder::new();
    let times = |name: &str, flags: &str| {
        folder.succeeds(&format!("{TUNE} --budget 2 --out {name} {flags}"));
        let problem = folder.json(name)["measurements"][0].take();
        list(&problem, "candidates").iter().map(|c| c["time_us"].clone()).collect::<Vec<_>>()
    };
    let first = times("a.json", "");
    let log = log(&folder);
    calm(&log);
    let before = lines(&log);
    assert!(count(&before, "round") > 3 && count(&before, "done") > 0);
    assert_eq!(times("b.json", ""), first);
    let after = lines(&log);
    assert_eq!(count(&after, "run"), 2);
    assert_eq!(count(&after, "round"), count(&before, "round"));
    assert_ne!(times("c.json", "--fresh"), first);
    assert!(count(&lines(&log), "round") > count(&before, "round") + 3);
}

#[test]
fn candidates_whose_code_has_changed_are_measured_again_and_the_others_are_kept() {
    let folder = Folder::new();
    folder.succeeds(&format!("{TUNE} --budget 2"));
    let path = log(&folder);
    calm(&path);
    let direct = kernels::table().iter().find(|row| row.family == "direct").expect("a row").code();
    fs::write(&path, read(&path).replace(direct, "0123456789abcdef")).expect("a log");
    folder.succeeds(&format!("{TUNE} --budget 2"));
    let all = lines(&path);
    let second = all.iter().rposition(|line| line["line"] == "run").expect("a run");
    let entered = all[second..].iter().filter(|line| line["line"] == "candidates");
    let entered: Vec<&Value> = entered.flat_map(|line| list(line, "list")).collect();
    assert!(!entered.is_empty(), "nothing was measured again");
    for candidate in entered {
        assert_eq!(candidate["code"], direct, "{candidate}");
    }
}

#[test]
fn a_tuner_that_is_killed_leaves_the_plan_and_every_round_but_the_last() {
    let folder = Folder::new();
    folder.write("p.json", "an earlier plan");
    let args = "tune --model mixed10 --threads 1 --results r --budget 600 --out p.json";
    for after in [1, 4] {
        let mut killed = folder.command(args);
        let mut child = killed.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
        let start = Instant::now();
        let rounds = |whole: bool| {
            let results = folder.at("r");
            let Some(path) = results.is_dir().then(|| find(&results, "jsonl")).flatten() else { return 0 };
            let text = fs::read_to_string(path).unwrap_or_default();
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
        assert_eq!(folder.read("p.json"), b"an earlier plan");
    }
    let path = log(&folder);
    calm(&path);
    let torn = r#"{"line":"round","run":""#;
    fs::write(&path, format!("{}\n{torn}", read(&path).trim_end())).expect("a log");
    folder.succeeds("tune --model mixed10 --threads 1 --results r --budget 2 --out p.json");
    assert_eq!(folder.json("p.json")["schema"], "convolution-plan-2");
    let text = read(&path);
    assert_eq!(text.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count(), 1);
    assert!(text.contains(r#""line":"resumes""#), "the next tuning does not go on from the log");
}

#[test]
fn two_tuners_at_once_write_whole_lines() {
    let folder = Folder::new();
    std::thread::scope(|scope| {
        for name in ["a.json", "b.json"] {
            let folder = &folder;
            scope.spawn(move || folder.succeeds(&format!("{TUNE} --budget 2 --fresh --out {name}")));
        }
    });
    let all = lines(&log(&folder));
    assert_eq!(count(&all, "run"), 2);
    let runs: HashSet<&str> = all.iter().filter_map(|line| line["run"].as_str()).collect();
    for run in runs {
        assert_visited_twice(&all.iter().filter(|line| line["run"] == run).cloned().collect::<Vec<_>>());
    }
}

/// Asserts that a run has visited its one problem twice and went on with it where it was.
fn assert_visited_twice(lines: &[Value]) {
    let done: Vec<usize> = (0..lines.len()).filter(|&index| lines[index]["line"] == "done").collect();
    let &[first, second] = &done[..] else { panic!("found {} visits, expected 2", done.len()) };
    assert_eq!(second + 1, lines.len());
    let [before, after] = [first, second].map(|index| number(&lines[index], "share"));
    assert!(before < 0.9 * after, "{before} .. {after}");
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
    let folder = Folder::new();
    folder.succeeds(&format!("{TUNE} --budget 1 --out a.json"));
    let path = log(&folder);
    fs::copy(&path, folder.at("first.jsonl")).expect("a copy");
    folder.succeeds(&format!("{TUNE} --budget 1 --fresh --out b.json"));
    let both = path.strip_prefix(folder.0.path()).expect("inside").display();
    folder.prints(&format!("merge first.jsonl {both} --out all.jsonl"), &["2 runs"]);
    assert_eq!(lines(&folder.at("all.jsonl")), lines(&path));

    folder.prints("transfer a.json b.json", &["a regret of ", "n1h9w9c16k24r3s3"]);
    folder.prints("transfer b.json b.json", &["a regret of "]);
    folder.prints("transfer a.json all.jsonl", &["a regret of "]);
}

#[test]
fn what_is_no_log_is_refused_by_file() {
    let folder = Folder::new();
    folder.write("text", "no log\n");
    folder.write("other.jsonl", r#"{"line":"run","schema":"measurements-9"}"#.to_string() + "\n");
    folder.refuses("merge text --out all.jsonl", &["text", "no line of a log"]);
    folder.refuses("merge nowhere --out all.jsonl", &["nowhere"]);
    folder.refuses("transfer text text", &["text", "no line of a log"]);
    assert_eq!(walk(folder.0.path()).len(), 2);
    folder.succeeds(&format!("{TUNE} --budget 1"));
    let path = log(&folder);
    let text = read(&path).replace("measurements-1", "measurements-9");
    fs::write(&path, &text).expect("a log");
    folder.refuses(&format!("{TUNE} --budget 1"), &["measurements.jsonl", "schema", "measurements-9"]);
    assert_eq!(read(&path), text);
}
