//! Running: inputs, outputs, weights, latencies.

use kernels::{Cpu, Tier};

use super::*;

const RUN: &str = "run --model conv2d_bn --shape n1h9w9c16k24r3s3 --threads 1";

#[test]
fn results_do_not_depend_on_how_images_are_batched() {
    let folder = Folder::new();
    folder.small_input("x.npy", 5);
    let run = |batch: usize| {
        let out = folder.succeeds(&format!("{RUN} --batch {batch} --input x.npy --output y.npy"));
        assert_eq!(out.lines().count(), 6, "the plan, then a line an image: {out}");
        folder.images("y.npy", 5, SMALL_OUTPUT)
    };
    let one = run(1);
    for batch in [2, 5, 7] {
        assert_close(&run(batch), &one);
    }
}

#[test]
fn reproducible_results_are_the_same_bytes_on_all_threads_batches_and_tiers() {
    let folder = Folder::new();
    folder.small_input("x.npy", 5);
    let run = |more: &str| {
        let shape = "--model conv2d_bn --shape n1h9w9c16k24r3s3";
        let out = folder.succeeds(&format!("run {shape} --reproducible --input x.npy --output y.npy {more}"));
        assert!(out.starts_with("plan: reproducible choice\n"), "{out}");
        folder.read("y.npy")
    };
    if Cpu::detect().tier() == Tier::Plain {
        return drop(folder.refuses(&format!("{RUN} --reproducible"), &["--reproducible", "expected avx2"]));
    }
    let one = run("--threads 1");
    assert_eq!(run("--threads 2 --batch 3"), one);
    assert_eq!(run("--threads 3 --batch 5 --isa avx2"), one);
    folder.refuses(
        &format!("{RUN} --reproducible --isa plain"),
        &["--reproducible: n1h9w9c16k24r3s3", "expected avx2"],
    );
    for other in ["--plan p.json", "--require-plan", "--precision bf16", "--max-memory 100"] {
        folder.refuses(&format!("{RUN} --reproducible {other}"), &["--reproducible"]);
    }
}

#[test]
fn the_shape_says_how_many_images_there_are() {
    let folder = Folder::new();
    let shape = "--model conv2d_bn --shape n3h9w9c16k24r3s3 --threads 1";
    folder.succeeds(&format!("run {shape} --output y.npy"));
    folder.images("y.npy", 3, SMALL_OUTPUT);
    folder.succeeds(&format!("tune {shape} --budget 1 --out p.json"));
    assert_eq!(folder.json("p.json")["batch"], 3);
    folder.succeeds(&format!("run {shape} --plan p.json"));
    folder.refuses(&format!("run {} --plan p.json", shape.replace("n3", "n2")), &["batch is 3"]);
    folder.refuses(&format!("run {}", shape.replace("n3", "n1025")), &["--shape", "1025"]);
}

#[test]
fn features_and_probabilities_of_the_network_have_a_row_an_image() {
    let folder = Folder::new();
    let images = values("images", 3 * 299 * 299 * 3);
    folder.npy_f32("x.npy", &[3, 299, 299, 3], &images);
    folder.npy_f32("last.npy", &[1, 299, 299, 3], &images[2 * 299 * 299 * 3..]);
    let run = |args: &str| folder.succeeds(&format!("run --model inception_v3 --threads 1 {args}"));
    run("--batch 2 --input x.npy --features --output features.npy");
    let features = folder.result("features.npy", &[3, 2048]);
    run("--input last.npy --features --output last_features.npy");
    assert_close(&features[2 * 2048..], &folder.result("last_features.npy", &[1, 2048]));
    run("--input last.npy --output y.npy");
    let sum: f32 = folder.result("y.npy", &[1, 1000]).iter().sum();
    assert!((sum - 1.0).abs() < 1e-4, "probabilities sum to {sum}");
}

#[test]
fn packed_weights_are_kept_used_and_checked() {
    let folder = Folder::new();
    folder.small_input("x.npy", 1);
    let run = |more: &str| {
        let notes = folder.notes(&format!("{RUN} --input x.npy --output y.npy --packed w.packed {more}"));
        (folder.images("y.npy", 1, SMALL_OUTPUT), notes)
    };
    let plain = run("").0;
    let written = folder.read("w.packed");
    assert_eq!(run("").0, plain, "the same bits by packed weights");
    assert_eq!(folder.read("w.packed"), written, "not written again");

    let mut changed = written.clone();
    *changed.last_mut().expect("values") ^= 1;
    let header = written.iter().position(|&byte| byte == b'\n').expect("a header") + 1;
    for damaged in [&changed[..], &written[..written.len() - 1], &written[..header]] {
        folder.write("w.packed", damaged);
        let (results, notes) = run("");
        assert_eq!(results, plain);
        assert_contains(&notes, &["w.packed", "packed anew"]);
        assert_eq!(folder.read("w.packed"), written);
    }
    assert!(run("--seed 2").1.contains("packed anew"), "other weights");
    assert!(run("").1.contains("packed anew"), "those of seed 2");

    for foreign in ["", "notes\n", "{}\n", "no line end"] {
        folder.write("w.packed", foreign);
        let Ran { status, out, err } = folder.run(&format!("{RUN} --packed w.packed"));
        assert_eq!((status, &out[..]), (Some(2), ""), "{err}");
        assert_contains(&err, &["w.packed: found another kind of file"]);
        assert_eq!(folder.read("w.packed"), foreign.as_bytes());
    }
    assert_eq!(folder.run(&format!("{RUN} --packed none/w.packed")).status, Some(2));
}

/// A safetensors file of the small convolution, all of whose weights have one value.
fn constant_weights(value: f32) -> Vec<u8> {
    let (mut header, mut values) = (Vec::new(), Vec::new());
    for (name, shape, value) in [
        ("conv.weight", &[24, 16, 3, 3][..], value),
        ("bn.weight", &[24], 1.0),
        ("bn.bias", &[24], 0.5),
        ("bn.running_mean", &[24], 0.0),
        ("bn.running_var", &[24], 1.0),
    ] {
        let (start, count) = (values.len(), shape.iter().product::<usize>());
        values.extend(f32::to_le_bytes(value).repeat(count));
        let end = values.len();
        header.push(format!(
            r#""conv2d_bn.{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", header.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &values].concat()
}

#[test]
fn packed_weights_of_other_content_are_not_used_whatever_path_and_time_say() {
    let folder = Folder::new();
    folder.small_input("x.npy", 1);
    let run = |value: f32, more: &str| {
        folder.write("w.safetensors", constant_weights(value));
        let file = fs::File::options().write(true).open(folder.at("w.safetensors")).expect("a file");
        file.set_modified(std::time::UNIX_EPOCH).expect("a time");
        folder.succeeds(&format!("{RUN} --weights w.safetensors --input x.npy --output y.npy {more}"));
        folder.images("y.npy", 1, SMALL_OUTPUT)
    };
    let (one, two) = (run(0.01, "--packed w.packed"), run(0.02, "--packed w.packed"));
    assert_eq!((run(0.01, ""), run(0.02, "")), (one.clone(), two.clone()));
    assert_ne!(one, two);
}

#[test]
fn results_that_are_not_finite_end_a_run_with_image_and_step() {
    let folder = Folder::new();
    let [h, w, c] = SMALL_INPUT;
    let images = [vec![0.0; h * w * c], vec![3e38; h * w * c]].concat();
    folder.npy_f32("x.npy", &[2, h, w, c], &images);
    folder.npy_f32("image.npy", &[1, 299, 299, 3], &vec![3e38; 299 * 299 * 3]);
    folder.write("y.npy", "old");
    let network = "run --model inception_v3 --threads 1 --input image.npy";
    for (run, parts) in [
        (format!("{RUN} --input x.npy"), "image x.npy[1]: step `conv2d_bn.conv` gives"),
        (network.to_string(), "image image.npy[0]: step `stem.Conv2d_1a_3x3` gives"),
        (format!("{network} --features"), "image image.npy[0]: step `stem.Conv2d_1a_3x3` gives"),
    ] {
        let Ran { status, out, err } = folder.run(&format!("{run} --output y.npy"));
        assert_eq!(status, Some(2), "{run}: {err}");
        assert_contains(&err, &[parts, "expected finite numbers"]);
        assert!(!out.contains('%') && !out.contains("NaN"), "{out}");
    }
    assert_eq!(folder.read("y.npy"), b"old");
}

#[test]
fn wrong_tensors_are_refused_and_the_output_stays_as_it_was() {
    let folder = Folder::new();
    let [h, w, c] = SMALL_INPUT;
    let pixels = h * w * c;
    let values = values("input", pixels);
    folder.npy_f32("rank.npy", &[h, w, c], &values);
    folder.npy_f32("size.npy", &[1, w, c, h], &values);
    folder.npy_f32("none.npy", &[0, h, w, c], &[]);
    folder.npy("type.npy", "<f8", &[1, h, w, c], &vec![0; 8 * pixels]);
    folder.npy("swapped.npy", ">f4", &[1, h, w, c], &vec![0; 4 * pixels]);
    folder.npy("short.npy", "<f4", &[1, h, w, c], &vec![0; 4 * pixels - 1]);
    folder.npy("long.npy", "<f4", &[1, h, w, c], &vec![0; 4 * pixels + 1]);
    folder.npy("huge.npy", "<f4", &[usize::MAX, h, w, c], &[]);
    for (name, bad) in [("nan.npy", f32::NAN), ("infinite.npy", f32::NEG_INFINITY)] {
        let values = [&values[1..], &[bad]].concat();
        folder.npy_f32(name, &[1, h, w, c], &values);
    }
    folder.write("empty.npy", "");
    let mut random = cross_checks::Random::of("bytes");
    for index in 0..8 {
        let mut bytes: Vec<u8> = (0..200).map(|_| random.bits() as u8).collect();
        if index % 2 == 0 {
            bytes[..10].copy_from_slice(b"\x93NUMPY\x01\x00\x76\x00");
        }
        folder.write(&format!("random{index}.npy"), bytes);
    }
    let named = "rank size none type swapped short long huge nan infinite empty missing";
    let random = (0..8).map(|index| format!("random{index}"));
    for name in named.split(' ').map(str::to_string).chain(random) {
        folder.write("y.npy", "old");
        let file = format!("{name}.npy");
        folder.refuses(&format!("{RUN} --input {file} --output y.npy"), &[&file]);
        assert_eq!(folder.read("y.npy"), b"old", "{file}");
    }
}

#[test]
fn wrong_uses_of_run_are_refused() {
    let folder = Folder::new();
    folder.write("cat.png", "meow");
    folder.write("labels.txt", "a\nb\nc\n");
    folder.small_input("x.npy", 1);
    let network = "run --model inception_v3 --threads 1";
    for (args, part) in [
        (format!("{network} --image cat.png"), "cat.png"),
        (format!("{network} --image none.jpg"), "none.jpg"),
        (format!("{network} --image cat.png --input x.npy"), "--input"),
        (format!("{network} --input x.npy"), "x.npy"),
        (format!("{network} --labels labels.txt"), "labels.txt: found 3"),
        (format!("{network} --labels none.txt"), "none.txt"),
        (format!("{RUN} --labels labels.txt"), "--labels"),
        (format!("{RUN} --image cat.png"), "--image"),
        (format!("{RUN} --features"), "--features"),
        ("run --model mixed3 --features".to_string(), "--features"),
        (format!("{RUN} --json"), "--repeat"),
        (format!("{RUN} --repeat 0"), "--repeat"),
        (format!("{RUN} --output nowhere/y.npy"), "nowhere/y.npy"),
        (format!("{RUN} --output ."), "cannot write"),
        ("run".to_string(), "--model"),
    ] {
        folder.refuses(&args, &[part]);
    }
}

#[test]
fn wrong_weights_are_refused_by_file() {
    let folder = Folder::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/weights");
    for name in ["keras3.weights.h5", "legacy.h5", "model.h5"] {
        let bytes = fs::read(fixtures.join(name)).expect("a fixture");
        let half = format!("half-{name}");
        for (name, bytes) in [(name, &bytes[..]), (&half, &bytes[..bytes.len() / 2])] {
            folder.write(name, bytes);
            folder.refuses(&format!("run --model inception_v3 --weights {name}"), &[name]);
        }
    }
    for (name, bytes) in [("a.h5", "no HDF5"), ("a.safetensors", "\u{0}\u{0}"), ("a.txt", ""), ("b.h5", "")] {
        folder.write(name, bytes);
        folder.refuses(&format!("{RUN} --weights {name}"), &[name]);
    }
    folder.refuses(&format!("{RUN} --weights ."), &["error: .: "]);
}

#[test]
fn latencies_are_one_line_of_json() {
    let folder = Folder::new();
    folder.small_input("x.npy", 3);
    for more in ["", " --output y.npy"] {
        let line = folder.prints_json(&format!("{RUN} --batch 2 --input x.npy --repeat 3 --json{more}"));
        let latencies = list(&line, "latency_ms");
        assert!(latencies.len() == 3 && latencies.iter().all(|ms| ms.as_f64().is_some_and(|ms| ms >= 0.0)));
        assert_eq!((&line["threads"], &line["batch"]), (&1.into(), &2.into()));
        assert_eq!(line["plan"], "default");
        assert!(line["disturbed"].as_u64().is_some_and(|disturbed| disturbed <= 3), "{line}");
    }
    folder.images("y.npy", 3, SMALL_OUTPUT);
    folder.write("p.json", SMALL_PLAN.to_string());
    let line = folder.prints_json(&format!("{RUN} --plan p.json --repeat 3 --json"));
    assert_eq!(line["plan"], "p.json");
    assert!(line["multiply_adds"].as_u64().is_some_and(|executed| executed > 0));
    assert_eq!(line["multiply_adds"], SMALL_PLAN["steps"][0]["multiply_adds"]);
}

#[test]
fn what_does_not_fit_in_memory_is_refused_before_anything_is_allocated() {
    let folder = Folder::new();
    let program = env!("CARGO_BIN_EXE_tuner-for-tests");
    for command in ["run --model conv2d_bn", "tune --model conv2d_bn", "check"] {
        folder.refuses(&format!("{command} --shape n1h40000w40000c1k1r3s3 --batch 1024"), &["GiB of memory"]);
        if cfg!(target_os = "linux") {
            let args = format!("{command} --threads 1 --shape n1h1w1c40000k50000r1s1");
            let mut limited = Command::new("sh");
            limited.args(["-c", &format!("ulimit -v 4000000; exec {program} {args}")]).current_dir(&folder.0);
            assert_refused(start(limited), &args, &["GiB of memory", "at most 3.8 GiB"]);
        }
    }
}

#[test]
fn lower_tiers_and_more_threads_give_the_same_results() {
    let folder = Folder::new();
    let run = |args: &str, isa: Option<&str>| {
        let mut command = folder.command(&format!("run --model mixed9 --output y.npy {args}"));
        command.envs(isa.map(|isa| ("TUNER_ISA", isa)));
        let ran = start(command);
        assert_eq!(ran.status, Some(0), "{args}: {}", ran.err);
        folder.images("y.npy", 1, BLOCK_OUTPUT)
    };
    let widest = run("--threads 1", None);
    for (args, isa) in [
        ("--threads 1 --isa avx2", None),
        ("--threads 1 --isa plain", None),
        ("--threads 1", Some("avx2")),
        ("--threads 1", Some("plain")),
        ("--threads 3", None),
    ] {
        assert_close(&run(args, isa), &widest);
    }
    let mut command = folder.command("list");
    command.env("TUNER_ISA", "mmx");
    assert_refused(start(command), "TUNER_ISA=mmx", &["mmx"]);
}
