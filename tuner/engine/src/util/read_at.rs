//! Reads at a position of a file, wherever others of its readers are.

use std::fs::File;
use std::io;

/// Reads into a buffer what a file has from `at` on, as much as one call of the system gives; gives its length.
///
/// # Errors
/// If the system refuses.
#[cfg(unix)]
pub fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, at)
}

/// Reads into a buffer what a file has from `at` on, as much as one call of the system gives; gives its length.
///
/// # Errors
/// If the system refuses.
#[cfg(not(unix))]
pub fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    seek_and_read(file, buffer, at)
}

/// Where the system has no reads at a position: one reader of any file at a time, since handles share theirs.
#[cfg(any(not(unix), test))]
fn seek_and_read(mut file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    use std::io::{Read, Seek, SeekFrom};
    use std::sync::{Mutex, PoisonError};
    static ONE_READER: Mutex<()> = Mutex::new(());
    let _one = ONE_READER.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(at))?;
    file.read(buffer)
}

/// Fills a buffer with the bytes of a file from `at` on.
///
/// # Errors
/// If the system refuses, or the file ends before.
pub fn read_exact_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    fill(buffer, at, |rest, at| read_at(file, rest, at))
}

/// Reads by a function until a buffer is full.
fn fill(
    mut buffer: &mut [u8],
    mut at: u64,
    read: impl Fn(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    while !buffer.is_empty() {
        match read(buffer, at) {
            Ok(0) => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "failed to fill whole buffer"));
            }
            Ok(length) => {
                buffer = &mut buffer[length..];
                at += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
        for way in [read_at, seek_and_read] {
            let exact = |buffer: &mut [u8], at| fill(buffer, at, |rest, at| way(&file, rest, at));
            for (at, len) in [(150, 50), (0, 10), (7, 0), (3, 120)] {
                let mut found = vec![0; len];
                exact(&mut found, at as u64).expect("inside");
                assert_eq!(found, bytes[at..at + len]);
            }
            assert!(exact(&mut [0; 2], 199).is_err());
        }
    }
}
