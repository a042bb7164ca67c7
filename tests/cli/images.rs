//! Images as files: how they are preprocessed, sizes of networks, what is written.

use super::*;

const RUN: &str = "run --model inception_v3 --threads 1 --size 75x96";

/// A bitmap of 24 bits a pixel, whose width is a multiple of four.
pub fn bitmap(height: u32, width: u32) -> Vec<u8> {
    let pixels: Vec<u8> = (0..3 * height * width).map(|n| (n * 7 % 251) as u8).collect();
    let mut bytes = b"BM".to_vec();
    let words = [54 + pixels.len() as u32, 0, 54, 40, width, height, 24 << 16 | 1, 0, pixels.len() as u32];
    words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    bytes.resize(54, 0);
    [bytes, pixels].concat()
}

#[test]
fn a_network_runs_on_images_of_another_size_and_is_tuned_for_it() {
    let folder = Folder::new();
    folder.npy_f32("x.npy", &[2, 75, 96, 3], &values("images", 2 * 75 * 96 * 3));
    let run = |more: &str| {
        let Ran { out, err, .. } =
            folder.run_well(&format!("{RUN} --input x.npy --features --output y.npy {more}"));
        (folder.result("y.npy", &[2, 2048]), out, err)
    };
    let (by_default, _, err) = run("");
    assert_contains(
        &err,
        &[
            "no plan for inception_v3 of 75x96",
            "`tuner --model inception_v3 --size 75x96 --threads 1` makes one",
        ],
    );
    let out = folder.succeeds("tune --model inception_v3 --size 75x96 --threads 1 --budget 2");
    assert_contains(
        &out,
        &["inception_v3 75x96", "next: tuner run --model inception_v3 --size 75x96 --plan"],
    );
    let (tuned, out, err) = run("");
    assert_contains(&out, &["plan-inception_v3-75x96-t1-b1"]);
    assert_eq!(err, "");
    assert_close(&tuned, &by_default);
    // It is for this size alone.
    let plan = find(&folder.at("bench-results"), "json").expect("a plan");
    let plan = plan.display();
    let log = find(&folder.at("bench-results"), "jsonl").expect("a log");
    folder.refuses(&format!("{RUN} --input x.npy --output {plan}"), &["--output", "is the file of the plan"]);
    let tune = "tune --model inception_v3 --size 75x96 --threads 1 --budget 2";
    folder.refuses(&format!("{tune} --out {}", log.display()), &["--out", "is the log of measurements"]);
    folder.refuses(
        &format!("{} --plan {plan}", RUN.replace("75x96", "96x75")),
        &["shape is 75x96, expected 96x75 (--size 75x96 runs"],
    );
    folder.refuses(
        &format!("{} --plan {plan}", RUN.replace("--size 75x96", "")),
        &["shape is 75x96, expected absent"],
    );
    for (args, part) in [
        (format!("{} --input x.npy", RUN.replace("75x96", "75x80")), "(--size 75x96 runs inception_v3"),
        (RUN.replace("75x96", "74x96"), "expected sides from 75 to 4096"),
        (RUN.replace("75x96", "75"), "expected height and width like 150x200"),
        ("run --model mixed0 --size 75x75".to_string(), "mixed0"),
    ] {
        folder.refuses(&args, &[part]);
    }
}

#[test]
fn images_are_preprocessed_as_asked_and_what_is_written_can_be_read_again() {
    let folder = Folder::new();
    folder.write("small.bmp", bitmap(40, 60));
    folder.write("large.bmp", bitmap(100, 120));
    let images = "--image large.bmp small.bmp";
    let err = folder.notes(&format!("{RUN} {images} --write-input x.npy --features --output y.npy"));
    assert_contains(
        &err,
        &["preprocessed by keras: stretched to 75x96", "small.bmp of 40x60 is enlarged (--size"],
    );
    folder.result("x.npy", &[2, 75, 96, 3]);
    let from_images = folder.result("y.npy", &[2, 2048]);
    folder.succeeds(&format!("{RUN} --input x.npy --features --output y.npy"));
    assert_eq!(folder.result("y.npy", &[2, 2048]), from_images);

    let options = "--resize 80x100 --crop 75 --interpolation bicubic --mean 0.5,0.4,0.3 --std 0.25";
    let square = RUN.replace("75x96", "75x75");
    let err = folder.notes(&format!("{square} --image large.bmp {options}"));
    let expected =
        "stretched to 80x100, bicubic, centre crop 75x75, mean 0.5,0.4,0.3, standard deviation 0.25";
    assert_contains(&err, &[expected]);
    assert!(!err.contains("enlarged"), "{err}");
    for (args, part) in [
        (
            format!("{RUN} --image large.bmp --resize 90x96"),
            "(--size 90x96 runs inception_v3 on such images)",
        ),
        (format!("{RUN} --image large.bmp --write-input large.bmp"), "is the file of --image"),
        (format!("{RUN} --image large.bmp --write-input z.npy --output ./z.npy"), "is the file of --"),
        (format!("{RUN} --image large.bmp --write-input none/z.npy"), "none/z.npy: cannot write"),
        (format!("{RUN} --input x.npy --write-input z.npy"), "--write-input"),
        (format!("{RUN} --input x.npy --output x.npy"), "--output x.npy: is the file of --input"),
    ] {
        folder.refuses(&args, &[part]);
    }
    assert_eq!(folder.read("large.bmp"), bitmap(100, 120));
    assert!(!folder.at("z.npy").exists());
}

#[test]
fn classes_of_synthetic_weights_mean_nothing() {
    let folder = Folder::new();
    let Ran { out, err, .. } = folder.run_well(RUN);
    assert_contains(&err, &["the weights are synthetic, so that their classes mean nothing"]);
    assert!(out.lines().last().expect("classes").trim_end().ends_with(|c: char| c.is_ascii_digit()), "{out}");
}
