//! What a plan was made on.

use std::path::{Path, PathBuf};

use kernels::cpu::Cpu;
use serde::{Deserialize, Serialize};

/// The machine as far as it bears on a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Brand string of the processor.
    pub cpu: String,
    /// Family, model, stepping.
    pub signature: [u32; 3],
    /// Highest instruction tier that was allowed.
    pub isa: String,
    /// Processors that are online, whether or not this process may use them: a plan is found again by a
    /// process that is pinned to some.
    pub cores: usize,
    /// Data caches of a core in KiB: first, second and third level.
    pub caches_kib: [usize; 3],
    /// Operating system and architecture.
    pub os: String,
}

/// Processors that are online, where the system says so: a list of ranges such as `0-3,6`.
fn online() -> Option<usize> {
    count(&std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?)
}

fn count(ranges: &str) -> Option<usize> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?).map(|more| more + 1)
    };
    ranges.trim().split(',').map(range).sum()
}

impl Machine {
    /// This one.
    pub fn of(cpu: &Cpu) -> Self {
        let caches = [cpu.caches.l1d, cpu.caches.l2, cpu.caches.l3];
        Self {
            cpu: cpu.name.clone(),
            signature: cpu.signature,
            isa: cpu.tier().to_string(),
            cores: online().unwrap_or_else(crate::threads::available),
            caches_kib: caches.map(|bytes| bytes >> 10),
            os: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }

    /// Name of its folder: letters, digits and hyphens.
    pub fn slug(&self) -> String {
        let [family, model, stepping] = self.signature;
        let text = format!("{} {family}-{model}-{stepping} {} {}c", self.cpu, self.isa, self.cores);
        let mapped: String = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' })
            .collect();
        mapped.split_whitespace().collect::<Vec<_>>().join("-")
    }

    /// Where its results go.
    pub fn folder(&self, results: &Path) -> PathBuf {
        results.join(self.slug())
    }
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn ranges_of_processors_are_counted() {
        assert_eq!(count("0-3,6\n"), Some(5));
        assert_eq!(count("0"), Some(1));
        assert_eq!((count(""), count("3-1"), count("all")), (None, None, None));
    }
}
