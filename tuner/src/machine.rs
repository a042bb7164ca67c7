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
    /// Cores that the process may use.
    pub cores: usize,
    /// Data caches of a core in KiB: first, second and third level.
    pub caches_kib: [usize; 3],
    /// Operating system and architecture.
    pub os: String,
}

impl Machine {
    /// This one.
    pub fn of(cpu: &Cpu) -> Self {
        let caches = [cpu.caches.l1d, cpu.caches.l2, cpu.caches.l3];
        Self {
            cpu: cpu.name.clone(),
            signature: cpu.signature,
            isa: cpu.tier().to_string(),
            cores: crate::threads::available(),
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
