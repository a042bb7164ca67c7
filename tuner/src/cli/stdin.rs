//! Standard input as a file: what `-` stands for where a file to read is named.
//!
//! A command reads files in any order, some twice. So what standard input has is copied to a
//! temporary file before the command begins. In messages the file is called [`SHOWN`].

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::builder::{PathBufValueParser, TypedValueParser};
use tempfile::TempDir;

/// What stands for standard input, and for standard output where a file to write is named.
pub const DASH: &str = "-";

/// What messages and results call the file.
const SHOWN: &str = "standard input";

/// The folder of the copy, from when an option names standard input.
static FOLDER: OnceLock<TempDir> = OnceLock::new();

/// The name of the copy in its folder.
const NAME: &str = "stdin";

/// Reads the name of a file to read; only one can be standard input.
pub fn file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(named)
}

fn named(path: PathBuf) -> Result<PathBuf, String> {
    if path != Path::new(DASH) {
        return Ok(path);
    }
    let folder = tempfile::tempdir().map_err(|error| format!("no room for a copy of {SHOWN}: {error}"))?;
    let copy = folder.path().join(NAME);
    FOLDER.set(folder).map_err(|_| format!("{SHOWN} is read already, expected a file"))?;
    Ok(copy)
}

/// Copies standard input to where an option has been told that it is, if one has.
pub fn copy() -> io::Result<()> {
    let Some(folder) = FOLDER.get() else { return Ok(()) };
    io::copy(&mut io::stdin().lock(), &mut File::create(folder.path().join(NAME))?).map(drop)
}

/// Removes the copy.
pub fn remove() {
    if let Some(folder) = FOLDER.get() {
        let _ = std::fs::remove_dir_all(folder.path());
    }
}

/// Whether a file is standard input.
pub fn is_stdin(path: &Path) -> bool {
    FOLDER.get().is_some_and(|folder| path.parent() == Some(folder.path()))
}

/// A text in which the copy is called standard input.
pub fn shown(text: &str) -> String {
    match FOLDER.get() {
        Some(folder) => text.replace(&folder.path().join(NAME).display().to_string(), SHOWN),
        None => text.to_owned(),
    }
}
