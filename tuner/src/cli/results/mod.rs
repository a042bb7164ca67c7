//! Results in a file, a row an image, written as they come.
//!
//! Until all rows are there, the file is called `NAME.partial-ID`. A run that was stopped leaves it, and
//! a later one can go on behind its rows if it has the same ID: the same weights, the same images'
//! preprocessing, the same columns.

mod csv;
mod jsonl;
mod npy;
mod parquet;
mod rows;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use engine::InputError;
use engine::util::files::{check_writable, file_name, resolved};

use crate::cli::Failure;
pub use rows::{Columns, Content, Row};
use rows::{Format, Names, Rows};

/// The formats by the ending of the name, numpy's first: it is that of files without an ending.
const FORMATS: [Format; 4] = [npy::FORMAT, csv::FORMAT, jsonl::FORMAT, parquet::FORMAT];

/// Behind the name of a file whose rows are not all there, before the ID.
const PARTIAL: &str = ".partial-";

fn format(path: &Path) -> Result<Format, Failure> {
    let Some(ending) = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()) else {
        return Ok(FORMATS[0]);
    };
    FORMATS.into_iter().find(|format| format.ending == ending).ok_or_else(|| {
        let expected = FORMATS.map(|format| format!(".{}", format.ending)).join(", ");
        format!("{}: found the ending .{ending}, expected one of {expected}", file_name(path)).into()
    })
}

fn is_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| !there.is_file())
}

/// The name of a file until all its rows are there.
fn partial(path: &Path, id: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PARTIAL);
    name.push(id);
    name.into()
}

/// What another run has left of a file.
fn left_by_another(path: &Path) -> Option<PathBuf> {
    let start = partial(path, "");
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let names = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.file_name()));
    let start = start.file_name()?.as_encoded_bytes();
    let mut others = names.filter(|name| name.as_encoded_bytes().starts_with(start));
    Some(folder.join(others.next()?))
}

/// Fails where [`ResultFile::open`] can be expected to fail, before anything is spent on results.
pub fn check(path: &Path) -> Result<(), Failure> {
    format(path)?;
    Ok(check_writable(path)?)
}

/// A file of results that is being written.
pub struct ResultFile {
    path: PathBuf,
    rows: Box<dyn Rows>,
    /// The file while it is incomplete, and the one that it becomes; none for a device.
    places: Option<[PathBuf; 2]>,
    written: usize,
}

/// Which file is written, and how.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub path: &'a Path,
    /// Tells runs whose rows may be in one file.
    pub id: &'a str,
    /// Go on behind the rows that are there.
    pub resume: bool,
}

impl ResultFile {
    /// Creates a file, or goes on behind the rows of one that is there: `name` gives the names of
    /// images. How many rows there are is the second.
    ///
    /// # Errors
    /// If it cannot be written, or has other rows than those of the first images.
    pub fn open(
        Place { path, id, resume }: Place,
        columns: &Columns,
        name: &Names,
    ) -> Result<(Self, usize), Failure> {
        let (format, owned) = (format(path)?, path.to_owned());
        if is_device(path) {
            let file = OpenOptions::new().write(true).open(path).map_err(|error| failed(path, error))?;
            let rows = (format.create)(file, columns).map_err(|error| failed(path, error))?;
            return Ok((Self { path: owned, rows, places: None, written: 0 }, 0));
        }
        let target = resolved(path);
        let partial = partial(&target, id);
        // A run that was killed at once has left no row, and may have left a file.
        let is_empty = partial.metadata().is_ok_and(|there| there.len() == 0);
        if !resume && partial.exists() && !is_empty {
            // Not one that is written now.
            File::open(&partial)
                .map_err(|error| failed(&partial, error))
                .and_then(|file| lock(&file, &partial))?;
            let (partial, expected) = (file_name(&partial), "expected --resume to go on, or no such file");
            return Err(format!("{partial}: found the results of a run that was stopped, {expected}").into());
        }
        if let Some(other) = left_by_another(&target).filter(|_| resume && !partial.exists()) {
            let expected = "expected the same weights and options, or no --resume";
            return Err(format!("{}: found the results of another run, {expected}", file_name(&other)).into());
        }
        let there = [&partial, &target]
            .into_iter()
            .find(|file| resume && file.exists() && !(is_empty && *file == &partial));
        let (rows, written) = if let Some(there) = there {
            let file = OpenOptions::new().read(true).write(true).open(there);
            let file = file.map_err(|error| failed(there, error))?;
            lock(&file, there)?;
            let resumed = (format.resume)(file, &partial, columns, name);
            let resumed = resumed.map_err(|error| format!("{}: {error}", file_name(there)))?;
            if there == &target {
                std::fs::rename(&target, &partial).map_err(|error| failed(path, error))?;
            }
            resumed
        } else {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(is_empty).create_new(!is_empty);
            let file = options.open(&partial).map_err(|error| failed(&partial, error))?;
            lock(&file, &partial)?;
            ((format.create)(file, columns).map_err(|error| failed(path, error))?, 0)
        };
        Ok((Self { path: owned, rows, places: Some([partial, target]), written }, written))
    }

    pub fn write(&mut self, row: &Row) -> Result<(), Failure> {
        self.rows.write(row).map_err(|error| failed(&self.path, error))?;
        self.written += 1;
        Ok(())
    }

    /// Gives the file its name: all rows are there.
    pub fn finish(self) -> Result<(), Failure> {
        let Self { path, rows, places, .. } = self;
        let finish = || {
            let file = rows.finish()?;
            let Some([partial, target]) = places else { return Ok(()) };
            file.sync_all()?;
            std::fs::rename(partial, target)
        };
        finish().map_err(|error| failed(&path, error))
    }

    /// Leaves no file.
    pub fn discard(self) {
        if let Some([partial, _]) = self.places {
            let _ = std::fs::remove_file(partial);
        }
    }

    /// Leaves the rows that are there for a later run: what to tell of them. Without any there is no
    /// file.
    pub fn stop(self) -> Option<String> {
        if self.written == 0 {
            self.discard();
            return None;
        }
        let Self { rows, places, written, .. } = self;
        let finished = rows.finish();
        let [partial, _] = places?;
        let file = file_name(&partial);
        Some(match finished {
            Ok(_) => format!("{file} has the results of the first {written}, --resume goes on behind them"),
            Err(error) => format!("{file}: cannot write: {error}"),
        })
    }
}

/// Takes a file for this run, as long as it is open. A file system without locks grants it to all.
fn lock(file: &File, path: &Path) -> Result<(), Failure> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let file = file_name(path);
            Err(format!("{file}: found another run that writes it, expected that to end first").into())
        }
        _ => Ok(()),
    }
}

fn failed(path: &Path, error: io::Error) -> Failure {
    InputError::Write { file: file_name(path), source: error }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "12345678";

    fn place(path: &Path, resume: bool) -> Place<'_> {
        Place { path, id: ID, resume }
    }

    fn columns(rows: usize, content: Content) -> Columns {
        Columns { rows, shape: vec![3], content }
    }

    fn classes() -> Content {
        let labels = ["a", "b, \"c\"", "d"].map(str::to_owned).to_vec();
        Content::Classes { labels, top: 2, unit: "probability" }
    }

    fn name(number: usize) -> String {
        format!("{number}, \"x\".jpg")
    }

    #[test]
    fn a_run_that_was_killed_before_its_first_row_hinders_no_other() {
        for (ending, resume) in
            [("npy", true), ("npy", false), ("csv", true), ("jsonl", false), ("parquet", true)]
        {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(format!("y.{ending}"));
            std::fs::write(partial(&path, ID), "").unwrap();
            let (mut file, done) =
                ResultFile::open(place(&path, resume), &columns(1, classes()), &name).unwrap();
            assert_eq!(done, 0, "{ending}");
            write(&mut file, 0);
            file.finish().unwrap();
            assert!(path.exists() && !partial(&path, ID).exists(), "{ending}");
        }
    }

    /// Row `number`; that of number 1 has no values.
    fn write(file: &mut ResultFile, number: usize) {
        let (image, values) = (name(number), [0.1, number as f32, 0.25]);
        let values = if number == 1 { Err("damaged") } else { Ok(&values[..]) };
        file.write(&Row { image: &image, values }).unwrap();
    }

    fn whole(path: &Path, columns: &Columns) -> Vec<u8> {
        let (mut file, _) = ResultFile::open(place(path, false), columns, &name).unwrap();
        (0..columns.rows).for_each(|number| write(&mut file, number));
        file.finish().unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn texts_have_the_names_and_the_highest_classes_or_all_values() {
        let folder = tempfile::tempdir().unwrap();
        let text = |name: &str, content| {
            String::from_utf8(whole(&folder.path().join(name), &columns(3, content))).unwrap()
        };
        assert_eq!(
            text("classes.csv", classes()),
            "image,class_1,label_1,probability_1,class_2,label_2,probability_2\n\
             \"0, \"\"x\"\".jpg\",2,d,0.25,0,a,0.1\n\
             \"1, \"\"x\"\".jpg\",,,,,,\n\
             \"2, \"\"x\"\".jpg\",1,\"b, \"\"c\"\"\",2.0,2,d,0.25\n"
        );
        assert_eq!(
            text("all.csv", Content::All("features")).lines().last(),
            Some("\"2, \"\"x\"\".jpg\",0.1,2.0,0.25")
        );
        assert_eq!(
            text("classes.jsonl", classes()).lines().collect::<Vec<_>>(),
            [
                r#"{"image":"0, \"x\".jpg","top":[{"class":2,"label":"d","probability":0.25},{"class":0,"label":"a","probability":0.1}]}"#,
                r#"{"image":"1, \"x\".jpg","error":"damaged"}"#,
                r#"{"image":"2, \"x\".jpg","top":[{"class":1,"label":"b, \"c\"","probability":2.0},{"class":2,"label":"d","probability":0.25}]}"#,
            ]
        );
        assert_eq!(
            text("all.jsonl", Content::All("features")).lines().next(),
            Some(r#"{"image":"0, \"x\".jpg","features":[0.1,0.0,0.25]}"#)
        );
    }

    #[test]
    fn a_run_that_was_stopped_is_gone_on_with_and_gives_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        for (ending, content) in [
            ("npy", classes()),
            ("csv", classes()),
            ("csv", Content::All("features")),
            ("jsonl", classes()),
            ("jsonl", Content::All("features")),
        ] {
            let at = |name: &str| folder.path().join(format!("{name}.{ending}"));
            let columns = columns(5, content);
            let expected = whole(&at("whole"), &columns);
            for (rows, torn) in [(1, 0), (3, 0), (3, 1), (3, 7), (4, 2)] {
                let (path, incomplete) = (at("parts"), partial(&at("parts"), ID));
                let (mut file, done) = ResultFile::open(place(&path, true), &columns, &name).unwrap();
                assert_eq!(done, 0);
                (0..rows).for_each(|number| write(&mut file, number));
                assert!(file.stop().is_some_and(|note| note.contains(&format!("the first {rows},"))));
                let error = ResultFile::open(place(&path, false), &columns, &name).err().expect("refused");
                assert!(error.to_string().contains("expected --resume to go on"), "{error}");
                let other = Place { id: "0", ..place(&path, true) };
                let error = ResultFile::open(other, &columns, &name).err().expect("refused");
                assert!(error.to_string().contains("expected the same weights and options"), "{error}");
                assert!(!path.exists());
                // A process that was killed leaves half a row.
                let length = std::fs::metadata(&incomplete).unwrap().len();
                OpenOptions::new().write(true).open(&incomplete).unwrap().set_len(length - torn).unwrap();
                let (mut file, done) = ResultFile::open(place(&path, true), &columns, &name).unwrap();
                assert_eq!(done, rows - usize::from(torn > 0), "{ending}, {torn} bytes less");
                (done..5).for_each(|number| write(&mut file, number));
                file.finish().unwrap();
                assert!(std::fs::read(&path).unwrap() == expected, "{ending}, {torn} bytes less");
                // All rows are there.
                let (file, done) = ResultFile::open(place(&path, true), &columns, &name).unwrap();
                assert_eq!(done, 5);
                file.finish().unwrap();
                assert!(std::fs::read(&path).unwrap() == expected && !incomplete.exists());
                std::fs::remove_file(&path).unwrap();
            }
        }
    }

    #[test]
    fn a_file_has_one_run_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        for ending in ["npy", "csv", "jsonl", "parquet"] {
            let path = folder.path().join(format!("y.{ending}"));
            let (mut file, _) = ResultFile::open(place(&path, false), &columns(3, classes()), &name).unwrap();
            write(&mut file, 0);
            for resume in [false, true] {
                let error = ResultFile::open(place(&path, resume), &columns(3, classes()), &name).err();
                let error = error.expect("refused").to_string();
                assert!(error.contains("found another run that writes it"), "{error}");
            }
            (1..3).for_each(|number| write(&mut file, number));
            file.finish().unwrap();
            assert!(ResultFile::open(place(&path, true), &columns(3, classes()), &name).is_ok());
        }
    }

    #[test]
    fn rows_of_other_images_are_not_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = |path: &Path, columns: &Columns, name: &Names| {
            let before = std::fs::read(path).unwrap();
            let error =
                ResultFile::open(place(path, true), columns, name).err().expect("refused").to_string();
            assert!(error.starts_with(&format!("{}: ", path.display())), "{error}");
            assert!(std::fs::read(path).unwrap() == before && !partial(path, ID).exists(), "{error}");
            error
        };
        for ending in ["csv", "jsonl", "npy"] {
            let path = folder.path().join(format!("y.{ending}"));
            whole(&path, &columns(3, classes()));
            let error = refusal(&path, &columns(2, classes()), &name);
            assert!(error.contains("found more rows than images, expected at most 2"), "{error}");
            if ending != "npy" {
                let error = refusal(&path, &columns(3, classes()), &|number| format!("{number}.jpg"));
                assert!(error.contains("row 1: found the image 0, \"x\".jpg, expected 0.jpg"), "{error}");
            }
        }
        let error = refusal(&folder.path().join("y.csv"), &columns(3, Content::All("features")), &name);
        assert!(
            error.contains("found 7 columns image,class_1,label_1,probability_1.., expected 4"),
            "{error}"
        );
        let other = Columns { shape: vec![4], ..columns(3, classes()) };
        let error = refusal(&folder.path().join("y.npy"), &other, &name);
        assert!(error.contains("found an array of shape [3, 3], expected [3, 4]"), "{error}");
        for (ending, content) in [("jsonl", Content::All("features")), ("jsonl", classes())] {
            let path = folder.path().join(format!("z.{ending}"));
            let other = if matches!(content, Content::All(_)) { classes() } else { Content::All("features") };
            whole(&path, &columns(3, content.clone()));
            let error = refusal(&path, &columns(3, other), &name);
            assert!(error.contains("row 1: found other values, expected"), "{error}");
            let longer = Columns { shape: vec![4], ..columns(3, Content::All("features")) };
            let error = refusal(&path, &longer, &name);
            assert!(error.contains("expected 4 of `features`"), "{error}");
        }
        let path = folder.path().join("z.parquet");
        whole(&path, &columns(3, Content::All("features")));
        let longer = Columns { shape: vec![4], ..columns(3, Content::All("features")) };
        let error = refusal(&path, &longer, &name);
        assert!(error.contains("found other values, expected 4 of"), "{error}");
        let path = folder.path().join("y.parquet");
        whole(&path, &columns(3, classes()));
        let error = refusal(&path, &columns(3, classes()), &|number| format!("{number}.jpg"));
        assert!(error.contains("row 1: found the image 0, \"x\".jpg, expected 0.jpg"), "{error}");
        let error = refusal(&path, &columns(2, classes()), &name);
        assert!(error.contains("found more rows than images, expected at most 2"), "{error}");
        let error = refusal(&path, &columns(3, Content::All("features")), &name);
        assert!(error.contains("found other columns, expected image, error, features"), "{error}");
        let length = std::fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 1).unwrap();
        let error = refusal(&path, &columns(3, classes()), &name);
        assert!(error.contains("found Parquet without its end"), "{error}");
        let error = check(&folder.path().join("y.txt")).unwrap_err().to_string();
        assert!(
            error.contains("found the ending .txt, expected one of .npy, .csv, .jsonl, .parquet"),
            "{error}"
        );
    }

    /// The rows of a Parquet file, as texts.
    fn parquet_rows(path: &Path) -> Vec<String> {
        use ::parquet::file::reader::{FileReader, SerializedFileReader};
        let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
        reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect()
    }

    #[test]
    fn parquet_is_gone_on_with_where_a_run_was_stopped_or_has_been_killed_after_that() {
        let folder = tempfile::tempdir().unwrap();
        for content in [classes(), Content::All("features")] {
            let (path, columns) = (folder.path().join("y.parquet"), columns(5, content));
            whole(&path, &columns);
            let expected = parquet_rows(&path);
            std::fs::remove_file(&path).unwrap();
            for (first, rows) in [(0, 2), (2, 3), (3, 3)] {
                let (mut file, done) = ResultFile::open(place(&path, true), &columns, &name).unwrap();
                assert_eq!(done, first);
                (first..rows).for_each(|number| write(&mut file, number));
                assert!(file.stop().is_some());
                // One that is killed leaves the rows from before, and a part of its own.
                let (mut file, _) = ResultFile::open(place(&path, true), &columns, &name).unwrap();
                write(&mut file, rows);
                drop(file);
                let mut part = partial(&path, ID).into_os_string();
                part.push(".next");
                std::fs::write(part, b"PAR1").unwrap();
            }
            let (mut file, done) = ResultFile::open(place(&path, true), &columns, &name).unwrap();
            (done..5).for_each(|number| write(&mut file, number));
            file.finish().unwrap();
            assert_eq!(parquet_rows(&path), expected);
            assert!(!partial(&path, ID).exists());
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn parquet_has_lists_and_nulls() {
        let folder = tempfile::tempdir().unwrap();
        let read = |content| {
            let path = folder.path().join("y.parquet");
            whole(&path, &columns(3, content));
            parquet_rows(&path)
        };
        assert_eq!(
            read(classes()),
            [
                r#"{image: "0, "x".jpg", error: null, class: [2, 0], label: ["d", "a"], probability: [0.25, 0.1]}"#,
                r#"{image: "1, "x".jpg", error: "damaged", class: null, label: null, probability: null}"#,
                r#"{image: "2, "x".jpg", error: null, class: [1, 2], label: ["b, "c"", "d"], probability: [2.0, 0.25]}"#,
            ]
        );
        let row = &read(Content::All("features"))[2];
        assert_eq!(row, r#"{image: "2, "x".jpg", error: null, features: [0.1, 2.0, 0.25]}"#);
    }
}
