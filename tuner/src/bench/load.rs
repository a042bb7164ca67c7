//! What other processes use of the cores.

use std::fs::read_to_string;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use engine::runtime::threads::cores;

/// Ticks of a second in which the system counts processor time (`USER_HZ` of Linux).
const TICKS: f64 = 100.0;

/// Seconds of which ticks say something.
const LEAST_S: f64 = 0.15;

/// Sees what other processes use of the cores that this one may use.
pub struct LoadMonitor {
    cores: Vec<usize>,
    last: Mutex<Option<Moment>>,
}

/// Processor time in seconds until a moment.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    /// Of all processes on the cores.
    all: f64,
    /// Of this process.
    own: f64,
}

impl LoadMonitor {
    pub fn new() -> Self {
        let cores = cores();
        Self { last: Mutex::new(Moment::now(&cores)), cores }
    }

    /// The cores that this process may use.
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// How many cores other processes used since the last call, or since the start; none where the
    /// system does not say, or the time is too short for its ticks.
    pub fn others(&self) -> Option<f64> {
        let now = Moment::now(&self.cores);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *last, now)?.others_until(now?, self.cores.len())
    }
}

impl Moment {
    /// How many of so many cores other processes used; none where too little time has gone by.
    fn others_until(self, end: Self, cores: usize) -> Option<f64> {
        let seconds = (end.at - self.at).as_secs_f64();
        let others = (end.all - self.all) - (end.own - self.own);
        (seconds >= LEAST_S).then(|| (others / seconds).clamp(0.0, cores as f64))
    }

    fn now(cores: &[usize]) -> Option<Self> {
        let at = Instant::now();
        let all = all_ticks(&read_to_string("/proc/stat").ok()?, cores)?;
        let own = own_ticks(&read_to_string("/proc/self/stat").ok()?)?;
        Some(Self { at, all: all / TICKS, own: own / TICKS })
    }
}

/// Of `/proc/stat`: user, nice, system, irq and softirq of some cores. What the host took is no
/// other process's.
fn all_ticks(stat: &str, cores: &[usize]) -> Option<f64> {
    let of_core = |line: &str| {
        let mut words = line.split_whitespace();
        let core: usize = words.next()?.strip_prefix("cpu")?.parse().ok()?;
        let ticks: Vec<f64> = words.map_while(|word| word.parse().ok()).collect();
        let [user, nice, system, _, _, irq, softirq, ..] = ticks[..] else { return None };
        Some((core, user + nice + system + irq + softirq))
    };
    let ticks = stat.lines().filter_map(of_core).filter(|(core, _)| cores.contains(core));
    let ticks: Vec<f64> = ticks.map(|(_, ticks)| ticks).collect();
    (!ticks.is_empty()).then(|| ticks.iter().sum())
}

/// Of `/proc/self/stat`: user and system, the 12th and 13th number behind the name, which is in
/// brackets and may have blanks.
fn own_ticks(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace().skip(11);
    let mut ticks = || words.next()?.parse::<f64>().ok();
    Some(ticks()? + ticks()?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ticks_are_those_of_the_cores_and_of_the_process() {
        let stat = "cpu  9 9 9 9 9 9 9 9\ncpu0 10 1 5 100 7 2 3 50 0 0\ncpu1 20 0 0 100 0 0 0 0 0 0\n\
                    cpu2 400 0 0 0 0 0 0 0 0 0\nintr 5 6\n";
        assert_eq!(all_ticks(stat, &[0, 1]), Some(41.0));
        assert_eq!(all_ticks(stat, &[7]), None);
        let own = "77 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0";
        assert_eq!(own_ticks(own), Some(42.0));
        assert_eq!(own_ticks("77"), None);
    }

    #[test]
    fn what_this_process_uses_is_no_load_of_others() {
        let at = Instant::now();
        let start = Moment { at, all: 50.0, own: 7.0 };
        let end = |all, own| Moment { at: at + Duration::from_secs(2), all, own };
        assert_eq!(start.others_until(end(53.0, 9.0), 2), Some(0.5));
        // Ticks are counted by chance now and then.
        assert_eq!(start.others_until(end(53.0, 11.0), 2), Some(0.0));
        assert_eq!(start.others_until(end(60.0, 7.0), 2), Some(2.0));
        assert_eq!(start.others_until(start, 2), None);
    }
}
