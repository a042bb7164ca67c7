//! Tiles of AMX: products of 16x32 by 32x16 blocks of bf16, summed in f32.
//!
//! A tile is up to 16 rows of 64 bytes. A product takes a row of `a` for each output row and, of `b`, a row of
//! 16 columns for each pair of its rows, the two of a pair side by side. Tiles keep nothing from one block of
//! assembly to the next; only their configuration stays, which the compiler never touches.

use std::marker::PhantomData;

/// Rows of a tile at most, and columns of f32.
pub const ROWS: usize = 16;
/// Elements of bf16 in a row of a tile.
pub const DEPTH: usize = 32;
/// Columns of the sums of a block: two tiles.
pub const COLUMNS: usize = 32;
/// Rows of the sums of a block: two tiles.
pub const BLOCK_ROWS: usize = 2 * ROWS;

/// Bytes of a row of a tile.
const ROW_BYTES: usize = 64;

/// Proof that this process may use tiles of bf16.
#[derive(Clone, Copy, Debug)]
pub struct Amx(());

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "CPUID, XGETBV and a system call")]
#[allow(unused_unsafe, reason = "CPUID became safe to call after the oldest supported Rust")]
impl Amx {
    /// Asks the processor, and the system for the permission; none where either says no.
    ///
    /// The threads of a process share the permission, whichever asks.
    pub fn new() -> Option<Self> {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        // SAFETY: every x86-64 processor has CPUID.
        let (highest, first) = unsafe { (__cpuid(0).eax, __cpuid(1)) };
        const OSXSAVE: u32 = 1 << 27;
        if highest < 0x1d || first.ecx & OSXSAVE == 0 {
            return None;
        }
        const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
        // SAFETY: as above.
        if unsafe { __cpuid_count(7, 0) }.edx & BF16_AND_TILE != BF16_AND_TILE {
            return None;
        }
        const TILE_STATE: u32 = 0b11 << 17;
        let enabled: u32;
        // SAFETY: the system has enabled XGETBV (OSXSAVE).
        unsafe {
            std::arch::asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _, options(nomem, nostack));
        }
        (enabled & TILE_STATE == TILE_STATE && Self::permitted()).then_some(Self(()))
    }

    #[cfg(target_os = "linux")]
    fn permitted() -> bool {
        use std::ffi::c_long;
        unsafe extern "C" {
            fn syscall(number: c_long, ...) -> c_long;
        }
        const ARCH_PRCTL: c_long = 158;
        const REQUEST_PERMISSION: c_long = 0x1023;
        const TILE_DATA: c_long = 18;
        // SAFETY: changes nothing but what this process may use.
        unsafe { syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    fn permitted() -> bool {
        false
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Amx {
    /// There is none.
    pub fn new() -> Option<Self> {
        None
    }
}

/// Tiles of this thread, configured; released when dropped.
#[derive(Debug)]
pub struct Tiles {
    rows: usize,
    /// The configuration is the thread's.
    of_this_thread: PhantomData<*const ()>,
}

/// What LDTILECFG reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// A block of up to two by two tiles of sums.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// The first row of each tile of `a`; the second is null for a block of one.
    pub a: [*const u8; 2],
    /// Bytes from a row of `a` to the next.
    pub pitch: usize,
    /// Bytes from the first row to where it is read, a step of [`DEPTH`] products each.
    pub offsets: *const usize,
    /// Steps, at least one.
    pub steps: usize,
    /// For each step, 16 rows of `vectors` times 64 bytes.
    pub b: *const u8,
    /// Tiles of `b` side by side: 1 or 2.
    pub vectors: usize,
    /// The sums: [`BLOCK_ROWS`] rows of [`COLUMNS`], the second tile's from row 16 on.
    pub sums: *mut f32,
    /// Add to the sums that are there.
    pub accumulate: bool,
    /// What to bring near, four lines a step.
    pub next: *const u8,
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "instructions that nothing else has")]
impl Tiles {
    /// Tiles of `rows` rows for `a` and for the sums.
    ///
    /// # Panics
    /// If there are none or more than [`ROWS`].
    pub fn new(_: Amx, rows: usize) -> Self {
        assert!((1..=ROWS).contains(&rows), "tiles of {rows} rows");
        let mut config =
            Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for tile in 0..8 {
            config.row_bytes[tile] = ROW_BYTES as u16;
            // Tiles 6 and 7 are those of `b`.
            config.rows[tile] = if tile < 6 { rows as u8 } else { ROWS as u8 };
        }
        // SAFETY: `Amx` proves that the instruction is there; the configuration is one of palette 1.
        unsafe { std::arch::asm!("ldtilecfg [{0}]", in(reg) &raw const config, options(nostack, readonly)) };
        Self { rows, of_this_thread: PhantomData }
    }

    /// Rows of a tile of `a`.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Sums the products of a block.
    ///
    /// # Safety
    /// [`Self::rows`] rows of 64 bytes may be read of each tile of `a` at each offset, and the steps' rows of
    /// `b`; the sums may be read and written.
    #[inline(always)]
    pub unsafe fn multiply(&self, block: &Block) {
        // SAFETY: by the caller.
        unsafe {
            match (block.a[1].is_null(), block.vectors) {
                (false, 2) => two_by_two(block),
                (false, _) => two_by_one(block),
                (true, 2) => one_by_two(block),
                (true, _) => one_by_one(block),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "instructions that nothing else has")]
impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the tiles were configured, so that the instruction is there.
        unsafe { std::arch::asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// Defines a function for one size of blocks: what each step does, and which tiles of sums there are.
#[cfg(target_arch = "x86_64")]
macro_rules! block {
    ($name:ident, [$($step:literal)*], [$($tile:literal at $offset:literal),*], $b_pitch:literal) => {
        /// # Safety
        /// As for [`Tiles::multiply`], with the number of tiles in the name; tiles are configured.
        #[inline(always)]
        #[allow(unsafe_code, reason = "instructions that nothing else has")]
        unsafe fn $name(block: &Block) {
            // SAFETY: by the caller.
            unsafe {
                std::arch::asm!(
                    "test {accumulate}, {accumulate}",
                    "jnz 3f",
                    $(concat!("tilezero tmm", $tile),)*
                    "jmp 2f",
                    "3:",
                    $(concat!("tileloadd tmm", $tile, ", [{sums} + {sums_pitch} + ", $offset, "]"),)*
                    "2:",
                    "mov {at}, [{offsets}]",
                    $($step,)*
                    "prefetcht1 [{next}]",
                    "prefetcht1 [{next} + 64]",
                    "prefetcht1 [{next} + 128]",
                    "prefetcht1 [{next} + 192]",
                    "add {next}, 256",
                    concat!("add {b}, 16 * ", $b_pitch),
                    "add {offsets}, 8",
                    "dec {steps}",
                    "jnz 2b",
                    $(concat!("tilestored [{sums} + {sums_pitch} + ", $offset, "], tmm", $tile),)*
                    accumulate = inout(reg) usize::from(block.accumulate) => _,
                    at = out(reg) _,
                    first = in(reg) block.a[0],
                    second = in(reg) block.a[1],
                    pitch = in(reg) block.pitch,
                    offsets = inout(reg) block.offsets => _,
                    steps = inout(reg) block.steps => _,
                    b = inout(reg) block.b => _,
                    b_pitch = in(reg) $b_pitch as usize,
                    sums = in(reg) block.sums,
                    sums_pitch = in(reg) COLUMNS * size_of::<f32>(),
                    next = inout(reg) block.next => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
block! {
    two_by_two,
    [
        "add {at}, {first}"
        "tileloadd tmm4, [{at} + {pitch}]"
        "tileloadd tmm6, [{b} + {b_pitch}]"
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tileloadd tmm7, [{b} + {b_pitch} + 64]"
        "tdpbf16ps tmm1, tmm4, tmm7"
        "mov {at}, [{offsets}]"
        "add {at}, {second}"
        "tileloadd tmm5, [{at} + {pitch}]"
        "tdpbf16ps tmm2, tmm5, tmm6"
        "tdpbf16ps tmm3, tmm5, tmm7"
    ],
    [0 at 0, 1 at 64, 2 at 2048, 3 at 2112],
    128
}

#[cfg(target_arch = "x86_64")]
block! {
    one_by_two,
    [
        "add {at}, {first}"
        "/* {second} */"
        "tileloadd tmm4, [{at} + {pitch}]"
        "tileloadd tmm6, [{b} + {b_pitch}]"
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tileloadd tmm7, [{b} + {b_pitch} + 64]"
        "tdpbf16ps tmm1, tmm4, tmm7"
    ],
    [0 at 0, 1 at 64],
    128
}

#[cfg(target_arch = "x86_64")]
block! {
    two_by_one,
    [
        "add {at}, {first}"
        "tileloadd tmm4, [{at} + {pitch}]"
        "tileloadd tmm6, [{b} + {b_pitch}]"
        "tdpbf16ps tmm0, tmm4, tmm6"
        "mov {at}, [{offsets}]"
        "add {at}, {second}"
        "tileloadd tmm5, [{at} + {pitch}]"
        "tdpbf16ps tmm2, tmm5, tmm6"
    ],
    [0 at 0, 2 at 2048],
    64
}

#[cfg(target_arch = "x86_64")]
block! {
    one_by_one,
    [
        "add {at}, {first}"
        "/* {second} */"
        "tileloadd tmm4, [{at} + {pitch}]"
        "tileloadd tmm6, [{b} + {b_pitch}]"
        "tdpbf16ps tmm0, tmm4, tmm6"
    ],
    [0 at 0],
    64
}
