//! A single convolution with a second BatchNorm.

use super::*;

const TWO: &str = "--model conv2d_bn --shape n1h9w9c16k24r3s3 --batch-norms 2";

#[test]
fn a_plan_is_for_as_many_batch_norms_as_it_was_tuned_for() {
    let folder = Folder::new();
    folder.write("one.json", SMALL_PLAN.to_string());
    let out = folder.succeeds(&format!("tune {TWO} --threads 1 --budget 1"));
    assert_eq!(folder.json(path_of_plan(&out))["shape"], "n1h9w9c16k24r3s3-bn2");
    let next = out.lines().find_map(|line| line.strip_prefix("next: tuner ")).expect("a command");
    assert_contains(next, &[TWO]);
    folder.prints(next, &["plan: bench-results/"]);
    folder.prints("explain conv2d_bn.conv", &["n1h9w9c16k24r3s3"]);
    folder.prints("plans", &["-bn2"]);
    folder.refuses(
        &format!("run {TWO} --plan one.json"),
        &["one.json: shape is n1h9w9c16k24r3s3, expected n1h9w9c16k24r3s3-bn2"],
    );
    let note = folder.notes(&format!("run {SMALL} --threads 1"));
    assert_contains(&note, &["no plan for conv2d_bn of n1h9w9c16k24r3s3 with"]);
}

fn path_of_plan(out: &str) -> &str {
    out.lines().find_map(|line| line.strip_prefix("plan: ")).expect("a plan")
}

#[test]
fn a_second_batch_norm_changes_the_output_whatever_packed_weights_are_there() {
    let folder = Folder::new();
    folder.small_input("x.npy", 1);
    let output = |model: &str, more: &str| {
        folder.succeeds(&format!("run {model} --threads 1 --input x.npy --output y.npy {more}"));
        folder.images("y.npy", 1, SMALL_OUTPUT)
    };
    let (one, two) = (output(SMALL, ""), output(TWO, ""));
    assert_ne!(one, two);
    assert_eq!(output(SMALL, "--packed w.packed"), one);
    assert_eq!(output(TWO, "--packed w.packed"), two);
    assert_eq!(output(&format!("{SMALL} --batch-norms 1"), ""), one);
}

#[test]
fn wrong_numbers_of_batch_norms_are_refused() {
    let folder = Folder::new();
    for (args, part) in [
        ("run --model conv2d_bn --shape n1h9w9c16k24r3s3 --batch-norms 3", "--batch-norms"),
        ("run --model conv2d_bn --shape n1h9w9c16k24r3s3 --batch-norms 0", "--batch-norms"),
        ("run --model mixed0 --batch-norms 2", "--shape"),
    ] {
        folder.refuses(args, &[part]);
    }
}
