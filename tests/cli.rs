//! The command line from outside: arguments and files in; results, notices, exit status and files out.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

#[path = "cli/check.rs"]
mod check;
#[path = "cli/log.rs"]
mod log;
#[path = "cli/plan.rs"]
mod plan;
#[path = "cli/print.rs"]
mod print;
#[path = "cli/rewrites.rs"]
mod rewrites;
#[path = "cli/run.rs"]
mod run;
#[path = "cli/show.rs"]
mod show;
#[path = "cli/tune.rs"]
mod tune;
#[path = "cli/types.rs"]
mod types;

/// A convolution that is measured and run in no time.
const SMALL: &str = "--model conv2d_bn --shape n1h9w9c16k24r3s3";
/// Its output, and its input.
const SMALL_OUTPUT: usize = 9 * 9 * 24;
const SMALL_INPUT: [usize; 3] = [9, 9, 16];

/// What a program left behind; `err` is without the lines that a slow machine prints of its progress.
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

fn command(folder: &Path, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuner-for-tests"));
    command.args(args.split_whitespace()).current_dir(folder).stdin(Stdio::null());
    command.env_remove("TUNER_ISA").env_remove("TUNER_RESULTS");
    command
}

fn start(mut command: Command) -> Ran {
    let output = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let is_progress = |line: &&str| line.starts_with("progress: ");
    let err = text(output.stderr).split_inclusive('\n').filter(|line| !is_progress(line)).collect();
    Ran { status: output.status.code(), out: text(output.stdout), err }
}

/// Runs the program in a folder; arguments have no spaces inside.
fn tuner(folder: &Path, args: &str) -> Ran {
    start(command(folder, args))
}

/// Runs the program, which succeeds; its standard output.
fn succeeds(folder: &Path, args: &str) -> String {
    let Ran { status, out, err } = tuner(folder, args);
    assert_eq!(status, Some(0), "{args}: {err}");
    out
}

/// A wrong use: status 2, nothing on standard output, one line with all the parts on standard error.
fn refuses(folder: &Path, args: &str, parts: &[&str]) {
    is_refusal(&tuner(folder, args), args, parts);
}

fn is_refusal(ran: &Ran, args: &str, parts: &[&str]) {
    let Ran { status, out, err } = ran;
    assert_eq!(*status, Some(2), "{args}: {err}");
    assert_eq!(out, "", "{args}");
    assert!(err.lines().count() == 1 && err.ends_with('\n'), "{args}: not one line:\n{err}");
    for part in parts {
        assert!(err.contains(part), "{args}: `{part}` is not in {err}");
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("written");
    path
}

/// A `.npy` file of any type and shape, as numpy writes it.
fn npy(folder: &Path, name: &str, descriptor: &str, shape: &[usize], values: &[u8]) {
    let list: String = shape.iter().map(|size| format!("{size},")).collect();
    let header = format!("{{'descr': '{descriptor}', 'fortran_order': False, 'shape': ({list}), }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    bytes.extend((padded as u16).to_le_bytes());
    bytes.extend(format!("{header:<width$}\n", width = padded - 1).bytes());
    bytes.extend(values);
    write(folder, name, bytes);
}

fn npy_f32(folder: &Path, name: &str, shape: &[usize], values: &[f32]) {
    assert_eq!(values.len(), shape.iter().product::<usize>());
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    npy(folder, name, "<f4", shape, &bytes);
}

/// The values of a float32 result of that shape.
fn result(folder: &Path, name: &str, shape: &[usize]) -> Vec<f32> {
    let loaded = tuner::cli::npy::load_npy_dyn(&folder.join(name), name, shape);
    loaded.unwrap_or_else(|e| panic!("{e}")).into_iter().collect()
}

/// Relative L2 distance within the bound of f32.
fn alike(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let distance = engine::util::stats::relative_l2(a, b);
    assert!(distance <= 1e-5, "results differ by {distance:e}");
}

fn values(name: &str, count: usize) -> Vec<f32> {
    cross_checks::Random::of(name).values(count, -1.0, 1.0)
}

/// A plan for a [`SMALL`] convolution with one thread, made once.
static SMALL_PLAN: LazyLock<Value> = LazyLock::new(|| {
    let folder = folder();
    succeeds(folder.path(), &format!("tune {SMALL} --budget 1 --threads 1 --out p.json"));
    json(&folder.path().join("p.json"))
});

/// A plan for a block with one thread, made once, and what was printed when it was made.
static BLOCK_PLAN: LazyLock<(Value, Ran)> = LazyLock::new(|| {
    let folder = folder();
    let ran = tuner(folder.path(), "--model mixed10 --budget 8 --threads 1 --out p.json --verbose --wide");
    (json(&folder.path().join("p.json")), ran)
});
