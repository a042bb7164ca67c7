//! Running: inputs, outputs, weights, latencies.

use super::*;

const RUN: &str = "run --model conv2d_bn --shape n1h9w9c16k24r3s3 --threads 1";

/// Writes N images for [`SMALL`].
fn small_input(folder: &Path, name: &str, n: usize) {
    let [h, w, c] = SMALL_INPUT;
    npy_f32(folder, name, &[n, h, w, c], &values("input", n * h * w * c));
}

#[test]
fn results_do_not_depend_on_how_images_are_batched() {
    let folder = folder();
    small_input(folder.path(), "x.npy", 5);
    let run = |batch: usize| {
        let out = succeeds(folder.path(), &format!("{RUN} --batch {batch} --input x.npy --output y.npy"));
        assert_eq!(out.lines().count(), 6, "the plan, then a line an image: {out}");
        result(folder.path(), "y.npy", &[5, SMALL_OUTPUT])
    };
    let one = run(1);
    for batch in [2, 5, 7] {
        alike(&run(batch), &one);
    }
}

#[test]
fn the_shape_says_how_many_images_there_are() {
    let folder = folder();
    let shape = "--model conv2d_bn --shape n3h9w9c16k24r3s3 --threads 1";
    succeeds(folder.path(), &format!("run {shape} --output y.npy"));
    result(folder.path(), "y.npy", &[3, SMALL_OUTPUT]);
    succeeds(folder.path(), &format!("tune {shape} --budget 1 --out p.json"));
    assert_eq!(json(&folder.path().join("p.json"))["batch"], 3);
    succeeds(folder.path(), &format!("run {shape} --plan p.json"));
    let other = shape.replace("n3", "n2");
    refuses(folder.path(), &format!("run {other} --plan p.json"), &["batch is 3"]);
    let more = shape.replace("n3", "n1025");
    refuses(folder.path(), &format!("run {more}"), &["--shape", "1025"]);
}

#[test]
fn features_and_probabilities_of_the_network_have_a_row_an_image() {
    let folder = folder();
    let images = values("images", 3 * 299 * 299 * 3);
    npy_f32(folder.path(), "x.npy", &[3, 299, 299, 3], &images);
    npy_f32(folder.path(), "last.npy", &[1, 299, 299, 3], &images[2 * 299 * 299 * 3..]);
    let run = |args: &str| succeeds(folder.path(), &format!("run --model inception_v3 --threads 1 {args}"));
    run("--batch 2 --input x.npy --features --output features.npy");
    let features = result(folder.path(), "features.npy", &[3, 2048]);
    run("--input last.npy --features --output last_features.npy");
    alike(&features[2 * 2048..], &result(folder.path(), "last_features.npy", &[1, 2048]));
    run("--input last.npy --output y.npy");
    let sum: f32 = result(folder.path(), "y.npy", &[1, 1000]).iter().sum();
    assert!((sum - 1.0).abs() < 1e-4, "probabilities sum to {sum}");
}

#[test]
fn packed_weights_are_kept_used_and_checked() {
    let folder = folder();
    small_input(folder.path(), "x.npy", 1);
    let at = |name: &str| folder.path().join(name);
    let run = |more: &str| {
        let line = format!("{RUN} --input x.npy --output y.npy --packed w.packed {more}");
        let Ran { status, err, .. } = tuner(folder.path(), &line);
        assert_eq!(status, Some(0), "{line}: {err}");
        (result(folder.path(), "y.npy", &[1, SMALL_OUTPUT]), err)
    };
    let plain = run("").0;
    let written = std::fs::read(at("w.packed")).expect("packed weights");
    assert_eq!(run("").0, plain, "the same bits by packed weights");
    assert_eq!(std::fs::read(at("w.packed")).expect("packed weights"), written, "not written again");

    let mut changed = written.clone();
    *changed.last_mut().expect("values") ^= 1;
    let header = written.iter().position(|&byte| byte == b'\n').expect("a header") + 1;
    for damaged in [&changed[..], &written[..written.len() - 1], &written[..header]] {
        std::fs::write(at("w.packed"), damaged).expect("written");
        let (results, notes) = run("");
        assert_eq!(results, plain);
        assert!(notes.contains("w.packed") && notes.contains("packed anew"), "{notes}");
        assert_eq!(std::fs::read(at("w.packed")).expect("packed weights"), written);
    }
    assert!(run("--seed 2").1.contains("packed anew"), "other weights");
    assert!(run("").1.contains("packed anew"), "those of seed 2");

    for foreign in ["", "notes\n", "{}\n", "no line end"] {
        std::fs::write(at("w.packed"), foreign).expect("written");
        let Ran { status, out, err } = tuner(folder.path(), &format!("{RUN} --packed w.packed"));
        assert_eq!((status, &out[..]), (Some(2), ""), "{err}");
        assert!(err.contains("w.packed: found another kind of file"), "{err}");
        assert_eq!(std::fs::read(at("w.packed")).expect("a file"), foreign.as_bytes());
    }
    assert_eq!(tuner(folder.path(), &format!("{RUN} --packed none/w.packed")).status, Some(2));
}

#[test]
fn wrong_tensors_are_refused_and_the_output_stays_as_it_was() {
    let folder = folder();
    let [h, w, c] = SMALL_INPUT;
    let (pixels, path) = (h * w * c, folder.path());
    let values = values("input", pixels);
    npy_f32(path, "rank.npy", &[h, w, c], &values);
    npy_f32(path, "size.npy", &[1, w, c, h], &values);
    npy_f32(path, "none.npy", &[0, h, w, c], &[]);
    npy(path, "type.npy", "<f8", &[1, h, w, c], &vec![0; 8 * pixels]);
    npy(path, "swapped.npy", ">f4", &[1, h, w, c], &vec![0; 4 * pixels]);
    npy(path, "short.npy", "<f4", &[1, h, w, c], &vec![0; 4 * pixels - 1]);
    npy(path, "long.npy", "<f4", &[1, h, w, c], &vec![0; 4 * pixels + 1]);
    npy(path, "huge.npy", "<f4", &[usize::MAX, h, w, c], &[]);
    for (name, bad) in [("nan.npy", f32::NAN), ("infinite.npy", f32::NEG_INFINITY)] {
        let mut values = values.clone();
        values[pixels - 1] = bad;
        npy_f32(path, name, &[1, h, w, c], &values);
    }
    write(path, "empty.npy", "");
    let mut random = cross_checks::Random::of("bytes");
    for index in 0..8 {
        let mut bytes: Vec<u8> = (0..200).map(|_| random.bits() as u8).collect();
        if index % 2 == 0 {
            bytes[..10].copy_from_slice(b"\x93NUMPY\x01\x00\x76\x00");
        }
        write(path, &format!("random{index}.npy"), bytes);
    }
    let named = "rank size none type swapped short long huge nan infinite empty missing";
    let random = (0..8).map(|index| format!("random{index}"));
    for name in named.split(' ').map(str::to_string).chain(random) {
        write(path, "y.npy", "old");
        let file = format!("{name}.npy");
        refuses(path, &format!("{RUN} --input {file} --output y.npy"), &[&file]);
        assert_eq!(std::fs::read(path.join("y.npy")).expect("readable"), b"old");
    }
}

#[test]
fn wrong_uses_of_run_are_refused() {
    let folder = folder();
    let path = folder.path();
    write(path, "cat.png", "meow");
    write(path, "labels.txt", "a\nb\nc\n");
    small_input(path, "x.npy", 1);
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
        (format!("{RUN} --repeat 1 --json --profile"), "--profile"),
        (format!("{RUN} --output nowhere/y.npy"), "nowhere/y.npy"),
        (format!("{RUN} --output ."), "cannot write"),
        ("run".to_string(), "--model"),
    ] {
        refuses(path, &args, &[part]);
    }
}

#[test]
fn wrong_weights_are_refused_by_file() {
    let folder = folder();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/weights");
    for name in ["keras3.weights.h5", "legacy.h5", "model.h5"] {
        let bytes = std::fs::read(fixtures.join(name)).expect("a fixture");
        write(folder.path(), name, &bytes);
        write(folder.path(), &format!("half-{name}"), &bytes[..bytes.len() / 2]);
        refuses(folder.path(), &format!("run --model inception_v3 --weights {name}"), &[name]);
        refuses(folder.path(), &format!("run --model inception_v3 --weights half-{name}"), &[name]);
    }
    for (name, bytes) in [("a.h5", "no HDF5"), ("a.safetensors", "\u{0}\u{0}"), ("a.txt", ""), ("b.h5", "")] {
        write(folder.path(), name, bytes);
        refuses(folder.path(), &format!("{RUN} --weights {name}"), &[name]);
    }
    refuses(folder.path(), &format!("{RUN} --weights ."), &["error: .: "]);
}

#[test]
fn latencies_are_one_line_of_json() {
    let folder = folder();
    small_input(folder.path(), "x.npy", 3);
    for more in ["", " --output y.npy"] {
        let args = format!("{RUN} --batch 2 --input x.npy --repeat 3 --json{more}");
        let out = succeeds(folder.path(), &args);
        assert_eq!(out.lines().count(), 1, "{out}");
        let line: Value = serde_json::from_str(&out).expect("JSON");
        let latencies = line["latency_ms"].as_array().expect("a list");
        assert!(latencies.len() == 3 && latencies.iter().all(|ms| ms.as_f64().is_some_and(|ms| ms >= 0.0)));
        assert_eq!((&line["threads"], &line["batch"]), (&1.into(), &2.into()));
        assert_eq!(line["plan"], "default");
    }
    result(folder.path(), "y.npy", &[3, SMALL_OUTPUT]);
    write(folder.path(), "p.json", SMALL_PLAN.to_string());
    let out = succeeds(folder.path(), &format!("{RUN} --plan p.json --repeat 3 --json"));
    let line: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(line["plan"], "p.json");
    assert!(line["multiply_adds"].as_u64().is_some_and(|executed| executed > 0));
    assert_eq!(line["multiply_adds"], SMALL_PLAN["steps"][0]["multiply_adds"]);
}

#[test]
fn what_does_not_fit_in_memory_is_refused_before_anything_is_taken() {
    let folder = folder();
    let shape = "--shape n1h40000w40000c1k1r3s3 --batch 1024";
    for command in ["run --model conv2d_bn", "tune --model conv2d_bn", "check"] {
        refuses(folder.path(), &format!("{command} {shape}"), &["GiB of memory"]);
    }
    let filter = "--shape n1h1w1c40000k50000r1s1";
    let few = |command: &str| {
        let mut limited = Command::new("sh");
        let program = env!("CARGO_BIN_EXE_tuner-for-tests");
        limited.args(["-c", &format!("ulimit -v 4000000; exec {program} {command} --threads 1 {filter}")]);
        limited.current_dir(folder.path());
        start(limited)
    };
    if cfg!(target_os = "linux") {
        for command in ["run --model conv2d_bn", "tune --model conv2d_bn", "check"] {
            is_refusal(&few(command), command, &["GiB of memory", "at most 3.8 GiB"]);
        }
    }
}

#[test]
fn lower_tiers_and_more_threads_give_the_same_results() {
    let folder = folder();
    let run = |args: &str, isa: Option<&str>| {
        let mut command = command(folder.path(), &format!("run --model mixed9 --output y.npy {args}"));
        command.envs(isa.map(|isa| ("TUNER_ISA", isa)));
        let ran = start(command);
        assert_eq!(ran.status, Some(0), "{args}: {}", ran.err);
        result(folder.path(), "y.npy", &[1, 8 * 8 * 2048])
    };
    let widest = run("--threads 1", None);
    for (args, isa) in [
        ("--threads 1 --isa avx2", None),
        ("--threads 1 --isa plain", None),
        ("--threads 1", Some("avx2")),
        ("--threads 1", Some("plain")),
        ("--threads 3", None),
    ] {
        alike(&run(args, isa), &widest);
    }
    let mut command = command(folder.path(), "list");
    command.env("TUNER_ISA", "mmx");
    is_refusal(&start(command), "TUNER_ISA=mmx", &["mmx"]);
}
