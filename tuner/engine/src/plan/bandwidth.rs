//! What the cores read, as a plan states it.

use serde::{Deserialize, Serialize};

/// Where bytes are read from, the nearest to a core first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryLevel {
    L1,
    L2,
    L3,
    Memory,
}

impl MemoryLevel {
    pub const ALL: [Self; 4] = [Self::L1, Self::L2, Self::L3, Self::Memory];
}

impl std::fmt::Display for MemoryLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.pad(match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::Memory => "memory",
        })
    }
}

/// GB that a core reads in a second (10^9 bytes) while all workers read, by where they are. A level
/// is none that has no room beside the next nearer one, or was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BandwidthRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l1_gb_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l2_gb_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_gb_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_gb_s: Option<f64>,
}

impl BandwidthRecord {
    /// Of each level, in the order of [`MemoryLevel::ALL`].
    pub fn of([l1_gb_s, l2_gb_s, l3_gb_s, memory_gb_s]: [Option<f64>; 4]) -> Self {
        Self { l1_gb_s, l2_gb_s, l3_gb_s, memory_gb_s }
    }

    pub fn get(&self, level: MemoryLevel) -> Option<f64> {
        match level {
            MemoryLevel::L1 => self.l1_gb_s,
            MemoryLevel::L2 => self.l2_gb_s,
            MemoryLevel::L3 => self.l3_gb_s,
            MemoryLevel::Memory => self.memory_gb_s,
        }
    }
}
