//! Statistics as numpy's `.npz` archives: a zip archive of `.npy` arrays, stored or deflated.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use engine::InputError;
use engine::util::bounded::{Limit, read_from};
use engine::util::files::{coordinate, file_name, one_line, starts_like, write_with};
use flate2::bufread::DeflateDecoder;
use rawzip::{CompressionMethod, ZipArchive, ZipArchiveWriter, ZipSliceArchive, ZipSliceEntry};

use crate::fid::normal::Normal;
use crate::npy::{self, F32, F64, I64};

/// Members: mean, covariance, and how many images they are of, which other programs pass over.
const MEAN: &str = "mu";
const COVARIANCE: &str = "sigma";
const COUNT: &str = "count";

/// The most features of an image that a file may have: a covariance of half a gigabyte.
pub const MAX_DIMS: usize = 8192;

/// The largest file, and the largest member of one.
const MOST: Limit =
    Limit { of: "statistics", mib: ((MAX_DIMS * MAX_DIMS * size_of::<f64>()) >> 20) as u64 + 1 };

/// How far a covariance may be from symmetric, in parts of the standard deviations.
const ASYMMETRY: f64 = 1e-6;

const EXPECTED: &str = "an .npz archive with mu and sigma";

/// Writes an archive whose members are stored as they are.
pub(super) fn write(path: &Path, normal: &Normal) -> Result<(), InputError> {
    let dims = normal.dims();
    let floats = |values: &[f64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let mut arrays = vec![
        (MEAN, [npy::header(F64, &[dims]), floats(&normal.mean)].concat()),
        (COVARIANCE, [npy::header(F64, &[dims, dims]), floats(&normal.covariance)].concat()),
    ];
    let count = |count: u64| (COUNT, [npy::header(I64, &[]), count.to_le_bytes().to_vec()].concat());
    arrays.extend(normal.count.map(count));
    write_with(path, |out| archive_of(&arrays, out).map_err(io::Error::other))
}

fn archive_of(arrays: &[(&str, Vec<u8>)], out: &mut dyn Write) -> Result<(), rawzip::Error> {
    let mut archive = ZipArchiveWriter::new(out);
    for (name, bytes) in arrays {
        let (mut entry, config) = archive.new_file(format!("{name}.npy")).start()?;
        let mut writer = config.wrap(&mut entry);
        writer.write_all(bytes)?;
        let (_, end) = writer.finish()?;
        entry.finish(end)?;
    }
    archive.finish().map(drop)
}

/// Reads an archive, and checks that it has a mean and a covariance.
pub(super) fn read(path: &Path) -> Result<Normal, InputError> {
    let file = file_name(path);
    let failed = |source| InputError::Read { file: file.clone(), source };
    let mut start = Vec::new();
    let reader = File::open(path).map_err(failed)?;
    (&reader).take(8).read_to_end(&mut start).map_err(failed)?;
    if !start.starts_with(b"PK") {
        return Err(format_error(&file, &starts_like(&start)));
    }
    let length = reader.metadata().map_or(0, |file| file.len());
    let bytes = read_from((&start[..]).chain(reader), length, MOST).map_err(failed)?;
    let damaged = |error: rawzip::Error| format_error(&file, &format!("a damaged archive: {error}"));
    let zip = ZipArchive::from_slice(&bytes[..]).map_err(damaged)?;
    let archive = Archive { members: members(&zip).map_err(damaged)?, file: file.clone() };
    let mean = archive.array(MEAN, &[F32, F64])?;
    let dims = match mean.shape[..] {
        [dims @ 1..=MAX_DIMS] => dims,
        _ => return Err(archive.shape(MEAN, mean.shape, format!("[features], 1 to {MAX_DIMS} of them"))),
    };
    let covariance = archive.array(COVARIANCE, &[F32, F64])?;
    if covariance.shape != [dims, dims] {
        return Err(archive.shape(COVARIANCE, covariance.shape, format!("{:?}", [dims, dims])));
    }
    let count = match archive.members.contains_key(COUNT) {
        true => Some(archive.count()?),
        false => None,
    };
    let normal = Normal { mean: mean.values, covariance: covariance.values, count };
    match not_a_covariance(&normal) {
        Some(found) => Err(archive.format(&found)),
        None => Ok(normal),
    }
}

fn format_error(file: &str, found: &str) -> InputError {
    InputError::Format { file: file.to_owned(), found: one_line(found), expected: EXPECTED.to_owned() }
}

/// What a symmetric matrix of variances and covariances can't have.
fn not_a_covariance(normal: &Normal) -> Option<String> {
    let (dims, variances): (usize, Vec<f64>) = (normal.dims(), normal.variances().collect());
    if let Some(at) = variances.iter().position(|variance| *variance < 0.0) {
        return Some(format!("a variance of {} in sigma at [{at}, {at}]", variances[at]));
    }
    let at = |row: usize, column: usize| normal.covariance[row * dims + column];
    for (row, column) in (0..dims).flat_map(|row| (0..row).map(move |column| (row, column))) {
        let scale = (variances[row] * variances[column]).sqrt();
        if (at(row, column) - at(column, row)).abs() > ASYMMETRY * scale {
            return Some(format!("another value in sigma at [{row}, {column}] than at [{column}, {row}]"));
        }
    }
    None
}

/// Members by name, without `.npy`.
type Members<'a> = BTreeMap<String, Member<'a>>;

/// A member as the archive has it.
struct Member<'a> {
    entry: ZipSliceEntry<'a>,
    compression: CompressionMethod,
}

fn members<'a>(zip: &'a ZipSliceArchive<&[u8]>) -> Result<Members<'a>, rawzip::Error> {
    let (mut entries, mut members) = (zip.entries(), Members::new());
    while let Some(header) = entries.next_entry()? {
        let name = String::from_utf8_lossy(header.file_path().as_ref()).into_owned();
        let Some(name) = name.strip_suffix(".npy") else { continue };
        let entry = zip.get_entry(header.wayfinder())?;
        members.insert(name.to_owned(), Member { entry, compression: header.compression_method() });
    }
    Ok(members)
}

struct Archive<'a> {
    file: String,
    members: Members<'a>,
}

/// An array in C order, or symmetric.
struct Array {
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Archive<'_> {
    fn format(&self, found: &str) -> InputError {
        format_error(&self.file, found)
    }

    fn shape(&self, name: &str, found: Vec<usize>, expected: String) -> InputError {
        InputError::Shape { file: self.file.clone(), name: name.to_owned(), found, expected }
    }

    /// The header and the bytes of an array of one of some types, of which there may be so many as a
    /// covariance has.
    fn bytes(&self, name: &str, types: &[&str]) -> Result<(npy::Header, Vec<u8>), InputError> {
        let Some(member) = self.members.get(name) else { return Err(self.format(&format!("no {name}"))) };
        let data = member.entry.data();
        let values: Box<dyn Read> = match member.compression {
            CompressionMethod::STORE => Box::new(data),
            CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(data)),
            other => return Err(self.format(&format!("{name} compressed by {other:?}"))),
        };
        let mut reader = member.entry.verifying_reader(values);
        let damaged = |error: io::Error| self.format(&format!("{name}, which is damaged: {error}"));
        let header = npy::read_header(&mut reader).map_err(damaged)?;
        let header = header.map_err(|found| self.format(&format!("{name} as {found}")))?;
        let found = header.descriptor();
        if !types.contains(&&found[..]) {
            let expected = if types == [I64] { "<i8" } else { "<f8 or <f4" };
            return Err(InputError::Type { file: self.file.clone(), name: name.to_owned(), found, expected });
        }
        let size = if found == F32 { 4 } else { 8 };
        let expected = header.shape.iter().try_fold(size, |bytes: usize, extent| bytes.checked_mul(*extent));
        // A byte more tells whether one is left over; what it inflates to is read no further.
        let most = expected.map_or(0, |bytes| bytes as u64).min(MOST.mib << 20);
        let mut bytes = Vec::new();
        reader.take(most + 1).read_to_end(&mut bytes).map_err(damaged)?;
        if expected != Some(bytes.len()) {
            let more = if bytes.len() as u64 > most { "more than " } else { "" };
            let found = bytes.len().min(most as usize);
            return Err(self.format(&format!("{name} of {:?} with {more}{found} bytes", header.shape)));
        }
        Ok((header, bytes))
    }

    fn array(&self, name: &str, types: &[&str]) -> Result<Array, InputError> {
        let (header, bytes) = self.bytes(name, types)?;
        let values: Vec<f64> = match header.descriptor() == F32 {
            true => bytes.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
            false => bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        };
        let shape = header.shape;
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => {
                let (file, name, found) = (self.file.clone(), name.to_owned(), values[at]);
                Err(InputError::NotFinite { file, name, found, at: coordinate(at, &shape) })
            }
            None => Ok(Array { shape, values }),
        }
    }

    /// How many images, at least 2.
    fn count(&self) -> Result<u64, InputError> {
        let (header, bytes) = self.bytes(COUNT, &[I64])?;
        match (bytes.as_chunks().0, &header.shape[..]) {
            ([bytes], []) if i64::from_le_bytes(*bytes) >= 2 => Ok(i64::from_le_bytes(*bytes) as u64),
            ([bytes], []) => Err(self.format(&format!("a count of {}", i64::from_le_bytes(*bytes)))),
            _ => Err(self.shape(COUNT, header.shape, "[], one number".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_read_no_further_than_its_shape_states() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let long = [npy::header(F64, &[2]), vec![0; 1 << 20]].concat();
        archive_of(&[(MEAN, long)], &mut file.as_file()).expect("written");
        let error = read(file.path()).map(drop).expect_err("more values than the shape has").to_string();
        assert!(error.contains("found mu of [2] with more than 16 bytes"), "{error}");
    }
}
