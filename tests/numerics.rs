//! Fast algorithms err as they claim, and what errors are measured against is exact.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::zip;

use cross_checks::{Data, EPILOGUES, Random, Subject, conv_with};
use kernels::verify::{all_pixels, exact, expected};
use kernels::{
    Epilogue, Filter, Io, Padding, Pool, PoolKind, Problem, Tensor, Tuning, Window, run_alone, scratch_for,
};

/// Root mean square of the error of a kernel on a convolution.
fn rms_error(subject: &Subject, problem: &Problem, tuning: &Tuning, src: &[f32], filter: &Filter) -> f64 {
    let filters = std::slice::from_ref(filter);
    let formats = subject.kernel.formats(problem, tuning)[0];
    let step = subject.kernel.prepare(problem, tuning, &formats, filters).expect("a supported problem");
    let mut src_tensor = Tensor::new(problem.src(), &formats.src);
    src_tensor.fill_nhwc(src);
    let mut dst = Tensor::new(problem.dst()[0], &formats.dst);
    run_alone(&*step, &Io::new(src_tensor.view(), [dst.view_mut()]), &scratch_for(&*step, 1));
    let exact = &expected(problem, src, filters, &all_pixels(problem.dst()[0]))[0].values;
    let squares = zip(dst.to_nhwc(), exact).map(|(y, e)| (y as f64 - e).powi(2)).sum::<f64>();
    (squares / exact.len() as f64).sqrt()
}

/// Asserts the claims of a family at a tier for these sizes of kernels, relative to direct ones.
fn check_growth(family: &str, tier: &str, kernels: &[[usize; 2]]) {
    let [fast, direct] = [family, "direct"].map(|family| Subject::of(&format!("{family}_{tier}")));
    let (Some(fast), Some(direct)) = (fast, direct) else { return };
    for [r, s] in kernels {
        // For each size of output tile: the claim, and what was measured.
        let mut measured: BTreeMap<usize, (f64, Vec<f64>)> = BTreeMap::new();
        for channels in [32, 128, 512] {
            let shape = format!("n1h24w24c{channels}k16r{r}s{s}");
            let problem = conv_with(&shape, &[Epilogue::NONE]);
            let mut random = Random::of(&problem.to_string());
            let src = random.values(problem.src().elements(), -1.0, 1.0);
            let weights = random.values(r * s * channels * 16, -1.0, 1.0);
            let filter = Filter::new([*r, *s, channels, 16], weights);
            let base = &direct.kernel.tunings(&problem)[0];
            let base = rms_error(&direct, &problem, base, &src, &filter);
            let mut seen = BTreeSet::new();
            for tuning in fast.kernel.tunings(&problem) {
                let m = tuning.get("m");
                if seen.insert(m) {
                    let ratio = rms_error(&fast, &problem, &tuning, &src, &filter) / base;
                    let claimed = fast.kernel.numerics(&problem, &tuning).growth;
                    measured.entry(m).or_insert((claimed, Vec::new())).1.push(ratio);
                }
            }
        }
        for (m, (claimed, ratios)) in measured {
            let id = fast.row.id;
            let line =
                format!("{id} F({m}, {r}x{s}): {ratios:.2?} at 32, 128, 512 channels, claimed {claimed}");
            println!("{line}");
            let largest = ratios.into_iter().fold(0.0, f64::max);
            assert!(largest <= claimed && largest >= claimed / 4.0, "{line}");
        }
    }
}

const TIERS: [&str; 3] = ["avx512", "avx2", "plain"];

#[test]
fn winograd_errs_as_it_claims() {
    for tier in TIERS {
        check_growth("winograd", tier, &[[3, 3], [5, 5]]);
    }
}

#[test]
fn separable_errs_as_it_claims() {
    for tier in TIERS {
        check_growth("separable", tier, &[[1, 3], [3, 1], [1, 5], [5, 1], [1, 7], [7, 1]]);
    }
}

/// Whole tensors in f64, which take folded weights and matrix products, are those of the oracle,
/// which takes neither.
#[test]
fn exact_tensors_are_those_of_the_oracle() {
    let shapes = "n2h9w7c5k6+3r3s3 n1h9w9c4k5r3s3u2 n1h8w9c3k4r1s7 n1h7w7c3k4r5s3p2-1q0-3u1-2 \
                  n1h17w17c8k8+8+8+8r1s1";
    let mut problems: Vec<Problem> = shapes.split(' ').map(|text| conv_with(text, &EPILOGUES)).collect();
    for kind in [PoolKind::Max, PoolKind::Average, PoolKind::AverageCountingBorder] {
        let window = Window { padding: Padding::symmetric(1, 1), ..Window::valid([3, 3], [2, 1]) };
        let epilogue = Epilogue { bias: kind != PoolKind::Max, relu: kind == PoolKind::Average };
        problems.push(Problem::Pool(Pool { batch: 2, image: [7, 8], channels: 5, window, kind, epilogue }));
    }
    problems.push(Problem::Softmax { batch: 3, channels: 11 });
    problems.push(Problem::Sigmoid { batch: 3, channels: 11 });
    for problem in &problems {
        let data = Data::shared(problem);
        let src: Vec<f64> = data.src.iter().map(|&x| x.into()).collect();
        let found = exact(problem, &src, &data.filters);
        assert_eq!(found.len(), data.expected.len(), "{problem}");
        for (found, expected) in zip(found, &data.expected) {
            assert_eq!(found.len(), expected.values.len(), "{problem}");
            for (at, (found, expected)) in zip(found, &expected.values).enumerate() {
                let is_close = (found - expected).abs() <= 1e-13 * (1.0 + expected.abs());
                assert!(is_close, "{problem}: [{at}] is {found}, not {expected}");
            }
        }
    }
}
