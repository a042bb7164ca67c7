//! Whether something else used the cores while something was timed.

use std::fs::File;
use std::sync::{Mutex, PoisonError};

use engine::runtime::Threads;
use engine::util::read_at;
use kernels::Team;

use crate::bench::policy::POLICY;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    pub seconds: f64,
    /// Something else used the cores meanwhile.
    pub disturbed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunCount {
    pub runs: usize,
    pub disturbed: usize,
}

impl RunCount {
    pub fn add(&mut self, run: Run) {
        self.runs += 1;
        self.disturbed += usize::from(run.disturbed);
    }

    /// Whether more than a share of the runs was disturbed.
    pub fn is_busy(&self, share: f64) -> bool {
        self.disturbed as f64 > share * self.runs as f64
    }

    /// The share of the runs that was disturbed; none of none.
    pub fn disturbed_share(&self) -> Option<f64> {
        (self.runs > 0).then(|| self.disturbed as f64 / self.runs as f64)
    }
}

/// A count that several stages add to.
#[derive(Debug, Default)]
pub struct RunTally(Mutex<RunCount>);

impl RunTally {
    pub fn add(&self, count: RunCount) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.runs += count.runs;
        all.disturbed += count.disturbed;
    }

    pub fn count(&self) -> RunCount {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// `schedstat` of the thread: nanoseconds on a core, and waiting for one.
    static SCHEDSTAT: Option<File> = File::open("/proc/thread-self/schedstat").ok();
}

/// Nanoseconds that the calling thread has waited for a core; 0 where the system does not say.
pub fn waiting() -> u64 {
    SCHEDSTAT.with(|file| file.as_ref().and_then(|file| number(file, 1)).unwrap_or(0))
}

/// Runs something again and again while it is disturbed, at most `tries` times; the least of its
/// seconds if all were. Between two tries the workers sleep: then the system owes them a core.
pub fn undisturbed(tries: usize, mut run: impl FnMut() -> Run) -> Run {
    quietest((0..tries).map(|attempt| {
        if attempt > 0 {
            std::thread::sleep(POLICY.contention.pause);
        }
        run()
    }))
}

/// The first that was not disturbed; the least of all seconds where each was.
pub fn quietest(runs: impl Iterator<Item = Run>) -> Run {
    let mut least = Run { seconds: f64::INFINITY, disturbed: true };
    for run in runs {
        if !run.disturbed {
            return run;
        }
        least.seconds = least.seconds.min(run.seconds);
    }
    least
}

/// What a function gives on each of the workers, which call it at once.
pub fn each_worker<T: Send>(threads: &Threads, team: &mut Team, of: impl Fn() -> T + Sync) -> Vec<T> {
    let all = Mutex::new(Vec::new());
    threads.region(team, |member| {
        member.wait();
        let own = of();
        all.lock().unwrap_or_else(PoisonError::into_inner).push(own);
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Sees whether workers had to wait for a core that others used, or the whole machine for its host.
pub struct RunQueueMonitor {
    /// `schedstat` of each worker: nanoseconds on a core, and waiting for one.
    workers: Vec<File>,
    stat: Option<File>,
}

impl RunQueueMonitor {
    /// Of the workers of a pool; sees nothing where the system does not say.
    pub fn new(threads: &Threads) -> Self {
        let schedstat = || File::open("/proc/thread-self/schedstat").ok();
        let files = each_worker(threads, &mut Team::new(threads.count()), schedstat);
        Self { workers: files.into_iter().flatten().collect(), stat: File::open("/proc/stat").ok() }
    }

    /// Seconds that all workers together have waited for a core.
    fn waited(&self) -> f64 {
        let of = |file: &File| number(file, 1).unwrap_or(0) as f64 * 1e-9;
        self.workers.iter().map(of).sum()
    }

    /// Hundredths of a second, of all cores together, that the host gave to others.
    pub fn stolen(&self) -> u64 {
        self.stat.as_ref().and_then(|file| number(file, 8)).unwrap_or(0)
    }

    /// The seconds that `run` gives, and whether it was disturbed.
    pub fn sample(&self, run: impl FnOnce() -> f64) -> Run {
        let before = self.waited();
        let seconds = run();
        let disturbed = self.waited() - before > POLICY.contention.waited_share * seconds;
        Run { seconds, disturbed }
    }
}

/// The number at a place of a file's first line.
fn number(file: &File, place: usize) -> Option<u64> {
    let mut text = [0; 256];
    let length = read_at(file, &mut text, 0).ok()?;
    let line = std::str::from_utf8(&text[..length]).ok()?.lines().next()?;
    line.split_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn waiting_for_a_core_is_seen_and_an_undisturbed_run_is_not() {
        let threads = Threads::new(1).expect("a thread");
        let monitor = RunQueueMonitor::new(&threads);
        let busy = |time: Duration| {
            let start = Instant::now();
            while start.elapsed() < time {
                std::hint::spin_loop();
            }
            start.elapsed().as_secs_f64()
        };
        if monitor.workers.is_empty() {
            return;
        }
        let quiet = (0..200).any(|_| !monitor.sample(|| busy(Duration::from_micros(200))).disturbed);
        assert!(quiet, "every one of 200 short runs was disturbed");
        // More threads than cores: over a second, this one must wait.
        let stop = std::sync::atomic::AtomicBool::new(false);
        let disturbed = std::thread::scope(|scope| {
            for _ in 0..2 * engine::runtime::threads::available() {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let Run { disturbed, .. } = monitor.sample(|| busy(Duration::from_millis(1000)));
            stop.store(true, Ordering::Relaxed);
            disturbed
        });
        assert!(disturbed, "a run beside more busy threads than cores counts as undisturbed");
    }

    #[test]
    fn runs_are_busy_where_more_than_a_share_was_disturbed() {
        let count = |disturbed: usize, runs: usize| RunCount { runs, disturbed };
        assert!(!count(0, 0).is_busy(0.1));
        assert!(count(1, 8).is_busy(0.1));
        assert!(!count(1, 16).is_busy(0.1));
    }
}
