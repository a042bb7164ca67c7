//! Worker threads: the one place that calls rayon.

use std::collections::HashSet;
use std::io;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use kernels::arch::denormals::FlushToZero;
use kernels::{Member, Team};

/// A pool of worker threads and the team they form.
#[derive(Debug)]
pub struct Threads {
    /// `None` for one thread: that of the caller.
    pool: Option<rayon::ThreadPool>,
    count: usize,
    /// Each thread is pinned to another core.
    pinned: bool,
}

/// More threads than are of use, or than the system starts.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {count} threads: {reason}")]
pub struct ThreadsError {
    pub count: usize,
    pub reason: String,
}

/// Stack of a thread in bytes: what Rust gives one, whatever the environment says. The system provides
/// what is touched.
pub const STACK: usize = 2 << 20;

/// How many threads may share a core. Workers wait for each other, so that more of them take many times
/// as long.
const PER_CORE: usize = 4;

/// As many threads are accepted on any machine.
const ANYWHERE: usize = 16;

/// The most threads that are started for a network.
pub fn most_threads() -> usize {
    (PER_CORE * available()).max(ANYWHERE)
}

/// What is expected in place of a number of threads that is none or too large.
pub fn expected_threads() -> String {
    format!("1 to {}, for the cores that this process may use", most_threads())
}

/// Starts a thread of a scope.
///
/// # Errors
/// If the system does not.
pub fn start_thread<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    body: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().stack_size(STACK).spawn_scoped(scope, body)
}

/// Cores that this process may use.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Physical cores that this process may use: hardware threads that share one count once. It is the
/// number of threads where none is asked for, since two of them compute hardly more than one.
pub fn physical_cores() -> usize {
    let siblings = |core: usize| {
        let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
        std::fs::read_to_string(path).unwrap_or_else(|_| core.to_string())
    };
    count_physical(cores().into_iter().map(siblings), available())
}

/// Distinct lists of siblings, of which none may be known; no more than the quota allows.
fn count_physical(siblings: impl Iterator<Item = String>, available: usize) -> usize {
    let distinct = siblings.collect::<HashSet<String>>().len();
    if distinct == 0 { available } else { distinct.min(available) }
}

/// Numbers of the cores that the calling thread may use; none where the system does not say.
#[cfg(target_os = "linux")]
pub fn cores() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let allowed = sched_getaffinity(None).ok();
    let is_allowed = |core: &usize| allowed.is_some_and(|allowed| allowed.is_set(*core));
    (0..CpuSet::MAX_CPU).filter(is_allowed).collect()
}

/// Keeps the calling thread on a core, if the system lets it.
#[cfg(target_os = "linux")]
fn stay_on(core: usize) {
    let mut only = rustix::thread::CpuSet::new();
    only.set(core);
    let _ = rustix::thread::sched_setaffinity(None, &only);
}

/// Not known here.
#[cfg(not(target_os = "linux"))]
pub fn cores() -> Vec<usize> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
fn stay_on(_: usize) {}

impl Threads {
    /// A pool of `count` threads, at least one. If there are as many threads as cores that this
    /// process may use, each is pinned to a core. Otherwise, while another process runs, the system
    /// may put two threads that wait for each other on one core.
    pub fn new(count: usize) -> Result<Self, ThreadsError> {
        let count = count.max(1);
        if count == 1 {
            return Ok(Self { pool: None, count, pinned: false });
        }
        if count > most_threads() {
            return Err(ThreadsError { count, reason: format!("expected {}", expected_threads()) });
        }
        let cores = Some(cores()).filter(|cores| cores.len() == count);
        let pinned = cores.is_some();
        let cores = cores.unwrap_or_default();
        let stay = move |index: usize| cores.get(index).copied().into_iter().for_each(stay_on);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).stack_size(STACK).start_handler(stay);
        let pool = pool.build().map_err(|error| ThreadsError { count, reason: error.to_string() })?;
        Ok(Self { pool: Some(pool), count, pinned })
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// The number of the calling thread in its pool; 0 for a thread of no pool.
    pub fn number() -> usize {
        rayon::current_thread_index().unwrap_or(0)
    }

    /// Whether there are several threads and each is pinned to another core.
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Moves onto the pool; regions inside start without delay.
    pub fn install<R: Send>(&self, body: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            None => body(),
            Some(pool) => pool.install(body),
        }
    }

    /// One fork-join region: `body` runs once on every thread, each the member of the team that has its
    /// number, with numbers below the normal range as zeros. Starting it on several threads is all that
    /// allocates: a few words.
    ///
    /// A broadcast, since `body` waits in barriers for the other members: rayon's `join` may leave
    /// both halves to one thread, when one pushes a job just as the other falls asleep.
    pub fn region(&self, team: &mut Team, body: impl Fn(&Member) + Sync) {
        assert_eq!(team.workers(), self.count, "a team as large as the pool");
        let team = team.open();
        let member = |index: usize| {
            let _flush = FlushToZero::start();
            body(&team.join(index));
        };
        match &self.pool {
            None => member(0),
            Some(pool) => {
                pool.broadcast(|thread| member(thread.index()));
            }
        }
    }

    /// Maps items on all threads, in order.
    pub fn map<T: Sync, R: Send>(&self, items: &[T], f: impl Fn(&T) -> R + Sync + Send) -> Vec<R> {
        use rayon::prelude::*;
        match self.count {
            1 => items.iter().map(f).collect(),
            _ => self.install(|| items.par_iter().map(f).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn hardware_threads_that_share_a_core_count_once() {
        let of =
            |lists: &[&str], available| count_physical(lists.iter().map(|list| list.to_string()), available);
        assert_eq!(of(&["0,2", "1,3", "0,2", "1,3"], 4), 2);
        assert_eq!(of(&["0-1", "0-1"], 2), 1);
        assert_eq!(of(&["0", "1", "2", "3"], 3), 3, "the quota of a container");
        assert_eq!(of(&[], 5), 5);
        assert!((1..=available()).contains(&physical_cores()));
    }

    #[test]
    fn numbers_below_the_normal_range_are_zeros_in_a_region_and_not_behind_it() {
        let half = || std::hint::black_box(f32::MIN_POSITIVE) * std::hint::black_box(0.5);
        for count in [1, 2] {
            let threads = Threads::new(count).expect("threads");
            threads.region(&mut Team::new(count), |_| {
                assert_eq!(
                    (FlushToZero::is_on(), half()),
                    (cfg!(any(target_arch = "x86_64", target_arch = "aarch64")), 0.0)
                );
            });
            let all = threads.map(&[0; 8], |_| half());
            assert!(all.iter().chain([&half()]).all(|half| *half > 0.0), "{all:?}");
        }
    }

    #[test]
    fn many_times_as_many_threads_as_cores_are_refused() {
        assert!(most_threads() >= 16 && most_threads() >= 4 * available());
        let error = Threads::new(most_threads() + 1).expect_err("too many").to_string();
        assert!(error.contains(&format!("expected 1 to {}", most_threads())), "{error}");
    }

    #[test]
    fn a_region_runs_once_on_every_thread() {
        for count in [1, 2, 3] {
            let threads = Threads::new(count).expect("threads");
            let mut team = Team::new(count);
            for _ in 0..100 {
                let seen = Mutex::new(HashSet::new());
                threads.region(&mut team, |member| {
                    member.wait();
                    seen.lock().expect("no panic").insert((member.index(), std::thread::current().id()));
                    member.wait();
                });
                assert_eq!(seen.lock().expect("no panic").len(), count);
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn as_many_threads_as_cores_stay_on_one_each_and_fewer_or_more_go_where_they_may() {
        let all = cores();
        let of = |count: usize| {
            let allowed = Mutex::new(Vec::new());
            let threads = Threads::new(count).expect("threads");
            threads.region(&mut Team::new(count), |member| {
                allowed.lock().expect("no panic").push(cores());
                member.wait();
            });
            let mut allowed = allowed.into_inner().expect("no panic");
            allowed.sort();
            allowed
        };
        if all.len() > 1 {
            assert_eq!(of(all.len()), all.iter().map(|core| vec![*core]).collect::<Vec<_>>());
        }
        assert_eq!(of(all.len() + 1), vec![all.clone(); all.len() + 1]);
        assert_eq!(of(1), vec![all.clone()]);
    }

    #[test]
    fn a_panic_of_one_worker_ends_the_region_and_not_the_pool() {
        let threads = Threads::new(3).expect("threads");
        let mut team = Team::new(3);
        let region = || {
            threads.region(&mut team, |member| {
                if member.index() == 2 {
                    std::panic::resume_unwind(Box::new("on purpose"));
                }
                member.wait();
            });
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(region)).is_err());
        threads.region(&mut team, |member| member.wait());
    }
}
