//! Packed weights in a file, so that a later start packs none.
//!
//! ```text
//! {"format": "packed-weights-1", "key": .., "buffers": [[[bytes, crc32], ..], ..]}     a line of
//! JSON the buffers of step 0, of step 1, ..
//! ```
//!
//! The key says what was packed how: which weights, by which build of the program, each step's
//! problem, kernel, tuning and formats. A file with another key is not used, and one whose values
//! have changed is not either; it can be removed at any time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use kernels::Buffer;
use serde::{Deserialize, Serialize};

use crate::network::{Calibration, Choice, Graph, Weight};
use crate::runtime::threads::Threads;
use crate::util::files::{InputError, write_with};
use crate::util::read_at::{Section, read_exact_at};
use crate::weights::Weights;

const FORMAT: &str = "packed-weights-1";

/// More than any header.
const MAX_HEADER: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum WeightCacheError {
    #[error("{file}: {source}")]
    Read { file: String, source: io::Error },
    /// A file of another kind, which must not be overwritten.
    #[error("{file}: found another kind of file, expected packed weights, or none yet")]
    Foreign { file: String },
    /// Of other weights, steps or another build.
    #[error("{file}: packed from other weights, for another plan, or by another build")]
    Other { file: String },
    #[error("{file}: damaged: {reason}")]
    Damaged { file: String, reason: String },
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    key: String,
    /// Of each step, of each of its buffers: bytes and CRC-32.
    buffers: Vec<Vec<(usize, u32)>>,
}

/// Bytes of a file that are hashed at once.
const PIECE: u64 = 8 << 20;

/// What tells packed weights from others: the content of all files, piece by piece, and what packs
/// it. Fails if the weights or the program can't be read.
pub fn key(
    weights: &Weights,
    graph: &Graph,
    choices: &[Choice],
    calibration: Option<&Calibration>,
    threads: &Threads,
) -> io::Result<String> {
    let program = std::env::current_exe()?.canonicalize()?;
    let there = program.metadata()?;
    let modified = there.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut key = format!("program {} {} {}\n", program.display(), there.len(), modified.as_nanos());
    key += &format!("weights {} {:08x?}\n", weights.description(), content(weights, threads)?);
    for (step, choice) in graph.steps.iter().zip(choices) {
        let norms = step.weights.iter().map(Weight::norms).sum::<usize>();
        key += &format!("{} {} {norms} {choice:?}\n", step.layers.join("+"), step.problem);
    }
    if let Some(calibration) = calibration {
        key += &format!("{:?}\n", calibration.ranges);
    }
    Ok(key)
}

/// What tells weights from others, in a few words: a hash of all files, which are read once.
pub fn fingerprint(weights: &Weights) -> io::Result<&str> {
    if let Some(known) = weights.fingerprint.get() {
        return Ok(known);
    }
    let hashes = pieces(weights).iter().map(hash).collect::<io::Result<Vec<u32>>>()?;
    let hash = crc32fast::hash(bytemuck::cast_slice(&hashes));
    Ok(weights.fingerprint.get_or_init(|| format!("crc32 {hash:08x}")))
}

/// Hashes of the content of all files of weights, piece by piece; none of synthetic ones.
pub fn content(weights: &Weights, threads: &Threads) -> io::Result<Vec<u32>> {
    threads.map(&pieces(weights), hash).into_iter().collect()
}

/// The files of weights, piece by piece: where each begins.
fn pieces(weights: &Weights) -> Vec<(&Section, u64)> {
    let pieces = |section| (0..Section::size(section)).step_by(PIECE as usize).map(move |at| (section, at));
    weights.sections().iter().flat_map(pieces).collect()
}

fn hash(&(section, at): &(&Section, u64)) -> io::Result<u32> {
    let mut bytes = vec![0; PIECE.min(section.size() - at) as usize];
    section.read_exact_at(&mut bytes, at)?;
    Ok(crc32fast::hash(&bytes))
}

#[derive(Debug)]
pub struct WeightCache {
    name: String,
    file: File,
    /// Of each step: where its buffers start, and of each its bytes and CRC-32.
    steps: Vec<(u64, Vec<(usize, u32)>)>,
}

impl WeightCache {
    /// Opens a file; none if there is no such file.
    pub fn open(path: &Path, key: &str) -> Result<Option<Self>, WeightCacheError> {
        let name = path.display().to_string();
        let read = |source| WeightCacheError::Read { file: name.clone(), source };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(read)?,
        };
        let mut line = Vec::new();
        BufReader::new((&file).take(MAX_HEADER)).read_until(b'\n', &mut line).map_err(read)?;
        let header: Option<Header> = serde_json::from_slice(&line).ok();
        let Some(header) = header.filter(|header| header.format == FORMAT) else {
            return Err(WeightCacheError::Foreign { file: name });
        };
        if header.key != key {
            return Err(WeightCacheError::Other { file: name });
        }
        let mut at = line.len() as u64;
        let step = |buffers: Vec<(usize, u32)>| {
            let start = at;
            at += buffers.iter().map(|(bytes, _)| *bytes as u64).sum::<u64>();
            (start, buffers)
        };
        let steps = header.buffers.into_iter().map(step).collect();
        Ok(Some(Self { name, file, steps }))
    }

    pub fn has(&self, step: usize) -> bool {
        self.steps.get(step).is_some_and(|(_, buffers)| !buffers.is_empty())
    }

    /// Fills the buffers of a step; fails if the file has others, or values that have changed.
    pub fn read(&self, step: usize, buffers: Vec<&mut Buffer>) -> Result<(), WeightCacheError> {
        let damaged = |reason| WeightCacheError::Damaged { file: self.name.clone(), reason };
        let (mut at, there) = match self.steps.get(step) {
            Some((at, there)) if there.len() == buffers.len() => (*at, there),
            _ => return Err(damaged(format!("step {step} has not {} buffers", buffers.len()))),
        };
        for (buffer, &(bytes, crc)) in buffers.into_iter().zip(there) {
            let values: &mut [u8] = bytemuck::cast_slice_mut(buffer.as_mut_slice());
            if values.len() != bytes {
                return Err(damaged(format!("step {step} has {bytes} bytes, expected {}", values.len())));
            }
            read_exact_at(&self.file, values, at)
                .map_err(|source| WeightCacheError::Read { file: self.name.clone(), source })?;
            if crc32fast::hash(values) != crc {
                return Err(damaged(format!("the values of step {step} have changed")));
            }
            at += bytes as u64;
        }
        Ok(())
    }
}

/// Writes the packed weights of all steps, whole or not at all.
pub fn write(path: &Path, key: String, steps: &[Vec<&Buffer>]) -> Result<(), InputError> {
    let of = |buffer: &&Buffer| {
        let bytes: &[u8] = bytemuck::cast_slice(buffer.as_slice());
        (bytes.len(), crc32fast::hash(bytes))
    };
    let buffers = steps.iter().map(|buffers| buffers.iter().map(of).collect());
    let header = Header { format: FORMAT.to_string(), key, buffers: buffers.collect() };
    write_with(path, |out| {
        serde_json::to_writer(&mut *out, &header)?;
        out.write_all(b"\n")?;
        steps.iter().flatten().try_for_each(|buffer| out.write_all(bytemuck::cast_slice(buffer.as_slice())))
    })
}
