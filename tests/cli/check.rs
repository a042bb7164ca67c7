//! `check`: shapes against the oracle, tensors against kernels.

use kernels::verify::{all_pixels, expected};
use kernels::{Conv, Epilogue, Filter, Problem};

use super::*;

/// Writes `x.npy`, `w.npy`, `y32.npy` and `y64.npy` of a convolution without bias and ReLU, whose
/// last element has an error; the shape of its output.
fn tensors(folder: &Folder, shape: &str, error: f64) -> [usize; 4] {
    let mut conv: Conv = shape.parse().expect("a shape");
    conv.segments[0].epilogue = Epilogue::NONE;
    let ([h, w], [r, s], [oh, ow]) = (conv.image, conv.window.kernel, conv.output());
    let (n, c, k) = (conv.batch, conv.channels, conv.filters());
    let x = values("x", n * h * w * c);
    let weights = values("w", r * s * c * k);
    folder.npy_f32("x.npy", &[n, h, w, c], &x);
    folder.npy_f32("w.npy", &[r, s, c, k], &weights);
    let problem = Problem::Conv(conv);
    let pixels = all_pixels(problem.dst()[0]);
    let mut y = expected(&problem, &x, &[Filter::new([r, s, c, k], weights)], &pixels).remove(0).values;
    *y.last_mut().expect("elements") += error;
    let dims = [n, oh, ow, k];
    folder.npy_f32("y32.npy", &dims, &y.iter().map(|&v| v as f32).collect::<Vec<_>>());
    let bytes: Vec<u8> = y.iter().flat_map(|v| v.to_le_bytes()).collect();
    folder.npy("y64.npy", "<f8", &dims, &bytes);
    dims
}

const SHAPES: [&str; 4] = ["n1h9w9c16k24r1s7", "n2h8w11c5k7r3s2u2", "n1h7w6c4k9r3s4p0q3", "n1h9w9c16k32r3s3"];

#[test]
fn every_kernel_that_takes_a_shape_is_printed_with_its_error() {
    let folder = Folder::new();
    let out = folder.succeeds("check --shape n1h9w9c16k24r3s3 --threads 1");
    assert_contains(&out, &kernels::table().iter().map(|row| row.id).collect::<Vec<_>>());
    assert!(out.contains(" ok ") && !out.contains("WRONG"), "{out}");
    let one = folder.succeeds("check --shape n1h9w9c16k24r3s3 --kernel direct_plain --threads 1");
    assert!(one.contains("direct_plain") && !one.contains("unfused"), "{one}");
}

#[test]
fn tensors_from_elsewhere_are_confirmed_and_one_wrong_element_is_named() {
    let folder = Folder::new();
    for (shape, file) in SHAPES.into_iter().flat_map(|shape| [(shape, "y32.npy"), (shape, "y64.npy")]) {
        let args = format!("check --shape {shape} --input x.npy --filter w.npy --expect {file}");
        tensors(&folder, shape, 0.0);
        folder.prints(&args, &["direct_plain", "reference"]);
        let last = tensors(&folder, shape, 1e-2).map(|size| size - 1);
        let Ran { status, out, err } = folder.run(&args);
        assert_eq!((status, &err[..]), (Some(1), ""), "{args}: {out}");
        assert_contains(&out, &[&format!("{last:?}"), "WRONG"]);
    }
}

#[test]
fn wrong_uses_of_check_are_refused() {
    let folder = Folder::new();
    let shape = "n1h9w9c16k24r1s7";
    tensors(&folder, shape, 0.0);
    folder.npy_f32("nan.npy", &[1, 1, 1, 1], &[f32::NAN]);
    let given =
        |x: &str, w: &str, y: &str| format!("check --shape {shape} --input {x} --filter {w} --expect {y}");
    for (args, part) in [
        (given("w.npy", "w.npy", "y32.npy"), "w.npy: input"),
        (given("x.npy", "x.npy", "y32.npy"), "x.npy: filter"),
        (given("x.npy", "w.npy", "x.npy"), "x.npy: expect"),
        (given("y64.npy", "w.npy", "x.npy"), "y64.npy: input"),
        (given("x.npy", "none.npy", "y32.npy"), "none.npy"),
        (given("x.npy", "w.npy", "y32.npy") + " --batch 2", "--batch"),
        (given("x.npy", "w.npy", "y32.npy") + " --kernel pool_plain", "pool_plain"),
        (format!("check --shape {shape} --input x.npy"), "--filter"),
        ("check --input x.npy --filter w.npy --expect y32.npy".to_string(), "--shape"),
        ("check --shape n1h1w1c1k1r1s1 --input nan.npy --filter w.npy --expect x.npy".to_string(), "nan.npy"),
        (format!("check --shape {shape} --kernel nope"), "`nope`"),
        (format!("check --shape {shape} --kernel winograd_plain"), "winograd_plain does not take"),
        (format!("check --shape {shape} --model mixed0"), "--model"),
        ("check --model mixed0 --kernel softmax_plain".to_string(), "softmax_plain"),
        ("check --model nope".to_string(), "`nope`"),
    ] {
        folder.refuses(&args, &[part]);
    }
}

#[test]
fn wrong_shapes_are_refused_in_one_line() {
    let folder = Folder::new();
    let known = "x 17 n1h9w9c16k24r3 n1h9w9c16k24r3s3s3 n0h9w9c16k24r3s3 n1h-9w9c16k24r3s3 n1h9w9c16k24r3s3u0 \
                 n1h3w3c1k1r5s5p0q0 n1h9w9c16k1+1+1+1+1+1+1+1+1r3s3 n1h9w9c16k+r3s3 \
                 n1h1048576w1048576c1k1r1s1 n18446744073709551616h1w1c1k1r1s1 é1";
    let mut random = cross_checks::Random::of("shapes");
    let letters: Vec<char> = "nhwckrsupq0123456789+-é.".chars().collect();
    let made_up = (0..20).map(|_| {
        let length = 1 + random.bits() % 20;
        let text: String = (0..length).map(|_| letters[random.bits() % letters.len()]).collect();
        format!("k{text}")
    });
    for shape in known.split(' ').map(str::to_string).chain(made_up) {
        folder.refuses(&format!("check --shape={shape}"), &["--shape"]);
    }
    folder.succeeds("check --shape n1h5w5c4k1+2+3+4+5+6+7+8r3s3 --threads 1");
}
