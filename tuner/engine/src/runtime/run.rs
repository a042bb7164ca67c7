//! Runs of a prepared network: which worker takes which step for which images, and when.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use kernels::Shape;
use kernels::kernel::Io;
use kernels::memory::Buffer;
use kernels::team::Member;

use crate::network::graph::{Graph, Slice};
use crate::runtime::order::{Turn, turns, worker_of};
use crate::runtime::prepared::{Placed, PreparedNetwork, Ready, WorkerMemory};
use crate::runtime::threads::Threads;

/// What the workers of one region share.
struct Region<'a> {
    graph: &'a Graph,
    steps: &'a [Ready],
    arena: &'a Buffer,
    scratch: &'a Buffer,
    worker_memory: &'a [WorkerMemory],
    ends: &'a [AtomicU64],
    workers: usize,
    start: Instant,
}

/// How a worker takes a turn.
#[derive(Clone, Copy)]
struct Part<'a> {
    turn: Turn,
    /// The worker takes the step without the others.
    is_alone: bool,
    /// The worker's number in the team.
    worker: usize,
    /// What the worker has for itself.
    memory: Option<&'a WorkerMemory>,
}

impl<'a> Region<'a> {
    /// One worker's part of a range of steps for `n` images.
    #[inline]
    fn run(&self, member: &Member, n: usize, range: Range<usize>) {
        let memory = self.worker_memory.get(member.index());
        let solo = memory.map(|memory| memory.team.join());
        let mut prefetched = 0;
        let mut was_alone = false;
        for (turn, end) in turns(self.graph, n, range).zip(self.ends) {
            let is_alone = self.graph.is_per_worker(turn.step);
            if was_alone && !is_alone {
                // What it reads others have written.
                member.wait();
                prefetched = 0;
            }
            was_alone = is_alone;
            if is_alone && worker_of(self.graph, turn, self.workers) != member.index() {
                continue;
            }
            let ready = &self.steps[turn.step];
            let part = Part { turn, is_alone, worker: member.index(), memory };
            let prefetch_next = self.prefetch_next(ready, part);
            let io = self.io(ready, part).with_prefetch(prefetched, prefetch_next);
            match (memory, &solo) {
                (Some(memory), Some(solo)) if is_alone => solo.run(&*ready.prepared, &io, &memory.scratch),
                _ => member.run(&*ready.prepared, &io, self.scratch),
            }
            if ready.has_weights {
                prefetched = prefetch_next.len();
            }
            // The first to leave the barrier: another may have lost its core.
            end.fetch_min(self.start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
    }

    /// The views of the images of a turn.
    #[inline]
    fn io(&self, ready: &'a Ready, part: Part<'a>) -> Io<'a> {
        let Turn { first, count, .. } = part.turn;
        // Tensors of some images at a time begin with the first of them.
        let of_step = ready.prepared.signature().src.n;
        let skipped = |images: usize| if images > of_step { first } else { 0 };
        let src = ready.src.memory(self.arena, part.memory).view(&ready.src.at);
        let src = src.skip(skipped(src.shape.n)).images(count);
        let dst = ready.dst.iter().map(|dst| {
            let dst = dst.memory(self.arena, part.memory).view_mut(&dst.at);
            dst.skip(skipped(dst.shape.n)).images(count)
        });
        Io::new(src, dst)
    }

    /// The weights that the worker reads in the next step that has any and that is taken the same way: as many as the
    /// kernel of this step prefetches.
    #[inline]
    fn prefetch_next(&self, ready: &Ready, part: Part) -> &'a [f32] {
        let Part { turn: Turn { step, count, .. }, is_alone, worker, .. } = part;
        let mut later = self.steps[step + 1..].iter().zip(step + 1..);
        let next = later.find(|(next, _)| next.has_weights);
        let next = next.filter(|(_, index)| self.graph.is_per_worker(*index) == is_alone);
        let (index, team) = if is_alone { (0, 1) } else { (worker, self.workers) };
        let weights = next.map_or(&[][..], |(next, _)| next.prepared.worker_weights(index, team, count));
        &weights[..weights.len().min(ready.prepared.prefetch_capacity())]
    }
}

impl PreparedNetwork {
    /// Runs `n` images `[n, h, w, c]` through the network, in one region ([`Threads::region`]); nothing else
    /// allocates.
    ///
    /// # Panics
    /// If `n` exceeds the graph's batch, or the images' size is not the graph's.
    pub fn run(&mut self, threads: &Threads, images: &[f32], n: usize) {
        let input = Shape { n, ..self.graph.tensors[0] };
        assert!(n >= 1 && n <= self.graph.batch, "{n} images in a session for {}", self.graph.batch);
        assert_eq!(images.len(), input.elements(), "images of {input}");
        self.arena.write_images(&self.tensors[0], n, images);
        self.run_steps(threads, n, 0..self.steps.len());
    }

    /// Runs a range of the steps for `n` images, on what the steps before have left.
    fn run_steps(&mut self, threads: &Threads, n: usize, range: Range<usize>) {
        self.latest = n;
        for memory in &mut self.worker_memory {
            memory.team.open();
        }
        self.ends.iter().for_each(|end| end.store(u64::MAX, Ordering::Relaxed));
        let region = Region {
            graph: &self.graph,
            steps: &self.steps,
            arena: &self.arena,
            scratch: &self.scratch,
            worker_memory: &self.worker_memory,
            ends: &self.ends,
            workers: threads.count(),
            start: Instant::now(),
        };
        threads.region(&mut self.team, |member| region.run(member, n, range.clone()));
    }

    /// Runs one image with the outputs of one step changed on the way; the features, or the output where
    /// there are none.
    pub fn run_changed(
        &mut self,
        threads: &Threads,
        image: &[f32],
        step: usize,
        change: impl Fn(&mut [f32]),
    ) -> Vec<f32> {
        self.arena.write_images(&self.tensors[0], 1, image);
        self.run_steps(threads, 1, 0..step + 1);
        for dst in &self.steps[step].dst {
            let of_worker = self.worker_memory.first_mut().filter(|_| dst.is_tensor_per_worker);
            let arena = of_worker.map_or(&mut self.arena, |memory| &mut memory.arena);
            let mut values = arena.read_images(&dst.at, 1);
            change(&mut values);
            arena.write_interior(&dst.at, 1, &values);
        }
        self.run_steps(threads, 1, step + 1..self.steps.len());
        self.result(1)
    }

    /// The features of the latest run, or the output where there are none.
    pub fn result(&self, n: usize) -> Vec<f32> {
        self.features(n).unwrap_or_else(|| self.output(n))
    }

    /// For each step of the latest run: the seconds that it took for all images, over the number of workers where each
    /// takes images of its own; and the seconds that a worker waited after it for the other workers, on average.
    pub fn seconds(&self) -> [Vec<f64>; 2] {
        let mut seconds = [(); 2].map(|()| vec![0.0; self.steps.len()]);
        let [taken, waits] = &mut seconds;
        let workers = self.team.workers();
        // When each worker was done with what it took last.
        let mut done = vec![0; workers];
        let mut last_alone: Option<usize> = None;
        let nanoseconds = |from: u64, to: u64| to.saturating_sub(from) as f64 * 1e-9;
        // All wait for the last.
        let mut meet = |done: &mut [u64], behind: usize| {
            let last = done.iter().copied().max().unwrap_or(0);
            let waited: f64 = done.iter().map(|&done| nanoseconds(done, last)).sum();
            waits[behind] += waited / workers as f64;
            done.fill(last);
        };
        for (turn, end) in turns(&self.graph, self.latest, 0..self.steps.len()).zip(&self.ends) {
            let end = end.load(Ordering::Relaxed);
            if self.graph.is_per_worker(turn.step) {
                last_alone = Some(turn.step);
                let done = &mut done[worker_of(&self.graph, turn, workers)];
                taken[turn.step] += nanoseconds(*done, end) / workers as f64;
                *done = end;
                continue;
            }
            if let Some(before) = last_alone.take() {
                meet(&mut done, before);
            }
            taken[turn.step] += nanoseconds(done[0], end);
            done.fill(end);
        }
        if let Some(last) = last_alone {
            meet(&mut done, last);
        }
        seconds
    }

    /// The first of [`Self::seconds`].
    pub fn step_seconds(&self) -> Vec<f64> {
        let [taken, _] = self.seconds();
        taken
    }

    /// The first `n` images of a slice as `[n, h, w, c]` values. Only the output and the features
    /// outlive a run.
    pub fn read(&self, slice: &Slice, n: usize) -> Vec<f32> {
        let at = self.tensors[slice.tensor].channels(slice.channels.clone());
        let placed = Placed { at, is_tensor_per_worker: self.graph.is_tensor_per_worker(slice.tensor) };
        // The first worker has the first images.
        placed.memory(&self.arena, self.worker_memory.first()).read_images(&at, n)
    }

    /// The last output of the latest run, `[n, h, w, c]`.
    pub fn output(&self, n: usize) -> Vec<f32> {
        self.read(&self.graph.output, n)
    }

    /// The pooled features of the latest run, `[n, features]`.
    pub fn features(&self, n: usize) -> Option<Vec<f32>> {
        self.graph.features.as_ref().map(|slice| self.read(slice, n))
    }

    /// Runs up to and including the given number of steps and reads a slice: for checks of what lies
    /// inside the network.
    pub fn run_until(
        &mut self,
        threads: &Threads,
        images: &[f32],
        n: usize,
        steps: usize,
        slice: &Slice,
    ) -> Vec<f32> {
        let rest = self.steps.split_off(steps);
        self.run(threads, images, n);
        self.steps.extend(rest);
        self.read(slice, n)
    }
}
