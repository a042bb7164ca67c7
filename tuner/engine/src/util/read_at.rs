//! Reads at a position of a file, wherever others of its readers are.

use std::fs::File;
use std::io;
#[cfg(not(unix))]
use std::io::Read;
use std::sync::Arc;

/// Reads into a buffer from `at` on, as much as one call of the system gives; gives its length.
pub fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_at(file, buffer, at);
    #[cfg(not(unix))]
    return from_position(file, at, |mut file| file.read(buffer));
}

/// Fills a buffer with the bytes of a file from `at` on; fails if the file ends before.
pub fn read_exact_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    #[cfg(unix)]
    let read = std::os::unix::fs::FileExt::read_exact_at(file, buffer, at);
    #[cfg(not(unix))]
    let read = from_position(file, at, |mut file| file.read_exact(buffer));
    read.map_err(|error| match (error.kind(), file.metadata()) {
        (io::ErrorKind::UnexpectedEof, Ok(there)) => too_short(there.len(), at + buffer.len() as u64),
        _ => error,
    })
}

/// The error of a file that has `found` bytes, and must have more.
pub fn too_short(found: u64, expected: u64) -> io::Error {
    let text = format!("truncated: the file ends too early, found {found} bytes of at least {expected}");
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

/// Where the system has no reads at a position: one reader at a time, as handles share theirs.
#[cfg(any(not(unix), test))]
fn from_position<T>(mut file: &File, at: u64, read: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
    use std::io::{Seek, SeekFrom};
    use std::sync::{Mutex, PoisonError};
    static ONE_READER: Mutex<()> = Mutex::new(());
    let _one = ONE_READER.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(at))?;
    read(file)
}

/// A part of a file, or all of it.
#[derive(Clone, Debug)]
pub struct Section {
    file: Arc<File>,
    start: u64,
    len: u64,
}

impl Section {
    /// All of a file.
    pub fn whole(file: File) -> io::Result<Self> {
        Ok(Self { len: file.metadata()?.len(), file: Arc::new(file), start: 0 })
    }

    /// Bytes of it; none if it has no such bytes.
    pub fn part(&self, start: u64, len: u64) -> Option<Self> {
        let is_inside = start.checked_add(len)? <= self.len;
        is_inside.then(|| Self { file: self.file.clone(), start: self.start + start, len })
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// The file that it is a part of.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fills a buffer with its bytes from `at` on; fails if it ends before.
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match at.checked_add(buffer.len() as u64) {
            Some(end) if end <= self.len => read_exact_at(&self.file, buffer, self.start + at),
            end => Err(too_short(self.start + self.len, self.start.saturating_add(end.unwrap_or(u64::MAX)))),
        }
    }

    /// Reads `count` numbers of f32, the lowest byte first, as [`Self::read_exact_at`].
    pub fn read_f32_at(&self, at: u64, count: usize) -> io::Result<Vec<f32>> {
        let mut values = vec![0.0; count];
        self.read_exact_at(bytemuck::cast_slice_mut(&mut values), at)?;
        values.iter_mut().for_each(|value: &mut f32| *value = f32::from_bits(u32::from_le(value.to_bits())));
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn both_ways_read_the_same_bytes_in_any_order_and_none_behind_the_end() {
        let bytes: Vec<u8> = (0..200).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&bytes).expect("written");
        let seek_and_read: fn(&File, &mut [u8], u64) -> io::Result<()> =
            |file, buffer, at| from_position(file, at, |mut file| file.read_exact(buffer));
        for read in [read_exact_at, seek_and_read] {
            for (at, len) in [(150, 50), (0, 10), (7, 0), (3, 120)] {
                let mut found = vec![0; len];
                read(&file, &mut found, at as u64).expect("inside");
                assert_eq!(found, bytes[at..at + len]);
            }
            assert!(read(&file, &mut [0; 2], 199).is_err());
        }
    }

    #[test]
    fn values_are_those_of_the_section_and_none_are_behind_its_end() {
        let values: Vec<f32> = (0..70_000).map(|at| at as f32).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[0xff; 5]).expect("written");
        values.iter().for_each(|value| file.write_all(&value.to_le_bytes()).expect("written"));
        file.write_all(&[0xff; 9]).expect("written");
        let len = 4 * values.len() as u64;
        let whole = Section::whole(file).expect("an open file");
        let section = whole.part(5, len).expect("inside");
        for count in [0, 1, 32_768, 32_769, values.len()] {
            assert!(section.read_f32_at(0, count).expect("inside") == values[..count], "{count} values");
        }
        assert!(section.read_f32_at(4, values.len()).is_err());
        assert!(section.read_f32_at(u64::MAX, 1).is_err());
        assert!(whole.part(5, whole.size() - 4).is_none() && whole.part(u64::MAX, 1).is_none());
    }
}
