//! The images that arguments name: files, folders, patterns and lists.

use std::io;
use std::path::{Path, PathBuf};

use engine::InputError;
use engine::image::is_image;
use engine::util::bounded::{self, Limit};
use glob::MatchOptions;
use walkdir::{DirEntry, WalkDir};

use crate::cli::stdin;
use crate::report::count;

/// Endings of the names of images, which say what of a folder is one. In a file that is named itself
/// the content decides.
///
/// Kinds among them that cannot be decoded are refused, and not passed over.
const IMAGES: [&str; 12] =
    ["bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "pgm", "png", "ppm", "tif", "tiff", "webp"];

/// Image files in the order in which they are run.
#[derive(Debug, Default, PartialEq)]
pub struct ImagePaths {
    /// At least one.
    pub paths: Vec<PathBuf>,
    /// What is left out of folders.
    pub note: Option<String>,
}

/// Paths of millions of images.
const MOST: Limit = Limit { of: "a list of images", mib: 256 };

/// Files of folders that are left out.
#[derive(Default)]
struct LeftOut {
    first: PathBuf,
    count: usize,
}

impl ImagePaths {
    /// The images that arguments name, in their order:
    ///
    /// - a folder: all images in it and below it, sorted by path; hidden files are left out;
    /// - a pattern such as `photos/*.jpg`, where no file has that name: the files and folders that match,
    ///   sorted;
    /// - a list, `.txt` or standard input: a path, folder or pattern a line, from where the program was
    ///   started;
    /// - anything else: that file.
    ///
    /// # Errors
    /// If a folder or a list cannot be read, or has no image.
    pub fn of(given: &[PathBuf]) -> Result<Self, InputError> {
        let (mut paths, mut left_out) = (Vec::new(), LeftOut::default());
        for path in given {
            if !is_list(path) {
                add(path, &mut paths, &mut left_out)?;
                continue;
            }
            let before = paths.len();
            let bytes = bounded::read(path, MOST).map_err(|error| unreadable(path, error))?;
            let text = String::from_utf8(bytes)
                .map_err(|_| wrong(path, "bytes that are no text", "a path a line"))?;
            for line in text.trim_start_matches('\u{feff}').lines().filter(|line| !line.trim().is_empty()) {
                add(Path::new(line), &mut paths, &mut left_out)?;
            }
            if paths.len() == before {
                return Err(wrong(path, "an empty list", "a path a line"));
            }
        }
        let LeftOut { first, count: n } = left_out;
        let note = || {
            let files = count(n, "file");
            format!("{files} not taken for images by their names ({} the first)", first.display())
        };
        Ok(Self { paths, note: (n > 0).then(note) })
    }
}

impl ImagePaths {
    /// The images of what stands for several: a folder, a pattern or a list.
    ///
    /// # Errors
    /// If it is something else in place of what is `expected`, or as of [`ImagePaths::of`].
    pub fn several(path: &Path, expected: &str) -> Result<Self, InputError> {
        if !(path.is_dir() || is_pattern(path) || is_list(path)) {
            std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
            return Err(wrong(path, "another file", expected));
        }
        Self::of(&[path.to_owned()])
    }
}

/// Whether a path is that of no file and stands for those that match it.
fn is_pattern(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains(['*', '?', '['])) && !path.exists()
}

/// Whether a file has paths of images, and is none itself.
fn is_list(path: &Path) -> bool {
    let is_named_so = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt"));
    (is_named_so || stdin::is_stdin(path)) && path.is_file() && !is_image(path)
}

fn add(path: &Path, paths: &mut Vec<PathBuf>, left_out: &mut LeftOut) -> Result<(), InputError> {
    if path.is_dir() {
        return add_folder(path, paths, left_out);
    }
    match path.to_str().filter(|_| is_pattern(path)) {
        Some(pattern) => add_matching(pattern, paths, left_out),
        None => {
            paths.push(path.to_owned());
            Ok(())
        }
    }
}

fn add_folder(folder: &Path, paths: &mut Vec<PathBuf>, left_out: &mut LeftOut) -> Result<(), InputError> {
    let is_hidden =
        |entry: &DirEntry| entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".");
    let before = paths.len();
    for entry in WalkDir::new(folder).follow_links(true).into_iter().filter_entry(|entry| !is_hidden(entry)) {
        let entry = match entry {
            Ok(entry) => entry,
            // A link to nothing is told when it is read, as any image that is not there.
            Err(error) if error.path().is_some_and(|path| path.is_symlink() && is_named_so(path)) => {
                paths.extend(error.path().map(Path::to_owned));
                continue;
            }
            Err(error) => {
                let at = error.path().unwrap_or(folder).to_owned();
                return Err(match error.into_io_error() {
                    Some(error) => unreadable(&at, error),
                    None => wrong(&at, "a link to a folder that it is in", "folders of images"),
                });
            }
        };
        if entry.file_type().is_dir() {
            continue;
        }
        // To read a pipe would wait for who writes it.
        if entry.file_type().is_file() && is_named_so(entry.path()) {
            paths.push(entry.into_path());
            continue;
        }
        if left_out.count == 0 {
            left_out.first = entry.into_path();
        }
        left_out.count += 1;
    }
    if paths.len() == before {
        return Err(wrong(folder, "no image", "some in this folder"));
    }
    paths[before..].sort();
    Ok(())
}

fn add_matching(pattern: &str, paths: &mut Vec<PathBuf>, left_out: &mut LeftOut) -> Result<(), InputError> {
    let options = MatchOptions { require_literal_leading_dot: true, ..Default::default() };
    let matching = glob::glob_with(pattern, options)
        .map_err(|error| wrong(Path::new(pattern), &error.to_string(), "a pattern like photos/*.jpg"))?;
    let before = paths.len();
    for path in matching {
        let path = path.map_err(|error| {
            let at = error.path().to_owned();
            unreadable(&at, error.into())
        })?;
        match path.is_dir() {
            true => add_folder(&path, paths, left_out)?,
            false => paths.push(path),
        }
    }
    match paths.len() == before {
        true => Err(wrong(Path::new(pattern), "no such file", "images")),
        false => Ok(()),
    }
}

/// Whether a file has the name of an image.
fn is_named_so(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    ending.is_some_and(|ending| IMAGES.contains(&&ending[..]))
}

fn unreadable(path: &Path, source: io::Error) -> InputError {
    InputError::Read { file: path.display().to_string(), source }
}

fn wrong(path: &Path, found: &str, expected: &str) -> InputError {
    let [file, found, expected] = [&path.display().to_string(), found, expected].map(str::to_owned);
    InputError::Format { file, found, expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_patterns_and_lists_are_the_images_in_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("a/b")).expect("folders");
        for name in ["a/2.jpg", "a/10.PNG", "a/b/1.webp", "a/.hidden.jpg", "a/notes.md", "c.bmp"] {
            std::fs::write(at(name), b"").expect("written");
        }
        let of = |given: &[&str]| {
            let given: Vec<PathBuf> = given.iter().map(|name| at(name)).collect();
            ImagePaths::of(&given).map_err(|error| error.to_string())
        };
        let all = |names: &[&str]| names.iter().map(|name| at(name)).collect::<Vec<PathBuf>>();
        let found = of(&["c.bmp", "a"]).expect("images");
        assert_eq!(found.paths, all(&["c.bmp", "a/10.PNG", "a/2.jpg", "a/b/1.webp"]));
        assert!(
            found.note.is_some_and(|note| note.starts_with("1 file not taken") && note.contains("notes.md"))
        );
        assert_eq!(of(&["a/*.jpg"]).expect("images").paths, all(&["a/2.jpg"]));
        assert_eq!(
            of(&["[ac]*"]).expect("images").paths,
            all(&["a/10.PNG", "a/2.jpg", "a/b/1.webp", "c.bmp"])
        );
        let lines = format!("\u{feff}{}\r\n\n{}\n", at("c.bmp").display(), at("a/b").display());
        std::fs::write(at("list.txt"), lines).expect("written");
        assert_eq!(of(&["list.txt"]).expect("images").paths, all(&["c.bmp", "a/b/1.webp"]));
        // A file that is not there is told when it is read.
        assert_eq!(of(&["none.jpg"]).expect("a path").paths, all(&["none.jpg"]));
        std::fs::create_dir(at("empty")).expect("a folder");
        std::fs::write(at("empty.txt"), "\n").expect("written");
        for (given, part) in [
            ("empty", "found no image"),
            ("*.tiff", "found no such file"),
            ("empty.txt", "found an empty list"),
        ] {
            let error = of(&[given]).expect_err(given);
            assert!(error.contains(part), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_is_an_image_that_is_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("gone.jpg");
        std::os::unix::fs::symlink("nowhere", &link).expect("a link");
        assert_eq!(ImagePaths::of(&[folder.path().to_owned()]).expect("a path").paths, [link]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_folder_around_it_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).expect("a link");
        let error = ImagePaths::of(&[folder.path().to_owned()]).expect_err("no end").to_string();
        assert!(error.contains("found a link to a folder that it is in"), "{error}");
    }
}
