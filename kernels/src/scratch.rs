//! Memory: aligned buffers, and the scratch that a kernel says it needs before it runs.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Alignment of every buffer and of every part of a scratch, in bytes: a cache line and an AVX-512
/// register.
pub const ALIGN: usize = 64;

/// Rounds a number of f32 up to whole cache lines.
pub const fn round_up(elements: usize) -> usize {
    elements.next_multiple_of(ALIGN / size_of::<f32>())
}

/// Zero-initialised f32 memory, aligned to [`ALIGN`] bytes.
#[derive(Debug)]
pub struct Buffer {
    ptr: NonNull<f32>,
    len: usize,
}

#[allow(unsafe_code, reason = "owns aligned memory")]
mod owner {
    use super::*;

    // SAFETY: a `Buffer` owns its memory as a `Vec<f32>` does.
    unsafe impl Send for Buffer {}
    // SAFETY: `&Buffer` gives only reads and raw pointers.
    unsafe impl Sync for Buffer {}

    impl Buffer {
        fn layout(len: usize) -> Layout {
            Layout::array::<f32>(len.max(1))
                .and_then(|layout| layout.align_to(ALIGN))
                .expect("a buffer's size fits isize")
        }

        /// `len` zeros.
        pub fn zeroed(len: usize) -> Self {
            let layout = Self::layout(len);
            // SAFETY: the layout is never empty.
            let ptr = unsafe { alloc_zeroed(layout) }.cast();
            let ptr = NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout));
            Self { ptr, len }
        }

        /// All elements.
        pub fn as_slice(&self) -> &[f32] {
            // SAFETY: `len` initialised elements are owned.
            unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
        }

        /// All elements.
        pub fn as_mut_slice(&mut self) -> &mut [f32] {
            // SAFETY: as above, and `self` is borrowed mutably.
            unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
        }
    }

    impl Drop for Buffer {
        fn drop(&mut self) {
            // SAFETY: allocated by `zeroed` with the same layout.
            unsafe { dealloc(self.ptr.as_ptr().cast(), Self::layout(self.len)) }
        }
    }
}

impl Buffer {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first element.
    pub fn as_ptr(&self) -> *const f32 {
        self.ptr.as_ptr()
    }
}

/// Scratch that a prepared kernel needs, in f32 elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScratchReq {
    /// One part that all workers of a step share; it keeps its contents from phase to phase.
    pub shared: usize,
    /// A part for each worker; its contents may vanish between two calls of `run`.
    pub worker: usize,
}

impl ScratchReq {
    /// Elements for a team of `workers`.
    pub fn total(&self, workers: usize) -> usize {
        round_up(self.shared) + workers * round_up(self.worker)
    }
}

/// One worker's scratch during a step.
#[derive(Debug)]
pub struct Scratch {
    /// The shared part; aligned to [`ALIGN`].
    pub shared: *mut f32,
    /// The worker's own part; aligned to [`ALIGN`].
    pub worker: *mut f32,
}

impl Scratch {
    /// The parts of worker `me` inside a buffer.
    ///
    /// # Panics
    /// If the buffer is too small for the team.
    pub fn of(buffer: &Buffer, req: ScratchReq, workers: usize, me: usize) -> Self {
        assert!(me < workers && req.total(workers) <= buffer.len(), "scratch is too small");
        let shared = buffer.as_ptr().cast_mut();
        let own = round_up(req.shared) + me * round_up(req.worker);
        Self { shared, worker: shared.wrapping_add(own) }
    }
}
