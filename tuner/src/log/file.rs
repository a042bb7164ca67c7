//! Whole lines into a file that others write too, and out of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use engine::util::bounded::{self, Limit};
use engine::util::temporary::{in_one_step, is_at};

use crate::log::schema::{Line, SCHEMA};

/// Why a log is not used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{file}: {source}")]
    Io { file: String, source: io::Error },
    /// A line, counted from 1, says that it is of another version.
    #[error("{file}: line {line}: schema is {found}, expected \"{SCHEMA}\"")]
    Schema { file: String, line: usize, found: String },
    /// No line could be read.
    #[error("{file}: found no line of a log of measurements, expected {FILE_KIND}")]
    Foreign { file: String },
}

const FILE_KIND: &str = "JSON lines that `tuner tune` appended";

/// A line as the log has it.
pub fn text_of(line: &Line) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string(line)? + "\n")
}

/// Appends whole lines, all or none: under a lock, and after ending what another writer may have left
/// torn.
pub fn append(path: &Path, lines: &str) -> Result<(), LogError> {
    append_to(path, lines, lock)
}

fn append_to(path: &Path, lines: &str, lock: impl FnOnce(&Path) -> io::Result<File>) -> Result<(), LogError> {
    let write = || {
        let mut file = lock(path)?;
        let end = if ends_torn(&mut file)? { "\n" } else { "" };
        let length = file.metadata()?.len();
        in_one_step(|| file.write_all([end, lines].concat().as_bytes()))
            // Of lines that do not fit on a disk, none is there when they are tried again.
            .inspect_err(|_| drop(file.set_len(length)))
    };
    write().map_err(|source| LogError::Io { file: path.display().to_string(), source })
}

/// The file, locked until it is closed. Another process may have replaced it in the meantime. On a
/// file system without locks it is not locked: on one machine a line that is appended in one piece
/// still is whole.
pub fn lock(path: &Path) -> io::Result<File> {
    lock_by(path, File::lock)
}

fn lock_by(path: &Path, lock: impl Fn(&File) -> io::Result<()>) -> io::Result<File> {
    loop {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        match lock(&file) {
            Err(error) if !has_no_locks(&error) => return Err(error),
            _ => {}
        }
        if is_at(&file, path)? {
            return Ok(file);
        }
    }
}

/// ENOLCK, which has no kind of its own.
const NO_LOCKS: i32 = if cfg!(target_os = "linux") { 37 } else { 77 };

/// Whether locking failed because the file system has no locks, as some of a network have not.
fn has_no_locks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || (cfg!(unix) && error.raw_os_error() == Some(NO_LOCKS))
}

fn ends_torn(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// More than years of measuring leave.
const MOST: Limit = Limit { of: "a log", mib: 256 };

/// All whole lines of a log, and how many others there are.
/// An error if none of its lines is one of a log, or one is of another version.
pub fn read(path: &Path) -> Result<(Vec<Line>, usize), LogError> {
    let file = path.display().to_string();
    let bytes = bounded::read(path, MOST).map_err(|source| LogError::Io { file: file.clone(), source })?;
    let (mut lines, mut torn) = (Vec::new(), 0);
    let parts = bytes.split(|&byte| byte == b'\n').enumerate().filter(|(_, part)| !part.is_empty());
    for (index, part) in parts {
        match serde_json::from_slice(part) {
            Ok(Line::Run(run)) if run.schema != SCHEMA => {
                return Err(LogError::Schema { file, line: index + 1, found: format!("{:?}", run.schema) });
            }
            Ok(line) => lines.push(line),
            Err(_) => torn += 1,
        }
    }
    if lines.is_empty() && torn > 0 {
        return Err(LogError::Foreign { file });
    }
    Ok((lines, torn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::schema::Time;

    fn append(path: &Path, line: &Line) -> Result<(), LogError> {
        super::append(path, &text_of(line).expect("a text"))
    }

    fn append_to(
        path: &Path,
        line: &Line,
        lock: impl FnOnce(&Path) -> io::Result<File>,
    ) -> Result<(), LogError> {
        super::append_to(path, &text_of(line).expect("a text"), lock)
    }

    fn line(run: usize, round: usize) -> Line {
        let times = (0..50).map(|number| Time(number, 1000 + number as u64, 0)).collect();
        let (run, problem) = (run.to_string(), "p".to_string());
        Line::Round { run, problem, round, times, core_to_core_ns: Some(21.5) }
    }

    #[test]
    fn lines_of_several_writers_are_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        std::thread::scope(|scope| {
            for run in 0..4 {
                let path = &path;
                scope.spawn(move || (0..100).for_each(|i| append(path, &line(run, i)).expect("a line")));
            }
        });
        let (lines, torn) = read(&path).expect("a log");
        assert_eq!((lines.len(), torn), (400, 0));
        for run in 0..4 {
            let own =
                lines.iter().filter(|l| matches!(l, Line::Round { run: r, .. } if *r == run.to_string()));
            let expected: Vec<Line> = (0..100).map(|round| line(run, round)).collect();
            assert!(own.eq(&expected));
        }
    }

    #[test]
    fn lines_are_kept_where_a_file_system_has_no_locks() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let without =
            |error: i32| move |path: &Path| lock_by(path, |_| Err(io::Error::from_raw_os_error(error)));
        #[cfg(target_os = "linux")]
        for (round, error) in [NO_LOCKS, 95, 38].into_iter().enumerate() {
            append_to(&path, &line(0, round), without(error)).expect("a line");
            assert_eq!(read(&path).expect("a log").0.last(), Some(&line(0, round)), "{error}");
        }
        let unsupported = |path: &Path| lock_by(path, |_| Err(io::ErrorKind::Unsupported.into()));
        append_to(&path, &line(1, 0), unsupported).expect("a line");
        // Another error is one.
        assert!(append_to(&path, &line(1, 1), without(5)).is_err());
        assert_eq!(read(&path).expect("a log").0.last(), Some(&line(1, 0)));
    }

    #[test]
    fn a_torn_line_costs_itself_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        (0..3).for_each(|round| append(&path, &line(0, round)).expect("a line"));
        let whole = std::fs::read(&path).expect("a file");
        for cut in [1, 2, 30, whole.len() / 3 - 1] {
            std::fs::write(&path, &whole[..whole.len() - cut]).expect("a file");
            append(&path, &line(1, 9)).expect("a line");
            let (lines, torn) = read(&path).expect("a log");
            // Without its end alone, a line still is whole.
            let left = if cut == 1 { 3 } else { 2 };
            assert_eq!((lines.len(), torn), (left + 1, 3 - left), "{cut}");
            assert_eq!(lines.last(), Some(&line(1, 9)));
        }
        std::fs::write(&path, "no log").expect("a file");
        assert!(matches!(read(&path), Err(LogError::Foreign { .. })));
    }
}
