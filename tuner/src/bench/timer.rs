//! One prepared kernel that is run again and again, as cold as it is in a network.
//!
//! In a network, the weights of all other layers have passed since a layer's turn, more than the
//! caches hold, and its source has just been written by all workers, each a share. So before each
//! run the weights and the destinations are moved out of the caches, as far as they would be; its
//! scratch, which the steps before have used, is moved out and read anew, and as much as a core's
//! own cache holds passes through it, so that scratch is where they would leave it, whatever else
//! is measured in between; and each worker reads its share of the source. A loop over one layer
//! would find all of them warm and favour what reads them often.
//!
//! Scratch is read twice: a cache that takes what the cores' own let go of (AMD's third level) does
//! not keep for long what was read but once, and a kernel with scratch would take longer among
//! many that have none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use engine::network::Choice;
use engine::plan::WeightResidency;
use engine::runtime::Threads;
use kernels::arch::cache::evict;
use kernels::{
    Buffer, Cpu, Format, Formats, Io, Member, Placement, Prepared, Problem, Shape, Signature, Team, Tensor,
    Unsupported,
};

use crate::bench::contention::{Run, quietest, waiting};
use crate::bench::inputs::Inputs;
use crate::bench::policy::POLICY;
use crate::bench::residency::chill;
use crate::bench::rounds::Rounds;

/// Memory and a prepared kernel, ready to be run again and again.
pub struct Bench {
    prepared: Box<dyn Prepared>,
    src: Arc<Tensor>,
    dst: Vec<(Buffer, Placement)>,
    cold: WeightResidency,
}

/// What benches share as the steps of a network do: the team, the scratch, and what passes through
/// a core's caches between two turns of a step.
pub struct BenchContext {
    pub team: Team,
    scratch: Buffer,
    passing: Buffer,
    /// Which part of it passes next.
    turn: usize,
}

impl BenchContext {
    pub fn new(threads: &Threads, cpu: &Cpu) -> Self {
        let elements = cpu.caches.l2 / size_of::<f32>() * POLICY.cold.parts;
        let mut passing = Buffer::zeroed(elements);
        // Pages that nobody has written may be one and the same.
        passing.as_mut_slice().fill(1.0);
        Self { team: Team::new(threads.count()), scratch: Buffer::zeroed(0), passing, turn: 0 }
    }
}

impl Bench {
    /// A source that benches of one problem share.
    pub fn source(shape: Shape, format: &Format, values: &[f32]) -> Arc<Tensor> {
        let mut source = Tensor::new(shape, format);
        source.fill_nhwc(values);
        Arc::new(source)
    }

    /// Prepares a choice for a problem, to be timed: in u8 its results mean nothing.
    pub fn of(
        problem: &Problem,
        choice: &Choice,
        inputs: &Inputs,
        cpu: &Cpu,
        cold: WeightResidency,
    ) -> Result<Self, Unsupported> {
        let kernel = (choice.row.make)(cpu)?;
        let prepared = kernel.prepare(problem, &choice.tuning, &choice.formats, &inputs.filters)?;
        let src = Self::source(prepared.signature().src, &choice.formats.src, &inputs.src);
        Ok(Self::new(prepared, &choice.formats, src, cold))
    }

    pub fn new(
        prepared: Box<dyn Prepared>,
        formats: &Formats,
        src: Arc<Tensor>,
        cold: WeightResidency,
    ) -> Self {
        let bound = prepared.signature();
        let Format { dtype, halo } = formats.dst;
        let dst = bound.dst.iter().map(|&shape| {
            let at = Placement::with_pixel_pitch(0, dtype, shape, halo, shape.c);
            (Buffer::zeroed(at.elements()), at)
        });
        let dst = dst.collect();
        Self { prepared, src, dst, cold }
    }

    /// Runs it once on all threads, cold: see [`each_in_turn`].
    pub fn run(&mut self, threads: &Threads, place: &mut BenchContext) -> Run {
        each_in_turn(&mut [self], 1, threads, place)[0]
    }

    /// A worker's part of one run, and what it leaves in the marks.
    fn turn(&self, member: &Member, workers: usize, passing: &[f32], scratch: &Buffer, marks: &RunStamps) {
        let Self { prepared, src, dst, cold } = self;
        let own = |values| share(values, member.index(), workers);
        let weights = marks.packed.iter().copied();
        let weights_and_destinations = weights.chain(dst.iter().map(|(buffer, _)| buffer));
        weights_and_destinations.for_each(|buffer| chill(own(buffer.as_slice()), *cold));
        let scratched = own(&scratch.as_slice()[..self.scratch(workers)]);
        evict(scratched);
        for values in [scratched, scratched, passing, own(src.as_slice())] {
            std::hint::black_box(values.iter().step_by(16).sum::<f32>());
        }
        let io = Io::new(src.view(), dst.iter().map(|(buffer, at)| buffer.view_mut(at)));
        member.wait();
        let before = waiting();
        member.wait();
        marks.first.fetch_min(marks.now(), Ordering::Relaxed);
        member.run(&**prepared, &io, scratch);
        marks.last.fetch_max(marks.now(), Ordering::Relaxed);
        marks.waited.fetch_add(waiting().saturating_sub(before), Ordering::Relaxed);
        member.wait();
    }

    pub fn signature(&self) -> &Signature {
        self.prepared.signature()
    }

    /// The outputs of a pixel of a segment, by image, row and column.
    pub fn output(&self, segment: usize, pixel: [usize; 3]) -> Vec<f32> {
        let (buffer, at) = &self.dst[segment];
        buffer.read_pixel(at, pixel)
    }

    /// Elements of scratch that a team of so many needs.
    fn scratch(&self, workers: usize) -> usize {
        self.prepared.scratch_of_team(workers)
    }

    /// Bytes of packed weights, and of scratch for a team of so many.
    pub fn bytes(&self, workers: usize) -> [usize; 2] {
        [self.prepared.packed_bytes(), self.scratch(workers) * size_of::<f32>()]
    }
}

/// When the workers of one run started and had finished.
struct RunStamps<'a> {
    packed: &'a [&'a Buffer],
    epoch: Instant,
    first: AtomicU64,
    last: AtomicU64,
    /// Nanoseconds that workers waited for a core.
    waited: AtomicU64,
}

impl<'a> RunStamps<'a> {
    fn new(packed: &'a [&'a Buffer]) -> Self {
        let [last, waited] = [0, 0].map(AtomicU64::new);
        Self { packed, epoch: Instant::now(), first: AtomicU64::new(u64::MAX), last, waited }
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Seconds from when the first worker started to when the last had finished, and whether others
    /// used the cores then; none where it has not run.
    fn result(&self) -> Option<Run> {
        let [first, last, waited] =
            [&self.first, &self.last, &self.waited].map(|mark| mark.load(Ordering::Relaxed));
        let nanoseconds = last.checked_sub(first)? as f64;
        Some(Run {
            seconds: nanoseconds * 1e-9,
            disturbed: waited as f64 > POLICY.contention.waited_share * nanoseconds,
        })
    }
}

/// Runs each once on all threads, cold, and again at once while it is disturbed, at most `tries`
/// times: the seconds, the least where all were disturbed, and whether they were. All are in one
/// region: a process that burns a core gives it back for some milliseconds, in which there is time
/// for several.
pub fn each_in_turn(
    benches: &mut [&mut Bench],
    tries: usize,
    threads: &Threads,
    place: &mut BenchContext,
) -> Vec<Run> {
    let BenchContext { team, scratch, passing, turn } = place;
    let workers = threads.count();
    let needed = benches.iter().map(|bench| bench.scratch(workers)).max().unwrap_or(0);
    if needed > scratch.len() {
        *scratch = Buffer::zeroed(needed);
    }
    let first = *turn;
    *turn += benches.len();
    let benches: Vec<(&Bench, Vec<&Buffer>)> =
        benches.iter().map(|bench| (&**bench, bench.prepared.packed())).collect();
    let marks: Vec<Vec<RunStamps>> =
        benches.iter().map(|(_, packed)| (0..tries).map(|_| RunStamps::new(packed)).collect()).collect();
    threads.region(team, |member| {
        for (index, ((bench, _), marks)) in benches.iter().zip(&marks).enumerate() {
            for (attempt, marks) in marks.iter().enumerate() {
                let passing = share(
                    passing.as_slice(),
                    (first + index + attempt) % POLICY.cold.parts,
                    POLICY.cold.parts,
                );
                bench.turn(member, workers, passing, scratch, marks);
                // All workers see the same: they have waited for each other.
                if marks.result().is_some_and(|run| !run.disturbed) {
                    break;
                }
            }
        }
    });
    marks.iter().map(|marks| quietest(marks.iter().filter_map(RunStamps::result))).collect()
}

/// Runs two in turn, in rounds of which the first two warm up: the seconds of both.
pub fn in_turn(benches: &mut [Bench; 2], rounds: &Rounds, place: &mut BenchContext) -> [Vec<f64>; 2] {
    let mut samples = [const { Vec::new() }; 2];
    rounds.run(|turn| {
        let mut contenders: Vec<&mut Bench> = benches.iter_mut().collect();
        let mut lists = samples.each_mut();
        if turn.round % 2 == 1 {
            contenders.reverse();
            lists.reverse();
        }
        let runs = each_in_turn(&mut contenders, POLICY.contention.tries, rounds.threads, place);
        if turn.round >= POLICY.pair_warm_up {
            lists.into_iter().zip(runs).for_each(|(list, run)| list.push(run.seconds));
        }
    });
    samples
}

fn share(values: &[f32], worker: usize, workers: usize) -> &[f32] {
    &values[values.len() * worker / workers..values.len() * (worker + 1) / workers]
}
