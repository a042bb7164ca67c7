//! Distances of sets of images, and the features of earlier layers.

use super::images::bitmap;
use super::*;

const FID: &str = "fid real fake --dims 64 --threads 1";

/// Two folders of three images each, of different sizes.
fn folders() -> Folder {
    let folder = Folder::new();
    for (side, extra) in [("real", 0), ("fake", 40)] {
        fs::create_dir(folder.at(side)).expect("a folder");
        for number in 0..3 {
            let size = 40 + 20 * number + extra;
            folder.write(&format!("{side}/{number}.bmp"), bitmap(size, size + 4));
        }
    }
    folder
}

#[test]
fn the_distance_of_two_folders_is_printed_with_what_to_know_of_it() {
    let folder = folders();
    let Ran { out, err, .. } = folder.run_well(&format!("{FID} --seed 1"));
    assert!(
        out.starts_with("FID ")
            && out.contains(" by 64 features\nreal: real, 3 images\nfake: fake, 3 images\n")
    );
    let parts = [
        "note: the weights are synthetic, so that the distance means nothing",
        "note: no plan for inception_v3_fid with 1 thread and batch 1 in",
        "`tuner --model inception_v3_fid --threads 1` makes one",
        "note: images are preprocessed by fid: stretched to 299x299, bilinear-no-antialias",
        "real/0.bmp of 40x44, one of 3, is enlarged\n",
        "note: real: 3 images have a singular covariance of 64 features, and their FID is biased",
    ];
    assert_contains(&err, &parts);
    assert_eq!(err.matches("preprocessed by").count(), 1, "{err}");
    let json = folder.prints_json(&format!("{FID} --seed 1 --json"));
    let fid = number(&json, "fid");
    assert!(fid > 0.0 && out.contains(&format!("{fid:.6}")), "{json}");
    assert_eq!((&json["dims"], text(&json, "preprocess"), &json["plan"]), (&json!(64), "fid", &Value::Null));
    assert_eq!(json["fake"], json!({"path": "fake", "images": 3}));
    for batch in [1, 2] {
        let json = folder.prints_json(&format!("{FID} --seed 1 --json --batch {batch}"));
        assert!((number(&json, "fid") - fid).abs() < 1e-5 * fid, "{json} {fid}");
    }
    let same = FID.replace("fake", "real");
    assert_eq!(number(&folder.prints_json(&format!("{same} --seed 1 --json")), "fid"), 0.0);
    let json = folder.prints_json(&format!("{FID} --seed 1 --json --kid=2"));
    assert!(number(&json["kid"], "deviation") > 0.0 && json["kid"]["subset"] == json!(2), "{json}");
    let Ran { out, err, .. } = folder.run_well(&format!("{FID} --seed 1 --kid"));
    assert!(out.contains("\nKID ") && out.contains(" ± 0.00000000 by subsets of 3 images\n"), "{out}");
    assert_contains(&err, &["note: KID is by subsets of 3 images, since one side has no more"]);
    let clean = folder.prints_json(&format!("{FID} --seed 1 --json --preprocess fid-clean"));
    assert!(number(&clean, "fid") != fid && text(&clean, "preprocess") == "fid-clean", "{clean}");
}

#[test]
fn statistics_stand_for_their_images() {
    let folder = folders();
    let fid = number(&folder.prints_json(&format!("{FID} --seed 1 --json")), "fid");
    for side in ["real", "fake"] {
        let out =
            folder.succeeds(&format!("fid {side} --save-stats {side}.npz --dims 64 --threads 1 --seed 1"));
        assert_eq!(out, format!("{side}.npz: statistics of 64 features of {side}, 3 images\n"));
    }
    // Features are those of the statistics where nothing else is asked for, and two files need no weights.
    for args in
        ["real.npz fake --seed 1 --threads 1", "real fake.npz --seed 1 --threads 1", "real.npz fake.npz"]
    {
        let found = number(&folder.prints_json(&format!("fid {args} --json")), "fid");
        assert!((found - fid).abs() < 1e-9 * fid, "{args}: {found} {fid}");
    }
    folder.write("list.txt", "real/0.bmp\nreal/1.bmp\n\nreal/2.bmp\n");
    let json = folder.prints_json("fid list.txt real --dims 64 --threads 1 --seed 1 --json");
    assert_eq!(number(&json, "fid"), 0.0);
    folder.refuses(
        "fid real.npz fake.npz --dims 192",
        &["real.npz: found statistics of 64 features, expected 192"],
    );
}

#[test]
fn what_has_no_distance_is_refused_in_one_line() {
    let folder = folders();
    folder.succeeds("fid real --save-stats real.npz --dims 64 --threads 1 --seed 1");
    let statistics = folder.read("real.npz");
    folder.write("cut.npz", &statistics[..statistics.len() - 40]);
    folder.write("other.csv", "1,2");
    folder.write("one.txt", "real/0.bmp\n");
    folder.write("gone.txt", "real/0.bmp\nreal/7.bmp\n");
    fs::create_dir(folder.at("none")).expect("a folder");
    fs::create_dir(folder.at("ppm")).expect("a folder");
    folder.write("ppm/0.bmp", bitmap(20, 20));
    folder.write("ppm/1.ppm", "P6 1 1 255 abc");
    for (args, parts) in [
        (
            "fid real fake",
            &["--weights is missing", "`curl -LO https://github.com/mseitzer/pytorch-fid/releases"][..],
        ),
        ("fid real", &["FAKE"]),
        ("fid real fake --save-stats x.npz --seed 1", &["--save-stats"]),
        (
            "fid real --save-stats real.npz --seed 1 --dims 100",
            &["--dims: ", "found 100 features, expected 64, 192"],
        ),
        ("fid real.npz --save-stats -", &["--save-stats -: "]),
        ("fid real.npz --save-stats ./real.npz", &["--save-stats ./real.npz: is a file that is read"]),
        ("fid real --save-stats none/x/y.npz --seed 1", &["y.npz: cannot write"]),
        ("fid none fake --seed 1", &["none: found no image, expected some in this folder"]),
        ("fid one.txt fake --seed 1", &["one.txt: found 1 image, expected at least 2"]),
        (
            "fid other.csv fake --seed 1",
            &["other.csv: found another file, expected a folder of images, a list"],
        ),
        ("fid gone fake --seed 1", &["gone: cannot read"]),
        (
            "fid cut.npz real.npz",
            &["cut.npz: found a damaged archive", "expected an .npz archive with mu and sigma"],
        ),
        ("fid real.npz real.npz --kid", &["real.npz: statistics have no KID, expected images"]),
        ("fid real fake --kid=1", &["--kid"]),
        ("fid real.npz fake --seed 1 --plan gone.json", &["gone.json"]),
        ("fid real fake --seed 1 --preprocess clean", &["expected keras, ", "fid-torch-fidelity"]),
        ("fid real fake --weights other.csv", &["other.csv: "]),
    ] {
        folder.refuses(args, parts);
    }
    // What is wrong with an image is seen when it is its turn, behind the first notes.
    for (args, part) in
        [("gone.txt fake", "real/7.bmp: cannot read"), ("ppm fake", "ppm/1.ppm: found a file that starts")]
    {
        let Ran { status, out, err } = folder.run(&format!("fid {args} --dims 64 --threads 1 --seed 1"));
        assert_eq!((status, &out[..]), (Some(2), ""), "{err}");
        assert!(
            err.lines().last().is_some_and(|line| line.starts_with("error: ") && line.contains(part)),
            "{err}"
        );
    }
    assert_eq!(folder.read("real.npz"), statistics);
}

#[test]
fn a_network_is_cut_behind_the_features_that_are_asked_for() {
    let folder = Folder::new();
    let run = "run --model inception_v3_fid --threads 1 --features --output y.npy";
    for dims in [64, 192, 768, 2048] {
        folder.succeeds(&format!("{run} --dims {dims}"));
        assert!(folder.result("y.npy", &[1, dims]).iter().any(|value| *value != 0.0));
    }
    let last = folder.result("y.npy", &[1, 2048]);
    folder.succeeds(run);
    assert_close(&folder.result("y.npy", &[1, 2048]), &last);
    folder.refuses(
        &format!("{run} --dims 65"),
        &["--dims: ", "found 65 features, expected 64, 192, 768, 2048"],
    );
    folder.refuses("run --model inception_v3_fid --dims 64", &["--features"]);
    folder.refuses("run --model mixed10_max --features", &["mixed10_max has no pooled features"]);
    folder.succeeds("run --model mixed10_max --threads 1");
}
