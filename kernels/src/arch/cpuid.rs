//! Name and caches of the processor, by the CPUID instruction.

/// Sizes in bytes of the data caches that one core sees; 0 where unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caches {
    /// First level, data.
    pub l1d: usize,
    /// Second level.
    pub l2: usize,
    /// Third level, shared.
    pub l3: usize,
}

#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe, reason = "CPUID became safe to call after the oldest supported Rust")]
#[allow(unsafe_code, reason = "CPUID")]
mod x86 {
    use super::Caches;
    use std::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};

    fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
        // SAFETY: every x86-64 processor has CPUID.
        unsafe { __cpuid_count(leaf, subleaf) }
    }

    /// Deterministic cache parameters: leaf 4 (Intel), 0x8000_001d (AMD); same layout.
    pub fn caches() -> Caches {
        let mut caches = Caches::default();
        // SAFETY: as above.
        let highest = unsafe { __cpuid(0x8000_0000) }.eax;
        for leaf in [4, 0x8000_001d] {
            if leaf > 4 && highest < leaf {
                continue;
            }
            for subleaf in 0..8 {
                let r = cpuid(leaf, subleaf);
                let (kind, level) = (r.eax & 0x1f, (r.eax >> 5) & 7);
                if kind == 0 {
                    break;
                }
                let ways = (r.ebx >> 22) as usize + 1;
                let partitions = ((r.ebx >> 12) & 0x3ff) as usize + 1;
                let line = (r.ebx & 0xfff) as usize + 1;
                let size = ways * partitions * line * (r.ecx as usize + 1);
                match (level, kind) {
                    (1, 1 | 3) => caches.l1d = size,
                    (2, 1 | 3) => caches.l2 = size,
                    (3, 1 | 3) => caches.l3 = size,
                    _ => {}
                }
            }
            if caches != Caches::default() {
                break;
            }
        }
        caches
    }

    /// Leaf 7, ECX bit 25 (CLDEMOTE).
    pub fn can_demote() -> bool {
        // SAFETY: as above.
        let highest = unsafe { __cpuid(0) }.eax;
        highest >= 7 && cpuid(7, 0).ecx >> 25 & 1 == 1
    }

    /// The brand string, or an empty one.
    pub fn name() -> String {
        // SAFETY: as above.
        if unsafe { __cpuid(0x8000_0000) }.eax < 0x8000_0004 {
            return String::new();
        }
        let words = (0x8000_0002..=0x8000_0004).flat_map(|leaf| {
            let r = cpuid(leaf, 0);
            [r.eax, r.ebx, r.ecx, r.edx]
        });
        let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).take_while(|&b| b != 0).collect();
        String::from_utf8_lossy(&bytes).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Family, model and stepping, as `/proc/cpuinfo` counts them.
    pub fn signature() -> [u32; 3] {
        let eax = cpuid(1, 0).eax;
        let (family, model) = ((eax >> 8) & 0xf, (eax >> 4) & 0xf);
        let family_sum = if family == 15 { family + ((eax >> 20) & 0xff) } else { family };
        let extended = if matches!(family, 6 | 15) { (eax >> 16) & 0xf } else { 0 };
        [family_sum, model + (extended << 4), eax & 0xf]
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{caches, can_demote, name, signature};

#[cfg(not(target_arch = "x86_64"))]
mod other {
    use super::Caches;

    /// Unknown.
    pub fn caches() -> Caches {
        Caches::default()
    }

    /// Unknown.
    pub fn can_demote() -> bool {
        false
    }

    /// Unknown.
    pub fn name() -> String {
        String::new()
    }

    /// Unknown.
    pub fn signature() -> [u32; 3] {
        [0; 3]
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub use other::{caches, can_demote, name, signature};
