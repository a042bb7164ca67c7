//! Reads at a position of a file, wherever others of its readers are.

use std::fs::File;
use std::io;

/// Fills a buffer with the bytes of a file from `at` on.
///
/// # Errors
/// If the system refuses, or the file ends before.
#[cfg(unix)]
pub fn read_exact_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, at)
}

/// Fills a buffer with the bytes of a file from `at` on.
///
/// # Errors
/// If the system refuses, or the file ends before.
#[cfg(not(unix))]
pub fn read_exact_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    seek_and_read(file, buffer, at)
}

/// Where the system has no reads at a position: one reader of any file at a time, since handles share theirs.
#[cfg(any(not(unix), test))]
fn seek_and_read(mut file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    use std::sync::{Mutex, PoisonError};
    static ONE_READER: Mutex<()> = Mutex::new(());
    let _one = ONE_READER.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(buffer)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn both_ways_read_the_same_bytes_in_any_order_and_none_behind_the_end() {
        let bytes: Vec<u8> = (0..200).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&bytes).expect("written");
        for way in [read_exact_at, seek_and_read] {
            for (at, len) in [(150, 50), (0, 10), (7, 0), (3, 120)] {
                let mut found = vec![0; len];
                way(&file, &mut found, at as u64).expect("inside");
                assert_eq!(found, bytes[at..at + len]);
            }
            assert!(way(&file, &mut [0; 2], 199).is_err());
        }
    }
}
