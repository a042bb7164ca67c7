//! Files written whole or not at all, and what is wrong with files.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::util::temporary::Temporary;

/// Why a file could not be read or written, in one line: the file, what was found and expected.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("{file}: cannot read: {source}")]
    Read { file: String, source: io::Error },
    /// The operating system refused to write; what was there before is still there.
    #[error("{file}: cannot write: {source}")]
    Write { file: String, source: io::Error },
    #[error("{folder}: {source}")]
    Folder { folder: String, source: io::Error },
    /// Another format, or a damaged file.
    #[error("{file}: found {found}, expected {expected}")]
    Format { file: String, found: String, expected: String },
    /// A tensor of another type, as numpy writes types.
    #[error("{file}: {name}: found type {found}, expected {expected}")]
    Type { file: String, name: String, found: String, expected: &'static str },
    #[error("{file}: {name}: found shape {found:?}, expected {expected}")]
    Shape { file: String, name: String, found: Vec<usize>, expected: String },
    /// Infinity or not a number: the first such value of a tensor, and its coordinate.
    #[error("{file}: {name}: found {found} at {at:?}, expected finite numbers")]
    NotFinite { file: String, name: String, found: f64, at: Vec<usize> },
    /// Labels, one a line, for another number of classes.
    #[error("{file}: found {found} labels, expected one a line for {expected} classes{}", background(*.found, *.expected))]
    Labels { file: String, found: usize, expected: usize },
}

/// What one label more or less than classes may come from.
fn background(labels: usize, classes: usize) -> &'static str {
    if labels + 1 == classes {
        "; is class 0 the background, which needs a first line?"
    } else if labels == classes + 1 {
        "; is the first line a background, which these weights do not have?"
    } else {
        ""
    }
}

/// Replaces the file at `path` by one of this content, or leaves it as it was.
///
/// The content goes to a temporary file in the same folder, which then takes the name. A symbolic
/// link stays and its target is replaced; what is not a regular file, such as `/dev/stdout`, is
/// written to directly.
pub fn write_atomically(path: &Path, content: impl AsRef<[u8]>) -> Result<(), InputError> {
    write_with(path, |out| out.write_all(content.as_ref()))
}

/// Fails where [`write_atomically`] can be expected to fail, before anything is spent on what to
/// write: if the folder is not there or not writable, or a folder has the name.
pub fn check_writable(path: &Path) -> Result<(), InputError> {
    let target = target_of(path);
    let checked = match std::fs::metadata(&target) {
        Ok(there) if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(there) if !there.is_file() => Ok(()),
        _ => Temporary::create_in(folder_of(&target)).map(drop),
    };
    checked.map_err(|source| write_error(path, source))
}

/// The file that is written under a name: what a symbolic link leads to, even where nothing is there.
fn target_of(path: &Path) -> PathBuf {
    if let Ok(there) = std::fs::canonicalize(path) {
        return there;
    }
    // More links than a system follows.
    (0..64).fold(path.to_owned(), |path, _| match std::fs::read_link(&path) {
        Ok(target) => folder_of(&path).join(target),
        Err(_) => path,
    })
}

/// The absolute path of a file, which need not be there, without links in it.
pub fn resolved(path: &Path) -> PathBuf {
    let in_folder = || {
        let folder = std::fs::canonicalize(folder_of(path)).ok()?;
        Some(folder.join(path.file_name()?))
    };
    std::fs::canonicalize(path).ok().or_else(in_folder).unwrap_or_else(|| path.to_owned())
}

/// Eight digits that tell the absolute path of a file from others.
pub fn path_id(path: &Path) -> String {
    format!("{:08x}", crc32fast::hash(resolved(path).as_os_str().as_encoded_bytes()))
}

/// Eight digits that tell a text from others.
pub fn text_id(text: &str) -> String {
    format!("{:08x}", crc32fast::hash(text.as_bytes()))
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

/// As [`write_atomically`], what a closure writes.
pub fn write_with(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), InputError> {
    let mut file = AtomicFile::create(path)?;
    write(&mut file.out).map_err(|source| file.error(source))?;
    file.finish()
}

/// A file that is written piece by piece and takes its name at the end, see [`write_atomically`];
/// without an end, what was there stays.
pub struct AtomicFile {
    path: PathBuf,
    target: PathBuf,
    out: io::BufWriter<Out>,
}

enum Out {
    Temporary(Temporary),
    /// What is no regular file.
    Device(std::fs::File),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Temporary(file) => file.write(bytes),
            Self::Device(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Temporary(file) => file.flush(),
            Self::Device(file) => file.flush(),
        }
    }
}

impl AtomicFile {
    pub fn create(path: &Path) -> Result<Self, InputError> {
        let target = target_of(path);
        let out = Out::of(&target).map_err(|source| write_error(path, source))?;
        Ok(Self { path: path.to_owned(), target, out: io::BufWriter::new(out) })
    }

    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), InputError> {
        self.out.write_all(bytes).map_err(|source| self.error(source))
    }

    /// Puts the file in its place.
    pub fn finish(self) -> Result<(), InputError> {
        let Self { path, target, out } = self;
        let finish = || match out.into_inner()? {
            Out::Device(_) => Ok(()),
            Out::Temporary(file) => {
                file.file().sync_all()?;
                file.persist(&target)
            }
        };
        finish().map_err(|source| write_error(&path, source))
    }

    fn error(&self, source: io::Error) -> InputError {
        write_error(&self.path, source)
    }
}

impl Out {
    fn of(target: &Path) -> io::Result<Self> {
        if std::fs::metadata(target).is_ok_and(|there| !there.is_file()) {
            return Ok(Self::Device(std::fs::OpenOptions::new().write(true).open(target)?));
        }
        Ok(Self::Temporary(Temporary::create_in(folder_of(target))?))
    }
}

/// The name of a temporary file, which `tempfile` adds to errors, says nothing to a user.
fn write_error(path: &Path, source: io::Error) -> InputError {
    let text = source.to_string();
    let source = match text.split_once(" at path \"") {
        Some((reason, _)) => io::Error::new(source.kind(), reason),
        None => source,
    };
    InputError::Write { file: file_name(path), source }
}

/// Text from outside as part of a message: control characters, ends of lines and what changes the
/// direction of a text escaped, so that it stays one line that says what it is.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                line.extend(c.escape_default());
            }
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

/// The most characters of a message.
const MESSAGE: usize = 300;

/// The most characters of a value that a message quotes.
const QUOTED: usize = 90;

/// A whole message: [`one_line`] of at most `MESSAGE` characters.
pub fn message(text: &str) -> String {
    cut(&one_line(text), MESSAGE)
}

/// A value from outside as part of a message: [`one_line`] of at most `QUOTED` characters.
pub fn quoted(text: &str) -> String {
    cut(&one_line(text), QUOTED)
}

/// A text of at most `most` characters, with `…` for those in its middle.
pub fn cut(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let head = (most - 1) / 2;
    let tail = count - (most - 1 - head);
    text.chars().take(head).chain(['…']).chain(text.chars().skip(tail)).collect()
}

/// What the first bytes of a file of no known format say, as part of a message.
pub fn starts_like(bytes: &[u8]) -> String {
    match bytes {
        [] => "an empty file".to_owned(),
        bytes => format!("a file that starts with {bytes:02x?}"),
    }
}

/// A path as part of a message.
pub fn file_name(path: &Path) -> String {
    one_line(&path.to_string_lossy())
}

/// Coordinate of element `flat` of a tensor in C order.
pub fn coordinate(flat: usize, shape: &[usize]) -> Vec<usize> {
    let inner = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    (0..shape.len()).map(|axis| flat / inner(axis).max(1) % shape[axis].max(1)).collect()
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Creates a folder and all above it.
pub fn create_folder(folder: &Path) -> Result<(), InputError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| InputError::Folder { folder: folder.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.file");
        std::fs::write(&path, b"before").unwrap();
        let failing = |out: &mut dyn Write| {
            out.write_all(b"half")?;
            Err(io::Error::other("the disk\nis full"))
        };
        write_with(&path, failing).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = write_atomically(&folder.path().join("none/x.file"), b"").unwrap_err().to_string();
        assert!(error.contains("x.file: cannot write") && !error.contains('\n'), "{error}");
        assert!(!error.contains(crate::util::temporary::PREFIX), "{error}");
        write_atomically(folder.path(), b"").unwrap_err();
    }

    #[test]
    fn what_is_quoted_stays_one_line_and_short() {
        assert_eq!(
            one_line(" a\x1b[31m\n\u{7}b\u{202e}c\u{2028}é "),
            "a\\u{1b}[31m\\n\\u{7}b\\u{202e}c\\u{2028}é"
        );
        assert_eq!(quoted("winograd"), "winograd");
        for (text, most) in [(quoted(&"é".repeat(91)), QUOTED), (message(&"\n\u{7}".repeat(1000)), MESSAGE)]
        {
            assert_eq!(text.chars().count(), most);
            assert!(text.contains('…'), "{text}");
        }
        let text = message(&format!("a{}z", "b".repeat(300)));
        assert!(text.starts_with("abb") && text.ends_with("bbz"), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay_what_they_are() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.file");
        std::fs::write(&path, b"before").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("x.file", &link).unwrap();
        write_atomically(&link, b"after").unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"after");
        let dangling = folder.path().join("dangling");
        std::os::unix::fs::symlink("link to come", &dangling).unwrap();
        std::os::unix::fs::symlink("there", folder.path().join("link to come")).unwrap();
        write_atomically(&dangling, b"new").unwrap();
        assert!(std::fs::symlink_metadata(&dangling).unwrap().is_symlink());
        assert_eq!(std::fs::read(folder.path().join("there")).unwrap(), b"new");
        let plain = folder.path().join("plain");
        std::fs::write(&plain, b"").unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain), "the umask holds");
        write_atomically(Path::new("/dev/null"), b"gone").unwrap();
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
}
