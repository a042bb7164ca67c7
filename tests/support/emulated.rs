//! The tiles of AMX on a processor without them.
//!
//! Their instructions are illegal there. Each raises a signal, whose handler does what the
//! instruction would have done, to tiles of the thread in plain memory, and goes on behind it. So
//! kernels for tiles are tested, not timed, on processors that have AVX512-BF16 and no tiles. Tiles
//! that are not configured and shapes that do not fit end the process, as tiles do.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2.

#![allow(
    unsafe_code,
    reason = "a handler of signals, which reads and writes what the instructions would have"
)]

use std::array;
use std::cell::UnsafeCell;
use std::iter::zip;
use std::ptr::null_mut;
use std::sync::Once;

use kernels::{Amx, Cpu, Tier};
use libc::{c_int, c_void, greg_t, siginfo_t, ucontext_t};

/// The processor with its tiles, or with emulated ones where it could do all the rest. One with
/// tiles that this process may not use gets none: some of their instructions are legal there.
pub fn with_tiles(cpu: Cpu) -> Cpu {
    static INSTALLED: Once = Once::new();
    #[allow(unused_unsafe, reason = "CPUID became safe to call after the oldest supported Rust")]
    // SAFETY: every x86-64 processor has CPUID.
    let has_tiles = unsafe { std::arch::x86_64::__cpuid_count(7, 0) }.edx >> 24 & 1 == 1;
    if has_tiles || cpu.tier() != Tier::Avx512Bf16 {
        return cpu;
    }
    INSTALLED.call_once(|| {
        // SAFETY: the action is complete; the handler goes on behind instructions that it has done.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = illegal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGILL, &raw const action, null_mut()), 0, "no handler");
        }
    });
    // SAFETY: from here on the instructions do what they do on a processor that has them.
    cpu.with_amx(unsafe { Amx::emulated() })
}

const TILES: usize = 8;
const ROWS: usize = 16;
const ROW_BYTES: usize = 64;

/// A tile, which has no rows unless it may be used.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    row_bytes: usize,
    values: [[u8; ROW_BYTES]; ROWS],
}

/// Tiles of a thread.
struct Tiles([Tile; TILES]);

thread_local! {
    static THREAD: UnsafeCell<Tiles> = const { UnsafeCell::new(Tiles::NONE) };
}

/// Does the instruction, and those of tiles that follow it, or lets the process end by it.
extern "C" fn illegal(signal: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the system calls it with a context of this thread, which nobody else uses meanwhile.
    let registers = unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs };
    // SAFETY: nothing else of this thread is running, and the handler does not interrupt itself.
    let mut execute = || THREAD.with(|tiles| unsafe { execute(&mut *tiles.get(), registers) });
    let is_done = execute().is_some();
    while is_done && execute().is_some() {}
    if !is_done {
        // SAFETY: the instruction then raises the signal again, and it ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// The value of a register by its number in an instruction.
fn register(registers: &[greg_t; 23], number: usize) -> usize {
    use libc::*;
    let order = [
        REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10,
        REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
    ];
    registers[order[number] as usize] as usize
}

/// An operand in memory: its address, and the distance of rows if it has an index.
struct Memory {
    address: usize,
    stride: usize,
}

/// An instruction of 128 bits in the map 0F38, with W0.
struct Instruction {
    prefix: u8,
    opcode: u8,
    /// Operands, of which `ModRM.rm` may be in memory instead, and `VEX.vvvv` is the last.
    reg: usize,
    rm: usize,
    vvvv: usize,
    memory: Option<Memory>,
}

/// Prefixes of an [`Instruction`].
const NONE: u8 = 0;
const P66: u8 = 1;
const PF3: u8 = 2;
const PF2: u8 = 3;

impl Instruction {
    /// None if it has another encoding. A byte is taken only if those before ask for it.
    fn decode(registers: &[greg_t; 23], mut take: impl FnMut() -> u8) -> Option<Self> {
        // VEX of three bytes.
        if take() != 0xc4 {
            return None;
        }
        let (first, second) = (take(), take());
        if first & 0x1f != 2 || second & 0x84 != 0 {
            return None;
        }
        let extended = |bit: u8| if first >> bit & 1 == 0 { 8 } else { 0 };
        let (opcode, modrm) = (take(), take());
        let (mode, rm) = (modrm >> 6, modrm & 7);
        let memory = if mode == 3 {
            None
        } else {
            let sib = if rm == 4 { Some(take()) } else { None };
            let base = sib.unwrap_or(rm) & 7;
            let displacement = match mode {
                // Neither is used here: an address without a base, or from the instruction.
                0 if base == 5 => return None,
                0 => 0,
                1 => isize::from(take() as i8),
                _ => i32::from_le_bytes([take(), take(), take(), take()]) as isize,
            };
            let base = register(registers, usize::from(base) + extended(5));
            let index = sib.map(|sib| (usize::from(sib >> 3 & 7) + extended(6), sib >> 6));
            let index = index.filter(|(number, _)| *number != 4);
            let stride = index.map_or(0, |(number, scale)| register(registers, number) << scale);
            Some(Memory { address: base.wrapping_add_signed(displacement), stride })
        };
        let (reg, rm) = (usize::from(modrm >> 3 & 7) + extended(7), usize::from(rm) + extended(5));
        Some(Self { prefix: second & 3, opcode, reg, rm, vvvv: usize::from(!second >> 3 & 15), memory })
    }
}

/// Does one instruction and goes on behind it; none if it is not of tiles, or would be refused.
///
/// # Safety
/// The registers are those of an instruction that was about to be executed.
unsafe fn execute(tiles: &mut Tiles, registers: &mut [greg_t; 23]) -> Option<()> {
    let mut next = registers[libc::REG_RIP as usize] as usize;
    let take = || {
        // SAFETY: the bytes of the instruction can be read.
        let byte = unsafe { *(next as *const u8) };
        next += 1;
        byte
    };
    let Instruction { prefix, opcode, reg, rm, vvvv, memory } = Instruction::decode(registers, take)?;
    if !matches!(opcode, 0x5c | 0x5e) && vvvv != 0 || opcode == 0x4b && rm & 7 != 4 {
        return None;
    }
    match (opcode, prefix, memory) {
        // LDTILECFG.
        // SAFETY: the operand is 64 bytes, by the instruction.
        (0x49, NONE, Some(at)) if reg == 0 => tiles.configure(unsafe { *(at.address as *const [u8; 64]) })?,
        // TILERELEASE.
        (0x49, NONE, None) if (reg, rm) == (0, 0) => *tiles = Tiles::NONE,
        // TILEZERO.
        (0x49, PF2, None) if rm == 0 => tiles.tile(reg)?.values.fill([0; ROW_BYTES]),
        // TILELOADD and TILELOADDT1.
        (0x4b, PF2 | P66, Some(memory)) => {
            tiles.tile(reg)?.values.fill([0; ROW_BYTES]);
            for (row, from) in tiles.rows(reg, memory)? {
                // SAFETY: by the instruction, the rows can be read.
                unsafe { from.copy_to_nonoverlapping(row.as_mut_ptr(), row.len()) };
            }
        }
        // TILESTORED.
        (0x4b, PF3, Some(memory)) => {
            for (row, to) in tiles.rows(reg, memory)? {
                // SAFETY: by the instruction, the rows can be written.
                unsafe { to.copy_from_nonoverlapping(row.as_ptr(), row.len()) };
            }
        }
        // TDPBF16PS.
        // SAFETY: the handler is installed where AVX-512 is.
        (0x5c, PF3, None) => unsafe { tiles.multiply(reg, rm, vvvv, bf16_products)? },
        // TDPBUSD.
        // SAFETY: as above.
        (0x5e, P66, None) => unsafe { tiles.multiply(reg, rm, vvvv, u8_products)? },
        _ => return None,
    }
    registers[libc::REG_RIP as usize] = next as greg_t;
    Some(())
}

impl Tiles {
    /// Before they are configured.
    const NONE: Self = Self([Tile { rows: 0, row_bytes: 0, values: [[0; ROW_BYTES]; ROWS] }; TILES]);

    /// What LDTILECFG does: palette 1, and all tiles zero.
    fn configure(&mut self, config: [u8; 64]) -> Option<()> {
        *self = Self::NONE;
        let is_reserved = |at: &usize| matches!(at, 2..16 | 32..48 | 56..64);
        if config[0] != 1 || config[1] != 0 || (0..64).filter(is_reserved).any(|at| config[at] != 0) {
            return None;
        }
        let shapes: [(usize, usize); TILES] = array::from_fn(|tile| {
            let row_bytes = u16::from_le_bytes([config[16 + 2 * tile], config[17 + 2 * tile]]);
            (config[48 + tile].into(), row_bytes.into())
        });
        let fits = |(rows, bytes): (usize, usize)| {
            rows <= ROWS && bytes <= ROW_BYTES && bytes % 4 == 0 && (rows == 0) == (bytes == 0)
        };
        if !shapes.into_iter().all(fits) {
            return None;
        }
        for (tile, shape) in zip(&mut self.0, shapes) {
            (tile.rows, tile.row_bytes) = shape;
        }
        Some(())
    }

    /// A tile that may be used.
    fn tile(&mut self, number: usize) -> Option<&mut Tile> {
        self.0.get_mut(number).filter(|tile| tile.rows > 0)
    }

    /// The used part of each row of a tile that may be used, and its address in memory.
    fn rows(&mut self, number: usize, at: Memory) -> Option<impl Iterator<Item = (&mut [u8], *mut u8)>> {
        let Tile { rows, row_bytes, values } = self.tile(number)?;
        Some(values[..*rows].iter_mut().enumerate().map(move |(index, row)| {
            let address = at.address.wrapping_add(index.wrapping_mul(at.stride));
            (&mut row[..*row_bytes], address as *mut u8)
        }))
    }

    /// Adds products of `a` and `b` to the sums of a tile, by a function that adds those of the
    /// first groups of both, and as many rows and columns as are used.
    ///
    /// # Safety
    /// The processor has AVX-512, without which this would take minutes.
    #[target_feature(enable = "avx512f,fma")]
    unsafe fn multiply(
        &mut self,
        sums: usize,
        a: usize,
        b: usize,
        products: unsafe fn(&mut Tile, &Tile, &Tile),
    ) -> Option<()> {
        let [Tile { rows, row_bytes, .. }, first, second] =
            [*self.tile(sums)?, *self.tile(a)?, *self.tile(b)?];
        let fits = rows == first.rows && 4 * second.rows == first.row_bytes && row_bytes == second.row_bytes;
        if !fits || sums == a || sums == b || a == b {
            return None;
        }
        // SAFETY: by the caller.
        unsafe { products(self.tile(sums)?, &first, &second) };
        Some(())
    }
}

/// Adds the products of the first elements of all pairs, and of the second ones, to sums of f32.
#[target_feature(enable = "avx512f,fma")]
fn bf16_products(sums: &mut Tile, a: &Tile, b: &Tile) {
    let columns = sums.row_bytes / 4;
    let (a_values, b_values) = (halves(&a.values), halves(&b.values));
    for (row, a) in zip(&mut sums.values[..sums.rows], &a_values) {
        let mut products = [[0f32; ROW_BYTES / 4]; 2];
        for (pair, b) in b_values[..b.rows].iter().enumerate() {
            for ((products, a), b) in products.iter_mut().zip(a).zip(b) {
                for (product, b) in zip(products, b) {
                    *product = flushed(a[pair].mul_add(*b, *product));
                }
            }
        }
        for (column, sum) in row.as_chunks_mut::<4>().0[..columns].iter_mut().enumerate() {
            let both = flushed(products[0][column] + products[1][column]);
            *sum = flushed(flushed(f32::from_le_bytes(*sum)) + both).to_le_bytes();
        }
    }
}

/// Adds the products of bytes, of `a` without and of `b` with a sign, to whole sums of 32 bits.
#[target_feature(enable = "avx512f")]
fn u8_products(sums: &mut Tile, a: &Tile, b: &Tile) {
    let columns = sums.row_bytes / 4;
    for (row, a) in zip(&mut sums.values[..sums.rows], &a.values) {
        for (a, b) in zip(a.as_chunks::<4>().0, &b.values[..b.rows]) {
            let sums = row.as_chunks_mut::<4>().0[..columns].iter_mut();
            for (sum, b) in sums.zip(b.as_chunks::<4>().0) {
                let products = zip(a, b).map(|(a, b)| i32::from(*a) * i32::from(*b as i8));
                *sum = i32::from_le_bytes(*sum).wrapping_add(products.sum()).to_le_bytes();
            }
        }
    }
}

/// The first and the second numbers of the pairs of all rows.
#[inline]
fn halves(tile: &[[u8; ROW_BYTES]; ROWS]) -> [[[f32; ROW_BYTES / 4]; 2]; ROWS] {
    let mut all = [[[0.0; ROW_BYTES / 4]; 2]; ROWS];
    for (row, [first, second]) in tile.iter().zip(&mut all) {
        for ((pair, first), second) in row.as_chunks::<4>().0.iter().zip(first).zip(second) {
            let bits = u32::from_le_bytes(*pair);
            *first = flushed(f32::from_bits(bits << 16));
            *second = flushed(f32::from_bits(bits & 0xffff_0000));
        }
    }
    all
}

/// Tiles take denormals for zero and give zero for them.
#[inline]
fn flushed(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { 0f32.copysign(value) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tiles 0 and 4 of two rows, all of 64 bytes.
    fn config() -> [u8; 64] {
        let mut config = [0; 64];
        config[0] = 1;
        (0..TILES).for_each(|tile| config[16 + 2 * tile] = 64);
        config[48..56].copy_from_slice(&[2, 16, 16, 16, 2, 16, 16, 16]);
        config
    }

    #[test]
    fn tiles_are_there_when_they_are_configured() {
        let mut tiles = Box::new(Tiles::NONE);
        assert!(tiles.tile(0).is_none());
        for (at, value) in [(0, 2), (1, 1), (5, 1), (16, 63), (16, 0), (17, 1), (48, 0), (48, 17), (60, 1)] {
            let mut other = config();
            other[at] = value;
            assert!(tiles.configure(other).is_none() && tiles.tile(0).is_none(), "byte {at} is {value}");
        }
        tiles.configure(config()).expect("a palette");
        assert!(tiles.tile(7).is_some() && tiles.tile(8).is_none());
    }

    #[test]
    fn products_take_shapes_that_fit_and_flush_denormals() {
        if !std::arch::is_x86_feature_detected!("avx512f") {
            return;
        }
        let mut tiles = Box::new(Tiles::NONE);
        tiles.configure(config()).expect("a palette");
        // SAFETY: there is AVX-512.
        let mut multiply = |sums, a, b| unsafe { tiles.multiply(sums, a, b, bf16_products) };
        for (sums, a, b) in [(0, 1, 6), (0, 4, 0), (0, 0, 6), (0, 6, 6), (8, 4, 6), (0, 8, 6), (0, 4, 8)] {
            assert!(multiply(sums, a, b).is_none(), "{sums} {a} {b}");
        }
        let pair = |low: f32, high: f32| ((low.to_bits() >> 16) | high.to_bits() & 0xffff_0000).to_le_bytes();
        let denormal = f32::from_bits(0x0040_0000);
        // A row of `a`, a column of `b`, and the sum that was there:
        // 10 + ((3 * 5 + 1 * 2) + (0.5 * 4 + denormal * 1)).
        tiles.0[4].values[1][..4].copy_from_slice(&pair(3.0, 0.5));
        tiles.0[4].values[1][4..8].copy_from_slice(&pair(1.0, denormal));
        tiles.0[6].values[0][8..12].copy_from_slice(&pair(5.0, 4.0));
        tiles.0[6].values[1][8..12].copy_from_slice(&pair(2.0, 1.0));
        tiles.0[0].values[1][8..12].copy_from_slice(&10f32.to_le_bytes());
        tiles.0[0].values[0][..4].copy_from_slice(&denormal.to_le_bytes());
        // SAFETY: as above.
        unsafe { tiles.multiply(0, 4, 6, bf16_products) }.expect("shapes that fit");
        let number = |row: usize, column: usize| {
            f32::from_le_bytes(tiles.0[0].values[row][4 * column..][..4].try_into().expect("four bytes"))
        };
        assert_eq!([number(1, 2), number(1, 1), number(0, 2), number(0, 0)], [29.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn products_of_bytes_have_the_sign_of_the_second() {
        if !std::arch::is_x86_feature_detected!("avx512f") {
            return;
        }
        let mut tiles = Box::new(Tiles::NONE);
        tiles.configure(config()).expect("a palette");
        // 1000 + 255 * -128 + 1 * 127 + 2 * 3, and the last row of `b` by the last four of `a`.
        tiles.0[4].values[1][..4].copy_from_slice(&[255, 1, 2, 0]);
        tiles.0[4].values[1][63] = 200;
        tiles.0[6].values[0][8..12].copy_from_slice(&[0x80, 127, 3, 9]);
        tiles.0[6].values[15][11] = 0xff;
        tiles.0[0].values[1][8..12].copy_from_slice(&1000i32.to_le_bytes());
        // SAFETY: there is AVX-512.
        unsafe { tiles.multiply(0, 4, 6, u8_products) }.expect("shapes that fit");
        let sum = tiles.0[0].values[1][8..12].try_into().expect("four bytes");
        assert_eq!(i32::from_le_bytes(sum), 1000 - 255 * 128 + 127 + 6 - 200);
    }
}
