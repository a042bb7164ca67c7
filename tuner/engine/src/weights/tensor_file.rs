//! Containers: files that hold tensors by name. Which layer has which is up to [`super::naming`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};
use std::io;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::Value;

use crate::util::read_at::Section;

/// A format of files, as the table of containers has it.
#[derive(Debug)]
pub(super) struct Container {
    pub name: &'static str,
    /// The name with those of its files, for messages.
    pub title: &'static str,
    /// Whether a file is one, by its first [`MAGIC`] bytes, or as many as there are.
    pub recognises: fn(&[u8]) -> bool,
    /// Reads the headers of a file at a path, and gives what they state of its tensors.
    pub open: fn(Section, &Path) -> Result<Opened, ReadError>,
}

/// A file whose headers have been read.
#[derive(Debug)]
pub(super) struct Opened {
    pub tensors: Tensors,
    pub file: Box<dyn TensorFile>,
    /// What Keras saves of a model next to its weights: `{"class_name": .., "config": ..}`.
    pub model_config: Option<Value>,
    /// Other files that have some of the tensors, and their paths.
    pub others: Vec<(PathBuf, Section)>,
}

/// Bytes by which a container is recognised.
pub(super) const MAGIC: u64 = 16;

/// An open file whose headers have been read. Its values are read one tensor at a time.
pub(super) trait TensorFile: Debug + Send + Sync {
    /// The values of a tensor that the headers state, as f32.
    fn read_f32(&self, name: &str, tensor: &TensorInfo) -> Result<Vec<f32>, ReadError>;
}

/// Tensors by name. Groups and the tensor are separated by `/`, where the format has groups.
pub(super) type Tensors = BTreeMap<String, TensorInfo>;

/// A tensor as the header states it.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    /// The group that it is in, where the tensor's name does not say it: in HDF5 the attribute `name`
    /// of the group, in PyTorch's files the keys of the dictionary.
    pub group: Option<String>,
    pub shape: Vec<usize>,
    pub elements: Elements,
}

impl TensorInfo {
    /// How many values it has.
    pub fn count(&self) -> Result<usize, ReadError> {
        let count = self.shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
        count.ok_or_else(|| ReadError::damaged(format!("found shape {:?}", self.shape)))
    }
}

/// The type of a tensor's elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Elements {
    F32,
    F16,
    Bf16,
    F64,
    /// Of no use as a weight.
    Other(Cow<'static, str>),
}

impl Display for Elements {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
            Self::Other(name) => name,
        })
    }
}

impl Elements {
    /// `count` values that lie in one piece from byte `at` on, the lowest byte first, as f32. What
    /// f32 can't hold is infinite.
    pub fn read(&self, section: &Section, at: u64, count: usize) -> Result<Vec<f32>, ReadError> {
        fn widened<const SIZE: usize>(
            section: &Section,
            at: u64,
            count: usize,
            value: fn([u8; SIZE]) -> f32,
        ) -> io::Result<Vec<f32>> {
            let mut bytes = vec![0; count.saturating_mul(SIZE)];
            section.read_exact_at(&mut bytes, at)?;
            Ok(bytes.as_chunks().0.iter().map(|bytes| value(*bytes)).collect())
        }
        let size = match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Other(name) => return Err(ReadError::damaged(format!("values of type {name}"))),
        };
        // Memory is asked for only where the file can fill it.
        let end = (count as u64).checked_mul(size).and_then(|bytes| bytes.checked_add(at));
        if end.is_none_or(|end| end > section.size()) {
            return Err(ReadError::damaged("its values lie outside the file"));
        }
        Ok(match self {
            Self::F16 => widened(section, at, count, |bytes| f16::from_le_bytes(bytes).to_f32())?,
            Self::Bf16 => widened(section, at, count, |bytes| bf16::from_le_bytes(bytes).to_f32())?,
            Self::F64 => widened(section, at, count, |bytes| f64::from_le_bytes(bytes) as f32)?,
            _ => section.read_f32_at(at, count)?,
        })
    }
}

/// Why a file could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Io(io::Error),
    /// The file breaks the rules of its format.
    Damaged(String),
    /// It keeps to them, in a way that this program does not read.
    Unsupported(String),
    /// It keeps to them, but holds something that is not read, or lacks what should be in it.
    Content {
        found: String,
        expected: String,
    },
}

impl ReadError {
    pub fn damaged(reason: impl Display) -> Self {
        Self::Damaged(reason.to_string())
    }

    /// The error with what a message says first of where it is.
    pub fn at(self, place: impl Display) -> Self {
        match self {
            Self::Damaged(reason) => Self::Damaged(format!("{place}: {reason}")),
            Self::Unsupported(reason) => Self::Unsupported(format!("{place}: {reason}")),
            Self::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Damaged(format!("{place}: {source}"))
            }
            error => error,
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}
