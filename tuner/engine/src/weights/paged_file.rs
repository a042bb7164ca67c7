//! A file that is read by pages. The reader of HDF5 asks for headers some bytes at a time, so that
//! thousands of reads of the system become some hundreds.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hdf5_pure::{FormatError, Source};

use crate::util::read_at::Section;

/// Bytes that are read at once. Headers lie among values: larger pages would hold more of those.
const PAGE: usize = 4096;

/// Pages that are kept.
const KEPT: usize = 1024;

/// What HDF5 has in place of the address of something that is not in the file.
const NO_ADDRESS: u64 = u64::MAX;

/// Why nothing is read from [`NO_ADDRESS`]: a soft link of an old group has it.
pub(super) const LINK: &str = "an object without an address, as a soft link is one";

/// The file, and the pages of it that were read lately.
#[derive(Debug)]
pub(super) struct PagedFile {
    section: Section,
    recent: Mutex<HashMap<u64, Vec<u8>>>,
}

impl PagedFile {
    pub fn new(section: Section) -> Self {
        Self { section, recent: Mutex::default() }
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), FormatError> {
        self.section.read_exact_at(buffer, at).map_err(|error| FormatError::Source(error.to_string()))
    }
}

impl Source for PagedFile {
    fn len(&self) -> u64 {
        self.section.size()
    }

    fn read_at(&self, offset: u64, mut buffer: &mut [u8]) -> Result<(), FormatError> {
        if offset == NO_ADDRESS {
            return Err(FormatError::Source(LINK.to_owned()));
        }
        let available = self.len().saturating_sub(offset);
        if buffer.len() as u64 > available {
            let available = usize::try_from(available).unwrap_or(usize::MAX);
            return Err(FormatError::UnexpectedEof { expected: buffer.len(), available });
        }
        if buffer.len() >= PAGE {
            return self.read(offset, buffer);
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = offset;
        while !buffer.is_empty() {
            let (number, from) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            if !recent.contains_key(&number) {
                if recent.len() == KEPT {
                    recent.clear();
                }
                let start = at - from as u64;
                let mut page = vec![0; (self.len() - start).min(PAGE as u64) as usize];
                self.read(start, &mut page)?;
                recent.insert(number, page);
            }
            let page = &recent[&number];
            let (now, later) = buffer.split_at_mut(buffer.len().min(page.len() - from));
            now.copy_from_slice(&page[from..][..now.len()]);
            at += now.len() as u64;
            buffer = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn any_range_is_that_of_the_file_and_none_behind_its_end() {
        let len = (KEPT + 3) * PAGE + 7;
        let bytes: Vec<u8> = (0..len as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&bytes).expect("written");
        let pages = PagedFile::new(Section::whole(file).expect("an open file"));
        assert_eq!(pages.len(), len as u64);
        let check = |at: usize, size: usize| {
            let mut found = vec![0; size];
            match at + size <= len {
                true => {
                    pages.read_at(at as u64, &mut found).expect("inside");
                    assert!(found == bytes[at..at + size], "{size} bytes at {at}");
                }
                false => assert!(pages.read_at(at as u64, &mut found).is_err(), "{size} bytes at {at}"),
            }
        };
        for size in [1, 9, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE] {
            for at in (0..len + 2 * PAGE).step_by(PAGE / 2 - 5) {
                check(at, size);
            }
            check(len - size, size);
            check(len - size + 1, size);
        }
        assert!(pages.read_at(u64::MAX, &mut [0]).is_err());
    }

    #[test]
    fn small_reads_come_from_pages_that_are_kept_while_there_is_room() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&vec![7; (KEPT + 5) * PAGE]).expect("written");
        let pages = PagedFile::new(Section::whole(file).expect("an open file"));
        let kept = |numbers: &mut dyn Iterator<Item = usize>| {
            numbers.for_each(|number| pages.read_at((number * PAGE) as u64, &mut [0; 8]).expect("inside"));
            pages.recent.lock().expect("no panic").len()
        };
        assert_eq!(kept(&mut [3, 3, 9, 3].into_iter()), 2);
        assert_eq!(kept(&mut (0..KEPT)), KEPT);
        assert_eq!(kept(&mut [5].into_iter()), KEPT);
        assert_eq!(kept(&mut [KEPT].into_iter()), 1);
        // What takes a page and more is read as it is.
        pages.read_at(0, &mut [0; PAGE]).expect("inside");
        assert_eq!(kept(&mut [KEPT].into_iter()), 1);
    }
}
