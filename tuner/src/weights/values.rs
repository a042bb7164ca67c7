//! Values that lie in a file one behind the other.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that are read at once: as much as stays near while it is converted, so that memory is written once.
const PIECE: usize = 128 << 10;

/// Reads `count` numbers of f32, the lowest byte first, from byte `at` on.
///
/// # Errors
/// If the system refuses, or the file ends before.
pub(super) fn read(file: &File, mut at: u64, count: usize) -> io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(count);
    let mut bytes = vec![0; PIECE.min(count * size_of::<f32>())];
    while values.len() < count {
        let left = (count - values.len()) * size_of::<f32>();
        let piece = &mut bytes[..PIECE.min(left)];
        file.read_exact_at(piece, at)?;
        values.extend(piece.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)));
        at += piece.len() as u64;
    }
    Ok(values)
}
