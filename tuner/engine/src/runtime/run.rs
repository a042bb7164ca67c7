//! Runs of a prepared network: which worker takes which step for which images, and when.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use kernels::{Buffer, Io, Member, Shape};

use crate::network::{Graph, Slice};
use crate::runtime::order::{Turn, turns, worker_of};
use crate::runtime::prepared::{Placed, PreparedNetwork, Ready, WorkerMemory};
use crate::runtime::threads::Threads;

/// How long each step of a run took.
pub struct StepSeconds {
    /// For all images; over the number of workers, where each takes images of its own.
    pub computing: Vec<f64>,
    /// How long a worker waited after the step for the other workers, on average.
    pub waiting: Vec<f64>,
}

/// An image whose results are not all finite, and the first step with such an output.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("image {image}: {output}")]
pub struct NotFinite {
    /// Its number, from 0.
    pub image: usize,
    pub output: NotFiniteOutput,
}

/// What a step gives that is not finite.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("step `{layer}` gives {found}, expected finite numbers: image or weights are too large")]
pub struct NotFiniteOutput {
    /// The first of the step.
    pub layer: String,
    pub found: f32,
}

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

impl<'a> Region<'a> {
    /// One worker's part of a range of steps for `n` images.
    #[inline]
    fn run(&self, member: &Member, n: usize, range: Range<usize>) {
        let memory = self.worker_memory.get(member.index());
        let solo = memory.map(|memory| memory.team.join(0));
        let mut prefetched = 0;
        let mut was_solo = false;
        for (turn, end) in turns(self.graph, n, range).zip(self.ends) {
            let is_solo = self.graph.is_per_worker(turn.step);
            if was_solo && !is_solo {
                // What it reads others have written.
                member.wait();
                prefetched = 0;
            }
            was_solo = is_solo;
            if is_solo && worker_of(self.graph, turn, self.workers) != member.index() {
                continue;
            }
            let ready = &self.steps[turn.step];
            let prefetch_next = self.prefetch_next(ready, turn, member.index());
            let io = self.io(ready, turn, memory).with_prefetch(prefetched, prefetch_next);
            match (memory, &solo) {
                (Some(memory), Some(solo)) if is_solo => solo.run(&*ready.prepared, &io, &memory.scratch),
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
    fn io(
        &self,
        ready: &'a Ready,
        Turn { first, count, .. }: Turn,
        memory: Option<&'a WorkerMemory>,
    ) -> Io<'a> {
        // Tensors of some images at a time begin with the first of them.
        let of_step = ready.prepared.signature().src.n;
        let skipped = |images: usize| if images > of_step { first } else { 0 };
        let src = ready.src.memory(self.arena, memory).view(&ready.src.at);
        let src = src.skip(skipped(src.shape.n)).images(count);
        let dst = ready.dst.iter().map(|dst| {
            let dst = dst.memory(self.arena, memory).view_mut(&dst.at);
            dst.skip(skipped(dst.shape.n)).images(count)
        });
        Io::new(src, dst)
    }

    /// The weights that the worker reads in the next step that has any and that is taken the same
    /// way: as many as the kernel of this step prefetches.
    #[inline]
    fn prefetch_next(&self, ready: &Ready, Turn { step, count, .. }: Turn, worker: usize) -> &'a [f32] {
        let is_solo = self.graph.is_per_worker(step);
        let mut later = self.steps[step + 1..].iter().zip(step + 1..);
        let next = later.find(|(next, _)| next.has_weights);
        let next = next.filter(|(_, index)| self.graph.is_per_worker(*index) == is_solo);
        let (index, team) = if is_solo { (0, 1) } else { (worker, self.workers) };
        let weights = next.map_or(&[][..], |(next, _)| next.prepared.worker_weights(index, team, count));
        &weights[..weights.len().min(ready.prepared.prefetch_capacity())]
    }
}

impl PreparedNetwork {
    /// Runs `n` images `[n, h, w, c]` through the network, in one region ([`Threads::region`]);
    /// nothing else allocates.
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

    /// Whether the results of the latest run, of `n` images, are finite.
    ///
    /// # Errors
    /// If they are not: the first such image is run again, step by step, to find where it begins.
    pub fn check_finite(&mut self, threads: &Threads, images: &[f32], n: usize) -> Result<(), NotFinite> {
        let of_image = |values: &[f32], at: usize| {
            let size = values.len() / n;
            values[at * size..][..size].iter().all(|value| value.is_finite())
        };
        // Tensors of u8 hide what is no number; there is none where images are numbers.
        if self.scales.iter().any(Option::is_some)
            && let Some(at) = images.iter().position(|value| !value.is_finite())
        {
            let (image, layer) = (at * n / images.len(), self.graph.steps[0].layers[0].clone());
            return Err(NotFinite { image, output: NotFiniteOutput { layer, found: images[at] } });
        }
        let (output, features) = (self.output(n), self.features(n).unwrap_or_default());
        let is_finite = |at: &usize| of_image(&output, *at) && of_image(&features, *at);
        let Some(image) = (0..n).find(|at| !is_finite(at)) else { return Ok(()) };
        let size = images.len() / n;
        self.arena.write_images(&self.tensors[0], 1, &images[image * size..][..size]);
        for step in 0..self.steps.len() {
            self.run_steps(threads, 1, step..step + 1);
            let written = self.graph.steps[step].dst.iter().flat_map(|dst| self.read(dst, 1));
            if let Some(found) = written.into_iter().find(|value| !value.is_finite()) {
                let layer = self.graph.steps[step].layers[0].clone();
                return Err(NotFinite { image, output: NotFiniteOutput { layer, found } });
            }
        }
        // The step that is to blame passed over what is no number.
        let found = output.iter().chain(&features).copied().find(|value| !value.is_finite());
        let (layer, found) = ("output".to_owned(), found.unwrap_or(f32::NAN));
        Err(NotFinite { image, output: NotFiniteOutput { layer, found } })
    }

    /// Runs one image with the outputs of one step changed on the way; the features, or the output
    /// where there are none.
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

    /// Of the latest run.
    pub fn seconds(&self) -> StepSeconds {
        let [mut computing, mut waiting] = [(); 2].map(|()| vec![0.0; self.steps.len()]);
        let workers = self.team.workers();
        let nanoseconds = |from: u64, to: u64| to.saturating_sub(from) as f64 * 1e-9;
        // When each worker was done with its latest turn.
        let mut done = vec![0; workers];
        // All wait for the last.
        let mut meet = |done: &mut [u64], after: usize| {
            let last = done.iter().copied().max().unwrap_or(0);
            let waited: f64 = done.iter().map(|&done| nanoseconds(done, last)).sum();
            waiting[after] += waited / workers as f64;
            done.fill(last);
        };
        let mut latest = None;
        for (turn, end) in turns(&self.graph, self.latest, 0..self.steps.len()).zip(&self.ends) {
            let end = end.load(Ordering::Relaxed);
            if self.graph.is_per_worker(turn.step) {
                let done = &mut done[worker_of(&self.graph, turn, workers)];
                computing[turn.step] += nanoseconds(*done, end) / workers as f64;
                *done = end;
            } else {
                latest.into_iter().for_each(|step| meet(&mut done, step));
                computing[turn.step] += nanoseconds(done[0], end);
                done.fill(end);
            }
            latest = Some(turn.step);
        }
        latest.into_iter().for_each(|step| meet(&mut done, step));
        StepSeconds { computing, waiting }
    }

    /// [`StepSeconds::computing`] of the latest run.
    pub fn step_seconds(&self) -> Vec<f64> {
        self.seconds().computing
    }

    /// The first `n` images of a slice as `[n, h, w, c]`. Only output and features outlive a run.
    pub fn read(&self, slice: &Slice, n: usize) -> Vec<f32> {
        let placed = Placed::of(slice, &self.graph, &self.tensors);
        // The first worker has the first images.
        let memory = placed.memory(&self.arena, self.worker_memory.first());
        let mut values = memory.read_images(&placed.at, n);
        if let Some(scales) = &self.scales[slice.tensor] {
            let scales = scales[slice.channels.clone()].iter().cycle();
            values.iter_mut().zip(scales).for_each(|(value, scale)| *value *= scale);
        }
        values
    }

    /// The last output of the latest run, `[n, h, w, c]`.
    pub fn output(&self, n: usize) -> Vec<f32> {
        self.read(&self.graph.output, n)
    }

    /// The pooled features of the latest run, `[n, features]`.
    pub fn features(&self, n: usize) -> Option<Vec<f32>> {
        self.graph.features.as_ref().map(|slice| self.read(slice, n))
    }

    /// Runs `n` images and reads slices on the way, each after so many steps, in order: for checks
    /// of what lies inside the network.
    pub fn run_reading(
        &mut self,
        threads: &Threads,
        images: &[f32],
        n: usize,
        slices: &[(usize, &Slice)],
    ) -> Vec<Vec<f32>> {
        self.arena.write_images(&self.tensors[0], n, images);
        let mut done = 0;
        let read = |&(steps, slice): &(usize, &Slice)| {
            self.run_steps(threads, n, done..steps);
            done = steps;
            self.read(slice, n)
        };
        slices.iter().map(read).collect()
    }
}
