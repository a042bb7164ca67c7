//! The page of dependencies lists what there is: crates of `Cargo.toml`, and uses of `unsafe`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cross_checks::walk;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The first and the last cell of each row of the tables of a section, without marks.
fn rows(section: &str) -> Vec<(String, String)> {
    let page = read("tuner/docs/dependencies.md");
    let (_, section) = page.split_once(&format!("## {section}\n")).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = lines.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        (cells[0].replace('`', ""), cells[cells.len() - 1].to_string())
    });
    cells.collect()
}

#[test]
fn every_dependency_of_the_workspace_has_a_reason() {
    let manifest = read("Cargo.toml");
    let (_, list) = manifest.split_once("[workspace.dependencies]\n").expect("the list");
    let lines = list.lines().take_while(|line| !line.starts_with('['));
    let named = lines.filter(|line| !line.contains("path =")).filter_map(|line| line.split_once(" ="));
    let named: BTreeSet<String> = named.map(|(name, _)| name.to_string()).collect();
    let listed: BTreeSet<String> = rows("Reasons").into_iter().map(|(name, _)| name).collect();
    assert_eq!(listed, named);
}

fn uses_of_unsafe(path: &Path) -> usize {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let forms = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"];
    code.map(|line| forms.iter().map(|form| line.matches(form).count()).sum::<usize>()).sum()
}

#[test]
fn uses_of_unsafe_are_counted_by_folder() {
    let arch = root().join("kernels/src/arch");
    for (folder, stated) in rows("Unsafe code") {
        let name = folder.split(' ').next().unwrap_or_default();
        let is_rest = folder.ends_with("without it");
        let files = walk(&root().join(name)).into_iter().filter(|path| !(is_rest && path.starts_with(&arch)));
        let found: usize = files.map(|path| uses_of_unsafe(&path)).sum();
        assert_eq!(stated, found.to_string(), "{folder}: stated in tuner/docs/dependencies.md");
    }
}
