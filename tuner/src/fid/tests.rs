//! Statistics and distances against those of numpy and scipy (`tests/fid/golden.py`).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::*;

const GOLDEN: &str = include_str!("../../../tests/fid/golden.json");

#[derive(Deserialize)]
struct Case {
    name: String,
    dims: usize,
    a: Side,
    b: Side,
    distance: f64,
}

#[derive(Deserialize)]
struct Side {
    features: Vec<f32>,
    mean: Vec<f64>,
    covariance: Vec<f64>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(GOLDEN).expect("golden values")
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).expect("a case")
}

fn statistics(dims: usize, features: &[f32]) -> FidStatistics {
    let mut statistics = FidStatistics::new(dims);
    statistics.add(features).expect("whole rows");
    statistics
}

impl Side {
    fn trace(&self) -> f64 {
        self.covariance.iter().step_by(self.mean.len() + 1).sum()
    }
}

/// Asserts that values are equal but for the rounding of a sum of some hundred products.
fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= 1e3 * f64::EPSILON * scale, "{what}[{at}]: {found} {expected}");
    }
}

fn numpy_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fid").join(name)
}

#[test]
fn means_and_covariances_are_those_of_numpy() {
    for Case { name, dims, a, b, .. } in cases() {
        for side in [a, b] {
            let found = statistics(dims, &side.features);
            assert_eq!(found.count(), Some((side.features.len() / dims) as u64));
            assert_close(&found.mean(), &side.mean, &name);
            assert_close(&found.covariance().expect("images"), &side.covariance, &name);
        }
    }
}

#[test]
fn distances_are_those_of_numpy_also_of_singular_covariances() {
    for Case { name, dims, a, b, distance } in cases() {
        let [x, y] = [&a, &b].map(|side| statistics(dims, &side.features));
        // The part of a covariance that its root leaves out changes the distance by at most this:
        // see `distance.rs`.
        let left_out = dims as f64 * dims as f64 * f64::EPSILON * a.trace();
        let tolerance = 2.0 * (left_out * b.trace()).sqrt();
        for found in
            [frechet_distance(&x, &y), frechet_distance(&y, &x)].map(|found| found.expect("a distance"))
        {
            assert!((found - distance).abs() <= tolerance, "{name}: {found} {distance}");
            // In practice the noise is left out, and nothing else.
            assert!(
                (found - distance).abs() <= 1e-11 * (a.trace() + b.trace()),
                "{name}: {found} {distance}"
            );
        }
        assert_eq!(frechet_distance(&x, &x).expect("a distance"), 0.0, "{name}");
    }
}

#[test]
fn a_large_problem_has_its_distance_too() {
    // Of covariances s² and t² times the same matrix, the distance is (s - t)² times its trace.
    let (dims, count) = (300, 700);
    let mut state = 1u64;
    let features: Vec<f32> = (0..dims * count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32
        })
        .collect();
    let twice: Vec<f32> = features.iter().map(|value| 2.0 * value).collect();
    let [a, b] = [&features, &twice].map(|features| statistics(dims, features));
    let expected: f64 = a.mean().iter().map(|mean| mean * mean).sum::<f64>()
        + a.covariance().expect("images").iter().step_by(dims + 1).sum::<f64>();
    let found = frechet_distance(&a, &b).expect("a distance");
    assert!((found - expected).abs() < 1e-12 * expected, "{found} {expected}");
}

#[test]
fn rows_may_come_in_any_parts_and_of_several_machines() {
    let dims = 3;
    let features: Vec<f32> =
        (0..dims * 1000).map(|at| ((at * at) % 37) as f32 + (at % dims) as f32).collect();
    let whole = statistics(dims, &features);
    for rows in [1, 7, 255, 256, 257, 999] {
        let mut parts = FidStatistics::new(dims);
        features.chunks(rows * dims).for_each(|part| parts.add(part).expect("whole rows"));
        assert_eq!((parts.count(), parts.mean()), (Some(1000), whole.mean()), "{rows}");
        assert_eq!(parts.covariance().ok(), whole.covariance().ok(), "{rows}");
        let mut united = FidStatistics::new(dims);
        for part in features.chunks(rows * dims) {
            united.merge(&statistics(dims, part)).expect("the same features");
        }
        assert_eq!(united.count(), Some(1000));
        assert_close(&united.mean(), &whole.mean(), "mean");
        let covariances = [&united, &whole].map(|statistics| statistics.covariance().expect("images"));
        assert_close(&covariances[0], &covariances[1], "covariance");
    }
}

#[test]
fn what_is_no_statistics_is_refused() {
    let mut two = FidStatistics::new(2);
    let message = |result: Result<(), FidError>| result.expect_err("wrong").to_string();
    assert_eq!(
        message(two.add(&[1.0, 2.0, 3.0])),
        "found 3 values, expected a multiple of 2: the features of images"
    );
    let found = message(two.add(&[1.0, 2.0, 3.0, f32::NAN]));
    assert_eq!(found, "found NaN as feature 1 of image 1, expected finite numbers");
    assert_eq!((two.count(), two.mean()), (Some(0), vec![0.0; 2]));
    two.add(&[1.0, 2.0]).expect("a row");
    assert!(two.covariance().is_err());
    let found = frechet_distance(&two, &two).expect_err("one image").to_string();
    assert_eq!(found, "found 1 images, expected at least 2, which have a covariance");
    let three = statistics(3, &[0.0; 6]);
    let found = message(two.merge(&three));
    assert_eq!(found, "found statistics of 3 features, expected 2 as the others have");
    assert!(frechet_distance(&two, &three).is_err());
    assert_eq!(frechet_distance(&three, &statistics(3, &[1.0; 6])).expect("no variance"), 3.0);
}

#[test]
fn files_of_numpy_are_read_deflated_or_stored_in_either_type_and_order() {
    let Case { a, b, .. } = case("more images than features");
    let deflated = FidStatistics::read(numpy_file("deflated.npz")).expect("statistics");
    assert_eq!((deflated.count(), deflated.mean()), (None, a.mean.clone()));
    assert_eq!(deflated.covariance().expect("a covariance"), a.covariance);
    let stored = FidStatistics::read(numpy_file("stored_f32.npz")).expect("statistics");
    let rounded = |values: &[f64]| values.iter().map(|value| f64::from(*value as f32)).collect::<Vec<_>>();
    assert_eq!(stored.mean(), rounded(&b.mean));
    assert_eq!(stored.covariance().expect("a covariance"), rounded(&b.covariance));
    let mut given = deflated.clone();
    assert!(matches!(given.add(&a.features), Err(FidError::NoCount)));
    assert!(matches!(given.merge(&deflated), Err(FidError::NoCount)));
}

#[test]
fn what_is_written_is_read_again_and_can_be_added_to() {
    let Case { dims, a, b, distance, .. } = case("more images than features");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.npz");
    let [x, y] = [&a, &b].map(|side| statistics(dims, &side.features));
    x.write(&path).expect("written");
    let mut read = FidStatistics::read(&path).expect("statistics");
    assert_eq!((read.count(), read.mean()), (x.count(), x.mean()));
    assert_close(&read.covariance().expect("images"), &x.covariance().expect("images"), "covariance");
    assert!((frechet_distance(&read, &y).expect("a distance") - distance).abs() < 1e-10);
    read.add(&b.features).expect("whole rows");
    let both = statistics(dims, &[&a.features[..], &b.features].concat());
    assert_close(&read.covariance().expect("images"), &both.covariance().expect("images"), "united");
    let one = statistics(dims, &a.features[..dims]);
    assert!(one.write(&path).is_err() && FidStatistics::read(&path).is_ok());
}

#[test]
fn damaged_files_are_refused_in_one_line_and_never_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.npz");
    let error = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        FidStatistics::read(&path).map(drop).map_err(|error| error.to_string())
    };
    for name in ["deflated.npz", "stored_f32.npz"] {
        let whole = std::fs::read(numpy_file(name)).expect("a file");
        for length in [0, 1, 10, whole.len() / 2, whole.len() - 1] {
            let message = error(&whole[..length]).expect_err("cut off");
            assert!(message.contains("x.npz: ") && !message.contains('\n'), "{message}");
        }
        for at in 0..whole.len() {
            for change in [0x01, 0x55, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] ^= change;
                if let Err(message) = error(&damaged) {
                    assert!(message.contains("x.npz: ") && !message.contains('\n'), "{message}");
                }
            }
        }
    }
    let message = error(b"no archive").expect_err("a text");
    assert!(message.contains("expected an .npz archive with mu and sigma"), "{message}");
}

#[test]
fn statistics_of_a_state_are_the_same_bit_by_bit_and_others_are_refused() {
    let rows: Vec<f32> = (0..3 * 300).map(|n| (n * 37 % 101) as f32).collect();
    let mut whole = FidStatistics::new(3);
    whole.add(&rows).expect("rows");
    for images in [0, 1, 100, 256, 299] {
        let mut part = FidStatistics::new(3);
        part.add(&rows[..3 * images]).expect("rows");
        let mut again = FidStatistics::from_state(part.state()).expect("a state");
        again.add(&rows[3 * images..]).expect("rows");
        assert_eq!((again.count(), again.state()), (Some(300), whole.state()), "{images} images");
    }
    let state = whole.state();
    for wrong in [
        FidState { mean: Vec::new(), ..state.clone() },
        FidState { products: vec![0.0; 8], ..state.clone() },
        FidState { pending: vec![0.0; 2], ..state.clone() },
        FidState { pending: vec![0.0; 3], count: None, ..state.clone() },
        FidState { mean: vec![f64::NAN; 3], ..state },
    ] {
        let error = FidStatistics::from_state(wrong).expect_err("no state").to_string();
        assert!(error.starts_with("found a state of "), "{error}");
    }
}
