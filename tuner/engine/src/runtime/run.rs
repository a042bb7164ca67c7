//! Runs of a session: which worker takes which step for which images, and when.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Instant;

use kernels::Shape;
use kernels::kernel::Io;

use crate::network::graph::Slice;
use crate::runtime::order::{Turn, turns, worker_of};
use crate::runtime::session::{Placed, Session};
use crate::runtime::threads::Threads;

impl Session {
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
        for own in &mut self.own {
            own.team.open();
        }
        let (arena, scratch, steps, graph) = (&self.arena, &self.scratch, &self.steps, &self.graph);
        let (ends, own) = (&self.ends, &self.own);
        ends.iter().for_each(|end| end.store(u64::MAX, Ordering::Relaxed));
        let start = Instant::now();
        let workers = threads.count();
        threads.region(&mut self.team, |member| {
            let own = own.get(member.index());
            let solo = own.map(|own| own.team.join());
            let mut near = 0;
            let mut was_alone = false;
            for (turn, end) in turns(graph, n, range.clone()).zip(ends) {
                let Turn { step, first, count } = turn;
                let ready = &steps[step];
                let alone = graph.is_per_worker(step);
                if was_alone && !alone {
                    // What it reads others have written.
                    member.wait();
                    near = 0;
                }
                was_alone = alone;
                if alone && worker_of(graph, turn, workers) != member.index() {
                    continue;
                }
                // Tensors of some images at a time begin with the first of them.
                let skipped =
                    |images: usize| if images > ready.prepared.signature().src.n { first } else { 0 };
                let src = ready.src.memory(arena, own).view(&ready.src.at);
                let src = src.skip(skipped(src.shape.n)).images(count);
                let dst = ready.dst.iter().map(|dst| {
                    let dst = dst.memory(arena, own).view_mut(&dst.at);
                    dst.skip(skipped(dst.shape().n)).images(count)
                });
                let mut later = steps[step + 1..].iter().zip(step + 1..);
                let next = later.find(|(next, _)| next.has_weights);
                let next = next.filter(|(_, index)| graph.is_per_worker(*index) == alone);
                let (index, team) = if alone { (0, 1) } else { (member.index(), workers) };
                let ahead =
                    next.map_or(&[][..], |(next, _)| next.prepared.worker_weights(index, team, count));
                let ahead = &ahead[..ahead.len().min(ready.prepared.prefetch_capacity())];
                let io = Io::new(src, dst).with_prefetch(near, ahead);
                match (own, &solo) {
                    (Some(own), Some(solo)) if alone => solo.run(&*ready.prepared, &io, &own.scratch),
                    _ => member.run(&*ready.prepared, &io, scratch),
                }
                if ready.has_weights {
                    near = ahead.len();
                }
                // The first to leave the barrier: another may have lost its core.
                end.fetch_min(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            }
        });
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
            let own = self.own.first_mut().filter(|_| dst.is_tensor_per_worker);
            let memory = own.map_or(&mut self.arena, |own| &mut own.arena);
            let mut values = memory.read_images(&dst.at, 1);
            change(&mut values);
            memory.write_interior(&dst.at, 1, &values);
        }
        self.run_steps(threads, 1, step + 1..self.steps.len());
        self.result(1)
    }

    /// The features of the latest run, or the output where there are none.
    pub fn result(&self, n: usize) -> Vec<f32> {
        self.features(n).unwrap_or_else(|| self.output(n))
    }

    /// Seconds that each step of the latest run took, for all images, where it is taken alone over the workers; and how
    /// long a worker waited behind it for those that others took beside it, on average.
    pub fn seconds(&self) -> [Vec<f64>; 2] {
        let mut seconds = [(); 2].map(|()| vec![0.0; self.steps.len()]);
        let [own, waits] = &mut seconds;
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
                own[turn.step] += nanoseconds(*done, end) / workers as f64;
                *done = end;
                continue;
            }
            if let Some(before) = last_alone.take() {
                meet(&mut done, before);
            }
            own[turn.step] += nanoseconds(done[0], end);
            done.fill(end);
        }
        if let Some(last) = last_alone {
            meet(&mut done, last);
        }
        seconds
    }

    /// The first of [`Self::seconds`].
    pub fn step_seconds(&self) -> Vec<f64> {
        let [own, _] = self.seconds();
        own
    }

    /// The first `n` images of a slice as `[n, h, w, c]` values. Only the output and the features
    /// outlive a run.
    pub fn read(&self, slice: &Slice, n: usize) -> Vec<f32> {
        let at = self.tensors[slice.tensor].channels(slice.channels.clone());
        let placed = Placed { at, is_tensor_per_worker: self.graph.is_tensor_per_worker(slice.tensor) };
        // The first worker has the first images.
        placed.memory(&self.arena, self.own.first()).read_images(&at, n)
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
