//! Runs a kernel on a case and compares every element of the memory around it with the oracle.
//!
//! Sources lie among NaN and destinations among sentinels, so that a kernel that reads or writes what is
//! not its own is seen, and so is a halo that it does not restore.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod emulated;
mod memory;
pub mod network;

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use engine::network::{Graph, Model, problems};
use kernels::verify::{Expected, all_pixels, as_seen, expected};
use kernels::{
    BatchNorm, Buffer, Conv, Cpu, Dtype, Epilogue, Filter, Format, Formats, Io, Kernel, KernelEntry,
    Numerics, Padding, Placement, Pool, PoolKind, Prepared, Problem, Shape, Team, Tier, Tuning, entry,
};
use memory::{GUARD, SENTINEL, Units, each_pixel, halves, place, source};

/// The processor, with emulated tiles if that is all that it lacks.
pub fn cpu() -> Cpu {
    let cpu = Cpu::detect();
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    let cpu = emulated::with_tiles(cpu);
    cpu
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

    /// Uniform in `[low, high)`.
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * (self.bits() as f32 / (1u64 << 31) as f32)
    }

    /// `count` values, uniform in `[low, high)`.
    pub fn values(&mut self, count: usize, low: f32, high: f32) -> Vec<f32> {
        (0..count).map(|_| self.uniform(low, high)).collect()
    }
}

/// Input, filters and exact output of a problem.
#[derive(Debug)]
pub struct Data {
    /// `[n, h, w, c]`.
    pub src: Vec<f32>,
    /// As the problem asks for.
    pub filters: Vec<Filter>,
    /// All pixels, one a segment.
    pub expected: Vec<Expected>,
    /// The same with a source, and with source and folded weights, that are rounded to bf16.
    rounded: [OnceLock<Box<Data>>; 2],
}

impl Data {
    /// Pseudo-random, the same for the same problem. The input of every other problem is that of a layer
    /// after a ReLU; filters have up to two BatchNorms, with and without gamma and bias.
    pub fn new(problem: &Problem) -> Self {
        let mut random = Random::of(&problem.to_string());
        let rectified = random.bits().is_multiple_of(2);
        let largest = if matches!(problem, Problem::Softmax { .. }) { 8.0 } else { 1.0 };
        let mut src = random.values(problem.src().elements(), -largest, largest);
        if rectified {
            src.iter_mut().for_each(|x| *x = x.max(0.0));
        }
        let dims = problem.filter_dims();
        let filters: Vec<Filter> = dims.into_iter().map(|dims| random_filter(&mut random, dims)).collect();
        Self::of(problem, src, filters)
    }

    fn of(problem: &Problem, src: Vec<f32>, filters: Vec<Filter>) -> Self {
        let expected = expected(problem, &src, &filters, &all_pixels(problem.dst()[0]));
        Self { src, filters, expected, rounded: Default::default() }
    }

    /// As a kernel sees it that reads a source of type `src` and rounds its inputs as `numerics` says.
    fn seen(&self, problem: &Problem, src: Dtype, numerics: &Numerics) -> &Self {
        let which = match (src, numerics.rounding) {
            (Dtype::F32, Dtype::F32) => return self,
            (Dtype::Bf16, Dtype::F32) => 0,
            (_, Dtype::Bf16) => 1,
        };
        self.rounded[which].get_or_init(|| {
            let (src, filters) = as_seen(&self.src, &self.filters, src, numerics.rounding);
            Box::new(Self::of(problem, src, filters))
        })
    }

    /// As [`Self::new`], kept for the other kernels that are checked on the problem.
    pub fn shared(problem: &Problem) -> Arc<Self> {
        type Cell = Arc<OnceLock<Arc<Data>>>;
        static KNOWN: LazyLock<Mutex<HashMap<Problem, Cell>>> = LazyLock::new(Mutex::default);
        let cell = {
            let mut known = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            known.entry(problem.clone()).or_default().clone()
        };
        cell.get_or_init(|| Arc::new(Self::new(problem))).clone()
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
    /// What to compute.
    pub problem: Problem,
    /// Images of a run, at most the problem's batch.
    pub images: usize,
    /// Halo of the source beyond what the kernel demands.
    pub extra: Padding,
    /// Halo of the first destination, and of all that are channels of one tensor. Of those by themselves,
    /// the second has none and the third has other sides, in turn.
    pub halo: Padding,
    /// Whole tensors or ranges of channels.
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

    /// The convolution of a text, closely packed.
    ///
    /// # Panics
    /// If the text is not a shape.
    pub fn conv(text: &str) -> Self {
        Self::packed(Problem::Conv(conv(text)))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { problem, images, extra, halo, layout } = self;
        let sides = |p: &Padding| [p.top, p.bottom, p.left, p.right];
        let (extra, halo) = (sides(extra), sides(halo));
        write!(f, "{problem} ({images} images, {layout:?}, extra source halo {extra:?}, halo {halo:?})")
    }
}

/// The convolution of a text.
///
/// # Panics
/// If the text is not a shape.
pub fn conv(text: &str) -> Conv {
    text.parse().unwrap_or_else(|e| panic!("{e}"))
}

/// The convolution of a text, its segments with the epilogues in turn.
///
/// # Panics
/// If the text is not a shape.
pub fn conv_with(text: &str, epilogues: &[Epilogue]) -> Problem {
    let mut conv = conv(text);
    for (segment, epilogue) in conv.segments.iter_mut().zip(epilogues.iter().cycle()) {
        segment.epilogue = *epilogue;
    }
    Problem::Conv(conv)
}

/// ReLU without a bias.
pub const RELU: Epilogue = Epilogue { bias: false, relu: true };

/// All epilogues.
pub const EPILOGUES: [Epilogue; 4] = [Epilogue::BIAS_RELU, Epilogue::NONE, Epilogue::BIAS, RELU];

/// All distinct problems of InceptionV3 with its top, those of all forms of its blocks, and the average
/// pools of both frameworks.
pub fn inception_v3(batch: usize) -> Vec<Problem> {
    let model = Model::inception_v3();
    let mut list = Vec::new();
    for average in [PoolKind::Average, PoolKind::AverageCountingBorder] {
        for (problem, _) in problems(&Graph::new(&model, batch, average)) {
            if !list.contains(&problem) {
                list.push(problem);
            }
        }
    }
    list
}

/// The same channels, kernel, stride and padding on a smaller image. Global pools stay as they are.
pub fn shrunk(problem: &Problem, [h, w]: [usize; 2]) -> Problem {
    let mut problem = problem.clone();
    match &mut problem {
        Problem::Conv(Conv { image, .. }) => *image = [image[0].min(h), image[1].min(w)],
        Problem::Pool(Pool { image, window, .. }) if window.kernel != *image => {
            *image = [image[0].min(h), image[1].min(w)]
        }
        _ => (),
    }
    problem
}

/// A row of the table on this machine.
pub struct Subject {
    /// The row.
    pub row: &'static KernelEntry,
    /// Its kernel.
    pub kernel: Box<dyn Kernel>,
    tier: Tier,
}

impl Subject {
    /// The row of an id, or none and a line on standard error where this machine lacks its instructions.
    ///
    /// # Panics
    /// If there is no such row.
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

    /// Computes the case with a tuning, in all formats that the kernel takes, and with each number of
    /// threads. One thread comes first: where one of several panics, the others wait for it for ever.
    ///
    /// # Panics
    /// If anything is not as the contract of [`Prepared`] says.
    pub fn check(&self, case: &Case, data: &Data, tuning: &Tuning, threads: &[usize]) {
        for wanted in self.kernel.formats(&case.problem, tuning) {
            let (a, b) = (wanted.src.halo, case.extra);
            let halo = Padding {
                top: a.top + b.top,
                bottom: a.bottom + b.bottom,
                left: a.left + b.left,
                right: a.right + b.right,
            };
            let formats = Formats { src: Format { halo, ..wanted.src }, ..wanted };
            let types = format!("{} to {}", wanted.src.dtype, wanted.dst.dtype);
            let context = format!("{} (tier {}) on {case}, {types}, tuning {tuning}", self.row.id, self.tier);
            let prepared = self
                .kernel
                .prepare(&case.problem, tuning, &formats, &data.filters)
                .unwrap_or_else(|refusal| panic!("{context}: {refusal}"));
            let numerics = self.kernel.numerics(&case.problem, tuning);
            let data = data.seen(&case.problem, wanted.src.dtype, &numerics);
            let (src, src_at) = source(case, formats.src, &data.src);
            let mut first: Option<Vec<f32>> = None;
            for &workers in threads {
                let context = format!("{context}, {workers} threads");
                let (dst, dst_at) = run(&*prepared, case, &src, &src_at, workers, &context);
                self.compare(case, data, &numerics, &dst, &dst_at, &context);
                if let Some(first) = &first {
                    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
                    let at = dst.as_slice().iter().zip(first).position(differs);
                    assert_eq!(at, None, "{context}: element differs from {} threads", threads[0]);
                } else {
                    first = Some(dst.as_slice().to_vec());
                }
            }
        }
    }

    /// Prepares the case from hollow filters and fills in the packed weights of the real ones: the results are
    /// the same bits.
    ///
    /// # Panics
    /// If they are not, or the buffers are others.
    pub fn check_packed(&self, case: &Case, data: &Data, tuning: &Tuning) {
        let hollow: Vec<Filter> = data.filters.iter().map(|filter| Filter::dims_only(filter.dims)).collect();
        for formats in self.kernel.formats(&case.problem, tuning) {
            let context = format!("{} on {case}, {formats:?}, tuning {tuning}", self.row.id);
            let prepare = |filters: &[Filter]| {
                let prepared = self.kernel.prepare(&case.problem, tuning, &formats, filters);
                prepared.unwrap_or_else(|refusal| panic!("{context}: {refusal}"))
            };
            let real = prepare(&data.filters);
            if real.packed().is_empty() {
                continue;
            }
            let mut filled = prepare(&hollow);
            assert_eq!(filled.packed_mut().len(), real.packed().len(), "{context}");
            for (to, from) in filled.packed_mut().into_iter().zip(real.packed()) {
                to.as_mut_slice().copy_from_slice(from.as_slice());
            }
            let numerics = self.kernel.numerics(&case.problem, tuning);
            let seen = data.seen(&case.problem, formats.src.dtype, &numerics);
            let (src, src_at) = source(case, formats.src, &seen.src);
            let [a, b] = [&real, &filled].map(|step| run(&**step, case, &src, &src_at, 1, &context).0);
            let bits =
                |buffer: &Buffer| -> Vec<u32> { buffer.as_slice().iter().map(|v| v.to_bits()).collect() };
            assert!(bits(&a) == bits(&b), "{context}: results differ");
        }
    }

    /// As [`Self::check`], with the default tuning and some others, and 1 to 3 threads, in turn.
    pub fn check_in_turn(&self, turn: usize, case: &Case, data: &Data, others: usize) {
        let tunings = self.kernel.tunings(&case.problem);
        assert!(!tunings.is_empty(), "{} has no tuning for {case}", self.row.id);
        let rotated = |i: usize| &tunings[1 + (turn * others + i) % (tunings.len() - 1)];
        let others = others.min(tunings.len() - 1);
        let threads: &[usize] = [[1, 2].as_slice(), &[1], &[1, 3], &[1]][turn % 4];
        for tuning in [&tunings[0]].into_iter().chain((0..others).map(rotated)) {
            self.check(case, data, tuning, threads);
        }
    }

    fn compare(
        &self,
        case: &Case,
        data: &Data,
        numerics: &Numerics,
        dst: &Buffer,
        placements: &[Placement],
        context: &str,
    ) {
        let units = Units::of(dst);
        let mut foreign = vec![true; units.all().len()];
        for (segment, placement) in placements.iter().enumerate() {
            let Placement { shape: Shape { h, w, c, .. }, dtype, .. } = *placement;
            let width = dtype.bytes() / 2;
            let expected = &data.expected[segment];
            let tolerance = expected.tolerance(numerics);
            each_pixel(placement, case.images, |at, pixel| {
                foreign[at..at + c * width].fill(false);
                let Some(pixel) = pixel else {
                    let wrong = units.all()[at..at + c * width].iter().position(|unit| *unit != 0);
                    assert_eq!(wrong, None, "{context}: segment {segment}: halo channel is not zero");
                    return;
                };
                let exact = &expected.values[pixel * c..(pixel + 1) * c];
                for (channel, &exact) in exact.iter().enumerate() {
                    let found = units.get(dtype, at + channel * width);
                    let error = (found as f64 - exact).abs();
                    let (n, y, x) = (pixel / (h * w), pixel / w % h, pixel % w);
                    // What is stored in bf16 is rounded once more.
                    let stored = match dtype {
                        Dtype::F32 => 0.0,
                        Dtype::Bf16 => dtype.unit_roundoff() * (exact.abs() + tolerance),
                    };
                    let tolerance = tolerance + stored;
                    assert!(
                        error <= tolerance,
                        "{context}: segment {segment}, image {n}, row {y}, column {x}, channel {channel}: \
                         {found} for {exact}, error {error:.2e} above {tolerance:.2e}"
                    );
                }
            });
        }
        let sentinel = halves(SENTINEL);
        let touched = |at: &usize| foreign[*at] && units.all()[*at] != sentinel[at % 2];
        let at = (0..foreign.len()).find(touched);
        assert_eq!(at, None, "{context}: memory that is no destination's was overwritten");
    }
}

/// Runs a step with `workers` threads into memory full of sentinels.
fn run(
    step: &dyn Prepared,
    case: &Case,
    src: &Buffer,
    src_at: &Placement,
    workers: usize,
    context: &str,
) -> (Buffer, Vec<Placement>) {
    let dtype = step.signature().formats.dst.dtype;
    let (placements, len) = place(&case.problem.dst(), dtype, case.halo, case.layout);
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
        for _ in 1..workers {
            scope.spawn(|| team.join().run(step, &io, &scratch));
        }
        team.join().run(step, &io, &scratch);
    });
    let beyond = &scratch.as_slice()[needed..];
    assert!(beyond.iter().all(|v| *v == SENTINEL), "{context}: wrote beyond its scratch");
    (dst, placements)
}
