//! Every parser on the files of its corpus: those that fuzzing begins with, and those that it has
//! found to go wrong. No parser panics, and each error is one line.

use std::fs;
use std::path::Path;

use engine::util::files::message;

#[path = "fuzz/src/targets.rs"]
mod targets;

use targets::{PARSERS, clean};

/// The files of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.map(|path| (path.display().to_string(), fs::read(&path).expect("a file"))).collect()
}

#[test]
fn every_file_is_read_or_refused_in_one_line() {
    for (target, parser) in PARSERS {
        let files = corpus(target);
        assert!(!files.is_empty(), "no corpus of {target}");
        for (name, bytes) in files {
            for error in parser(&bytes) {
                let shown = message(&error);
                assert!(!shown.is_empty() && !shown.contains(char::is_control), "{name}: {shown:?}");
            }
        }
    }
    clean();
}

#[test]
fn each_corpus_is_of_a_parser() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for entry in fs::read_dir(folder).expect("corpora") {
        let name = entry.expect("an entry").file_name();
        assert!(PARSERS.iter().any(|(target, _)| name == *target), "{name:?}");
    }
}
