//! A team of workers that walk through the same steps: who computes which units, and the barrier
//! between phases. The workers' threads are the caller's; nothing here starts one.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::available_parallelism;

use crate::kernel::{Io, Prepared};
use crate::memory::{Buffer, Scratch};
use crate::shape::Shape;
use crate::tensor::View;

/// Spins before a waiting worker gives its core away. Where workers share cores it does so at once:
/// the one that it waits for may need that core.
const SPINS: u32 = 20_000;

/// Bit of the generation that is set once a worker has panicked: a waiting worker sees it in the
/// word that it polls anyway.
const POISONED: usize = 1 << (usize::BITS - 1);

/// Keeps cells that different workers write on different cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicUsize);

/// Shared state of the workers of one fork-join region.
#[derive(Debug)]
pub struct Team {
    workers: usize,
    /// [`SPINS`], or none if there are more workers than cores that the process may use.
    spins: u32,
    /// Whether place 0 is taken, and the others: none for one worker, which needs no memory.
    first: AtomicBool,
    others: Vec<AtomicBool>,
    arrived: Padded,
    generation: Padded,
    /// Units of each worker's share that have been dealt; empty for one worker, who takes all.
    dealt: Vec<Padded>,
}

/// A worker's place in its team; there is one for each number below the team's size.
#[derive(Debug)]
pub struct Member<'a> {
    team: &'a Team,
    index: usize,
}

impl Team {
    /// For `workers` threads, at least one.
    pub fn new(workers: usize) -> Self {
        let workers = workers.max(1);
        let shares = if workers == 1 { 0 } else { workers };
        let [arrived, generation] = Default::default();
        let cores = if workers == 1 { 1 } else { available_parallelism().map_or(workers, usize::from) };
        Self {
            workers,
            spins: if workers > cores { 0 } else { SPINS },
            first: AtomicBool::new(false),
            others: (1..workers).map(|_| AtomicBool::new(false)).collect(),
            arrived,
            generation,
            dealt: (0..shares).map(|_| Padded::default()).collect(),
        }
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Starts a region in which each worker joins once. `&mut` proves that no member is left; what
    /// a panic in the region before has left behind is undone.
    pub fn open(&mut self) -> &Self {
        *self.generation.0.get_mut() &= !POISONED;
        self.arrived.0.store(0, Ordering::Relaxed);
        *self.first.get_mut() = false;
        self.others.iter_mut().for_each(|taken| *taken.get_mut() = false);
        self.reset_deal();
        self
    }

    /// No unit has been dealt.
    fn reset_deal(&self) {
        self.dealt.iter().for_each(|dealt| dealt.0.store(0, Ordering::Relaxed));
    }

    /// Deals up to `chunk` units to a worker: first of its share, which is the same part of the
    /// image for many steps, then of the shares of other workers.
    fn take(&self, worker: usize, units: usize, chunk: usize) -> Option<Range<usize>> {
        (0..self.workers).find_map(|offset| {
            let owner = (worker + offset) % self.workers;
            let share = |worker| units * worker / self.workers;
            let start = share(owner) + self.dealt[owner].0.fetch_add(chunk, Ordering::Relaxed);
            let end = share(owner + 1);
            (start < end).then(|| start..end.min(start + chunk))
        })
    }

    /// The calling thread's place: number `index`. A thread should have the same in all regions, since
    /// its core has the weights and pixels of its share in its caches.
    ///
    /// # Panics
    /// If there is no such place, or it has been taken in this region.
    pub fn join(&self, index: usize) -> Member<'_> {
        let place = if index == 0 { &self.first } else { &self.others[index - 1] };
        assert!(
            !place.swap(true, Ordering::Relaxed),
            "place {index} of a team of {} was taken twice",
            self.workers
        );
        Member { team: self, index }
    }

    fn check_alive(generation: usize) {
        assert!(generation & POISONED == 0, "another worker of the team has panicked");
    }
}

impl Drop for Member<'_> {
    /// The others must not wait for a worker that unwinds.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.team.generation.0.fetch_or(POISONED, Ordering::Release);
        }
    }
}

impl Member<'_> {
    /// The worker's number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Waits for the other workers; the last to arrive sets the deal back.
    ///
    /// # Panics
    /// If one of them has panicked in this region: it will not arrive.
    pub fn wait(&self) {
        let team = self.team;
        if team.workers == 1 {
            return;
        }
        let generation = team.generation.0.load(Ordering::Acquire);
        Team::check_alive(generation);
        if team.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == team.workers {
            team.arrived.0.store(0, Ordering::Relaxed);
            team.reset_deal();
            team.generation.0.store((generation + 1) & !POISONED, Ordering::Release);
            return;
        }
        let mut spins = 0u32;
        loop {
            let now = team.generation.0.load(Ordering::Acquire);
            if now != generation {
                return Team::check_alive(now);
            }
            spins = spins.saturating_add(1);
            if spins < team.spins {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Computes this worker's share of a step and returns when the whole step is done.
    ///
    /// Restores the halo of the destinations. Debug builds fill destinations and scratch with NaN
    /// first. All members must call this with the same arguments.
    ///
    /// # Panics
    /// If `io` does not have the shapes of the step's problem, `scratch` is too small, or another
    /// member has panicked.
    #[allow(unsafe_code, reason = "deals disjoint units to the workers")]
    pub fn run(&self, step: &dyn Prepared, io: &Io, scratch: &Buffer) {
        self.check(step, io);
        let workers = self.team.workers;
        let mut mine = Scratch::new(scratch, step.scratch(), workers, self.index);
        if cfg!(debug_assertions) {
            if self.index == 0 {
                // SAFETY: the others wait at the barrier. `Scratch::new` has checked that the
                // buffer holds the scratch of all.
                unsafe {
                    (0..io.segments).for_each(|segment| io.dst(segment).poison());
                    let all = scratch.as_ptr().cast_mut();
                    std::slice::from_raw_parts_mut(all, step.scratch_of_team(workers)).fill(f32::NAN);
                }
            }
            self.wait();
        }
        for segment in 0..io.segments {
            // SAFETY: the workers' shares are disjoint, and kernels write interiors only.
            unsafe { io.dst(segment).clear_halo(self.index, workers) };
        }
        let images = io.images();
        for phase in 0..step.phase_count() {
            let units = step.units(phase, images);
            if workers == 1 {
                // SAFETY: the only worker takes all units, phase after phase; `check` has compared
                // the shapes; the scratch parts are disjoint by `Scratch::new`.
                unsafe { step.run(phase, 0..units, io, &mut mine) };
                continue;
            }
            let chunk = (units / (4 * workers)).max(1);
            while let Some(units) = self.team.take(self.index, units, chunk) {
                // SAFETY: counters give each unit away once, and the barrier below ends the phase;
                // the rest as above.
                unsafe { step.run(phase, units, io, &mut mine) };
            }
            self.wait();
        }
    }

    fn check(&self, step: &dyn Prepared, io: &Io) {
        let signature = step.signature();
        let n = io.images();
        assert!(n >= 1 && n <= signature.src.n, "{n} images for {}", signature.problem);
        let same = |view: &View, shape: Shape| view.shape == Shape { n, ..shape };
        assert!(same(&io.src, signature.src), "source of {}", signature.problem);
        assert!(io.src.halo == signature.formats.src.halo, "halo of the source of {}", signature.problem);
        assert_eq!(io.segments, signature.dst.len(), "destinations of {}", signature.problem);
        for (index, &want) in signature.dst.iter().enumerate() {
            assert!(same(&io.dst(index), want), "destination {index} of {}", signature.problem);
        }
    }
}

/// Runs a step on the calling thread alone.
pub fn run_alone(step: &dyn Prepared, io: &Io, scratch: &Buffer) {
    Team::new(1).open().join(0).run(step, io, scratch);
}

/// Scratch for a step and a team.
pub fn scratch_for(step: &dyn Prepared, workers: usize) -> Buffer {
    Buffer::zeroed(step.scratch_of_team(workers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of three workers panic; `culprit` does after as many waits.
    fn panics(team: &mut Team, culprit: Option<usize>, waits: usize) -> usize {
        let team = team.open();
        std::thread::scope(|scope| {
            let work = |index: usize| {
                let member = team.join(index);
                for turn in 0..100 {
                    if culprit == Some(member.index()) && turn == waits {
                        std::panic::resume_unwind(Box::new(()));
                    }
                    member.wait();
                }
            };
            let workers = [0, 1, 2].map(|index| scope.spawn(move || work(index)));
            workers.into_iter().filter_map(|worker| worker.join().err()).count()
        })
    }

    #[test]
    fn units_are_taken_once_by_their_owner_first() {
        let mut team = Team::new(3);
        for units in [0, 1, 2, 10, 100] {
            let team = team.open();
            let mut taken = Vec::new();
            while let Some(range) = team.take(1, units, 4) {
                taken.extend(range);
            }
            let share = units / 3..2 * units / 3;
            assert!(taken.iter().copied().take(share.len()).eq(share), "{units} units: {taken:?}");
            taken.sort_unstable();
            assert!(taken.into_iter().eq(0..units));
        }
    }

    #[test]
    fn a_panic_of_one_worker_ends_all_and_the_team_starts_afresh() {
        let mut team = Team::new(3);
        for waits in [0, 1, 50] {
            assert_eq!(panics(&mut team, Some(1), waits), 3);
            assert_eq!(panics(&mut team, None, 0), 0);
        }
    }
}
