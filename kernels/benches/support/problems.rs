//! The convolutions that the environment asks for.

use kernels::Problem;

/// One of each kind: large map, reduction, pointwise on a large and on a small map, line, and
/// square on a small map.
const FEW: [&str; 6] = [
    "n1h147w147c32k64r3s3",
    "n1h35w35c288k384r3s3u2",
    "n1h35w35c288k64r1s1",
    "n1h17w17c192k192r1s7",
    "n1h8w8c2048k320r1s1",
    "n1h8w8c448k384r3s3",
];

/// What `BENCH_PROBLEMS` asks for: `all` of InceptionV3, shapes with commas between them, or a file
/// with a shape at the start of each line, such as `tuner/shapes/resnet50.txt`.
pub fn problems() -> Vec<Problem> {
    let asked = std::env::var("BENCH_PROBLEMS").unwrap_or_default();
    let list = match asked.as_str() {
        "" => FEW.join("\n"),
        "all" => include_str!("../inception_v3.txt").to_owned(),
        shapes if shapes.starts_with('n') && !shapes.contains('.') => shapes.replace(',', "\n"),
        file => read(file),
    };
    let shapes = list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next());
    let problem = |shape: &str| shape.parse().unwrap_or_else(|e| panic!("BENCH_PROBLEMS: {e}"));
    shapes.filter(|shape| !shape.is_empty()).map(|shape| Problem::Conv(problem(shape))).collect()
}

/// A file, by its path from the workspace's root, since cargo runs benches in a package's folder.
fn read(file: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("BENCH_PROBLEMS: {file}: {e}"))
}
