//! Every row of the table keeps to the contract of a kernel; a module a row.

use std::collections::HashSet;

use cross_checks::{
    Case, Data, EPILOGUES, Layout, RELU, Subject, conv, conv_with, cpu, problems_of_inception_v3,
};
use kernels::{
    Conv, Epilogue, Filter, Format, Formats, MAX_SEGMENTS, Padding, Pool, PoolKind, Problem, Tier, Tuning,
    Unsupported, Window, table,
};

/// The tests of a row, in a module of its name.
macro_rules! tests_of_row {
    ($id:ident: $($name:ident: $check:expr;)*) => {
        mod $id {
            use super::*;

            $(#[test]
            fn $name() {
                $check(stringify!($id));
            })*
        }
    };
}

macro_rules! conformance {
    ($($id:ident: $family:literal, $tier:ident, $role:expr, $make:expr;)*) => {
        $(tests_of_row! { $id:
            computes_every_problem_of_inception_v3: |id| check_in_turn(id, problems_of_inception_v3(), 1);
            computes_with_every_tuning: check_all_tunings;
            computes_tails_of_every_tile: |id| check_in_turn(id, tails(), 1);
            computes_unusual_windows_strides_and_paddings: |id| check_in_turn(id, unusual_windows(), 1);
            reads_and_writes_its_channels_only_and_clears_the_halo: |id| check_in_turn(id, slices(), 2);
            takes_smaller_batches_and_wider_halos:
                |id| check_in_turn(id, smaller_batches_and_wider_halos(), 2);
            gives_the_same_bits_with_any_number_of_threads: check_threads;
            refuses_what_does_not_belong_to_the_problem: check_refusals;
            packed_weights_are_all_that_it_keeps_of_filters: check_packed;
            needs_its_instruction_set_and_no_more: check_tiers;
        })*
    };
}

kernels::kernel_table!(conformance);

#[test]
fn ids_are_unique() {
    let ids: HashSet<&str> = table().iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), table().len());
}

#[test]
fn rows_share_a_hash_of_code_where_they_share_a_module() {
    for a in table() {
        assert_eq!(a.code().len(), 16, "{} {}", a.id, a.module());
        for b in table() {
            assert_eq!(a.code() == b.code(), a.module() == b.module(), "{} {}", a.id, b.id);
        }
    }
}

/// Checks the cases that a row supports, of which there must be one.
fn check_in_turn(id: &str, cases: Vec<Case>, other_tunings: usize) {
    let Some(subject) = Subject::of(id) else { return };
    let mut count = 0;
    for (turn, (case, data, tunings)) in subject.supported(cases).enumerate() {
        subject.check_in_turn(turn, &case, data, &tunings, other_tunings);
        count += 1;
    }
    assert!(count > 0, "{id} supports none of the cases");
}

fn pool(image: [usize; 2], channels: usize, kind: PoolKind, window: Window, epilogue: Epilogue) -> Problem {
    Problem::Pool(Pool { batch: 2, image, channels, window, kind, epilogue })
}

fn same(kernel: [usize; 2], stride: [usize; 2]) -> Window {
    let padding = Padding::symmetric(kernel[0] / 2, kernel[1] / 2);
    Window { kernel, stride, padding }
}

const KINDS: [PoolKind; 3] = [PoolKind::Max, PoolKind::Average, PoolKind::AverageCountingBorder];

/// Few channels, but enough of them and of pixels for each tuning to be offered.
fn check_all_tunings(id: &str) {
    let Some(subject) = Subject::of(id) else { return };
    let shapes = "n1h47w45c5k83r1s1 n2h9w11c19k131r3s3 n1h67w61c3k50r3s3 n1h45w47c3k50r5s5 \
                  n1h9w11c19k131r5s5 n1h29w31c5k50r1s3 n1h29w31c5k50r7s1 n1h29w31c5k50r1s5 \
                  n1h17w17c21k131r1s7 n2h13w11c7k70r3s3u2 n1h13w11c64k192r1s1 n1h9w8c32k100r3s3 \
                  n1h17w18c32k40r3s3 n2h35w17c3k16r3s3u2";
    let cases = of_all_kinds(shapes, &[Epilogue::BIAS_RELU], 1000).into_iter().map(Case::packed);
    for (case, data, tunings) in subject.supported(cases) {
        for tuning in &tunings {
            subject.check(&case, data, tuning, &[1]);
        }
    }
}

/// Convolutions, pools of a few pixels and a softmax.
fn of_all_kinds(convs: &str, epilogues: &[Epilogue], channels: usize) -> Vec<Problem> {
    let mut problems: Vec<Problem> = convs.split(' ').map(|text| conv_with(text, epilogues)).collect();
    let windows = [same([3, 3], [1, 1]), Window::valid([3, 3], [2, 2]), Window::valid([7, 9], [1, 1])];
    let pool = |kind, window, epilogue| pool([7, 9], 35, kind, window, epilogue);
    for window in windows {
        problems.extend(KINDS.map(|kind| pool(kind, window, Epilogue::NONE)));
    }
    for (kind, window) in KINDS.into_iter().zip(windows) {
        problems.extend([Epilogue::BIAS_RELU, Epilogue::BIAS, RELU].map(|e| pool(kind, window, e)));
    }
    problems.push(Problem::Softmax { batch: 3, channels });
    problems.push(Problem::Sigmoid { batch: 3, channels });
    problems
}

/// Widths, heights and channels one below and one above the sizes of tiles and vectors.
fn tails() -> Vec<Case> {
    const FILTERS: [usize; 13] = [1, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65];
    const CHANNELS: [usize; 11] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17];
    const WINDOWS: [&str; 10] =
        ["r1s1", "r3s3", "r3s3p0q0", "r5s5", "r1s3", "r3s1", "r1s5", "r5s1p1q0", "r1s7", "r7s1"];
    let mut cases = Vec::new();
    for (j, window) in WINDOWS.iter().enumerate() {
        for width in 1..=15 {
            let filters = FILTERS[(width * 5 + j * 4) % FILTERS.len()];
            let channels = CHANNELS[(width * 2 + j * 3) % CHANNELS.len()];
            let (batch, height) = (1 + (width + j) % 3, 1 + (width * 4 + j) % 9);
            let [height, width] =
                if window.contains("p0q0") { [height + 2, width + 2] } else { [height.max(3), width] };
            let text = format!("n{batch}h{height}w{width}c{channels}k{filters}{window}");
            cases.push(Case::packed(conv_with(&text, &EPILOGUES[width % 4..])));
        }
    }
    for (i, filters) in FILTERS.into_iter().enumerate() {
        for (j, channels) in CHANNELS.into_iter().enumerate() {
            let window = WINDOWS[(i + 3 * j) % WINDOWS.len()];
            let text = format!("n1h{}w{}c{channels}k{filters}{window}", 4 + i % 3, 4 + j % 4);
            cases.push(Case::conv(&text));
        }
    }
    // Whole vectors of halves and quarters of the channels, whatever the tier.
    for width in 1..=9 {
        let [channels, filters] = [[32, 96], [64, 64], [96, 32]][width % 3];
        let window = WINDOWS[width % WINDOWS.len()];
        let text = format!("n1h4w{}c{channels}k{filters}{window}", width.max(3));
        cases.push(Case::packed(conv_with(&text, &EPILOGUES[width % 4..])));
    }
    for channels in [1, 3, 15, 16, 17, 63, 64, 65, 511, 512, 513] {
        let window = same([3, 3], [1, 1]);
        let pool = |image, kind| Case::packed(pool(image, channels, kind, window, Epilogue::NONE));
        cases.extend(KINDS.map(|kind| pool([3, 4], kind)));
        cases.extend([6, 7, 11].map(|w| pool([2, w], PoolKind::Average)));
        cases.push(Case::packed(Problem::Softmax { batch: 2, channels }));
        cases.push(Case::packed(Problem::Sigmoid { batch: 2, channels }));
    }
    cases
}

fn unusual_windows() -> Vec<Case> {
    let shapes = "n1h9w8c5k7r2s2 n1h9w8c5k17r4s1 n2h7w9c6k20r2s3u2-1 n1h11w13c8k18r3s3u1-3 \
                  n1h11w13c8k18r3s3u2p1q1 n1h12w13c16k18r3s3u3-2p0-1q2-0 n1h6w7c4k33r3s3p2-0q0-1 \
                  n1h6w7c4k33r5s5p0-4q3-1 n1h8w9c17k16r1s7p0q6-0 n1h9w8c17k16r7s1p0-6q0 \
                  n1h9w8c17k16r1s3p2q0 n1h5w5c3k4r5s5p0q0 n1h9w9c3k4r1s1u2 n1h5w6c3k4r1s1p1q1 \
                  n1h1w1c33k65r1s1 n3h1w1c33k65r3s3 n1h7w7c3k4r7s7u3 n2h8w9c64k64r2s3u2-1p0-1q1";
    let mut cases: Vec<Case> = shapes.split(' ').map(Case::conv).collect();
    let padding = Padding { top: 1, bottom: 0, left: 0, right: 2 };
    for kind in KINDS {
        for window in [
            Window { kernel: [2, 3], stride: [2, 1], padding },
            Window { kernel: [3, 4], stride: [1, 3], padding },
            Window { kernel: [2, 3], stride: [3, 3], padding },
        ] {
            cases.push(Case::packed(pool([7, 8], 18, kind, window, Epilogue::NONE)));
        }
        let window = same([3, 3], [1, 1]);
        cases.extend(EPILOGUES.map(|e| Case::packed(pool([5, 9], 20, kind, window, e).with_batch(1))));
    }
    cases.push(Case::packed(Problem::Softmax { batch: 1, channels: 1 }));
    cases.push(Case::packed(Problem::Sigmoid { batch: 1, channels: 1 }));
    cases
}

/// Several destinations with different epilogues: among foreign channels, or with different halos.
fn slices() -> Vec<Case> {
    let shapes = "n2h7w9c18k20+33+1+17r1s1 n1h8w8c35k16+32+48r1s1 n2h7w9c5k17+40r3s3 \
                  n1h9w10c16k16+5+64+31+1+2+3+100r3s3 n1h9w7c6k17+9r5s5 n1h9w13c18k17+32r1s7 \
                  n1h13w9c18k70+3r3s1 n2h9w9c7k33+15r3s3u2 n1h7w9c64k64+128r1s1 n2h17w18c32k16+20r3s3 \
                  n2h7w6c64k64+192r3s3u2";
    let mut cases: Vec<Case> = of_all_kinds(shapes, &EPILOGUES, 37).into_iter().map(Case::sliced).collect();
    // Each of the two may be sliced or have a halo while the other is closely packed; destinations
    // that are closely packed have different halos.
    let halo = Padding { top: 0, bottom: 1, left: 0, right: 2 };
    cases.extend(cases.clone().into_iter().map(|case| Case { halo, layout: Layout::Packed, ..case }));
    let halo = Padding::default();
    cases.extend(cases.clone().into_iter().map(|case| Case { halo, layout: Layout::Slices, ..case }));
    cases
}

fn smaller_batches_and_wider_halos() -> Vec<Case> {
    let shapes = "n3h7w6c18k20r1s1 n3h7w6c18k20r3s3 n3h5w7c4k20r5s5 n3h5w7c4k20r1s7 n3h5w7c4k20r3s1 \
                  n3h7w7c4k20r3s3u2p1q1 n3h7w5c64k64r1s1";
    let problems = of_all_kinds(shapes, &[Epilogue::BIAS_RELU], 37).into_iter();
    let extra = Padding { top: 2, bottom: 1, left: 1, right: 3 };
    let cases = problems.map(|problem| problem.with_batch(3)).flat_map(|problem| {
        [
            Case { images: 1, ..Case::packed(problem.clone()) },
            Case { extra, ..Case::packed(problem.clone()) },
            Case { images: 2, extra, ..Case::sliced(problem) },
        ]
    });
    cases.collect()
}

fn check_threads(id: &str) {
    let Some(subject) = Subject::of(id) else { return };
    let cases = slices().into_iter().filter(|case| case.layout == Layout::Slices).step_by(3);
    for (case, data, tunings) in subject.supported(cases) {
        for tuning in [&tunings[0], &tunings[tunings.len() - 1]] {
            subject.check(&case, data, tuning, &[1, 2, 3]);
        }
    }
}

fn check_packed(id: &str) {
    let Some(subject) = Subject::of(id) else { return };
    for (case, data, tunings) in subject.supported(tails().into_iter().chain(unusual_windows())) {
        for tuning in [&tunings[0], &tunings[tunings.len() - 1]] {
            subject.check_packed(&case, data, tuning);
        }
    }
}

fn check_refusals(id: &str) {
    let Some(subject) = Subject::of(id) else { return };
    let kernel = &subject.kernel;
    let shapes = "n1h7w9c5k7+3r3s3 n1h7w9c5k7r1s7 n1h9w9c5k7r2s4u2";
    for problem in of_all_kinds(shapes, &[Epilogue::BIAS_RELU], 9) {
        let filters = Data::shared(&problem).filters.clone();
        if let Err(reason) = kernel.supports(&problem) {
            let refusal = kernel.prepare(&problem, &Tuning::default(), &Formats::F32, &filters).err();
            assert_eq!(refusal, Some(reason), "{id}: {problem}");
            continue;
        }
        let tuning = kernel.tunings(&problem)[0].clone();
        let formats = kernel.formats(&problem, &tuning)[0];
        let refusal = |tuning: &Tuning, formats: &Formats, filters: &[Filter]| {
            kernel.prepare(&problem, tuning, formats, filters).err()
        };
        assert_eq!(refusal(&tuning, &formats, &filters), None, "{id}: {problem}");

        let foreign = refusal(&Tuning::new([("foreign", 7)]), &formats, &filters);
        assert!(matches!(foreign, Some(Unsupported::Tuning { .. })), "{id}: {problem}: {foreign:?}");

        let halo = formats.src.halo;
        if halo != Padding::default() {
            let right = halo.right.saturating_sub(1);
            let bottom = if halo.right == 0 { halo.bottom - 1 } else { halo.bottom };
            let narrow = Format { halo: Padding { bottom, right, ..halo }, ..formats.src };
            let narrow = refusal(&tuning, &Formats { src: narrow, ..formats }, &filters);
            assert!(matches!(narrow, Some(Unsupported::Formats { .. })), "{id}: {problem}: {narrow:?}");
        }

        let mut more = filters.clone();
        more.push(Filter::new([1, 1, 1, 1], vec![0.0]));
        let mut wrong = vec![more];
        if let Some((last, first)) = filters.split_last() {
            let [r, s, c, k] = last.dims;
            wrong.push(first.to_vec());
            for dims in [[s + 1, r, c, k], [r, s, c + 1, k], [r, s, c, k + 1]] {
                let other = Filter::new(dims, vec![0.0; dims.iter().product()]);
                wrong.push([first, &[other]].concat());
            }
        }
        for filters in wrong {
            let wrong = refusal(&tuning, &formats, &filters);
            assert!(matches!(wrong, Some(Unsupported::Filters { .. })), "{id}: {problem}: {wrong:?}");
        }
    }

    let one = conv("n1h5w5c4k3r3s3");
    for count in [0, MAX_SEGMENTS + 1] {
        let problem = Problem::Conv(Conv { segments: vec![one.segments[0]; count], ..one.clone() });
        let filters = vec![Filter::new([3, 3, 4, 3], vec![0.0; 108]); count];
        let refusal = kernel.prepare(&problem, &Tuning::default(), &Formats::F32, &filters).err();
        let (found, expected) = (count.to_string(), "1 to 8");
        assert_eq!(refusal, Some(Unsupported::Shape { what: "number of segments", found, expected }), "{id}");
    }
}

#[test]
fn whole_numbers_are_summed_exactly() {
    let cases = || tails().into_iter().chain(unusual_windows()).chain(slices());
    for row in kernels::table().iter().filter(|row| row.family.ends_with("_int8")) {
        let Some(subject) = Subject::of(row.id) else { continue };
        for (turn, (case, _, tunings)) in subject.supported(cases()).enumerate() {
            let tuning = &tunings[turn % tunings.len()];
            subject.check_exact(&case, tuning, &[1, 2 + turn % 2]);
        }
    }
}

fn check_tiers(id: &str) {
    let row = kernels::entry(id).expect("a row of the table");
    let has = cpu().tier();
    // A library that chooses its instructions itself needs all that the processor has.
    let needed = row.tier.unwrap_or(if id == "im2col_gemm" { has } else { Tier::Plain });
    // Not on the way from one tier to the next: a processor may have it or not.
    let is_there = match needed {
        Tier::AvxVnni => (row.make)(&cpu()).is_ok(),
        _ => has.includes(needed),
    };
    for limit in Tier::ALL {
        match (row.make)(&cpu().limited_to(limit)).err() {
            None => {
                let is_allowed = limit.includes(needed) && is_there;
                assert!(is_allowed, "{id} works below {needed}, on {has} limited to {limit}");
            }
            Some(Unsupported::Isa { .. }) => assert!(!is_there, "{id} on {has}"),
            Some(Unsupported::IsaLimited { .. }) => {
                assert!(!limit.includes(needed), "{id} limited to {limit}")
            }
            Some(other) => panic!("{id} limited to {limit}: {other}"),
        }
    }
}
