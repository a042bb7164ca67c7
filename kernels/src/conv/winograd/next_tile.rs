//! Prefetching of the next tile while one is transformed.

use crate::arch::prefetch::LINE;

/// Pixels of the next tile to prefetch, and the bytes between them along the two axes.
#[derive(Clone, Copy)]
pub(super) struct NextTile {
    first: *const u8,
    pitch: [usize; 2],
    /// A line begins here that was not prefetched with the channels before.
    is_due: bool,
}

impl NextTile {
    /// Of a tile whose first pixel is at `first`, from its byte `at` on.
    #[inline(always)]
    pub(super) fn new(first: *const u8, pitch: [usize; 2], at: usize) -> Self {
        Self { first: first.wrapping_add(at), pitch, is_due: at.is_multiple_of(LINE * size_of::<f32>()) }
    }

    /// Prefetches `N` pixels along the first axis, then moves on along the second.
    #[inline(always)]
    pub(super) fn prefetch<const N: usize>(&mut self, [along, step]: [usize; 2], prefetch: fn(*const f32)) {
        if !self.is_due {
            return;
        }
        let mut at = self.first;
        for _ in 0..N {
            prefetch(at.cast());
            at = at.wrapping_add(self.pitch[along]);
        }
        self.first = self.first.wrapping_add(self.pitch[step]);
    }
}
