//! Folders of images: in order, by several streams, with bad ones, stopped and gone on with.

use std::io::Write;
use std::time::{Duration, Instant};

use super::images::bitmap;
use super::*;

const RUN: &str = "run --model inception_v3 --size 75x75 --features --image";

/// A folder with so many images of different sizes, `photos`.
fn photos(count: u32) -> Folder {
    let folder = Folder::new();
    fs::create_dir_all(folder.at("photos/more")).expect("folders");
    for number in 0..count {
        let place = if number % 3 == 2 { "photos/more" } else { "photos" };
        folder.write(&format!("{place}/{number:03}.bmp"), bitmap(20 + number, 24 + 4 * (number % 5)));
    }
    folder
}

/// The names of all files in a folder.
fn names_in(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.at(".")).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// The names of images in the first column.
fn names(csv: &str) -> Vec<&str> {
    csv.lines().skip(1).map(|line| line.split(',').next().expect("a field")).collect()
}

#[test]
fn a_folder_a_pattern_and_a_list_are_run_in_order_and_alike_by_any_number_of_streams() {
    let folder = photos(9);
    folder.write("photos/notes.md", "none");
    let result = |args: &str| {
        let err = folder.notes(&format!("{RUN} {args} --output y.npy"));
        (folder.result("y.npy", &[9, 2048]), err)
    };
    let (expected, err) = result("photos --threads 1");
    assert_contains(&err, &["note: 1 file not taken for images by their names (photos/notes.md the first)"]);
    folder.write(
        "list.txt",
        folder
            .run_well(&format!("{RUN} photos --threads 1"))
            .out
            .lines()
            .skip(1)
            .fold(String::new(), |list, line| list + line.split(':').next().expect("a name") + "\n"),
    );
    let list = String::from_utf8(folder.read("list.txt")).expect("text");
    assert_eq!(list.lines().map(|line| line.rsplit('/').next()).collect::<Vec<_>>().len(), 9);
    for args in [
        "photos --threads 2",
        "photos --threads 2 --streams 1",
        "photos --threads 2 --streams 2",
        "photos --threads 3 --streams 3",
        "photos --threads 2 --streams 2 --batch 2",
        "list.txt --threads 2",
    ] {
        let (values, _) = result(args);
        assert_close(&values, &expected);
        assert!(args.contains("batch") || values == expected, "{args}: other bits");
    }
    let csv = |args: &str| {
        folder.succeeds(&format!("{RUN} {args} --threads 2 --streams 2 --output y.csv"));
        String::from_utf8(folder.read("y.csv")).expect("text")
    };
    let by_folder = csv("photos");
    assert_eq!(names(&by_folder).join("\n") + "\n", list);
    assert_eq!(csv("list.txt"), by_folder);
    assert_eq!(names(&csv("photos/*.bmp")).len(), 6);
    assert!(by_folder.lines().next().expect("a head").starts_with("image,features_0,features_1,"));
}

#[test]
fn a_list_is_read_from_a_pipe() {
    let folder = photos(3);
    let mut command = folder.command(&format!("{RUN} - --threads 1 --output y.csv"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"photos/001.bmp\nphotos/000.bmp\n").expect("written");
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
    let csv = String::from_utf8(folder.read("y.csv")).expect("text");
    assert_eq!(names(&csv), ["photos/001.bmp", "photos/000.bmp"]);
}

#[test]
fn bad_images_end_a_run_or_are_skipped_and_told() {
    let folder = photos(5);
    folder.write("photos/001.bmp", "no image");
    let run = format!("{RUN} photos --threads 1");
    let refused = |args: &str| {
        let ran = folder.run(args);
        assert_eq!(ran.status, Some(2), "{args}");
        let error = ran.err.lines().last().expect("an error");
        assert!(error.starts_with("error: photos/001.bmp: found a file that starts with"), "{error}");
        error.to_owned()
    };
    for ending in ["npy", "csv", "jsonl"] {
        let err = refused(&format!("{run} --output y.{ending}"));
        let partial = format!("y.{ending}.partial-");
        assert_contains(&err, &[&partial, " has the results of the first 1, --resume goes on behind them"]);
        folder.refuses(
            &format!("{run} --output y.{ending}"),
            &[&partial, ": found the results of a run that was stopped, expected --resume to go on"],
        );
        folder.refuses(
            &format!("{run} --seed 7 --output y.{ending} --resume"),
            &[&partial, ": found the results of another run, expected the same weights and options"],
        );
        let err = folder.notes(&format!("{run} --output y.{ending} --resume --skip-bad"));
        assert_contains(&err, &["note: 1 of 4 images skipped, the first: photos/001.bmp: found"]);
        let resumed = folder.read(&format!("y.{ending}"));
        folder.succeeds(&format!("{run} --output z.{ending} --skip-bad --streams 2"));
        assert!(folder.read(&format!("z.{ending}")) == resumed, "{ending}");
        // Nothing is left to do.
        folder.succeeds(&format!("{run} --output y.{ending} --resume"));
        assert!(folder.read(&format!("y.{ending}")) == resumed, "{ending}");
        assert!(!names_in(&folder).iter().any(|name| name.contains("partial")));
    }
    let values = folder.result_with_nan("y.npy", &[5, 2048]);
    let bad: Vec<bool> = values.chunks(2048).map(|row| row.iter().all(|value| value.is_nan())).collect();
    assert_eq!(bad, [false, true, false, false, false]);
    let lines = String::from_utf8(folder.read("y.jsonl")).expect("text");
    assert_contains(
        lines.lines().nth(1).expect("a line"),
        &[r#"{"image":"photos/001.bmp","error":"photos/001.bmp: found"#],
    );
    let csv = String::from_utf8(folder.read("y.csv")).expect("text");
    assert_eq!(csv.lines().nth(2), Some(format!("photos/001.bmp{}", ",".repeat(2048)).as_str()));
    // A bad first image leaves nothing.
    refused(&format!("{RUN} photos/001.bmp photos/000.bmp --threads 1 --output w.csv"));
    assert!(!names_in(&folder).iter().any(|name| name.starts_with("w.csv")));
    let all_bad = folder.run(&format!("{RUN} photos/001.bmp --threads 1 --skip-bad --output w.csv"));
    assert_eq!(all_bad.status, Some(2));
    assert_contains(&all_bad.err, &["error: 1 of 1 image skipped, the first: photos/001.bmp: found"]);
    assert!(!names_in(&folder).iter().any(|name| name.starts_with("w.csv")));
    folder
        .refuses(&format!("{RUN} photos --output y.txt"), &["found the ending .txt, expected one of .npy,"]);
    folder.write("photos2.txt", "photos/000.bmp\n");
    folder.refuses(
        &format!("{RUN} photos2.txt --threads 1 --output y.csv --resume"),
        &["y.csv: found more rows than images, expected at most 1"],
    );
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_run_behind_what_is_at_work_and_it_can_be_gone_on_with() {
    let folder = photos(4);
    let all: Vec<String> =
        (0..200).map(|number| format!("photos/{:03}.bmp", [0, 1, 3][number % 3])).collect();
    folder.write("list.txt", all.join("\n"));
    for (signal, status, ending) in [("INT", 130, "csv"), ("TERM", 143, "npy")] {
        let args = format!("{RUN} list.txt --threads 2 --output y.{ending}");
        let mut command = folder.command_for_signals(&args);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let start = Instant::now();
        let partial = || names_in(&folder).into_iter().find(|name| name.contains("partial"));
        let written =
            || partial().and_then(|name| fs::metadata(folder.at(&name)).ok()).map_or(0, |file| file.len());
        while written() < 10_000 {
            assert!(start.elapsed() < Duration::from_secs(60), "no results");
            std::thread::sleep(Duration::from_millis(2));
        }
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(kill.expect("a signal").success());
        assert_eq!(child.wait().expect("it ends").code(), Some(status), "{signal}");
        assert!(partial().is_some() && !folder.at(&format!("y.{ending}")).exists());
        folder.succeeds(&format!("{args} --resume"));
        folder.succeeds(&args.replace("y.", "z."));
        assert!(folder.read(&format!("y.{ending}")) == folder.read(&format!("z.{ending}")), "{ending}");
    }
}

#[test]
fn results_have_the_highest_classes_with_their_names() {
    let folder = photos(3);
    let run = "run --model inception_v3 --size 75x75 --threads 1 --image photos --top 2";
    folder.succeeds(&format!("{run} --output y.jsonl"));
    let lines = String::from_utf8(folder.read("y.jsonl")).expect("text");
    let first: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    let top = first["top"].as_array().expect("classes");
    assert_eq!((first["image"].as_str(), top.len()), (Some("photos/000.bmp"), 2));
    assert!(top[0]["probability"].as_f64() >= top[1]["probability"].as_f64());
    assert!(top[0]["class"].is_u64() && top[0].get("label").is_none(), "{top:?}");
    folder.succeeds(&format!("{run} --output y.csv"));
    let csv = String::from_utf8(folder.read("y.csv")).expect("text");
    assert_eq!(csv.lines().next(), Some("image,class_1,probability_1,class_2,probability_2"));
    folder.succeeds(&format!("{run} --output y.parquet"));
    assert!(folder.read("y.parquet").starts_with(b"PAR1"));
}
