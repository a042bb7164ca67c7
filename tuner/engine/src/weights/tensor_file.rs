//! Containers: files that hold tensors by name. Which layer has which is up to [`super::naming`].

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::fs::File;
use std::io;

/// A format of files, as the table of containers has it.
#[derive(Debug)]
pub(super) struct Container {
    pub name: &'static str,
    /// The name with those of its files, for messages.
    pub title: &'static str,
    /// Whether a file is one, by its first [`MAGIC`] bytes, or as many as there are.
    pub recognises: fn(&[u8]) -> bool,
    /// Reads the headers of a file, and gives what they state of its tensors.
    pub open: fn(File) -> Opened,
}

pub(super) type Opened = Result<(Tensors, Box<dyn TensorFile>), ReadError>;

/// Bytes by which a container is recognised.
pub(super) const MAGIC: u64 = 9;

/// An open file whose headers have been read. Its values are read one tensor at a time.
pub(super) trait TensorFile: Debug + Send + Sync {
    /// The values of a tensor of f32 that the headers state.
    fn read_f32(&self, name: &str, tensor: &TensorInfo) -> Result<Vec<f32>, ReadError>;
}

/// Tensors by name. Groups and the tensor are separated by `/`, where the format has groups.
pub(super) type Tensors = BTreeMap<String, TensorInfo>;

/// A tensor as the header states it.
#[derive(Debug)]
pub(super) struct TensorInfo {
    /// The attribute `name` of the group that it is in, where it has one.
    pub group: Option<String>,
    pub shape: Vec<usize>,
    /// `None` is f32; otherwise the type's name.
    pub other_type: Option<String>,
}

/// Why a file could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Io(io::Error),
    /// The file breaks the rules of its format.
    Damaged(String),
}

impl ReadError {
    pub fn damaged(reason: impl Display) -> Self {
        Self::Damaged(reason.to_string())
    }
}

impl From<io::Error> for ReadError {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}
