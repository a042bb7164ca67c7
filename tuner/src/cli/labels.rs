//! Names of classes.

use std::path::Path;

use engine::util::files::{InputError, file_name};

/// Reads one label a line; a line break after the last one is optional.
///
/// # Errors
/// If there are not `classes` lines, or the file is not UTF-8 text.
pub fn load_labels(path: &Path, classes: usize) -> Result<Vec<String>, InputError> {
    let file = file_name(path);
    let bytes = std::fs::read(path).map_err(|source| InputError::Read { file: file.clone(), source })?;
    let Ok(text) = String::from_utf8(bytes) else {
        let (found, expected) = ("bytes that are not UTF-8".to_owned(), "text, one label a line".to_owned());
        return Err(InputError::Format { file, found, expected });
    };
    let labels: Vec<_> = text.trim_start_matches('\u{feff}').lines().map(|l| l.trim().to_owned()).collect();
    if labels.len() != classes {
        return Err(InputError::Labels { file, found: labels.len(), expected: classes });
    }
    Ok(labels)
}
