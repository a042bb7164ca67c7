//! Finds the commit that the tuner is built from, so that a plan can state it. Without git, or
//! outside a checkout of this project, there is none.

use std::path::Path;
use std::process::Command;

/// Sources of the program, from this package's folder.
const SOURCES: [&str; 8] = [
    "build.rs",
    "Cargo.toml",
    "src",
    "engine/Cargo.toml",
    "engine/src",
    "../kernels",
    "../Cargo.toml",
    "../Cargo.lock",
];

/// Letters of a commit's name.
const LETTERS: &str = "--short=12";

fn main() {
    SOURCES.iter().for_each(|path| rerun_if_changed(path));
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let commit = commit();
    let version = commit.as_ref().map_or(version.clone(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=TUNER_VERSION={version}");
    if let Some(commit) = commit {
        println!("cargo::rustc-env=TUNER_COMMIT={commit}");
    }
}

/// A path that is not there would let this run each time.
fn rerun_if_changed(path: &str) {
    if Path::new(path).exists() {
        println!("cargo::rerun-if-changed={path}");
    }
}

/// Its name, with `-dirty` behind it where a source has been changed since.
fn commit() -> Option<String> {
    // Not the commit of a repository that this project has been copied into.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    for file in ["HEAD", "logs/HEAD"] {
        rerun_if_changed(&git(&["rev-parse", "--git-path", file])?);
    }
    let commit = git(&["rev-parse", LETTERS, "HEAD"])?;
    let changes = git(&[&["status", "--porcelain", "--"][..], &SOURCES].concat())?;
    Some(if changes.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// What git prints; none where it is not there or fails.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("--no-optional-locks")
        .args(args)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}
