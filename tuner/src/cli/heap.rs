//! The heap of the program. Where the system gives no more memory, the process ends with a line and
//! the exit status of a wrong input, and not with an abort.
//!
//! What a command will need is compared with what there is before it begins; this is for what no
//! estimate knows, such as another process that takes the memory meanwhile.

#![allow(unsafe_code, reason = "passes calls on to the heap of the system")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;

use crate::cli::program::FAILED;

/// To be the program's `#[global_allocator]`.
#[derive(Clone, Copy, Debug)]
pub struct Heap;

// SAFETY: all calls are the system's.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller upholds it.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller upholds it.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller upholds it.
        given(unsafe { System.realloc(block, layout, size) }, size)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller upholds it.
        unsafe { System.dealloc(block, layout) }
    }
}

#[inline]
fn given(block: *mut u8, bytes: usize) -> *mut u8 {
    if block.is_null() { refused(bytes) } else { block }
}

/// Ends the process, without asking the heap for anything.
#[cold]
fn refused(bytes: usize) -> ! {
    let _ = writeln!(
        std::io::stderr(),
        "error: found no memory for {bytes} bytes more, expected them within the limits of the process \
         (ulimit -v, ulimit -d), of its control group and of the system"
    );
    std::process::exit(FAILED.into())
}
