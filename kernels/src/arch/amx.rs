//! The tile registers of AMX: products of 16x32 by 32x16 blocks of bf16, summed in f32, and of
//! 16x64 by 64x16 blocks of u8 and weights of 8 bits with a sign, summed in 32 bits.
//!
//! A tile is up to 16 rows of 64 bytes. A product takes a row of `a` for each output row and, of
//! `b`, a row of 16 columns for each group of its rows that fill 32 bits (two of bf16, four of 8
//! bits), those of a group next to each other. Tiles keep nothing from one block of assembly to the
//! next; only their configuration stays, which the compiler never touches.

use std::marker::PhantomData;

use half::bf16;

use super::cpuid::cpuid;

/// Rows of a tile at most, and its columns of 32 bits.
pub const ROWS: usize = 16;
/// Sums of a tile.
pub const TILE: usize = ROWS * ROWS;
/// Sums of a block: two by two tiles.
pub const SUMS: usize = 4 * TILE;

const ROW_BYTES: usize = 64;

/// Proof that this process may use the tile registers of AMX, with elements of bf16 and of 8 bits.
#[derive(Clone, Copy, Debug)]
pub struct Amx(());

impl Amx {
    /// Asks the processor, and the system for the permission; none where either says no.
    ///
    /// The threads of a process share the permission, whichever asks.
    pub fn detect() -> Option<Self> {
        const OSXSAVE: u32 = 1 << 27;
        const BF16_TILE_AND_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
        const TILE_STATE: u32 = 0b11 << 17;
        let ([highest, ..], [_, _, first, _], [.., seventh]) = (cpuid(0, 0), cpuid(1, 0), cpuid(7, 0));
        if highest < 0x1d || first & OSXSAVE == 0 || seventh & BF16_TILE_AND_INT8 != BF16_TILE_AND_INT8 {
            return None;
        }
        let enabled: u32;
        // SAFETY: the system has enabled XGETBV (OSXSAVE).
        unsafe {
            std::arch::asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _, options(nomem, nostack));
        }
        (enabled & TILE_STATE == TILE_STATE && Self::permitted()).then_some(Self(()))
    }

    /// For tests on processors without tiles: takes the caller's word for it.
    ///
    /// # Safety
    /// The instructions of tiles have their effects on all threads of this process, by an emulator
    /// if not otherwise.
    #[doc(hidden)]
    pub unsafe fn emulated() -> Self {
        Self(())
    }

    #[cfg(target_os = "linux")]
    fn permitted() -> bool {
        const REQUEST_PERMISSION: libc::c_long = 0x1023;
        const TILE_DATA: libc::c_long = 18;
        // SAFETY: changes only which instructions this process may use.
        unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    fn permitted() -> bool {
        false
    }
}

/// The AMX tile registers of this thread, configured; released when dropped.
pub struct TileRegisters {
    /// The configuration is the thread's.
    of_this_thread: PhantomData<*const ()>,
}

/// What LDTILECFG reads.
#[derive(Default)]
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Steps after which a tile is stored without need. Where no tile has been stored for some 2000
/// cycles, the next store takes 1100.
const AWAKE: usize = 16;

/// A block of up to two by two tiles of sums.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// The first row of each tile of `a`; the second is null for a block of one.
    pub a: [*const u8; 2],
    /// Bytes from a row of `a` to the next.
    pub pitch: usize,
    /// Bytes from the first row to where it is read, a step of [`TileElement::DEPTH`] products each.
    pub offsets: *const usize,
    /// Steps, at least one.
    pub steps: usize,
    /// For each step, `vectors` tiles of 16 rows.
    pub b: *const u8,
    /// Tiles of `b` of a step: 1 or 2.
    pub vectors: usize,
    /// Which of `a` and `b` are loaded from the second-level cache without a copy in the first.
    pub streamed: [bool; 2],
    /// The sums, tile by tile: those of the first of `a` by each of `b`, then the second's;
    /// [`SUMS`] elements, and a tile more behind them that means nothing. Those of u8 are whole
    /// numbers of 32 bits.
    pub sums: *mut f32,
    /// Add to the sums that are there.
    pub accumulate: bool,
    /// What to prefetch into the second-level cache.
    pub next: *const u8,
    /// Lines of it to prefetch in each step.
    pub lines: usize,
}

impl TileRegisters {
    /// Tiles of `rows` rows for `a` and for the sums.
    ///
    /// # Panics
    /// If there are none or more than [`ROWS`].
    pub fn new(_: Amx, rows: usize) -> Self {
        assert!((1..=ROWS).contains(&rows), "tiles of {rows} rows");
        let mut config = Config { palette: 1, ..Config::default() };
        config.row_bytes[..8].fill(ROW_BYTES as u16);
        // Tiles 6 and 7 are those of `b`.
        config.rows[..6].fill(rows as u8);
        config.rows[6..8].fill(ROWS as u8);
        // SAFETY: `Amx` proves that the instruction is there; this is a configuration of palette 1.
        unsafe { std::arch::asm!("ldtilecfg [{0}]", in(reg) &raw const config, options(nostack, readonly)) };
        Self { of_this_thread: PhantomData }
    }

    /// Multiplies zeros, four products in each of `rounds`, and loads nothing: the most that the
    /// tile registers can do.
    ///
    /// # Panics
    /// If there are no rounds.
    pub fn products<T: TileElement>(&self, rounds: usize) {
        assert!(rounds > 0, "no rounds");
        // SAFETY: tiles are configured.
        unsafe { T::multiply_zeros(rounds) };
    }

    /// Sums the products of a block.
    ///
    /// # Safety
    /// The rows of 64 bytes that the tiles were made for may be read of each tile of `a` at each
    /// offset, and the steps' tiles of `b`; the sums may be read and written.
    #[inline(always)]
    pub unsafe fn multiply<T: TileElement>(&self, block: &Block) {
        // SAFETY: by the caller; tiles are configured.
        unsafe { T::multiply(block) };
    }
}

impl Drop for TileRegisters {
    fn drop(&mut self) {
        // SAFETY: the tiles were configured, so that the instruction is there.
        unsafe { std::arch::asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// The elements of `a` that tiles multiply.
pub trait TileElement: Copy + Send + Sync + 'static {
    /// Elements in a row of a tile: the products that are summed in a step.
    const DEPTH: usize = ROW_BYTES / size_of::<Self>();
    /// Elements of a column of `b` in 32 bits.
    const GROUP: usize = size_of::<f32>() / size_of::<Self>();

    /// # Safety
    /// As for [`TileRegisters::multiply`], with tiles configured.
    unsafe fn multiply(block: &Block);

    /// # Safety
    /// Tiles are configured, and there is a round.
    unsafe fn multiply_zeros(rounds: usize);
}

/// Implements [`TileElement`] by an instruction that adds the products of two tiles to a third.
macro_rules! tile_element {
    ($element:ty, $multiply:literal) => {
        impl TileElement for $element {
            #[inline(always)]
            unsafe fn multiply(block: &Block) {
                two_by_two! { two_by_two, $multiply, "tileloadd", "tileloadd" }
                two_by_two! { two_by_two_streaming_a, $multiply, "tileloaddt1", "tileloadd" }
                two_by_two! { two_by_two_streaming_b, $multiply, "tileloadd", "tileloaddt1" }
                two_by_two! { two_by_two_streaming, $multiply, "tileloaddt1", "tileloaddt1" }
                block! {
                    one_by_two,
                    [
                        "add {at}, {first}",
                        "/* {second} */",
                        "tileloadd tmm4, [{at} + {pitch}]",
                        "tileloadd tmm6, [{b} + {row}]",
                        concat!($multiply, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm7, [{b} + {row} + 1024]",
                        concat!($multiply, " tmm1, tmm4, tmm7")
                    ],
                    [0 at 0, 1 at 1024],
                    2048
                }
                block! {
                    two_by_one,
                    [
                        "add {at}, {first}",
                        "tileloadd tmm4, [{at} + {pitch}]",
                        "tileloadd tmm6, [{b} + {row}]",
                        concat!($multiply, " tmm0, tmm4, tmm6"),
                        "mov {at}, [{offsets}]",
                        "add {at}, {second}",
                        "tileloadd tmm5, [{at} + {pitch}]",
                        concat!($multiply, " tmm2, tmm5, tmm6")
                    ],
                    [0 at 0, 2 at 2048],
                    1024
                }
                block! {
                    one_by_one,
                    [
                        "add {at}, {first}",
                        "/* {second} */",
                        "tileloadd tmm4, [{at} + {pitch}]",
                        "tileloadd tmm6, [{b} + {row}]",
                        concat!($multiply, " tmm0, tmm4, tmm6")
                    ],
                    [0 at 0],
                    1024
                }
                // SAFETY: by the caller.
                unsafe {
                    match (block.a[1].is_null(), block.vectors, block.streamed) {
                        (false, 2, [false, false]) => two_by_two(block),
                        (false, 2, [true, false]) => two_by_two_streaming_a(block),
                        (false, 2, [false, true]) => two_by_two_streaming_b(block),
                        (false, 2, [true, true]) => two_by_two_streaming(block),
                        (false, _, _) => two_by_one(block),
                        (true, 2, _) => one_by_two(block),
                        (true, _, _) => one_by_one(block),
                    }
                }
            }

            unsafe fn multiply_zeros(rounds: usize) {
                // SAFETY: by the caller.
                unsafe {
                    std::arch::asm!(
                        "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                        "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                        "2:",
                        concat!($multiply, " tmm0, tmm4, tmm6"),
                        concat!($multiply, " tmm1, tmm4, tmm7"),
                        concat!($multiply, " tmm2, tmm5, tmm6"),
                        concat!($multiply, " tmm3, tmm5, tmm7"),
                        "dec {rounds}",
                        "jnz 2b",
                        rounds = inout(reg) rounds => _,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack, nomem),
                    );
                }
            }
        }
    };
}

/// Defines a function for one size of blocks: what each step does, which tiles of sums there are,
/// and the bytes of `b` that a step takes.
macro_rules! block {
    ($name:ident, [$($step:expr),*], [$($tile:literal at $offset:literal),*], $b_bytes:literal) => {
        /// # Safety
        /// As for [`TileRegisters::multiply`], with the number of tiles in the name, configured.
        unsafe fn $name(block: &Block) {
            // SAFETY: by the caller.
            unsafe {
                std::arch::asm!(
                    "test {t}, {t}",
                    "jnz 3f",
                    $(concat!("tilezero tmm", $tile),)*
                    "jmp 2f",
                    "3:",
                    $(concat!("tileloadd tmm", $tile, ", [{sums} + {row} + ", $offset, "]"),)*
                    "2:",
                    "mov {t}, {lines}",
                    "test {t}, {t}",
                    "jz 5f",
                    "4:",
                    "prefetcht1 [{next}]",
                    "add {next}, 64",
                    "dec {t}",
                    "jnz 4b",
                    "5:",
                    "mov {at}, [{offsets}]",
                    $($step,)*
                    concat!("add {b}, ", $b_bytes),
                    "add {offsets}, 8",
                    "dec {steps}",
                    "jz 6f",
                    "test {steps}, {awake}",
                    "jnz 2b",
                    "tilestored [{sums} + {row} + {behind}], tmm6",
                    "jmp 2b",
                    "6:",
                    $(concat!("tilestored [{sums} + {row} + ", $offset, "], tmm", $tile),)*
                    t = inout(reg) usize::from(block.accumulate) => _,
                    at = out(reg) _,
                    first = in(reg) block.a[0],
                    second = in(reg) block.a[1],
                    pitch = in(reg) block.pitch,
                    offsets = inout(reg) block.offsets => _,
                    steps = inout(reg) block.steps => _,
                    b = inout(reg) block.b => _,
                    row = in(reg) ROW_BYTES,
                    sums = in(reg) block.sums,
                    next = inout(reg) block.next => _,
                    lines = in(reg) block.lines,
                    awake = const AWAKE - 1,
                    behind = const SUMS * size_of::<f32>(),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

/// Defines the function of two by two tiles, with the instructions that multiply, and that load the
/// operands.
macro_rules! two_by_two {
    ($name:ident, $multiply:literal, $a:literal, $b:literal) => {
        block! {
            $name,
            [
                "add {at}, {first}",
                concat!($a, " tmm4, [{at} + {pitch}]"),
                concat!($b, " tmm6, [{b} + {row}]"),
                concat!($multiply, " tmm0, tmm4, tmm6"),
                concat!($b, " tmm7, [{b} + {row} + 1024]"),
                concat!($multiply, " tmm1, tmm4, tmm7"),
                "mov {at}, [{offsets}]",
                "add {at}, {second}",
                concat!($a, " tmm5, [{at} + {pitch}]"),
                concat!($multiply, " tmm2, tmm5, tmm6"),
                concat!($multiply, " tmm3, tmm5, tmm7")
            ],
            [0 at 0, 1 at 1024, 2 at 2048, 3 at 3072],
            2048
        }
    };
}

tile_element!(bf16, "tdpbf16ps");
tile_element!(u8, "tdpbusd");
