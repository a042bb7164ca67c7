//! Memory regions on huge pages, and large blocks of the heap that go back to the system when they
//! are freed.
//!
//! Without huge pages, reading the weights of a whole network misses the TLB on every page.

/// Size of a huge page, to which regions are aligned.
pub const HUGE: usize = 2 << 20;

/// A zeroed region of memory that is given back when dropped.
#[derive(Debug)]
pub struct Region {
    start: *mut u8,
    len: usize,
    /// The mapping around it.
    mapping: (*mut u8, usize),
}

#[allow(unsafe_code, reason = "owns mapped memory")]
mod owner {
    use super::Region;
    // SAFETY: a region is owned memory; using it is up to whoever holds pointers into it.
    unsafe impl Send for Region {}
    // SAFETY: as above.
    unsafe impl Sync for Region {}
}

impl Region {
    /// The first byte, aligned to [`HUGE`].
    pub fn start(&self) -> *mut u8 {
        self.start
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "asks the kernel for pages")]
mod linux {
    use super::{HUGE, Region};
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn mmap(
            addr: *mut c_void,
            len: usize,
            prot: c_int,
            flags: c_int,
            fd: c_int,
            offset: i64,
        ) -> *mut c_void;
        fn munmap(addr: *mut c_void, len: usize) -> c_int;
        fn madvise(addr: *mut c_void, len: usize, advice: c_int) -> c_int;
    }

    const READ_WRITE: c_int = 1 | 2;
    /// Private, anonymous, without reserve.
    const FLAGS: c_int = 0x02 | 0x20 | 0x4000;
    const HUGE_PAGES: c_int = 14;

    impl Region {
        /// At least `len` zeroed bytes, on huge pages where the system has them. The system
        /// provides a page when it is first touched. `None` if the system has no room.
        pub fn new(len: usize) -> Option<Self> {
            let len = len.checked_next_multiple_of(HUGE)?;
            let mapped = len.checked_add(HUGE)?;
            // SAFETY: a fresh anonymous mapping overlaps nothing.
            let base = unsafe { mmap(std::ptr::null_mut(), mapped, READ_WRITE, FLAGS, -1, 0) };
            if base as isize == -1 {
                return None;
            }
            let base: *mut u8 = base.cast();
            let start = base.wrapping_add(base.align_offset(HUGE));
            // SAFETY: the range lies in the mapping. Without huge pages the advice fails, and the
            // region is on small ones.
            unsafe { madvise(start.cast(), len, HUGE_PAGES) };
            Some(Self { start, len, mapping: (base, mapped) })
        }
    }

    impl Drop for Region {
        fn drop(&mut self) {
            // SAFETY: made by `new`; nothing points into it any more.
            unsafe { munmap(self.mapping.0.cast(), self.mapping.1) };
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Region {
    /// Regions are known on Linux only.
    pub fn new(_: usize) -> Option<Self> {
        None
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
    #[allow(unsafe_code, reason = "asks the C library")]
    {
        use std::ffi::c_int;
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        const TRIM_THRESHOLD: c_int = -1;
        const MMAP_THRESHOLD: c_int = -3;
        // SAFETY: sets numbers; a refusal leaves them as they were.
        unsafe {
            mallopt(MMAP_THRESHOLD, 8 << 20);
            mallopt(TRIM_THRESHOLD, 12 << 20);
        }
    }
}
