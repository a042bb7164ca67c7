//! Runs a parser on bytes that a fuzzer makes up, and panics where it breaks a promise: memory is
//! bounded by the input, and an error is a line that a person reads.

mod targets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use engine::util::files::message;

pub use targets::print_values;
use targets::{PARSERS, Parser};

/// Memory that a parser may have at once: so much for each byte of its input, and so much more. The
/// second is that of the largest image that is decoded here, with its copies.
const PER_BYTE: usize = 2;
const CONSTANT: usize = 64 << 20;

/// Runs a target's parser.
///
/// # Panics
/// If the parser does, takes too much memory, or reports an error that is no line.
pub fn check(target: &str, input: &[u8]) {
    let parser = PARSERS.iter().find(|(name, _)| *name == target).expect("a target").1;
    let (errors, peak) = measured(parser, input);
    let most = PER_BYTE * input.len() + CONSTANT;
    assert!(peak <= most, "{peak} bytes of memory for {} of input, expected at most {most}", input.len());
    for error in errors {
        let shown = message(&error);
        assert!(!shown.contains(char::is_control) && shown.chars().count() <= 300, "{shown:?}");
        assert!(!error.is_empty(), "an error without words");
    }
}

/// What a parser reports, and the most memory that it had at once. The first run also makes what is
/// made once.
fn measured(parser: Parser, input: &[u8]) -> (Vec<String>, usize) {
    static FIRST: std::sync::Once = std::sync::Once::new();
    FIRST.call_once(|| drop(parser(input)));
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let errors = parser(input);
    (errors, PEAK.load(Relaxed).saturating_sub(before))
}

/// The system's allocator, which also counts.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

fn grown(bytes: usize) {
    PEAK.fetch_max(NOW.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: every call is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: by the caller.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grown(size);
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: by the caller.
        unsafe { System.realloc(block, layout, size) }
    }
}
