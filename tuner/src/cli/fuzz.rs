//! Parsers that are private, for the tests of all parsers (`tests/fuzz/README.md`): each reads, drops
//! what it has read, and runs nothing. They change without notice.

use std::ffi::OsString;
use std::path::Path;

use engine::InputError;

use crate::cli::{Failure, classes, program, shape_list as list, stdin};
use crate::log::{file, history};

/// Reads a log of measurements, and what it says about problems.
pub fn log(path: &Path) -> Result<(), Failure> {
    let (lines, _) = file::read(path)?;
    let nearest = history::nearest(&lines, |_| true);
    drop(history::Histories::of(lines, nearest, |_| true));
    Ok(())
}

/// Reads the names of so many classes.
pub fn labels(path: &Path, count: usize) -> Result<(), InputError> {
    classes::load_labels(path, count).map(drop)
}

/// Reads a list of convolutions.
pub fn shape_list(path: &Path) -> Result<(), Failure> {
    list::read(path, None).map(drop)
}

/// Reads the words of a command, the program's name left out.
pub fn command_line<T: Into<OsString> + Clone>(words: impl IntoIterator<Item = T>) -> Result<(), String> {
    let words = words.into_iter().map(Into::into);
    let read = program::check_words(std::iter::once(OsString::from("tuner")).chain(words));
    stdin::remove();
    read
}
