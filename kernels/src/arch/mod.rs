//! Facts of the machine, and instructions that `pulp` lacks.

#![allow(unsafe_code, reason = "instructions and system calls")]

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16;
pub mod cache;
pub(crate) mod cpuid;
pub mod denormals;
pub(crate) mod lanes;
pub mod pages;
pub(crate) mod prefetch;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vnni;

/// The same pointer; the compiler cannot derive it from others.
#[inline(always)]
pub(crate) fn opaque<P: Copy>(pointer: *mut P) -> *mut P {
    #[cfg(target_arch = "x86_64")]
    #[allow(clippy::pointers_in_nomem_asm_block, reason = "nothing is read or written")]
    {
        let mut pointer = pointer;
        // SAFETY: no instruction at all.
        unsafe {
            std::arch::asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags));
        }
        pointer
    }
    #[cfg(not(target_arch = "x86_64"))]
    pointer
}
