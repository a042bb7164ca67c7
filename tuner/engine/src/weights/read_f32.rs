//! Numbers of f32 that lie in a file one behind the other.

use std::fs::File;
use std::io;

use crate::util::read_at::read_exact_at;

/// Bytes that are read at once: as much as stays near while it is converted, so that memory is written once.
const PIECE: usize = 128 << 10;

/// Reads `count` numbers of f32, the lowest byte first, from byte `at` on.
///
/// # Errors
/// If the system refuses, or the file ends before.
pub(super) fn read_f32(file: &File, mut at: u64, count: usize) -> io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(count);
    let mut bytes = vec![0; PIECE.min(count * size_of::<f32>())];
    while values.len() < count {
        let left = (count - values.len()) * size_of::<f32>();
        let piece = &mut bytes[..PIECE.min(left)];
        read_exact_at(file, piece, at)?;
        values.extend(piece.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)));
        at += piece.len() as u64;
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn values_of_several_pieces_are_those_of_the_file_and_none_are_behind_its_end() {
        let values: Vec<f32> = (0..PIECE / 2 + 3).map(|at| at as f32).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[0xff; 5]).expect("written");
        values.iter().for_each(|value| file.write_all(&value.to_le_bytes()).expect("written"));
        for count in [0, 1, PIECE / 4, PIECE / 4 + 1, values.len()] {
            assert!(read_f32(&file, 5, count).expect("inside") == values[..count], "{count} values");
        }
        assert!(read_f32(&file, 5 + 4, values.len()).is_err());
    }
}
