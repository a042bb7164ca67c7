//! The machine, and what a shell and a reader of manuals get.

use super::*;

#[test]
fn the_machine_is_described_with_what_it_can_do() {
    let folder = Folder::new();
    let found = folder.prints_json("machine --threads 1 --isa plain --json");
    assert_eq!(
        (text(&found, "isa"), &found["tiers"], &found["threads"]),
        ("plain", &json!(["plain"]), &1.into())
    );
    assert!(number(&found, "clock_ghz") > 0.1, "{found}");
    assert!((0.0..1.0).contains(&number(&found, "noise_floor")), "{found}");
    assert!((0.01..=0.02).contains(&number(&found, "tie")), "{found}");
    assert!(number(&list(&found, "peaks")[0], "one_thread_gflops") > 0.1, "{found}");
    let levels = list(&found, "bandwidth");
    assert_eq!(
        levels.iter().map(|level| text(level, "level")).collect::<Vec<_>>(),
        ["L1", "L2", "L3", "memory"]
    );
    for level in levels.iter().filter(|level| !level["kib_a_thread"].is_null()) {
        let [one, all] = ["one_thread_gb_s", "all_threads_gb_s"].map(|field| number(level, field));
        assert!(one > 0.1 && all > 0.1, "{level}");
    }
    folder.refuses("machine --threads 0", &["--threads"]);
}

#[test]
fn every_command_has_completions_and_a_page() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        folder.prints(&format!("completions {shell}"), &["tuner", "machine", "max-memory"]);
    }
    folder.refuses("completions csh", &["csh", "bash"]);
    folder.prints("man --out deep/man1", &["deep/man1"]);
    let help = folder.succeeds("--help");
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|l| !l.is_empty());
    for name in commands.map(|line| line.split_whitespace().next().expect("a name")) {
        if name != "help" {
            let page = String::from_utf8(folder.read(&format!("deep/man1/tuner-{name}.1"))).expect("text");
            assert_contains(&page, &[".TH ", ".SH OPTIONS"]);
        }
    }
    let page = String::from_utf8(folder.read("deep/man1/tuner.1")).expect("text");
    assert_contains(&page, &[".SH SUBCOMMANDS", "tuner\\-run(1)"]);
    folder.write("file", "");
    folder.refuses("man --out file", &["file"]);
}

/// Values that are as in the plan: its guide tells their fields.
const OF_A_PLAN: [&str; 8] =
    ["step", "block_variant", "split", "measurements", "noise", "tuning", "formats", "streams"];

/// Names of fields in a value, inside lists and objects too.
fn fields(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| fields(value, names)),
        Value::Object(object) => {
            for (name, value) in object {
                names.push(name.clone());
                if !OF_A_PLAN.contains(&name.as_str()) {
                    fields(value, names);
                }
            }
        }
        _ => {}
    }
}

/// The text below a heading of the JSON section that names a command.
fn documented<'a>(guide: &'a str, command: &str) -> &'a str {
    let (_, json) = guide.split_once("\n## JSON\n").expect("the section");
    let of =
        |section: &&str| section.lines().next().is_some_and(|head| head.contains(&format!("`{command}`")));
    json.split("\n### ").skip(1).find(of).unwrap_or_else(|| panic!("{command} is not documented"))
}

#[test]
fn fields_of_json_are_documented() {
    let guide = include_str!("../../tuner/docs/command-line.md");
    let folder = Folder::with_plan(&BLOCK_PLAN.0);
    folder.write("two.txt", "n1h9w9c16k24r3s3 *2\nn1h9w9c16k32r1s1\n");
    folder.succeeds(&format!("tune {SMALL} --budget 1 --threads 1 --results log --out small.json"));
    fs::copy(find(&folder.at("log"), "jsonl").expect("a log"), folder.at("l.jsonl")).expect("a copy");
    for (command, args) in [
        ("tune", "tune --model mixed10 --budget 2 --threads 1"),
        ("tune --shapes", "tune --shapes two.txt --budget 1 --threads 1 --out s.json"),
        ("run --repeat", "run --model mixed10 --plan p.json --repeat 5"),
        ("check", "check --shape n1h9w9c16k24r3s3"),
        ("list", "list"),
        ("shapes", "shapes"),
        ("plans", "plans"),
        ("explain", "explain mixed10.branch1x1 --plan p.json"),
        ("spot", "spot --plan p.json --steps 2"),
        ("transfer", "transfer p.json p.json"),
        ("merge", "merge l.jsonl l.jsonl --out m.jsonl"),
        ("report", "report --plan p.json --out r"),
        ("peak", "peak --threads 1"),
        ("machine", "machine --threads 1"),
    ] {
        let ran = folder.run(&format!("{args} --json"));
        let found: Value =
            serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{args}: {e}\n{}", ran.err));
        let mut names = Vec::new();
        fields(&found, &mut names);
        let text = documented(guide, command);
        let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        for name in names {
            assert!(words.contains(&name.as_str()), "{command}: {name} is not documented");
        }
    }
}
