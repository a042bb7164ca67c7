//! What a plan was made on.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use kernels::Cpu;
use serde::{Deserialize, Serialize};

use crate::runtime::threads::available;

/// The machine as far as it bears on a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Brand string of the processor.
    pub cpu: String,
    /// Family, model, stepping.
    pub signature: [u32; 3],
    /// Highest instruction tier that was allowed.
    pub isa: String,
    /// Processors that are online, whether or not this process may use them: a plan is found again
    /// by a process that is pinned to some.
    pub cores: usize,
    /// Data caches of a core in KiB: first, second and third level.
    pub caches_kib: [usize; 3],
    /// Operating system and architecture.
    pub os: String,
    /// Revision of the processor's microcode; empty where the system does not say.
    #[serde(default)]
    pub microcode: String,
}

/// A field in which two machines differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub field: &'static str,
    pub this: String,
    pub other: String,
}

/// Of the first processor; the list of all is long on large machines.
fn microcode() -> Option<String> {
    let list = BufReader::new(File::open("/proc/cpuinfo").ok()?);
    let line =
        list.lines().map_while(Result::ok).find(|line| line.starts_with("microcode") || line.is_empty())?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// Processors in a list of ranges such as `0-3,6`.
fn count(ranges: &str) -> Option<usize> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?).map(|more| more + 1)
    };
    ranges.trim().split(',').map(range).sum()
}

impl Machine {
    pub fn of(cpu: &Cpu) -> Self {
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
        let caches = [cpu.caches.l1d, cpu.caches.l2, cpu.caches.l3];
        Self {
            cpu: cpu.name.clone(),
            signature: cpu.signature,
            isa: cpu.tier().to_string(),
            cores: online.and_then(|ranges| count(&ranges)).unwrap_or_else(available),
            caches_kib: caches.map(|bytes| bytes >> 10),
            os: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            microcode: microcode().unwrap_or_default(),
        }
    }

    /// The first field in which another machine differs so that plans do not hold for both. The
    /// instruction tier does not count, since kernels are checked one by one; nor do caches, which
    /// differ from core to core of a hybrid processor, and from host to host of a virtual machine.
    pub fn differs(&self, other: &Self) -> Option<Difference> {
        let text = |machine: &Self| {
            [
                ("cpu", machine.cpu.clone()),
                ("signature", format!("{:?}", machine.signature)),
                ("os", machine.os.clone()),
            ]
        };
        let mut pairs = text(self).into_iter().zip(text(other));
        let ((field, this), (_, other)) = pairs.find(|((_, this), (_, other))| this != other)?;
        Some(Difference { field, this, other })
    }

    /// What is not as it was on a machine that is the same.
    pub fn changes(&self, now: &Self) -> Vec<String> {
        let mut list = Vec::new();
        if self.microcode != now.microcode && !self.microcode.is_empty() && !now.microcode.is_empty() {
            list.push(format!("microcode was {}, is {}", self.microcode, now.microcode));
        }
        if self.caches_kib != now.caches_kib {
            list.push(format!("caches had {:?} KiB, have {:?}", self.caches_kib, now.caches_kib));
        }
        if self.cores != now.cores {
            list.push(format!("{} cores were online, {} are", self.cores, now.cores));
        }
        list
    }

    /// Name of its folder: letters, digits and hyphens. Instructions for whole numbers are not in
    /// it, so that a machine keeps the folder that it had before there were kernels for them.
    pub fn slug(&self) -> String {
        let [family, model, stepping] = self.signature;
        let isa = match self.isa.as_str() {
            "avxvnni" => "avx2",
            "avx512vnni" => "avx512",
            isa => isa,
        };
        let text = format!("{} {family}-{model}-{stepping} {isa} {}c", self.cpu, self.cores);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
    }

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
