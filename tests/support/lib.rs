//! Runs a kernel on a case and compares every element of the memory around it with the oracle.
//!
//! Sources lie among NaN and destinations among sentinels, so that a kernel that reads or writes
//! what is not its own is seen, and so is a halo that it does not restore.

#![allow(missing_docs, reason = "helpers of tests, whose names say what they are")]

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod emulated;
mod guarded;
mod inception;
mod memory;
pub mod network;

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::iter::zip;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, OnceLock};

pub use inception::problems_of_inception_v3;
use kernels::verify::{Expected, all_pixels, as_seen, expected, over_scales};
use kernels::{
    BatchNorm, Buffer, Conv, Cpu, Dtype, Epilogue, Filter, Format, Formats, Io, Kernel, KernelEntry,
    Numerics, Padding, Placement, Prepared, Problem, Shape, Team, Tier, Tuning, entry,
};
use memory::{GUARD, SENTINEL, bytes, each_pixel, get, place, source};

/// The processor, with emulated tiles if that is all that it lacks.
pub fn cpu() -> Cpu {
    let cpu = Cpu::detect();
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    let cpu = emulated::with_tiles(cpu);
    cpu
}

/// All files below a folder.
pub fn walk(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

/// Deterministic pseudo-random numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each text.
    pub fn of(text: &str) -> Self {
        let hash = |h: u64, byte: u8| (h ^ byte as u64).wrapping_mul(0x0100_0000_01b3);
        Self(text.bytes().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    /// The next 31 bits.
    pub fn bits(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize
    }

    /// `count` values, uniform in `[low, high)`.
    pub fn values(&mut self, count: usize, low: f32, high: f32) -> Vec<f32> {
        (0..count).map(|_| low + (high - low) * (self.bits() as f32 / (1u64 << 31) as f32)).collect()
    }
}

/// Input, filters and exact output of a problem.
#[derive(Debug)]
pub struct Data {
    /// `[n, h, w, c]`.
    pub src: Vec<f32>,
    pub filters: Vec<Filter>,
    /// All pixels, one a segment.
    pub expected: Vec<Expected>,
    /// The same rounded, by what kernels multiply: f32, bf16 or u8.
    rounded: [OnceLock<Box<Data>>; 3],
    /// The same over scales, for kernels that read u8, that write it, and that do both.
    scaled: [OnceLock<Box<Data>>; 3],
}

impl Data {
    /// Pseudo-random, the same for the same problem. The input of every other problem is that of a
    /// layer after a ReLU; filters have up to two BatchNorms, with and without gamma and bias.
    pub fn new(problem: &Problem) -> Self {
        let mut random = Random::of(&problem.to_string());
        let rectified = random.bits().is_multiple_of(2);
        let largest =
            if matches!(problem, Problem::Softmax { .. } | Problem::Sigmoid { .. }) { 8.0 } else { 1.0 };
        let mut src = random.values(problem.src().elements(), -largest, largest);
        if rectified {
            src.iter_mut().for_each(|x| *x = x.max(0.0));
        }
        let filters =
            problem.filter_dims().into_iter().map(|dims| random_filter(&mut random, dims)).collect();
        Self::of(problem, src, filters)
    }

    fn of(problem: &Problem, src: Vec<f32>, filters: Vec<Filter>) -> Self {
        let expected = expected(problem, &src, &filters, &all_pixels(problem.dst()[0]));
        Self { src, filters, expected, rounded: Default::default(), scaled: Default::default() }
    }

    /// What a kernel of these formats is given.
    fn given(&self, problem: &Problem, formats: &Formats) -> &Self {
        let which = match [formats.src.dtype, formats.dst.dtype].map(|dtype| dtype == Dtype::U8) {
            [false, false] => return self,
            [true, false] => 0,
            [false, true] => 1,
            [true, true] => 2,
        };
        self.scaled[which].get_or_init(|| {
            let (src, filters) = over_scales(problem, &self.src, &self.filters, formats, &self.expected);
            Box::new(Self::of(problem, src, filters))
        })
    }

    /// As a kernel sees it that reads a source of type `src` and rounds its inputs by `numerics`.
    fn seen(&self, problem: &Problem, src: Dtype, numerics: &Numerics) -> &Self {
        if [src, numerics.rounding] == [Dtype::F32; 2] {
            return self;
        }
        self.rounded[numerics.rounding as usize].get_or_init(|| {
            let (src, filters) = as_seen(&self.src, &self.filters, src, numerics.rounding);
            Box::new(Self::of(problem, src, filters))
        })
    }

    /// As [`Self::new`], kept for the other kernels that are checked on the problem.
    pub fn shared(problem: &Problem) -> &'static Self {
        static KNOWN: LazyLock<Mutex<HashMap<Problem, &OnceLock<Data>>>> = LazyLock::new(Mutex::default);
        let mut known = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let data = *known.entry(problem.clone()).or_insert_with(|| Box::leak(Box::default()));
        drop(known);
        data.get_or_init(|| Self::new(problem))
    }
}

fn random_filter(random: &mut Random, dims: [usize; 4]) -> Filter {
    let [r, s, c, channels] = dims;
    let largest = (3.0 / (r * s * c) as f32).sqrt();
    let weights = random.values(dims.iter().product(), -largest, largest);
    let mut filter = Filter::new(dims, weights);
    if random.bits().is_multiple_of(2) {
        filter.bias = Some(random.values(channels, -0.5, 0.5));
    }
    for _ in 0..random.bits() % 3 {
        filter.norms.push(BatchNorm {
            gamma: random.bits().is_multiple_of(2).then(|| random.values(channels, 0.5, 1.5)),
            beta: random.values(channels, -0.5, 0.5),
            mean: random.values(channels, -0.5, 0.5),
            variance: random.values(channels, 0.5, 1.5),
            epsilon: 1e-3,
        });
    }
    filter
}

/// How the tensors of a case lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Every tensor by itself, closely packed.
    Packed,
    /// The source is a range of the channels of a wider tensor; the destinations are ranges of the
    /// channels of another.
    Slices,
}

/// A problem, and the memory that it is computed in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Case {
    pub problem: Problem,
    /// Images of a run, at most the problem's batch.
    pub images: usize,
    /// Halo of the source beyond what the kernel demands.
    pub extra: Padding,
    /// Halo of the first destination, and of all that are channels of one tensor. Of those by
    /// themselves, the second has none and the third has other sides, in turn.
    pub halo: Padding,
    pub layout: Layout,
}

impl Case {
    /// Closely packed, without halos that nobody asked for.
    pub fn packed(problem: Problem) -> Self {
        let (images, none) = (problem.batch(), Padding::default());
        Self { problem, images, extra: none, halo: none, layout: Layout::Packed }
    }

    /// Ranges of channels, with a different number of halo pixels on each side of the destinations.
    pub fn sliced(problem: Problem) -> Self {
        let halo = Padding { top: 1, bottom: 2, left: 3, right: 1 };
        Self { halo, layout: Layout::Slices, ..Self::packed(problem) }
    }

    /// The convolution of a text, which must be a shape, closely packed.
    pub fn conv(text: &str) -> Self {
        Self::packed(Problem::Conv(conv(text)))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { problem, images, extra, halo, layout } = self;
        write!(f, "{problem} ({images} images, {layout:?}, source with more {extra:?}, halo {halo:?})")
    }
}

/// The convolution of a text, which must be a shape.
pub fn conv(text: &str) -> Conv {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// The convolution of a text, which must be a shape, its segments with the epilogues in turn.
pub fn conv_with(text: &str, epilogues: &[Epilogue]) -> Problem {
    let mut conv = conv(text);
    for (segment, epilogue) in conv.segments.iter_mut().zip(epilogues.iter().cycle()) {
        segment.epilogue = *epilogue;
    }
    Problem::Conv(conv)
}

pub const RELU: Epilogue = Epilogue { bias: false, relu: true };

pub const EPILOGUES: [Epilogue; 4] = [Epilogue::BIAS_RELU, Epilogue::NONE, Epilogue::BIAS, RELU];

/// A row of the table on this machine.
pub struct Subject {
    pub row: &'static KernelEntry,
    pub kernel: Box<dyn Kernel>,
    tier: Tier,
}

impl Subject {
    /// The row of an id, which must exist, or none and a line on standard error where this machine
    /// lacks its instructions.
    pub fn of(id: &str) -> Option<Self> {
        let row = entry(id).unwrap_or_else(|| panic!("no row {id}"));
        let cpu = cpu();
        match (row.make)(&cpu) {
            Ok(kernel) => Some(Self { row, kernel, tier: cpu.tier() }),
            Err(refusal) => {
                // Unlike `eprintln!`, this is not captured when a test passes.
                let _ = writeln!(std::io::stderr(), "left out: {id}: {refusal}");
                None
            }
        }
    }

    /// A kernel in the place of the reference, for tests of the checks themselves.
    pub fn stand_in(kernel: Box<dyn Kernel>) -> Self {
        Self { row: entry("reference").expect("the oracle's row"), kernel, tier: cpu().tier() }
    }

    /// The cases that the kernel supports, with their data and tunings.
    pub fn supported(
        &self,
        cases: impl IntoIterator<Item = Case>,
    ) -> impl Iterator<Item = (Case, &'static Data, Vec<Tuning>)> {
        let supported = cases.into_iter().filter(|case| self.kernel.supports(&case.problem).is_ok());
        supported.map(|case| {
            let (data, tunings) = (Data::shared(&case.problem), self.kernel.tunings(&case.problem));
            (case, data, tunings)
        })
    }

    /// Computes the case with a tuning, in all formats that the kernel takes, and with each number
    /// of threads. Panics if anything is not as the contract of [`Prepared`] says. One thread comes
    /// first: where one of several panics, the others wait for it for ever.
    pub fn check(&self, case: &Case, data: &Data, tuning: &Tuning, threads: &[usize]) {
        for wanted in self.kernel.formats(&case.problem, tuning) {
            let (mut halo, extra) = (wanted.src.halo, case.extra);
            halo.top += extra.top;
            halo.bottom += extra.bottom;
            halo.left += extra.left;
            halo.right += extra.right;
            let trial =
                self.trial(case, data, tuning, Formats { src: Format { halo, ..wanted.src }, ..wanted });
            let step = trial.prepare(trial.filters);
            let mut first = None;
            for &workers in threads {
                let (dst, placements) = trial.run(&*step, workers);
                trial.compare(&dst, &placements, workers);
                let first = first.get_or_insert_with(|| bits(&dst).to_vec());
                let at = zip(bits(&dst), &*first).position(|(a, b)| a != b);
                let (context, one) = (&trial.context, threads[0]);
                assert_eq!(at, None, "{context}: element differs between {one} and {workers} threads");
            }
        }
    }

    /// Prepares the case from hollow filters and fills in the packed weights of the real ones.
    /// Panics if the results are not the same bits, or the buffers are others.
    pub fn check_packed(&self, case: &Case, data: &Data, tuning: &Tuning) {
        let hollow: Vec<Filter> = data.filters.iter().map(|filter| Filter::dims_only(filter.dims)).collect();
        for formats in self.kernel.formats(&case.problem, tuning) {
            let trial = self.trial(case, data, tuning, formats);
            let real = trial.prepare(trial.filters);
            if real.packed().is_empty() {
                continue;
            }
            let mut filled = trial.prepare(&hollow);
            let sizes = |step: &dyn Prepared| {
                let buffers = step.packed().iter().map(|buffer| buffer.len()).collect::<Vec<_>>();
                (buffers, step.packed_bytes(), step.scratch())
            };
            assert_eq!(sizes(&*filled), sizes(&*real), "{}: sizes without weights", trial.context);
            assert_eq!(filled.packed_mut().len(), real.packed().len(), "{}", trial.context);
            for (to, from) in zip(filled.packed_mut(), real.packed()) {
                to.as_mut_slice().copy_from_slice(from.as_slice());
            }
            let [a, b] = [real, filled].map(|step| trial.run(&*step, 1).0);
            assert!(bits(&a) == bits(&b), "{}: results differ", trial.context);
        }
    }

    /// Computes the case from u8 and weights of whole numbers, by which no sum is rounded: panics
    /// unless each result is the nearest that its type has.
    pub fn check_exact(&self, case: &Case, tuning: &Tuning, threads: &[usize]) {
        let mut random = Random::of(&format!("{} exact", case.problem));
        let src = (0..case.problem.src().elements()).map(|_| (random.bits() % 256) as f32).collect();
        let filter = |dims: [usize; 4]| {
            let mut weight = |at| if at < dims[3] { 127.0 } else { (random.bits() % 255) as f32 - 127.0 };
            Filter::new(dims, (0..dims.iter().product()).map(&mut weight).collect())
        };
        let filters = case.problem.filter_dims().into_iter().map(filter).collect();
        let data = Data::of(&case.problem, src, filters);
        let formats = self.kernel.formats(&case.problem, tuning);
        for formats in formats.into_iter().filter(|formats| formats.src.dtype == Dtype::U8) {
            let context = format!("{} on {case}, {:?}, tuning {tuning}", self.row.id, formats.dst);
            let trial = self.trial_of(case, [&data, &data], tuning, formats, context);
            let trial = Trial { is_exact: true, ..trial };
            let step = trial.prepare(trial.filters);
            for &workers in threads {
                let (dst, placements) = trial.run(&*step, workers);
                trial.compare(&dst, &placements, workers);
            }
        }
    }

    /// As [`Self::check`], with the default tuning and some others, and 1 to 3 threads, in turn.
    pub fn check_in_turn(&self, turn: usize, case: &Case, data: &Data, tunings: &[Tuning], others: usize) {
        assert!(!tunings.is_empty(), "{} has no tuning for {case}", self.row.id);
        let rotated = |i: usize| &tunings[1 + (turn * others + i) % (tunings.len() - 1)];
        let others = others.min(tunings.len() - 1);
        let threads: &[usize] = [[1, 2].as_slice(), &[1], &[1, 3], &[1]][turn % 4];
        for tuning in [&tunings[0]].into_iter().chain((0..others).map(rotated)) {
            self.check(case, data, tuning, threads);
        }
    }

    fn trial<'a>(
        &'a self,
        case: &'a Case,
        data: &'a Data,
        tuning: &'a Tuning,
        formats: Formats,
    ) -> Trial<'a> {
        let numerics = self.kernel.numerics(&case.problem, tuning);
        let given = data.given(&case.problem, &formats);
        let seen = given.seen(&case.problem, formats.src.dtype, &numerics);
        let types = format!("{} to {}", formats.src.dtype, formats.dst.dtype);
        let context = format!("{} (tier {}) on {case}, {types}, tuning {tuning}", self.row.id, self.tier);
        self.trial_of(case, [given, seen], tuning, formats, context)
    }

    /// With what the kernel is given, and what it makes of that.
    fn trial_of<'a>(
        &'a self,
        case: &'a Case,
        [given, seen]: [&'a Data; 2],
        tuning: &'a Tuning,
        formats: Formats,
        context: String,
    ) -> Trial<'a> {
        let numerics = self.kernel.numerics(&case.problem, tuning);
        let (kernel, src) = (&*self.kernel, source(case, formats.src, &seen.src, GUARD));
        let (filters, expected) = (&given.filters, &seen.expected);
        Trial { kernel, case, tuning, formats, numerics, filters, expected, is_exact: false, src, context }
    }
}

/// A case for a kernel with a tuning and in formats: the source in memory, and what is expected.
struct Trial<'a> {
    kernel: &'a dyn Kernel,
    case: &'a Case,
    tuning: &'a Tuning,
    formats: Formats,
    numerics: Numerics,
    filters: &'a [Filter],
    expected: &'a [Expected],
    /// Results are the nearest to what is expected that the type has.
    is_exact: bool,
    src: (Buffer, Placement),
    context: String,
}

impl Trial<'_> {
    fn prepare(&self, filters: &[Filter]) -> Box<dyn Prepared> {
        let prepared = self.kernel.prepare(&self.case.problem, self.tuning, &self.formats, filters);
        prepared.unwrap_or_else(|refusal| panic!("{}: {refusal}", self.context))
    }

    /// Runs a step with `workers` threads into memory full of sentinels.
    fn run(&self, step: &dyn Prepared, workers: usize) -> (Buffer, Vec<Placement>) {
        let Self { case, formats, src: (src, src_at), context, .. } = self;
        let (placements, len) = place(&case.problem.dst(), formats.dst.dtype, case.halo, case.layout, GUARD);
        let mut dst = Buffer::zeroed(len);
        dst.as_mut_slice().fill(SENTINEL);
        let needed = step.scratch_of_team(workers);
        let mut scratch = Buffer::zeroed(needed + GUARD);
        scratch.as_mut_slice().fill(SENTINEL);
        let views = placements.iter().map(|p| dst.view_mut(p).images(case.images));
        let io = Io::new(src.view(src_at).images(case.images), views);
        let mut team = Team::new(workers);
        let team = team.open();
        std::thread::scope(|scope| {
            let join = |place: usize| team.join(place).run(step, &io, &scratch);
            for place in 1..workers {
                scope.spawn(move || join(place));
            }
            join(0);
        });
        let is_whole = scratch.as_slice()[needed..].iter().all(|v| *v == SENTINEL);
        assert!(is_whole, "{context}, {workers} threads: wrote beyond its scratch");
        (dst, placements)
    }

    fn compare(&self, dst: &Buffer, placements: &[Placement], workers: usize) {
        let context = format!("{}, {workers} threads", self.context);
        let bytes = bytes(dst);
        let mut foreign = vec![true; bytes.len()];
        for (segment, (placement, expected)) in zip(placements, self.expected).enumerate() {
            let Placement { shape: Shape { h, w, c, .. }, dtype, .. } = *placement;
            let width = dtype.bytes();
            let tolerance = expected.tolerance(&self.numerics);
            each_pixel(placement, self.case.images, |at, pixel| {
                foreign[at..at + c * width].fill(false);
                let Some(pixel) = pixel else {
                    let wrong = bytes[at..at + c * width].iter().position(|byte| *byte != 0);
                    assert_eq!(wrong, None, "{context}: segment {segment}: halo channel is not zero");
                    return;
                };
                let values = expected.values[pixel * c..][..c].iter().map(|value| dtype.clamped(*value));
                for (channel, exact) in values.enumerate() {
                    let exact = if self.is_exact { dtype.round(exact as f32).into() } else { exact };
                    let found = get(bytes, dtype, at + channel * width);
                    let error = (found as f64 - exact).abs();
                    let (n, y, x) = (pixel / (h * w), pixel / w % h, pixel % w);
                    // What is stored in another type than f32 is rounded once more.
                    let tolerance = match dtype {
                        _ if self.is_exact => 0.0,
                        Dtype::F32 => tolerance,
                        _ => tolerance + dtype.rounding_error(exact.abs() + tolerance),
                    };
                    assert!(
                        error <= tolerance,
                        "{context}: segment {segment}, image {n}, row {y}, column {x}, channel {channel}: \
                         {found} for {exact}, error {error:.2e} above {tolerance:.2e}"
                    );
                }
            });
        }
        let sentinel = SENTINEL.to_ne_bytes();
        let at = (0..bytes.len()).find(|&at| foreign[at] && bytes[at] != sentinel[at % sentinel.len()]);
        assert_eq!(at, None, "{context}: memory that is no destination's was overwritten");
    }
}

fn bits(buffer: &Buffer) -> &[u32] {
    bytemuck::cast_slice(buffer.as_slice())
}
