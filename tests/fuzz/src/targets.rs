//! The parsers of all that comes from outside, each as a function of bytes that gives what it reports.
//!
//! `lib.rs` runs them on bytes that a fuzzer makes up, `../../corpora.rs` on the files in `corpus`.

use std::error::Error;
use std::fs::{self, File};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;

use engine::network::Spec;
use engine::weights::{HeadOptions, for_each_tensor};
use engine::{Model, ModelShape, Plan, Preprocessing, Request, Weights, image};
use kernels::{Conv, Tier};
use tuner::cli::{fuzz, npy};
use tuner::fid::FidStatistics;

/// Gives every error that was reported.
pub type Parser = fn(&[u8]) -> Vec<String>;

/// Each with the name of its target and of the folder of its corpus.
pub const PARSERS: [(&str, Parser); 19] = [
    ("safetensors", weights),
    ("safetensors_index", weights),
    ("hdf5", weights),
    ("torch", weights),
    ("keras", weights),
    ("npy", arrays),
    ("npz", statistics),
    ("jpeg", images),
    ("png", images),
    ("webp", images),
    ("bmp", images),
    ("tiff", images),
    ("gif", images),
    ("plan", plan),
    ("log", log),
    ("labels", labels),
    ("shape_list", shape_list),
    ("shape", shape),
    ("command_line", command_line),
];

/// A convolution whose weights are a few numbers.
static CONV: LazyLock<Model> = LazyLock::new(|| Model::conv2d_bn(&conv("n1h3w3c2k3r1s1")));

/// The network on its smallest images, as the one that has a head.
static NETWORK: LazyLock<Model> =
    LazyLock::new(|| Model::inception_v3().with_input([75, 75, 3]).expect("a size"));

fn conv(text: &str) -> Conv {
    text.parse().expect("a shape")
}

/// A folder of this process, with the file that an index may name.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("part.safetensors"), include_bytes!("../corpus/safetensors/conv2d_bn"))
        .expect("a file");
    folder
});

/// Removes the folder.
#[allow(dead_code, reason = "a fuzzer is ended from outside")]
pub fn clean() {
    let _ = fs::remove_dir_all(&*FOLDER);
}

/// The path of a file of some bytes.
fn file(input: &[u8]) -> PathBuf {
    let path = FOLDER.join("input");
    fs::write(&path, input).expect("a file");
    path
}

/// Errors of results.
#[derive(Default)]
struct Errors(Vec<String>);

impl Errors {
    fn keep<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.0.push(error.to_string())).ok()
    }
}

fn of<T>(result: Result<T, Box<dyn Error + Send + Sync>>) -> Vec<String> {
    let mut errors = Errors::default();
    errors.keep(result);
    errors.0
}

/// All tensors, and then those of a convolution and the head of a network by their names.
fn weights(input: &[u8]) -> Vec<String> {
    let (path, mut errors, mut values) = (file(input), Errors::default(), Errors::default());
    errors.keep(for_each_tensor(&path, &mut |_, _, read| drop(values.keep(read))));
    if let Some(weights) = errors.keep(Weights::open(&path, &CONV)) {
        for spec in &Spec::new(&CONV).convs {
            errors.keep(weights.conv(spec));
        }
    }
    let options = HeadOptions::default();
    errors.keep(Weights::open_with(&path, &NETWORK, &options));
    [errors.0, values.0].concat()
}

fn arrays(input: &[u8]) -> Vec<String> {
    let (path, mut errors) = (file(input), Errors::default());
    if let Some(images) = errors.keep(npy::NpyImages::open(&path, [2, 3, 2])) {
        for number in 0..images.count().min(100) {
            errors.keep(images.image(number));
        }
    }
    errors.keep(npy::load_npy_dyn(&path, "filter", &[2, 3]));
    errors.keep(npy::load_expect(&path, "expect", &[2, 3]));
    errors.keep(File::open(&path).map_err(Into::into).and_then(|file| npy::read_shape(&file)));
    errors.0
}

fn statistics(input: &[u8]) -> Vec<String> {
    of(FidStatistics::read(file(input)).map_err(Into::into))
}

fn images(input: &[u8]) -> Vec<String> {
    let exif = Preprocessing { exif: true, ..Preprocessing::default() };
    of(image::from_bytes("image", input.to_vec(), &NETWORK, &exif).map_err(Into::into))
}

/// With its measurements, then as a run checks it against its network, or the list that it is of.
fn plan(input: &[u8]) -> Vec<String> {
    let (path, mut errors) = (file(input), Errors::default());
    if let Some(plan) = errors.keep(Plan::read(&path)) {
        errors.0.extend(plan.notes(&path, Some(&plan.machine)));
        if plan.is_of_list() {
            errors.keep(plan.list_graph(&path));
        }
    }
    errors.keep(Request::new(&PLANNED).any_machine(true).read(&path, &PLANNED_WEIGHTS));
    errors.0
}

/// What the plans of the corpus are for.
static PLANNED: LazyLock<Model> = LazyLock::new(|| Model::conv2d_bn(&conv("n1h9w9c16k24r3s3")));
static PLANNED_WEIGHTS: LazyLock<Weights> = LazyLock::new(|| Weights::synthetic(&PLANNED, 1));

fn log(input: &[u8]) -> Vec<String> {
    of(fuzz::log(&file(input)))
}

/// Of one output, of two, and of three.
fn labels(input: &[u8]) -> Vec<String> {
    let (path, mut errors) = (file(input), Errors::default());
    for classes in 1..4 {
        errors.keep(fuzz::labels(&path, classes));
    }
    errors.0
}

fn shape_list(input: &[u8]) -> Vec<String> {
    of(fuzz::shape_list(&file(input)))
}

/// Texts of options: shapes of convolutions and of models, and tiers.
fn shape(input: &[u8]) -> Vec<String> {
    fn parsed<T: FromStr<Err: std::fmt::Display> + std::fmt::Display>(text: &str, errors: &mut Errors) {
        if let Some(value) = errors.keep(text.parse::<T>()) {
            let again = value.to_string().parse::<T>().map(|again| again.to_string());
            assert_eq!(again.ok(), Some(value.to_string()), "what is shown is read");
        }
    }
    let (text, mut errors) = (String::from_utf8_lossy(input), Errors::default());
    parsed::<Conv>(&text, &mut errors);
    errors.keep(text.parse::<ModelShape>());
    errors.keep(text.parse::<Tier>());
    errors.0
}

/// Words, one a line.
fn command_line(input: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(input);
    let mut errors = Errors::default();
    errors.keep(fuzz::command_line(text.lines()));
    errors.0
}

/// Prints the tensors of a file as `values.py` compares them: `ok` and each as `name=shape=values`, name
/// and values in hexadecimal digits, or `error`.
#[allow(dead_code, reason = "only one target prints")]
pub fn print_values(input: &[u8]) {
    let path = file(input);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut line = "ok".to_owned();
    let mut add = |name: &str, shape: &[usize], values: &[f32]| {
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        line.push_str(&format!("\t{}={}={}", hex(name.as_bytes()), shape.join(","), hex(&bytes)));
    };
    let is_read = if input.starts_with(b"\x93NUMPY") {
        let values = npy::load_npy(&path, [2, 3, 2])
            .map(|all| add("", all.shape(), &all.iter().copied().collect::<Vec<_>>()));
        values.is_ok()
    } else {
        let see = &mut |name: &str, shape: &[usize], read: Result<Vec<f32>, _>| {
            if let Ok(values) = read {
                add(name, shape, &values);
            }
        };
        for_each_tensor(&path, see).is_ok()
    };
    println!("{}", if is_read { line } else { "error".to_owned() });
}
