//! The command line from outside: arguments and files in; results, notices, status and files out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use cross_checks::walk;
use serde_json::{Value, json};
use tempfile::TempDir;

mod check;
mod compare;
mod faults;
mod fid;
mod folders;
mod images;
mod lists;
mod log;
mod machine;
mod memory;
mod norms;
mod plan;
mod print;
mod run;
mod show;
mod stdio;
mod tune;
mod variants;
mod words;

/// The program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_tuner-for-tests");

/// A convolution that is measured and run in no time.
const SMALL: &str = "--model conv2d_bn --shape n1h9w9c16k24r3s3";
/// Its output, and its input.
const SMALL_OUTPUT: [usize; 3] = [9, 9, 24];
const SMALL_INPUT: [usize; 3] = [9, 9, 16];

/// What a program left behind; `err` is without the lines of progress of a slow machine.
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

fn start(mut command: Command) -> Ran {
    let output = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    // Other tests run at the same time.
    let of_the_machine = ["progress: ", "warning: other processes use ", "warning: the machine was "];
    let is_of_the_machine = |line: &&str| of_the_machine.iter().any(|start| line.starts_with(start));
    let err = text(output.stderr).split_inclusive('\n').filter(|line| !is_of_the_machine(line)).collect();
    Ran { status: output.status.code(), out: text(output.stdout), err }
}

/// A wrong use: status 2, nothing on standard output, one line with all the parts on standard
/// error, which is returned.
fn assert_refused(Ran { status, out, err }: Ran, args: &str, parts: &[&str]) -> String {
    assert_eq!(status, Some(2), "{args}: {err}");
    assert_eq!(out, "", "{args}");
    assert!(err.lines().count() == 1 && err.ends_with('\n'), "{args}: not one line:\n{err}");
    for part in parts {
        assert!(err.contains(part), "{args}: `{part}` is not in {err}");
    }
    err
}

/// A plan with one edit, and a part of the refusal, which names the field.
type Edit<'a> = (&'a str, fn(&mut Value));

/// A folder that the program is started in; arguments have no spaces inside.
struct Folder(TempDir);

impl Folder {
    /// With an empty `bench-results`, which keeps results here.
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        fs::create_dir(folder.at("bench-results")).expect("a folder");
        folder
    }

    /// With a plan, `p.json`.
    fn with_plan(plan: &Value) -> Self {
        let folder = Self::new();
        folder.write("p.json", plan.to_string());
        folder
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, bytes).expect("written");
        path
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn command(&self, args: &str) -> Command {
        self.prepared(Command::new(PROGRAM), args)
    }

    /// As [`Self::command`], of a program that ignores no signal: these tests may run in the background
    /// of a shell, which ignores SIGINT there.
    fn command_for_signals(&self, args: &str) -> Command {
        let mut env = Command::new("env");
        env.args(["--default-signal=INT,TERM", PROGRAM]);
        self.prepared(env, args)
    }

    fn prepared(&self, mut command: Command, args: &str) -> Command {
        command.args(args.split_whitespace()).current_dir(&self.0).stdin(Stdio::null());
        command.env_remove("TUNER_ISA").env_remove("TUNER_RESULTS");
        command.env("XDG_DATA_HOME", self.at("data"));
        command
    }

    fn run(&self, args: &str) -> Ran {
        start(self.command(args))
    }

    fn run_well(&self, args: &str) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.status, Some(0), "{args}: {}", ran.err);
        ran
    }

    /// Runs the program, which succeeds; its standard output.
    fn succeeds(&self, args: &str) -> String {
        self.run_well(args).out
    }

    /// Runs the program, which succeeds and prints all the parts.
    fn prints(&self, args: &str, parts: &[&str]) {
        assert_contains(&self.succeeds(args), parts);
    }

    /// Runs the program, which succeeds; its standard error.
    fn notes(&self, args: &str) -> String {
        self.run_well(args).err
    }

    /// Runs the program, which succeeds and prints one line of JSON.
    fn prints_json(&self, args: &str) -> Value {
        let out = self.succeeds(args);
        assert_eq!(out.lines().count(), 1, "{args}: {out}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args}: {e}\n{out}"))
    }

    /// Runs the program, which refuses as [`assert_refused`] says.
    fn refuses(&self, args: &str, parts: &[&str]) -> String {
        assert_refused(self.run(args), args, parts)
    }

    /// A run by each edited plan is refused by file and field, and leaves its output as it was.
    fn refuses_edits(&self, run: &str, plan: &Value, edits: &[Edit]) {
        for (index, (field, edit)) in edits.iter().enumerate() {
            let mut plan = plan.clone();
            edit(&mut plan);
            let name = format!("edited-{index}.json");
            self.write(&name, plan.to_string());
            self.write("y.npy", "old");
            self.refuses(&format!("{run} --plan {name} --output y.npy"), &[&name, field]);
            assert_eq!(self.read("y.npy"), b"old", "{name}");
        }
    }

    /// A `.npy` file of any type and shape, as numpy writes it.
    fn npy(&self, name: &str, descriptor: &str, shape: &[usize], values: &[u8]) {
        let list: String = shape.iter().map(|size| format!("{size},")).collect();
        let header = format!("{{'descr': '{descriptor}', 'fortran_order': False, 'shape': ({list}), }}");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
        bytes.extend((padded as u16).to_le_bytes());
        bytes.extend(format!("{header:<width$}\n", width = padded - 1).bytes());
        bytes.extend(values);
        self.write(name, bytes);
    }

    fn npy_f32(&self, name: &str, shape: &[usize], values: &[f32]) {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.npy(name, "<f4", shape, &bytes);
    }

    /// Images for [`SMALL`], one a row.
    fn small_input(&self, name: &str, images: usize) {
        let [h, w, c] = SMALL_INPUT;
        self.npy_f32(name, &[images, h, w, c], &values("input", images * h * w * c));
    }

    /// The values of a float32 result of so many images, each of that shape.
    fn images(&self, name: &str, images: usize, shape: [usize; 3]) -> Vec<f32> {
        self.result(name, &[&[images], &shape[..]].concat())
    }

    /// The values of a float32 result of that shape.
    fn result(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        let loaded = tuner::cli::npy::load_npy_dyn(&self.at(name), name, shape);
        loaded.unwrap_or_else(|e| panic!("{e}")).into_iter().collect()
    }

    /// As [`Self::result`], of a file in which values may be none.
    fn result_with_nan(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        let (bytes, size) = (self.read(name), shape.iter().product::<usize>());
        let values = &bytes[bytes.len() - size * size_of::<f32>()..];
        values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// The output of `mixed10` by a plan, one row an image.
    fn block_output(&self, plan: &Value, images: usize) -> Vec<f32> {
        self.write("p.json", plan.to_string());
        self.succeeds(&format!("{RUN_BLOCK} --batch {images} --plan p.json --output y.npy"));
        self.images("y.npy", images, BLOCK_OUTPUT)
    }
}

/// The first file below a folder whose name ends so.
fn find(folder: &Path, extension: &str) -> Option<PathBuf> {
    walk(folder).into_iter().find(|path| path.extension().is_some_and(|found| found == extension))
}

fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} of {value}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("{key} of {value}"))
}

fn list_mut<'a>(value: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    value[key].as_array_mut().unwrap_or_else(|| panic!("a list {key}"))
}

/// Asserts a relative L2 distance within the bound of f32.
fn assert_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let distance = engine::util::stats::relative_l2(a, b);
    assert!(distance <= 1e-5, "results differ by {distance:e}");
}

fn values(name: &str, count: usize) -> Vec<f32> {
    cross_checks::Random::of(name).values(count, -1.0, 1.0)
}

/// A plan for a [`SMALL`] convolution with one thread, made once.
static SMALL_PLAN: LazyLock<Value> = LazyLock::new(|| {
    let folder = Folder::new();
    folder.succeeds(&format!("tune {SMALL} --budget 1 --threads 1 --out p.json"));
    folder.json("p.json")
});

/// How the block of [`BLOCK_PLAN`] is run, and the size of its output.
const RUN_BLOCK: &str = "run --model mixed10";
const BLOCK_OUTPUT: [usize; 3] = [8, 8, 2048];

/// A plan for a block with one thread, made once, and what was printed when it was made.
static BLOCK_PLAN: LazyLock<(Value, Ran)> = LazyLock::new(|| {
    let folder = Folder::new();
    let ran = folder.run("--model mixed10 --budget 12 --threads 1 --out p.json --verbose --wide");
    (folder.json("p.json"), ran)
});
