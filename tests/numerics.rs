//! Fast algorithms err as they claim, and what errors are measured against is exact.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::zip;

use cross_checks::{Data, EPILOGUES, Random, Subject, conv_with, cpu};
use kernels::verify::{all_pixels, exact, expected};
use kernels::{
    Dtype, Epilogue, Filter, Formats, Io, Padding, Pool, PoolKind, Prepared, Problem, Signature, Tensor,
    Tier, Tuning, Window, run_alone, scratch_for, table,
};

/// What a prepared kernel makes of a source `[n, h, w, c]`: all segments, one after the other.
fn outputs(step: &dyn Prepared, src: &[f32]) -> Vec<f32> {
    let Signature { problem, formats, dst, .. } = step.signature();
    let mut source = Tensor::new(problem.src(), &formats.src);
    source.fill_nhwc(src);
    let mut tensors: Vec<Tensor> = dst.iter().map(|&shape| Tensor::new(shape, &formats.dst)).collect();
    let io = Io::new(source.view(), tensors.iter_mut().map(Tensor::view_mut));
    run_alone(step, &io, &scratch_for(step, 1));
    tensors.iter().flat_map(Tensor::to_nhwc).collect()
}

/// Root mean square of the error of a kernel on a convolution.
fn rms_error(subject: &Subject, problem: &Problem, tuning: &Tuning, src: &[f32], filter: &Filter) -> f64 {
    let filters = std::slice::from_ref(filter);
    let formats = subject.kernel.formats(problem, tuning)[0];
    let step = subject.kernel.prepare(problem, tuning, &formats, filters).expect("a supported problem");
    let exact = &expected(problem, src, filters, &all_pixels(problem.dst()[0]))[0].values;
    let squares = zip(outputs(&*step, src), exact).map(|(y, e)| (y as f64 - e).powi(2)).sum::<f64>();
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

/// Small problems of each kind, with and without ReLU.
fn small_problems() -> Vec<Problem> {
    let shapes = "n2h9w9c16k24r3s3 n1h9w9c16k24r3s3u2 n1h9w11c32k16+8r1s7p0q0-3 n1h11w9c32k16r7s1p3-0q0 \
                  n1h8w8c16k16r5s5 n1h8w8c64k32r1s1 n1h9w9c3k16r3s3";
    let mut problems: Vec<Problem> =
        shapes.split_whitespace().map(|shape| conv_with(shape, &EPILOGUES)).collect();
    for kind in [PoolKind::Max, PoolKind::Average, PoolKind::AverageCountingBorder] {
        for stride in [1, 2] {
            let window =
                Window { padding: Padding::symmetric(1, 1), ..Window::valid([3, 3], [stride, stride]) };
            let epilogue = Epilogue { bias: false, relu: stride == 1 };
            problems.push(Problem::Pool(Pool {
                batch: 1,
                image: [7, 8],
                channels: 35,
                window,
                kind,
                epilogue,
            }));
        }
    }
    problems.push(Problem::Softmax { batch: 2, channels: 35 });
    problems.push(Problem::Sigmoid { batch: 2, channels: 35 });
    problems
}

/// Every kernel that takes a problem, by up to four of its tunings, in all formats without u8.
fn each_prepared(problem: &Problem, filters: &[Filter], mut each: impl FnMut(&str, &dyn Prepared)) {
    for row in table() {
        let Some(subject) = Subject::of(row.id).filter(|s| s.kernel.supports(problem).is_ok()) else {
            continue;
        };
        let tunings = subject.kernel.tunings(problem);
        for tuning in tunings.iter().step_by(tunings.len().div_ceil(4)) {
            let formats = subject.kernel.formats(problem, tuning);
            for formats in formats.iter().filter(|f| ![f.src.dtype, f.dst.dtype].contains(&Dtype::U8)) {
                let step = subject.kernel.prepare(problem, tuning, formats, filters);
                let name = format!("{} [{tuning}] {} -> {}, {problem}", row.id, formats.src, formats.dst);
                each(&name, &*step.unwrap_or_else(|refusal| panic!("{name}: {refusal}")));
            }
        }
    }
}

/// Infinities and NaN reach all outputs that depend on them. A fast algorithm may spread them to
/// outputs of the same tile; all others have the bits that they have without.
#[test]
fn what_is_not_finite_is_seen_in_all_outputs_that_depend_on_it() {
    for problem in small_problems() {
        let (data, shape) = (Data::shared(&problem), problem.src());
        let exact = |src: &[f32]| -> Vec<f64> {
            let of = expected(&problem, src, &data.filters, &all_pixels(problem.dst()[0]));
            of.into_iter().flat_map(|expected| expected.values).collect()
        };
        let clean_exact = exact(&data.src);
        let places = [0, shape.elements() / 2, shape.elements() - 1];
        let poisons = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let sources: Vec<(String, Vec<f32>, Vec<f64>)> = places
            .into_iter()
            .flat_map(|place| poisons.map(|poison| (place, poison)))
            .map(|(place, poison)| {
                let mut src = data.src.clone();
                src[place] = poison;
                let exact = exact(&src);
                (format!("{poison} at {place}"), src, exact)
            })
            .collect();
        let mut seen = 0;
        each_prepared(&problem, &data.filters, |name, step| {
            let clean = outputs(step, &data.src);
            assert!(clean.iter().all(|value| value.is_finite()), "{name}");
            for (what, src, exact) in &sources {
                for (at, found) in outputs(step, src).into_iter().enumerate() {
                    let (exact, clean_exact, clean) = (exact[at], clean_exact[at], clean[at]);
                    if !found.is_finite() {
                        seen += usize::from(!exact.is_finite());
                        continue;
                    }
                    assert!(exact.is_finite(), "{name}, {what}: output {at} is {found}, not {exact}");
                    if exact == clean_exact {
                        assert_eq!(found.to_bits(), clean.to_bits(), "{name}, {what}: output {at}");
                    }
                }
            }
        });
        assert!(seen > 0, "{problem}: nothing was infinite");
    }
}

/// Sums of sources up to 1e30, and down to 1e-30, are those of sources near 1: the exponent alone
/// differs. Without a bias all operations of a kernel scale with its source.
#[test]
fn results_scale_with_their_source_to_the_bit() {
    let unbiased = [Epilogue { bias: false, relu: true }, Epilogue::NONE];
    let is_sum = |problem: &Problem| !matches!(problem, Problem::Softmax { .. } | Problem::Sigmoid { .. });
    for mut problem in small_problems().into_iter().filter(is_sum) {
        if let Problem::Conv(conv) = &mut problem {
            let segments = zip(&mut conv.segments, unbiased.iter().cycle());
            segments.for_each(|(segment, epilogue)| segment.epilogue = *epilogue);
        }
        let data = Data::shared(&problem);
        each_prepared(&problem, &data.filters, |name, step| {
            let base = outputs(step, &data.src);
            for power in [99, -99] {
                let scale = 2f32.powi(power);
                let src: Vec<f32> = data.src.iter().map(|value| value * scale).collect();
                for (at, (found, base)) in zip(outputs(step, &src), &base).enumerate() {
                    // What is far below the rest may have lost bits below the normal range.
                    if power > 0 || base.abs() > 1e-3 {
                        assert_eq!(
                            found.to_bits(),
                            (base * scale).to_bits(),
                            "{name}: 2^{power}, output {at}"
                        );
                    }
                }
            }
        });
    }
}

/// What says that it is reproducible has the bits of all others that say so.
#[test]
fn reproducible_kernels_agree_to_the_bit() {
    for problem in small_problems() {
        let data = Data::shared(&problem);
        let mut first: Option<(&str, Vec<u32>)> = None;
        for row in table() {
            let Some(subject) = Subject::of(row.id).filter(|s| s.kernel.supports(&problem).is_ok()) else {
                continue;
            };
            for tuning in subject.kernel.tunings(&problem) {
                let formats = subject.kernel.formats(&problem, &tuning)[0];
                if !subject.kernel.numerics(&problem, &tuning).reproducible
                    || formats != (Formats { src: formats.src, ..Formats::F32 })
                {
                    continue;
                }
                let step = subject.kernel.prepare(&problem, &tuning, &formats, &data.filters);
                let found = outputs(&*step.expect("a supported problem"), &data.src);
                let found: Vec<u32> = found.into_iter().map(f32::to_bits).collect();
                let (other, bits) = first.get_or_insert_with(|| (row.id, found.clone()));
                assert!(found == *bits, "{problem}: {} [{tuning}] and {other}", row.id);
            }
        }
        let has_fused = cpu().tier() != Tier::Plain;
        assert_eq!(first.is_some(), has_fused, "{problem}");
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
