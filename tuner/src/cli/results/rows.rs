//! Rows of results, and what a format of files does with them.

use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;

use crate::cli::Failure;

/// What a row says of an image.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub image: &'a str,
    /// The values of the image, or why there are none.
    pub values: Result<&'a [f32], &'a str>,
}

/// What the rows have.
#[derive(Clone, Debug)]
pub struct Columns {
    /// How many rows there will be.
    pub rows: usize,
    /// The axes of an image's values.
    pub shape: Vec<usize>,
    pub content: Content,
}

impl Columns {
    /// Values of a row that a text has.
    pub fn shown(&self) -> usize {
        match self.content {
            Content::Classes { top, .. } => top.min(self.size()),
            Content::All(_) => self.size(),
        }
    }

    /// Values of a row.
    pub fn size(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What values mean.
#[derive(Clone, Debug)]
pub enum Content {
    /// Outputs of classes, of which a text has the highest.
    Classes {
        /// Names of all classes; empty without names.
        labels: Vec<String>,
        top: usize,
        /// What an output is: `probability` or `logit`.
        unit: &'static str,
    },
    /// All of them, by this name.
    All(&'static str),
}

/// A file of rows.
pub trait Rows: Send {
    fn write(&mut self, row: &Row) -> io::Result<()>;

    /// Writes what is pending, and what makes a file of so few rows a whole one.
    fn finish(self: Box<Self>) -> io::Result<File>;
}

/// A file of rows, and how many it had before.
pub type Resumed = (Box<dyn Rows>, usize);

/// The names of images by their numbers.
pub type Names<'a> = dyn Fn(usize) -> String + 'a;

/// A format of files.
#[derive(Clone, Copy)]
pub struct Format {
    pub ending: &'static str,
    pub create: fn(File, &Columns) -> io::Result<Box<dyn Rows>>,
    /// Goes on behind the rows of a file that are those of the first images; of the last, half may be
    /// there. The path is that of the file. The error says what was found and expected.
    pub resume: fn(File, &Path, &Columns, &Names) -> Result<Resumed, Failure>,
}

/// Cuts a file behind its whole rows, and goes to its end.
pub fn cut(mut file: &File, length: u64) -> io::Result<()> {
    file.set_len(length)?;
    file.seek(io::SeekFrom::End(0)).map(drop)
}

/// That a file has another image in a row than those that are given now.
pub fn other_image(row: usize, found: &str, expected: &str) -> Failure {
    format!("row {}: found the image {found}, expected {expected}", row + 1).into()
}

/// That a file has other values in a row than a run writes.
pub fn other_values(row: usize, key: &str, columns: &Columns) -> Failure {
    format!("row {}: found other values, expected {} of `{key}`", row + 1, columns.shown()).into()
}

/// That a file has more rows than there are images.
pub fn too_many(images: usize) -> Failure {
    format!("found more rows than images, expected at most {images}").into()
}
