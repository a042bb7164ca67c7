//! Files that are read whole. Each kind has a limit, so that a device without an end or a huge file
//! does not take the memory of the machine.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A kind of file, and the most that one may have.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Like `a plan`.
    pub of: &'static str,
    pub mib: u64,
}

/// All bytes of a file or a pipe.
///
/// # Errors
/// If it cannot be read, or has more bytes than the limit.
pub fn read(path: &Path, limit: Limit) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // A pipe or a device has no length.
    let length = file.metadata().map_or(0, |file| file.len());
    read_from(file, length, limit)
}

/// All bytes of a reader that is expected to have `length` of them.
pub fn read_from(reader: impl Read, length: u64, limit: Limit) -> io::Result<Vec<u8>> {
    let most = limit.mib << 20;
    if length > most {
        return Err(too_large(limit));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length as usize)?;
    reader.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large(limit)) } else { Ok(bytes) }
}

fn too_large(Limit { of, mib }: Limit) -> io::Error {
    let text = format!("found more than {mib} MiB, expected at most {mib} MiB of {of}");
    io::Error::new(io::ErrorKind::FileTooLarge, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_endless_readers_are_read_up_to_their_limit() {
        let limit = Limit { of: "a plan", mib: 1 };
        let expected = "found more than 1 MiB, expected at most 1 MiB of a plan";
        let error = read_from(io::repeat(0), 0, limit).expect_err("endless").to_string();
        assert_eq!(error, expected);
        let file = tempfile::NamedTempFile::new().expect("a file");
        for (length, is_read) in [(0, true), (1 << 20, true), ((1 << 20) + 1, false)] {
            file.as_file().set_len(length).expect("a length");
            match read(file.path(), limit) {
                Ok(bytes) => assert!(is_read && bytes.len() as u64 == length),
                Err(error) => assert!(!is_read && error.to_string() == expected, "{error}"),
            }
        }
        // What has grown since its length was asked for.
        assert_eq!(read_from(&b"grown"[..], 2, limit).expect("read"), b"grown");
    }
}
