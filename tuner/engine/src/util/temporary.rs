//! Files under a temporary name, until they are whole.
//!
//! A process holds a lock on each of its temporary files while it writes them. One without a lock was
//! left by a process that was killed, and the next that writes to the folder removes it. A lock says
//! so on every machine that shares the folder, and ends with its process; a process number in the
//! name would be another machine's, or by now another program's. Where a file system has no locks,
//! nothing is removed.

use std::fs::File;
use std::io::{self, Write};
use std::mem::forget;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::{Builder, NamedTempFile};

/// How the names of temporary files start.
pub const PREFIX: &str = ".tuner-";

/// Characters behind [`PREFIX`].
const RANDOM: usize = 6;

/// How often another name is tried where a file is removed before it is locked.
const ATTEMPTS: usize = 8;

/// The temporary files of this process.
static OPEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn open_files() -> MutexGuard<'static, Vec<PathBuf>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file under a temporary name; without [`Self::persist`] it is removed.
pub struct Temporary(NamedTempFile);

impl Temporary {
    /// Creates a file in a folder, and removes what processes that were killed have left there.
    pub fn create_in(folder: &Path) -> io::Result<Self> {
        remove_stale(folder);
        let mut left = ATTEMPTS;
        loop {
            let mut open = open_files();
            let mut builder = Builder::new();
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                builder.permissions(std::fs::Permissions::from_mode(0o666));
            }
            let file = builder.prefix(PREFIX).rand_bytes(RANDOM).tempfile_in(folder)?;
            // Another process may have taken it for one that was left, before it was locked.
            let is_lost = matches!(file.as_file().try_lock(), Err(std::fs::TryLockError::WouldBlock))
                || !is_at(file.as_file(), file.path())?;
            left -= 1;
            if !is_lost || left == 0 {
                open.push(file.path().to_owned());
                return Ok(Self(file));
            }
        }
    }

    pub fn file(&self) -> &File {
        self.0.as_file()
    }

    /// Gives the file its name, in place of what had it.
    pub fn persist(mut self, target: &Path) -> io::Result<()> {
        let _one_step = open_files();
        let renamed = std::fs::rename(self.0.path(), target);
        self.0.disable_cleanup(renamed.is_ok());
        renamed
    }
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let path = self.0.path();
        open_files().retain(|open| open != path);
    }
}

/// Whether a file is the one that has a name.
#[cfg(unix)]
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let own = file.metadata()?;
    Ok(std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())))
}

/// Not known here: whether something has the name.
#[cfg(not(unix))]
pub fn is_at(_: &File, path: &Path) -> io::Result<bool> {
    Ok(path.exists())
}

/// Removes the temporary files in a folder that no process writes.
fn remove_stale(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_temporary(&entry.file_name().to_string_lossy())) {
        // What is no regular file is none of these, and may block who opens it.
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = File::options().read(true).write(true).open(&path) else { continue };
        if file.try_lock().is_ok() && is_at(&file, &path).unwrap_or(false) {
            let _ = std::fs::remove_file(&path);
        }
    }
}

fn is_temporary(name: &str) -> bool {
    let random = name.strip_prefix(PREFIX);
    random.is_some_and(|random| random.len() == RANDOM && random.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Does something during which [`abandon`] waits, such as writing a line in one piece.
pub fn in_one_step<R>(step: impl FnOnce() -> R) -> R {
    let _one_step = open_files();
    step()
}

/// Removes the temporary files of this process, which is to end at once: from now on no other is
/// created, and none takes its name.
pub fn abandon() {
    let open = open_files();
    open.iter().for_each(|path| drop(std::fs::remove_file(path)));
    forget(open);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_no_process_writes_is_removed_and_what_one_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let live = Temporary::create_in(folder.path()).unwrap();
        let live_name = live.0.path().file_name().unwrap().to_str().unwrap().to_owned();
        for name in [".tuner-Ab12Cd", ".tuner-notes", ".tuner-1234567", "x.tuner-Ab12Cd"] {
            std::fs::write(at(name), b"left").unwrap();
        }
        std::fs::create_dir(at(".tuner-folder")).unwrap();
        Temporary::create_in(folder.path()).unwrap().persist(&at("y")).unwrap();
        let mut expected =
            [&live_name, ".tuner-1234567", ".tuner-folder", ".tuner-notes", "x.tuner-Ab12Cd", "y"];
        expected.sort();
        assert_eq!(names(folder.path()), expected);
        live.persist(&at("y")).unwrap();
        assert!(!names(folder.path()).contains(&live_name));
    }

    #[test]
    fn a_file_without_an_end_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        drop(Temporary::create_in(folder.path()).unwrap());
        let failed = Temporary::create_in(folder.path()).unwrap().persist(&folder.path().join("none/y"));
        assert!(failed.is_err());
        assert_eq!(names(folder.path()), [""; 0]);
    }
}
