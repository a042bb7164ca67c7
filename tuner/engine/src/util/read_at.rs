//! Reads at a position of a file, wherever others of its readers are.

use std::fs::File;
use std::io;
#[cfg(not(unix))]
use std::io::Read;

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
    return std::os::unix::fs::FileExt::read_exact_at(file, buffer, at);
    #[cfg(not(unix))]
    return from_position(file, at, |mut file| file.read_exact(buffer));
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

/// Reads `count` numbers of f32, the lowest byte first, from byte `at` on, as [`read_exact_at`].
pub fn read_f32_at(file: &File, at: u64, count: usize) -> io::Result<Vec<f32>> {
    let mut values = vec![0.0; count];
    read_exact_at(file, bytemuck::cast_slice_mut(&mut values), at)?;
    values.iter_mut().for_each(|value: &mut f32| *value = f32::from_bits(u32::from_le(value.to_bits())));
    Ok(values)
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
    fn values_are_those_of_the_file_and_none_are_behind_its_end() {
        let values: Vec<f32> = (0..70_000).map(|at| at as f32).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[0xff; 5]).expect("written");
        values.iter().for_each(|value| file.write_all(&value.to_le_bytes()).expect("written"));
        for count in [0, 1, 32_768, 32_769, values.len()] {
            assert!(read_f32_at(&file, 5, count).expect("inside") == values[..count], "{count} values");
        }
        assert!(read_f32_at(&file, 5 + 4, values.len()).is_err());
    }
}
