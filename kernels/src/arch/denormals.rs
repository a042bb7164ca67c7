//! Numbers below the normal range. Weights that training has nearly switched off bring them in, and
//! some processors take 100 cycles for each operation on one.

use std::marker::PhantomData;

/// While it lives, vector instructions of this thread read such numbers as zero and write zero for
/// them. The thread's mode of before comes back at its end.
#[derive(Debug)]
pub struct FlushToZero {
    before: usize,
    /// The mode is the thread's.
    _thread: PhantomData<*const ()>,
}

impl FlushToZero {
    /// Sets the mode.
    pub fn start() -> Self {
        let before = control();
        set_control(before | FLUSH);
        Self { before, _thread: PhantomData }
    }

    /// Whether this thread is in that mode.
    pub fn is_on() -> bool {
        FLUSH != 0 && control() & FLUSH == FLUSH
    }
}

impl Drop for FlushToZero {
    fn drop(&mut self) {
        set_control(self.before);
    }
}

/// MXCSR: results are flushed to zero (bit 15), and denormal operands are zeros (bit 6).
#[cfg(target_arch = "x86_64")]
const FLUSH: usize = 1 << 15 | 1 << 6;
/// FPCR: flush to zero (bit 24).
#[cfg(target_arch = "aarch64")]
const FLUSH: usize = 1 << 24;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const FLUSH: usize = 0;

#[cfg(target_arch = "x86_64")]
fn control() -> usize {
    let mut mxcsr = 0u32;
    // SAFETY: it writes the register to `mxcsr`.
    unsafe { std::arch::asm!("stmxcsr [{0}]", in(reg) &mut mxcsr, options(nostack, preserves_flags)) };
    mxcsr as usize
}

#[cfg(target_arch = "x86_64")]
fn set_control(control: usize) {
    let mxcsr = control as u32;
    // SAFETY: the value is one that was read, with or without FLUSH: no exception is unmasked and the
    // rounding stays. Rust assumes FLUSH to be off, so that what it may move or fold could see
    // denormals; no result depends on whether they are zeros, which is a rounding of at most 1.2e-38.
    unsafe { std::arch::asm!("ldmxcsr [{0}]", in(reg) &mxcsr, options(nostack, preserves_flags)) };
}

#[cfg(target_arch = "aarch64")]
fn control() -> usize {
    let fpcr: usize;
    // SAFETY: it reads the register.
    unsafe { std::arch::asm!("mrs {0}, fpcr", out(reg) fpcr, options(nostack, preserves_flags)) };
    fpcr
}

#[cfg(target_arch = "aarch64")]
fn set_control(control: usize) {
    // SAFETY: as for MXCSR above.
    unsafe { std::arch::asm!("msr fpcr, {0}", in(reg) control, options(nostack, preserves_flags)) };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn control() -> usize {
    0
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn set_control(_: usize) {}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use std::hint::black_box;

    use super::*;

    /// Bits of a product below the normal range, and of a sum with such an operand.
    fn bits() -> [u32; 2] {
        let (least, tiny) = (black_box(f32::MIN_POSITIVE), black_box(f32::from_bits(1)));
        [(least * black_box(0.5)).to_bits(), (tiny + black_box(0.0)).to_bits()]
    }

    #[test]
    fn what_is_below_the_normal_range_is_zero_for_as_long_as_it_lives() {
        let before = bits();
        assert_eq!(before, [1 << 22, 1]);
        let control_before = control();
        {
            let _flush = FlushToZero::start();
            assert_eq!((bits(), FlushToZero::is_on()), ([0, 0], true));
            // One inside another ends where it began.
            drop(FlushToZero::start());
            assert!(FlushToZero::is_on());
        }
        assert_eq!((bits(), FlushToZero::is_on(), control()), (before, false, control_before));
    }
}
