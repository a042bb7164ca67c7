//! Measures the candidates of one problem: checked against the oracle first, then timed in shuffled,
//! interleaved rounds, the clear losers dropped early.
//!
//! Weights are evicted from the caches before each run. In a network, the weights of all other layers
//! have passed since a layer's turn, more than the caches hold; a loop over one layer finds them warm and
//! favours what reads them often.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kernels::arch::cache::evict;
use kernels::cpu::Cpu;
use kernels::filter::{BatchNorm, Filter};
use kernels::kernel::{Io, Kernel, Prepared, Role, Row, Tuning, table};
use kernels::problem::{Padding, Problem};
use kernels::reference::{Expected, Pixel, expected};
use kernels::scratch::Buffer;
use kernels::team::Team;
use kernels::tensor::{Formats, Shape, Tensor};

use crate::threads::Threads;
use crate::weights::synthetic::unit;

/// A kernel of the table that this machine can run, for one problem.
pub struct Available {
    /// Its row.
    pub row: &'static Row,
    /// The kernel.
    pub kernel: Box<dyn Kernel>,
}

/// Why a row has no candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its id.
    pub id: &'static str,
    /// The reason.
    pub reason: String,
}

/// The rows that take a problem on this machine, and those that do not with their reasons.
///
/// Of the rows of one family only the first that this machine has is taken: the others are the same
/// code for a lower tier.
pub fn available(cpu: &Cpu, problem: &Problem) -> (Vec<Available>, Vec<LeftOut>) {
    let (mut list, mut left_out): (Vec<Available>, Vec<LeftOut>) = (Vec::new(), Vec::new());
    for row in table() {
        let mut leave = |reason| left_out.push(LeftOut { id: row.id, reason });
        if row.role == Role::Oracle {
            leave("the oracle: exact and slow".to_string());
            continue;
        }
        if let Some(first) = list.iter().find(|a| a.row.family == row.family) {
            leave(format!("{} stands for its family", first.row.id));
            continue;
        }
        match (row.make)(cpu) {
            Err(refusal) => leave(refusal.to_string()),
            Ok(kernel) => match kernel.supports(problem) {
                Err(refusal) => leave(refusal.to_string()),
                Ok(()) => list.push(Available { row, kernel }),
            },
        }
    }
    (list, left_out)
}

/// Seconds of one candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Median.
    pub median: f64,
    /// First and third quartile.
    pub quartiles: [f64; 2],
    /// Smallest.
    pub fastest: f64,
    /// Runs.
    pub samples: usize,
}

impl Timing {
    /// Of at least one sample.
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |q: f64| sorted[((sorted.len() - 1) as f64 * q).round() as usize];
        Self { median: at(0.5), quartiles: [at(0.25), at(0.75)], fastest: sorted[0], samples: sorted.len() }
    }
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Timed to the end, or until it was clear that it loses.
    Timed {
        /// Its times.
        timing: Timing,
        /// It was dropped early.
        dropped: bool,
    },
    /// Its results are wrong; it is out.
    Wrong {
        /// Largest error.
        error: f64,
        /// What its numerics allow.
        tolerance: f64,
    },
}

/// One measured candidate.
#[derive(Clone)]
pub struct Measured {
    /// Its row.
    pub row: &'static Row,
    /// Its tuning.
    pub tuning: Tuning,
    /// The formats it was measured with.
    pub formats: Formats,
    /// Largest error over the largest output.
    pub relative_error: f64,
    /// Root mean square of the errors over that of the outputs.
    pub rms_error: f64,
    /// Bytes of packed weights.
    pub packed: usize,
    /// Bytes of scratch.
    pub scratch: usize,
    /// Multiply-adds that it executes.
    pub multiply_adds: u64,
    /// What became of it.
    pub outcome: Outcome,
}

impl Measured {
    /// Bytes of packed weights and scratch.
    pub fn bytes(&self) -> usize {
        self.packed + self.scratch
    }

    /// Its times, if its results are right.
    pub fn timing(&self) -> Option<Timing> {
        match self.outcome {
            Outcome::Timed { timing, .. } => Some(timing),
            Outcome::Wrong { .. } => None,
        }
    }
}

/// All that was found out about a problem.
#[derive(Clone)]
pub struct Measurement {
    /// The problem.
    pub problem: Problem,
    /// Its candidates in the order of the table.
    pub candidates: Vec<Measured>,
    /// Rows without candidates.
    pub left_out: Vec<LeftOut>,
}

impl Measurement {
    /// Candidates whose results are right, the fastest first.
    pub fn ranking(&self) -> Vec<&Measured> {
        let mut list: Vec<&Measured> = self.candidates.iter().filter(|c| c.timing().is_some()).collect();
        let median = |c: &Measured| c.timing().map_or(f64::INFINITY, |t| t.median);
        list.sort_by(|a, b| median(a).total_cmp(&median(b)));
        list
    }
}

/// Source and filters for a problem: the same for all its candidates.
pub struct Inputs {
    /// `[n, h, w, c]` values from 0 to 1, as after a ReLU.
    pub src: Vec<f32>,
    /// As the problem asks for.
    pub filters: Vec<Filter>,
}

impl Inputs {
    /// Pseudo-random values for a problem.
    pub fn synthetic(problem: &Problem) -> Self {
        let value = |stream, i: usize| unit(7, stream, i as u64);
        let src = (0..problem.src().elements()).map(|i| value(0, i) as f32).collect();
        let filter = |(stream, dims): (usize, [usize; 4])| {
            let stream = 10 * (stream as u64 + 1);
            let range = |offset, lo: f64, hi: f64, count: usize| -> Vec<f32> {
                (0..count).map(|i| (lo + (hi - lo) * value(stream + offset, i)) as f32).collect()
            };
            let [r, s, c, channels] = dims;
            let norm = BatchNorm {
                gamma: None,
                beta: range(1, -0.1, 0.1, channels),
                mean: range(2, -0.1, 0.1, channels),
                variance: range(3, 0.75, 1.25, channels),
                epsilon: 1e-3,
            };
            let limit = (6.0 / (r * s * c) as f64).sqrt();
            let weights = range(0, -limit, limit, dims.iter().product());
            Filter { norms: vec![norm], ..Filter::new(dims, weights) }
        };
        let filters = problem.filter_dims().into_iter().enumerate().map(filter).collect();
        Self { src, filters }
    }
}

/// Output pixels to check: the corners, where the last tile of each edge ends, and some between.
pub fn sample_pixels(shape: Shape, count: usize) -> Vec<Pixel> {
    let ends = |extent: usize| [0, extent - 1];
    let mut pixels = Vec::new();
    for y in ends(shape.h) {
        for x in ends(shape.w) {
            pixels.push(Pixel { n: shape.n - 1, y, x });
        }
    }
    for i in 0..count as u64 {
        let at = |stream, extent: usize| (unit(11, stream, i) * extent as f64) as usize;
        pixels.push(Pixel { n: at(0, shape.n), y: at(1, shape.h), x: at(2, shape.w) });
    }
    pixels.sort_by_key(|p| (p.n, p.y, p.x));
    pixels.dedup();
    pixels
}

/// Memory and a prepared kernel, ready to be run again and again.
pub struct Bench {
    prepared: Box<dyn Prepared>,
    src: Tensor,
    dst: Vec<Tensor>,
    scratch: Buffer,
}

impl Bench {
    /// Lays out a prepared kernel's tensors.
    pub fn new(prepared: Box<dyn Prepared>, formats: &Formats, src: &[f32], workers: usize) -> Self {
        let bound = prepared.bound();
        let src = Tensor::from_nhwc(bound.src, formats.src.halo, src);
        let dst = bound.dst.iter().map(|&shape| Tensor::zeros(shape, Padding::default())).collect();
        let scratch = Buffer::zeroed(prepared.scratch().total(workers));
        Self { prepared, src, dst, scratch }
    }

    /// Runs it once on all threads, with cold weights; the seconds from when all are there to when all
    /// are done.
    pub fn run(&mut self, threads: &Threads, team: &mut Team) -> f64 {
        self.prepared.packed().into_iter().for_each(|weights| evict(weights.as_slice()));
        let io = Io::new(self.src.view(), self.dst.iter_mut().map(Tensor::view_mut));
        let (prepared, scratch) = (&self.prepared, &self.scratch);
        let nanoseconds = AtomicU64::new(0);
        threads.region(team, |member| {
            member.wait();
            let start = Instant::now();
            member.run(&**prepared, &io, scratch);
            if member.index() == 0 {
                nanoseconds.store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            }
        });
        nanoseconds.into_inner() as f64 * 1e-9
    }

    /// Outputs of a segment.
    pub fn output(&self, segment: usize) -> Vec<f32> {
        self.dst[segment].to_nhwc()
    }

    /// Bytes of packed weights, and of scratch.
    pub fn bytes(&self) -> [usize; 2] {
        [self.prepared.packed_bytes(), self.scratch.len() * size_of::<f32>()]
    }

    /// Largest error, largest allowed error, largest output and mean squares over all segments; an output
    /// that is no number has an infinite error.
    pub fn compare(
        &self,
        exact: &[Expected],
        pixels: &[Pixel],
        numerics: &kernels::kernel::Numerics,
    ) -> Comparison {
        let mut worst = Comparison { error: 0.0, tolerance: f64::INFINITY, largest: 0.0, rms: 0.0 };
        let (mut errors, mut outputs) = (0.0, 0.0);
        for (segment, exact) in exact.iter().enumerate() {
            let shape = self.prepared.bound().dst[segment];
            let output = self.output(segment);
            let tolerance = exact.tolerance(numerics);
            for (pixel, exact) in pixels.iter().zip(exact.values.chunks_exact(shape.c)) {
                let at = ((pixel.n * shape.h + pixel.y) * shape.w + pixel.x) * shape.c;
                for (&y, &exact) in output[at..at + shape.c].iter().zip(exact) {
                    let error = (y as f64 - exact).abs();
                    worst.error = worst.error.max(if error.is_nan() { f64::INFINITY } else { error });
                    worst.largest = worst.largest.max(exact.abs());
                    errors += error * error;
                    outputs += exact * exact;
                }
            }
            worst.tolerance = worst.tolerance.min(tolerance);
        }
        worst.rms = if errors == 0.0 { 0.0 } else { (errors / outputs).sqrt() };
        worst
    }
}

/// A candidate's results beside the oracle's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Largest error.
    pub error: f64,
    /// What the kernel's numerics allow.
    pub tolerance: f64,
    /// Largest exact output.
    pub largest: f64,
    /// Root mean square of the errors over that of the exact outputs.
    pub rms: f64,
}

impl Comparison {
    /// Within tolerance.
    pub fn holds(&self) -> bool {
        self.error <= self.tolerance
    }

    /// Error over the largest output.
    pub fn relative(&self) -> f64 {
        if self.largest > 0.0 { self.error / self.largest } else { self.error }
    }
}

/// How long to measure, and what to leave out.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Time for timing, checks and preparation apart.
    pub budget: Duration,
    /// Rounds at most.
    pub rounds: usize,
}

/// A candidate whose fastest run is this much slower than the leader's median is dropped after so many
/// rounds.
const DROP: [(usize, f64); 4] = [(1, 2.0), (2, 1.3), (4, 1.1), (8, 1.04)];

/// Checks and times all candidates of a problem.
pub fn measure(
    problem: &Problem,
    cpu: &Cpu,
    threads: &Threads,
    effort: Effort,
    mut progress: impl FnMut(f64),
) -> Measurement {
    let (kernels, left_out) = available(cpu, problem);
    let inputs = Inputs::synthetic(problem);
    let outputs = problem.dst();
    let pixels = sample_pixels(outputs[0], 12);
    let exact = expected(problem, &inputs.src, &inputs.filters, &pixels);
    let mut team = Team::new(threads.count());
    let mut candidates = Vec::new();
    let mut alive: Vec<(usize, Bench, Vec<f64>)> = Vec::new();

    let jobs: Vec<(&Available, Tuning)> = kernels
        .iter()
        .flat_map(|a| a.kernel.tunings(problem).into_iter().map(move |tuning| (a, tuning)))
        .collect();
    let prepared = threads.map(&jobs, |(a, tuning)| {
        let formats = a.kernel.formats(problem, tuning)[0];
        a.kernel.prepare(problem, tuning, &formats, &inputs.filters).map(|prepared| (formats, prepared))
    });
    let mut left_out = left_out;
    for ((a, tuning), prepared) in jobs.iter().zip(prepared) {
        let (formats, prepared) = match prepared {
            Ok(made) => made,
            Err(refusal) => {
                left_out.push(LeftOut { id: a.row.id, reason: format!("{tuning}: {refusal}") });
                continue;
            }
        };
        let mut bench = Bench::new(prepared, &formats, &inputs.src, threads.count());
        let numerics = a.kernel.numerics(problem, tuning);
        let first = bench.run(threads, &mut team);
        let comparison = bench.compare(&exact, &pixels, &numerics);
        let Comparison { error, tolerance, .. } = comparison;
        let outcome = if comparison.holds() {
            Outcome::Timed { timing: Timing::of(&[first]), dropped: false }
        } else {
            Outcome::Wrong { error, tolerance }
        };
        let [packed, scratch] = bench.bytes();
        candidates.push(Measured {
            row: a.row,
            tuning: tuning.clone(),
            formats,
            relative_error: comparison.relative(),
            rms_error: comparison.rms,
            packed,
            scratch,
            multiply_adds: a.kernel.multiply_adds(problem, tuning),
            outcome,
        });
        if comparison.holds() {
            alive.push((candidates.len() - 1, bench, Vec::new()));
        }
    }

    let start = Instant::now();
    for round in 1..=effort.rounds {
        shuffle(&mut alive, round as u64);
        for (_, bench, samples) in &mut alive {
            samples.push(bench.run(threads, &mut team));
        }
        let leader = alive.iter().map(|(_, _, s)| Timing::of(s).median).fold(f64::INFINITY, f64::min);
        if let Some((_, factor)) = DROP.iter().rev().find(|(after, _)| round >= *after) {
            alive.retain(|(index, _, samples)| {
                let timing = Timing::of(samples);
                let stays = timing.fastest <= leader * factor;
                if !stays {
                    candidates[*index].outcome = Outcome::Timed { timing, dropped: true };
                }
                stays
            });
        }
        let spent = start.elapsed().as_secs_f64() / effort.budget.as_secs_f64().max(1e-9);
        progress(spent.max(round as f64 / effort.rounds as f64).min(1.0));
        if spent >= 1.0 && round >= 3 {
            break;
        }
    }
    for (index, _, samples) in alive {
        if !samples.is_empty() {
            candidates[index].outcome = Outcome::Timed { timing: Timing::of(&samples), dropped: false };
        }
    }
    Measurement { problem: problem.clone(), candidates, left_out }
}

/// Fisher-Yates, the same order for the same seed.
fn shuffle<T>(items: &mut [T], seed: u64) {
    for i in (1..items.len()).rev() {
        items.swap(i, (unit(13, seed, i as u64) * (i + 1) as f64) as usize);
    }
}
