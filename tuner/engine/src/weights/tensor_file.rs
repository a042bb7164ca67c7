//! Containers: files that hold tensors by name. A container knows no layers; see [`super::naming`] for what tensors are
//! called.

use std::fmt::Debug;
use std::fs::File;
use std::path::Path;

use crate::weights::error::WeightsError;

/// A file whose headers have been read, or what is wrong with them.
pub(super) type Opened = Result<Box<dyn TensorFile>, WeightsError>;

/// A format of files, as the table of containers has it.
pub(super) struct Container {
    /// What a message calls it, with the names of its files.
    pub title: &'static str,
    /// Whether a file is one, by its first [`MAGIC`] bytes, or as many as there are.
    pub recognises: fn(&[u8]) -> bool,
    /// Reads the headers of a file.
    pub open: fn(&Path, File) -> Opened,
}

/// Bytes by which a container is recognised.
pub(super) const MAGIC: u64 = 9;

/// An open file whose headers have been read. Its values are read one tensor at a time.
pub(super) trait TensorFile: Debug + Send + Sync {
    /// The file, for messages.
    fn file(&self) -> &str;

    /// The format's name, for messages.
    fn format(&self) -> &'static str;

    /// All tensors.
    fn list(&self) -> Vec<Listed>;

    /// A tensor by its name, as its header states it.
    fn find(&self, name: &str) -> Option<TensorInfo>;

    /// The values of a tensor of f32 that [`TensorFile::find`] gave.
    fn read_f32(&self, tensor: &TensorInfo) -> Result<Vec<f32>, ReadError>;
}

/// A tensor in the list of a file.
pub(super) struct Listed {
    /// Its name; groups and the tensor are separated by `/`, where the format has groups.
    pub name: String,
    /// The attribute `name` of the group that it is in, where it has one.
    pub group: Option<String>,
}

/// A tensor as the header states it.
#[derive(Debug)]
pub(super) struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// `None` is f32; otherwise the type's name.
    pub other_type: Option<String>,
}

/// Why values could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The operating system refused.
    Io(std::io::Error),
    /// The file breaks the rules of its format.
    Damaged(String),
}
