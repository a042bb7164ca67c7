//! Core-to-core latency of the workers' cores, and waiting until it is low.
//!
//! A host may move a guest's virtual cores at any time: now onto cores that share a cache, now onto
//! some that do not, between which a cache line takes several times as long. That slows most down
//! what one worker writes and another reads, scratch above all, so that another kernel may be the
//! fastest; and it lasts for seconds or minutes. So it is measured in every round, as
//! [core-to-core latency] is: by a line that two workers hand to each other. What is measured while
//! the latency is higher than it has been waits, for as long as there is patience.
//!
//! [core-to-core latency]: https://github.com/nviennot/core-to-core-latency

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::plan::{CoreDistance, is_far};
use engine::runtime::Threads;
use engine::util::ns;
use kernels::Team;

use crate::bench::policy::POLICY;

/// A number with a cache line of its own, and the next line, which is fetched along.
#[repr(align(128))]
struct Line(AtomicUsize);

impl Line {
    /// Waits for a number and adds one to it.
    fn pass(&self, own: usize) {
        let mut spins = 0;
        while self.0.load(Ordering::Acquire) != own {
            spins += 1;
            match spins < POLICY.core_distance.spins {
                true => std::hint::spin_loop(),
                false => std::thread::yield_now(),
            }
        }
        self.0.store(own + 1, Ordering::Release);
    }
}

/// Seconds in which a cache line gets from one worker's core to the next one's: of all such pairs,
/// that which takes longest. None where workers do not stay on cores of their own, or there is one
/// alone.
pub fn core_to_core(threads: &Threads, team: &mut Team) -> Option<f64> {
    let workers = threads.count();
    if !threads.is_pinned() {
        return None;
    }
    let exchanges = POLICY.core_distance.exchanges;
    let pairs = if workers == 2 { 1 } else { workers };
    let line = || (Line(AtomicUsize::new(0)), AtomicU64::new(u64::MAX));
    let lines: Vec<(Line, AtomicU64)> = (0..pairs).map(|_| line()).collect();
    threads.region(team, |member| {
        // Members are numbered as they come, threads as they are bound to cores.
        let own = Threads::number();
        for turn in 0..POLICY.core_distance.turns {
            for (pair, (line, least)) in lines.iter().enumerate() {
                member.wait();
                let start = Instant::now();
                let side = [pair, (pair + 1) % workers].into_iter().position(|worker| worker == own);
                let Some(side) = side else { continue };
                for exchange in turn * exchanges..(turn + 1) * exchanges {
                    line.pass(2 * exchange + side);
                }
                if side == 0 {
                    least.fetch_min(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
                }
            }
        }
    });
    let most = lines.into_iter().map(|(_, least)| least.into_inner()).max()?;
    // The first of two is done when the last exchange begins.
    Some(most as f64 * 1e-9 / (2 * (exchanges - 1)) as f64)
}

#[derive(Debug, Default)]
struct State {
    /// The least core-to-core latency, of earlier runs too.
    nearest_s: Option<f64>,
    rounds: Vec<f64>,
    waited: Duration,
    patience: Duration,
    /// When there is no time to wait any more.
    until: Option<Instant>,
}

/// What is known of the core-to-core latency of a pool, and how long to wait until it is low.
#[derive(Debug, Default)]
pub struct CoreDistanceMonitor(Mutex<State>);

impl CoreDistanceMonitor {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of an earlier core-to-core latency in seconds.
    pub fn known(&self, seconds: f64) {
        let mut state = self.state();
        state.nearest_s = Some(state.nearest_s.map_or(seconds, |near| near.min(seconds)));
    }

    /// Lets rounds wait so long from now on, all together; what was left until now.
    pub fn set_patience(&self, patience: Duration) -> Duration {
        std::mem::replace(&mut self.state().patience, patience)
    }

    /// Lets no round wait later than that, if there is such a time, whatever patience is left.
    pub fn wait_until(&self, end: impl Into<Option<Instant>>) {
        self.state().until = end.into();
    }

    /// The least core-to-core latency that is known.
    pub fn nearest_s(&self) -> Option<f64> {
        self.state().nearest_s
    }

    fn waited(&self) -> Duration {
        self.state().waited
    }

    /// A clock of the time since now that stands while rounds wait: the time of one problem must
    /// not go by with that.
    pub fn clock(&self) -> impl Fn() -> Duration {
        let (start, before) = (Instant::now(), self.waited());
        move || start.elapsed().saturating_sub(self.waited().saturating_sub(before))
    }

    /// Takes note of a distance in seconds; how long to sleep, zero where a round may begin.
    fn note(&self, seconds: f64) -> Duration {
        self.known(seconds);
        let mut state = self.state();
        let is_far = is_far(seconds, state.nearest_s.unwrap_or(seconds));
        let has_time = state.until.is_none_or(|end| Instant::now() < end);
        let pause =
            if is_far && has_time { POLICY.core_distance.pause.min(state.patience) } else { Duration::ZERO };
        state.patience -= pause;
        state.waited += pause;
        if pause.is_zero() {
            state.rounds.push(seconds);
        }
        pause
    }

    /// The latencies of the rounds; none where they were not measured.
    pub fn distance(&self) -> Option<CoreDistance> {
        let state = self.state();
        let least = state.rounds.iter().copied().reduce(f64::min)?;
        let most = state.rounds.iter().copied().reduce(f64::max)?;
        let near = state.nearest_s.unwrap_or(least);
        let far = far_rounds(&state.rounds, near);
        Some(CoreDistance {
            near_ns: ns(near),
            least_ns: ns(least),
            most_ns: ns(most),
            far: far as f64 / state.rounds.len() as f64,
            waited_s: state.waited.as_secs_f64(),
            networks_ns: None,
        })
    }

    /// Waits until the cores are near, as long as there is patience; see [`core_to_core`].
    pub fn wait_until_near(&self, threads: &Threads, team: &mut Team) -> Option<f64> {
        loop {
            let seconds = core_to_core(threads, team)?;
            let pause = self.note(seconds);
            if pause.is_zero() {
                return Some(seconds);
            }
            std::thread::sleep(pause);
        }
    }

    /// Whether they are near after waiting for them, or it is not known how near they can be.
    pub fn is_near(&self, threads: &Threads, team: &mut Team) -> bool {
        let seconds = self.wait_until_near(threads, team);
        seconds.zip(self.nearest_s()).is_none_or(|(seconds, near)| !is_far(seconds, near))
    }
}

/// How many of some rounds were at high latency.
pub fn far_rounds(rounds: &[f64], near: f64) -> usize {
    rounds.iter().filter(|&&own| is_far(own, near)).count()
}

#[cfg(test)]
mod tests {
    use engine::runtime::available;

    use super::*;

    #[test]
    fn rounds_wait_while_cores_are_far_apart_and_patience_lasts() {
        let (monitor, pause) = (CoreDistanceMonitor::default(), POLICY.core_distance.pause);
        assert_eq!(monitor.distance(), None);
        // As long as nothing nearer is known, that is near.
        assert_eq!(monitor.note(200e-9), Duration::ZERO);
        assert_eq!(monitor.distance().map(|distance| distance.far), Some(0.0));
        monitor.known(20e-9);
        assert_eq!(monitor.note(200e-9), Duration::ZERO);
        assert_eq!(monitor.set_patience(pause * 3 / 2), Duration::ZERO);
        monitor.wait_until(Instant::now());
        assert_eq!(monitor.note(200e-9), Duration::ZERO);
        monitor.wait_until(Instant::now() + Duration::from_secs(3600));
        assert_eq!([200e-9; 3].map(|s| monitor.note(s)), [pause, pause / 2, Duration::ZERO]);
        assert_eq!(monitor.note(21e-9), Duration::ZERO);
        assert_eq!(monitor.waited(), pause * 3 / 2);
        let waited_s = monitor.waited().as_secs_f64();
        // Of five rounds four, the first of them though it did not seem so then.
        let expected = CoreDistance {
            near_ns: 20.0,
            least_ns: 21.0,
            most_ns: 200.0,
            far: 0.8,
            waited_s,
            networks_ns: None,
        };
        assert_eq!(monitor.distance(), Some(expected));
        let networks = |ns| CoreDistance { networks_ns: Some(ns), ..expected }.far_networks_ns();
        assert_eq!((networks(41.0), networks(39.0), expected.far_networks_ns()), (Some(41.0), None, None));
    }

    #[test]
    fn a_line_goes_from_worker_to_worker_and_one_alone_is_not_apart() {
        let of = |count| {
            let threads = Threads::new(count).expect("threads");
            let wait = || CoreDistanceMonitor::default().wait_until_near(&threads, &mut Team::new(count));
            (threads.install(wait), threads.is_pinned())
        };
        assert_eq!(of(1), (None, false));
        assert_eq!(of(available() + 1), (None, false));
        let (latency, stay) = of(available());
        assert_eq!(latency.is_some(), stay);
        assert!(latency.is_none_or(|seconds| seconds > 1e-9 && seconds < 1e-2), "{latency:?}");
    }

    #[test]
    fn cores_are_near_that_are_no_further_than_they_have_been() {
        let threads = Threads::new(available()).expect("threads");
        let monitor = CoreDistanceMonitor::default();
        let is_near = || threads.install(|| monitor.is_near(&threads, &mut Team::new(threads.count())));
        assert!(is_near(), "nothing nearer is known");
        // No line gets anywhere in a picosecond; without patience nothing waits for it.
        monitor.known(1e-12);
        assert_eq!(is_near(), !threads.is_pinned());
        assert_eq!(monitor.waited(), Duration::ZERO);
    }
}
