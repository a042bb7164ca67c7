//! Images that are named together: by a folder, or by a list of paths.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use engine::InputError;
use engine::util::files::{file_name, resolved};

/// How names of images end, in small or capital letters: those of pytorch-fid. Kinds among them that
/// can't be decoded are refused by name and not passed over.
const EXTENSIONS: [&str; 9] = ["bmp", "jpg", "jpeg", "pgm", "png", "ppm", "tif", "tiff", "webp"];

/// How the name of a list of paths ends.
const LIST: &str = "txt";

/// Images in order.
#[derive(Debug, Default, PartialEq)]
pub struct ImagePaths {
    pub paths: Vec<PathBuf>,
    /// How many of them are in folders inside the one that was named.
    pub in_subfolders: usize,
}

/// The images in a folder and all folders inside it, sorted by path; or those of a list, one path a
/// line, from the current folder on.
///
/// # Errors
/// If it is neither, or can't be read.
pub fn image_paths(path: &Path) -> Result<ImagePaths, InputError> {
    let read = |source| InputError::Read { file: file_name(path), source };
    if path.is_dir() {
        let mut found = ImagePaths::default();
        add_folder(path, &mut HashSet::new(), &mut found.paths)?;
        found.paths.sort_unstable();
        let is_inside = |image: &&PathBuf| image.parent() != Some(path);
        found.in_subfolders = found.paths.iter().filter(is_inside).count();
        return Ok(found);
    }
    let bytes = std::fs::read(path).map_err(read)?;
    let format = |found: &str| {
        let expected = "a folder of images, a list of paths (.txt) or statistics (.npz)".to_owned();
        InputError::Format { file: file_name(path), found: found.to_owned(), expected }
    };
    if !has_extension(path, &[LIST]) {
        return Err(format("another file"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format("bytes that are not UTF-8"))?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(ImagePaths { paths: lines.map(PathBuf::from).collect(), in_subfolders: 0 })
}

/// Whether a name ends so, in small or capital letters.
pub fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let found = path.extension().map(|found| found.to_ascii_lowercase());
    found.is_some_and(|found| extensions.iter().any(|extension| found == **extension))
}

/// Adds the images of a folder, which may be reached by links, but once.
fn add_folder(
    folder: &Path,
    seen: &mut HashSet<PathBuf>,
    images: &mut Vec<PathBuf>,
) -> Result<(), InputError> {
    if !seen.insert(resolved(folder)) {
        return Ok(());
    }
    let read = |source| InputError::Read { file: file_name(folder), source };
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.is_dir() {
            add_folder(&path, seen, images)?;
        } else if has_extension(&path, &EXTENSIONS) {
            images.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_all_folders_inside_are_found_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("b")).expect("a folder");
        for name in ["c.PNG", "a.jpeg", "b/x.webp", "notes.md", "b/noextension"] {
            std::fs::write(at(name), b"").expect("written");
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path(), at("b/loop")).expect("a link");
        let found = image_paths(folder.path()).expect("a folder");
        assert_eq!(
            found,
            ImagePaths { paths: ["a.jpeg", "b/x.webp", "c.PNG"].map(at).to_vec(), in_subfolders: 1 }
        );
        std::fs::write(at("list.txt"), "\u{feff}one.png\r\n\n two/three.jpg\n").expect("written");
        let found = image_paths(&at("list.txt")).expect("a list").paths;
        assert_eq!(found, ["one.png", "two/three.jpg"].map(PathBuf::from));
        let error = image_paths(&at("notes.md")).expect_err("no list").to_string();
        assert!(error.contains("notes.md: found another file, expected a folder of images"), "{error}");
        assert!(image_paths(&at("none")).is_err());
    }
}
