//! Name and caches of the processor, by the CPUID instruction.

/// EAX, EBX, ECX and EDX of a leaf; zeros where the processor lacks the leaf or the instruction.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    #[cfg(target_arch = "x86_64")]
    #[allow(unused_unsafe, reason = "CPUID became safe to call after the oldest supported Rust")]
    {
        use std::arch::x86_64::__cpuid_count;
        // SAFETY: every x86-64 processor has CPUID.
        let [highest, r] = unsafe { [__cpuid_count(leaf & 0x8000_0000, 0), __cpuid_count(leaf, subleaf)] };
        if leaf <= highest.eax {
            return [r.eax, r.ebx, r.ecx, r.edx];
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (leaf, subleaf);
    [0; 4]
}

/// Sizes in bytes of the data caches that one core sees, or common ones where unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caches {
    /// First level, data.
    pub l1d: usize,
    /// Second level.
    pub l2: usize,
    /// Third level, shared.
    pub l3: usize,
}

/// Deterministic cache parameters: leaf 4 (Intel), 0x8000_001d (AMD); same layout.
pub fn caches() -> Caches {
    const COMMON: Caches = Caches { l1d: 32 << 10, l2: 512 << 10, l3: 8 << 20 };
    let mut caches = COMMON;
    for leaf in [4, 0x8000_001d] {
        for subleaf in 0..8 {
            let [eax, ebx, ecx, _] = cpuid(leaf, subleaf);
            let (kind, level) = (eax & 0x1f, (eax >> 5) & 7);
            if kind == 0 {
                break;
            }
            let ways = (ebx >> 22) as usize + 1;
            let partitions = ((ebx >> 12) & 0x3ff) as usize + 1;
            let line = (ebx & 0xfff) as usize + 1;
            let size = ways * partitions * line * (ecx as usize + 1);
            match (level, kind) {
                (1, 1 | 3) => caches.l1d = size,
                (2, 1 | 3) => caches.l2 = size,
                (3, 1 | 3) => caches.l3 = size,
                _ => {}
            }
        }
        if caches != COMMON {
            break;
        }
    }
    caches
}

/// The brand string, or an empty one.
pub fn name() -> String {
    let words = (0x8000_0002..=0x8000_0004).flat_map(|leaf| cpuid(leaf, 0));
    let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Family, model and stepping, as `/proc/cpuinfo` counts them; zeros where unknown.
pub fn signature() -> [u32; 3] {
    let [eax, ..] = cpuid(1, 0);
    let (family, model) = ((eax >> 8) & 0xf, (eax >> 4) & 0xf);
    let family_sum = if family == 15 { family + ((eax >> 20) & 0xff) } else { family };
    let extended = if matches!(family, 6 | 15) { (eax >> 16) & 0xf } else { 0 };
    [family_sum, model + (extended << 4), eax & 0xf]
}
