//! Standard input and output where a file is named: `-`.

use std::io::{Read, Write};

use super::*;

const RUN: &str = "run --model conv2d_bn --shape n1h9w9c16k24r3s3 --threads 1";

/// Runs the program with something on standard input; its status, standard output and error.
fn pipe(folder: &Folder, args: &str, input: &[u8]) -> (Option<i32>, Vec<u8>, String) {
    let mut command = folder.command(args);
    let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = streams.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // A program that refuses its arguments does not read.
    let writer = std::thread::spawn(move || stdin.write_all(&input).is_ok());
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("written");
    (output.status.code(), output.stdout, String::from_utf8(output.stderr).expect("text"))
}

fn prints(folder: &Folder, args: &str, input: &[u8]) -> String {
    let (status, out, err) = pipe(folder, args, input);
    assert_eq!(status, Some(0), "{args}: {err}");
    String::from_utf8(out).expect("text")
}

fn refuses(folder: &Folder, args: &str, input: &[u8], parts: &[&str]) {
    let (status, out, err) = pipe(folder, args, input);
    let out = String::from_utf8(out).expect("text");
    assert_refused(Ran { status, out, err }, args, parts);
}

#[test]
fn arrays_plans_labels_and_images_are_read_from_a_pipe_like_from_files() {
    let folder = Folder::with_plan(&SMALL_PLAN);
    folder.small_input("x.npy", 2);
    let from_file = folder.succeeds(&format!("{RUN} --input x.npy --plan p.json"));
    let from_pipe = prints(&folder, &format!("{RUN} --input - --plan p.json"), &folder.read("x.npy"));
    assert_eq!(from_pipe, from_file.replace("x.npy", "standard input"));
    // By its name a pipe has no length.
    let by_name = prints(&folder, &format!("{RUN} --input /dev/stdin --plan p.json"), &folder.read("x.npy"));
    assert_eq!(by_name, from_file.replace("x.npy", "/dev/stdin"));
    let by_plan = prints(&folder, &format!("{RUN} --input x.npy --plan -"), &folder.read("p.json"));
    assert_eq!(by_plan, from_file.replace("plan: p.json", "plan: standard input"));
    let explained = prints(&folder, "explain conv2d_bn.conv --plan -", &folder.read("p.json"));
    assert_contains(&explained, &["of conv2d_bn, standard input"]);
    assert!(!explained.contains("stdin"), "{explained}");
}

#[test]
fn an_image_and_labels_are_read_from_a_pipe() {
    let folder = Folder::new();
    let photograph = images::bitmap(90, 80);
    folder.write("a.bmp", &photograph);
    let run = "run --model inception_v3 --size 75x75 --threads 1 --labels none --image";
    let from_file = folder.succeeds(&format!("{run} a.bmp"));
    let from_pipe = prints(&folder, &format!("{run} -"), &photograph);
    assert_eq!(from_pipe, from_file.replace("a.bmp", "standard input"));
    let run = "run --model inception_v3 --size 75x75 --threads 1 --labels -";
    refuses(&folder, run, b"one\ntwo\n", &["standard input: found 2 labels"]);
}

#[test]
fn a_list_is_read_from_a_pipe_and_has_one_result_a_folder() {
    let folder = Folder::new();
    let tune = "tune --shapes - --budget 1 --threads 1";
    let results = |out: &str| {
        let line = out.lines().find_map(|line| line.strip_prefix("results: ")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{out}"))
    };
    let first = results(&prints(&folder, tune, b"n1h9w9c16k32r1s1*2\n"));
    assert_eq!(results(&prints(&folder, tune, b"n1h9w9c16k32r1s1\n")), first);
    assert_eq!(folder.json(&first)["model"], "shapes:stdin");
    refuses(&folder, tune, b"n1h9w9\n", &["standard input: line 1"]);
}

#[test]
fn a_tensor_of_a_check_is_read_from_a_pipe() {
    let folder = Folder::new();
    let check = "check --shape n1h2w2c1k1r1s1 --threads 1";
    for (name, shape) in [("x", [1, 2, 2, 1]), ("w", [1, 1, 1, 1]), ("y", [1, 2, 2, 1])] {
        let count = shape.iter().product();
        folder.npy_f32(&format!("{name}.npy"), &shape, &vec![1.0; count]);
    }
    let args = format!("{check} --input x.npy --filter w.npy --expect -");
    assert_contains(&prints(&folder, &args, &folder.read("y.npy")), &["all ok"]);
    let args = format!("{check} --input - --filter w.npy --expect -");
    refuses(&folder, &args, &folder.read("y.npy"), &["standard input is read already"]);
}

#[test]
fn standard_input_is_one_file_and_says_what_is_wrong_with_it() {
    let folder = Folder::new();
    folder.small_input("x.npy", 1);
    let twice = format!("{RUN} --input - --plan -");
    refuses(&folder, &twice, &folder.read("x.npy"), &["'-'", "standard input is read already"]);
    let run = format!("{RUN} --input -");
    refuses(&folder, &run, b"", &["standard input: found an empty file"]);
    refuses(&folder, &run, &folder.read("x.npy")[..500], &["standard input: found a file truncated"]);
    refuses(
        &folder,
        &format!("{RUN} --plan -"),
        b"no plan",
        &["standard input: found a text that is no JSON"],
    );
}

#[test]
fn standard_output_has_the_array_and_nothing_else() {
    let folder = Folder::new();
    folder.small_input("x.npy", 2);
    folder.succeeds(&format!("{RUN} --input x.npy --output y.npy"));
    let (status, out, err) = pipe(&folder, &format!("{RUN} --input - --output -"), &folder.read("x.npy"));
    assert_eq!((status, out), (Some(0), folder.read("y.npy")), "{err}");
    assert!(!folder.at("-").exists());
    for more in ["--repeat 3", "--repeat 3 --json", "--profile"] {
        folder.refuses(&format!("{RUN} --output - {more}"), &["--output -: standard output has the array"]);
    }
    folder.refuses(&format!("tune {SMALL} --out -"), &["--out -: standard output", "expected a file"]);
}

#[test]
fn an_array_into_a_closed_pipe_is_no_failure() {
    let folder = Folder::new();
    let mut command = folder.command(&format!("{RUN} --batch 64 --output -"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut start = [0; 6];
    child.stdout.take().expect("a pipe").read_exact(&mut start).expect("an array");
    assert_eq!(&start, b"\x93NUMPY");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
