//! The header of numpy's `.npy` format, versions 1 to 3: what precedes the values of an array.
//!
//! Source: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use std::io::{self, Read};

use engine::util::files::{one_line, starts_like};
use serde::Deserialize;
use serde_json::Value;

/// numpy's types: little-endian float32, float64 and int64.
pub const F32: &str = "<f4";
pub const F64: &str = "<f8";
pub const I64: &str = "<i8";

/// The longest header accepted; numpy's own are 118 bytes.
const MAX_HEADER: usize = 4096;

/// A header, which is a literal of Python.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    descr: Value,
    /// Whether the first axis is the one that changes fastest.
    #[serde(rename = "fortran_order")]
    pub is_fortran: bool,
    /// The extents of all axes.
    pub shape: Vec<usize>,
}

impl Header {
    /// numpy's type, such as `<f4`; that of a record as numpy writes it.
    pub fn descriptor(&self) -> String {
        one_line(&self.descr.as_str().map_or_else(|| self.descr.to_string(), str::to_string))
    }
}

/// What precedes the values of an array in C order, in version 1 of the format: magic, version,
/// length, and a text that ends at a multiple of 64 bytes.
pub fn header(descriptor: &str, shape: &[usize]) -> Vec<u8> {
    let extents: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
    let text = format!("{{'descr': '{descriptor}', 'fortran_order': False, 'shape': ({extents}), }}");
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let padded = format!("{text:<width$}\n", width = length - 1);
    [b"\x93NUMPY\x01\x00", &(length as u16).to_le_bytes()[..], padded.as_bytes()].concat()
}

/// Reads a header, or says what was found instead of one. Its length is looked at first.
pub fn read_header(mut reader: impl Read) -> io::Result<Result<Header, String>> {
    let mut header = Vec::new();
    let mut read =
        |count: usize, header: &mut Vec<u8>| reader.by_ref().take(count as u64).read_to_end(header);
    read(8, &mut header)?;
    if header.len() < 8 || !header.starts_with(b"\x93NUMPY") {
        return Ok(Err(starts_like(&header)));
    }
    let prefix = if header[6] == 1 { 10 } else { 12 };
    read(prefix - 8, &mut header)?;
    let length = header[8..].iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > MAX_HEADER {
        return Ok(Err(format!("a header of {length} bytes")));
    }
    read(length, &mut header)?;
    let malformed = "a header that does not state descr, fortran_order and shape".to_owned();
    Ok(header.get(prefix..).and_then(parse).ok_or(malformed))
}

/// Reads the literal as JSON, which it is but for quotes, tuples, `True` and trailing commas.
fn parse(text: &[u8]) -> Option<Header> {
    let text = std::str::from_utf8(text).ok()?.replace('\'', "\"").replace('(', "[").replace(')', "]");
    let text = text.replace("True", "true").replace("False", "false").replace([' ', '\n'], "");
    serde_json::from_str(&text.replace(",]", "]").replace(",}", "}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_is_written() {
        for shape in [&[][..], &[3], &[2, 4, 5]] {
            let bytes = [&header(F64, shape)[..], b"values"].concat();
            assert_eq!((bytes.len() - 6) % 64, 0);
            let mut reader = &bytes[..];
            let read = read_header(&mut reader).expect("bytes").expect("a header");
            assert_eq!((read.descriptor(), read.is_fortran, &read.shape[..]), (F64.into(), false, shape));
            assert_eq!(reader, b"values");
        }
        let found = read_header(&b"\x93NUMPY\x01\x00\xff\xff"[..]).expect("bytes").err();
        assert_eq!(found.as_deref(), Some("a header of 65535 bytes"));
    }
}
