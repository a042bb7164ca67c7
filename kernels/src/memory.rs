//! Memory: aligned buffers, and the scratch that a kernel says it needs before it runs.

#![allow(unsafe_code, reason = "owns aligned memory")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

pub use crate::arch::pages::Edge;
use crate::arch::pages::Region;

/// Alignment of buffers and of parts of scratch, in bytes: a cache line and an AVX-512 register.
pub const ALIGN: usize = 64;

/// Rounds a number of f32 up to whole cache lines.
pub const fn round_up(elements: usize) -> usize {
    elements.next_multiple_of(ALIGN / size_of::<f32>())
}

/// Zero-initialised f32 memory, aligned to [`ALIGN`] bytes.
///
/// Buffers of a page and more are cut from regions on huge pages, one after the other: weights that
/// are prepared in turn lie in turn. A region goes back to the system with its last buffer.
#[derive(Debug)]
pub struct Buffer {
    ptr: NonNull<f32>,
    len: usize,
    source: Source,
}

/// Where the memory of a buffer is from.
#[derive(Debug)]
enum Source {
    /// None has been taken yet.
    Deferred,
    Heap,
    /// It is cut from a region, which is there as long as its buffers.
    Region {
        _whole: Arc<Region>,
    },
}

/// Bytes of a region, unless one buffer needs more.
const REGION: usize = 64 << 20;
/// Bytes from which on a buffer is cut from a region.
const FROM_REGION: usize = 4096;

/// The region that buffers are being cut from, and the bytes of it that are used.
static CURRENT: Mutex<Option<(Arc<Region>, usize)>> = Mutex::new(None);

/// Cuts `bytes`, a multiple of [`ALIGN`], from the current region or a new one.
fn cut(bytes: usize) -> Option<(NonNull<f32>, Arc<Region>)> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let (region, used) = match current.take() {
        Some((region, used)) if used + bytes <= region.len => (region, used),
        // Where a whole region does not fit in the address space, one for this buffer may.
        _ => (Arc::new(Region::new(bytes.max(REGION)).or_else(|| Region::new(bytes))?), 0),
    };
    let ptr = NonNull::new(region.start.wrapping_add(used).cast())?;
    *current = Some((Arc::clone(&region), used + bytes));
    Some((ptr, region))
}

/// The edge at which buffers are guarded: 0 for none, as [`guard`] numbers them.
#[cfg(debug_assertions)]
static GUARDED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// From now on each new buffer lies at pages that nobody may touch, so that a kernel that reads or
/// writes beyond one ends the process; none ends that. For tests: builds with debug assertions have it,
/// on Linux. Such buffers are aligned to elements only where the guarded edge is their end.
#[cfg(debug_assertions)]
pub fn guard(edge: Option<Edge>) {
    let number = match edge {
        None => 0,
        Some(Edge::Start) => 1,
        Some(Edge::End) => 2,
    };
    GUARDED.store(number, std::sync::atomic::Ordering::Relaxed);
}

/// Memory at guarded pages, where that is asked for.
#[cfg(debug_assertions)]
fn guarded(len: usize) -> Option<(NonNull<f32>, Arc<Region>)> {
    let edge = match GUARDED.load(std::sync::atomic::Ordering::Relaxed) {
        1 => Edge::Start,
        2 => Edge::End,
        _ => return None,
    };
    let region = Region::guarded(len * size_of::<f32>(), edge)?;
    Some((NonNull::new(region.start.cast())?, Arc::new(region)))
}

#[cfg(not(debug_assertions))]
fn guarded(_: usize) -> Option<(NonNull<f32>, Arc<Region>)> {
    None
}

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
        if let Some((ptr, region)) = guarded(len) {
            return Self { ptr, len, source: Source::Region { _whole: region } };
        }
        let layout = Self::layout(len);
        if layout.size() >= FROM_REGION
            && let Some((ptr, region)) = cut(layout.pad_to_align().size())
        {
            return Self { ptr, len, source: Source::Region { _whole: region } };
        }
        // SAFETY: the layout is never empty.
        let ptr = unsafe { alloc_zeroed(layout) }.cast();
        let ptr = NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout));
        Self { ptr, len, source: Source::Heap }
    }

    /// `len` zeros whose memory is taken when [`Self::as_mut_slice`] is first called.
    pub fn deferred(len: usize) -> Self {
        Self { ptr: NonNull::dangling(), len, source: Source::Deferred }
    }

    /// All elements; none while their memory is [deferred](Self::deferred).
    pub fn as_slice(&self) -> &[f32] {
        let len = if matches!(self.source, Source::Deferred) { 0 } else { self.len };
        // SAFETY: `len` initialised elements are owned: cut from a region for this buffer
        // alone, or allocated.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), len) }
    }

    /// All elements.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        if matches!(self.source, Source::Deferred) {
            *self = Self::zeroed(self.len);
        }
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }

    /// Elements, whether their memory is there or deferred.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first element; dangling while the memory is [deferred](Self::deferred).
    pub fn as_ptr(&self) -> *const f32 {
        self.ptr.as_ptr()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if matches!(self.source, Source::Heap) {
            // SAFETY: allocated by `zeroed` with the same layout.
            unsafe { dealloc(self.ptr.as_ptr().cast(), Self::layout(self.len)) }
        }
    }
}

/// One worker's scratch during a step.
#[derive(Debug)]
pub struct Scratch {
    /// Aligned to [`ALIGN`]; its contents may vanish between two calls of a kernel.
    pub worker: *mut f32,
    /// The worker's number.
    pub index: usize,
    /// Workers.
    pub workers: usize,
}

impl Scratch {
    /// The part of worker `index` inside a buffer that has `elements` for each.
    ///
    /// # Panics
    /// If the buffer is too small for the team.
    pub fn new(buffer: &Buffer, elements: usize, workers: usize, index: usize) -> Self {
        let pitch = round_up(elements);
        assert!(index < workers && workers * pitch <= buffer.len(), "scratch is too small");
        Self { worker: buffer.as_ptr().cast_mut().wrapping_add(index * pitch), index, workers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deferred_buffer_has_zeros_once_it_is_written() {
        for len in [0, 5, FROM_REGION] {
            let mut buffer = Buffer::deferred(len);
            assert_eq!((buffer.len(), buffer.as_slice()), (len, &[][..]));
            buffer.as_mut_slice().iter_mut().for_each(|value| *value += 1.0);
            assert_eq!(buffer.as_slice(), vec![1.0; len]);
            assert_eq!(buffer.as_ptr().align_offset(ALIGN), 0);
        }
        // More than any address space has.
        assert_eq!(Buffer::deferred(usize::MAX / 8).len(), usize::MAX / 8);
    }
}
