//! Memory regions on huge pages, and heap blocks that go back to the system when they are freed.
//!
//! Without huge pages, reading the weights of a whole network misses the TLB on every page.

#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

/// Bytes of a page, or a multiple of them.
#[cfg(all(target_os = "linux", debug_assertions))]
const PAGE: usize = 64 << 10;

/// Which end of memory lies at a page that nobody may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// What reads before the first byte ends the process.
    Start,
    /// What reads behind the last byte ends it.
    End,
}

/// A zeroed region of memory that is given back when dropped.
#[derive(Debug)]
pub(crate) struct Region {
    /// The first byte, on the border of a huge page.
    pub start: *mut u8,
    /// Bytes.
    pub len: usize,
    /// What is mapped: the same, or also the guarded pages around it.
    mapping: (*mut u8, usize),
}

// SAFETY: a region is owned memory; using it is up to whoever holds pointers into it.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// At least `len` zeroed bytes, on huge pages where the system has them. The system provides a
    /// page when it is first touched. `None` if the system has no room, or is not Linux.
    #[cfg(target_os = "linux")]
    pub fn new(len: usize) -> Option<Self> {
        use libc::{MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE};
        let len = len.checked_next_multiple_of(HUGE_PAGE)?;
        let mapped = len.checked_add(HUGE_PAGE)?;
        let (protection, flags) = (PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
        // SAFETY: a fresh anonymous mapping overlaps nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), mapped, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return None;
        }
        let base: *mut u8 = base.cast();
        let start = base.wrapping_add(base.align_offset(HUGE_PAGE));
        let before = start.addr() - base.addr();
        let outside = [(base, before), (start.wrapping_add(len), mapped - before - len)];
        for (part, bytes) in outside.into_iter().filter(|(_, bytes)| *bytes > 0) {
            // SAFETY: whole pages of the mapping outside of the region, which nobody has seen.
            unsafe { libc::munmap(part.cast(), bytes) };
        }
        // SAFETY: the range lies in the mapping. Without huge pages the advice fails, and the
        // region is on small ones.
        unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) };
        Some(Self { start, len, mapping: (start, len) })
    }

    /// Exactly `len` zeroed bytes that begin or end where a page begins that nobody may touch: what
    /// reads or writes one byte beyond that edge ends the process.
    #[cfg(all(target_os = "linux", debug_assertions))]
    pub fn guarded(len: usize, edge: Edge) -> Option<Self> {
        use libc::{MAP_ANONYMOUS, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE};
        let inner = len.max(1).checked_next_multiple_of(PAGE)?;
        let mapped = inner.checked_add(2 * PAGE)?;
        // SAFETY: a fresh anonymous mapping overlaps nothing.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        };
        if base == libc::MAP_FAILED {
            return None;
        }
        let base: *mut u8 = base.cast();
        let first = base.wrapping_add(PAGE);
        // SAFETY: the pages lie in the mapping, between the first and the last.
        if unsafe { libc::mprotect(first.cast(), inner, PROT_READ | PROT_WRITE) } != 0 {
            // SAFETY: mapped above, and nothing points into it.
            unsafe { libc::munmap(base.cast(), mapped) };
            return None;
        }
        let start = match edge {
            Edge::Start => first,
            Edge::End => first.wrapping_add(inner - len),
        };
        Some(Self { start, len, mapping: (base, mapped) })
    }

    #[cfg(not(target_os = "linux"))]
    pub fn new(_: usize) -> Option<Self> {
        None
    }

    #[cfg(all(not(target_os = "linux"), debug_assertions))]
    pub fn guarded(_: usize, _: Edge) -> Option<Self> {
        None
    }
}

#[cfg(target_os = "linux")]
impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: made by `new`; nothing points into it any more.
        unsafe { libc::munmap(self.mapping.0.cast(), self.mapping.1) };
    }
}

/// Asks for huge pages under memory that nobody has touched: the system then provides it in a few
/// pieces and not page by page. Does nothing on other systems than Linux.
pub fn prefer_huge_pages(memory: &mut [u8]) {
    #[cfg(target_os = "linux")]
    {
        let start = memory.as_mut_ptr().align_offset(HUGE_PAGE).min(memory.len());
        let inside = &mut memory[start..];
        let len = inside.len() / HUGE_PAGE * HUGE_PAGE;
        // SAFETY: whole pages of memory that is borrowed; advice does not change what they hold.
        unsafe { libc::madvise(inside.as_mut_ptr().cast(), len, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// Makes all threads take small blocks from one heap, where each would have reserved up to 128 MiB of
/// the address space for its own. Does nothing on other systems than GNU/Linux.
pub fn share_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets a number; a refusal leaves it as it was.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Makes the heap give large blocks back to the system as soon as they are freed: from now on each
/// block of 8 MiB and more has its own mapping. Smaller ones are used again, and up to 12 MiB of
/// free memory a thread are kept.
///
/// The C library of GNU/Linux otherwise raises these limits once large blocks have been freed, and
/// a layer's weights as they were in their file would stay in memory. Does nothing on other
/// systems.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets numbers; a refusal leaves them as they were.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 8 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 12 << 20);
    }
}
