//! The layers of the workspace: who may import whom, read from the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The sources of each crate, and their folders or files from the lowest layer to the highest: one imports only
/// those up to its layer. That no crate names one above it is Cargo's to check.
const CRATES: [(&str, &str); 3] = [
    (
        "kernels/src",
        "shape tier error < arch < cpu memory < tensor < vector problem shape_text filter \
         < team kernel < gemm < peak conv pool softmax < verify < registry",
    ),
    ("tuner/engine/src", "util < network < weights image < runtime < plan < session docs"),
    ("tuner/src", "docs < bench < log < measure < planner < autotune < report < cli"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Modules of a crate, like `conv::direct`, with their code: without comments and tests.
fn modules(folder: &Path) -> BTreeMap<String, String> {
    let mut list = BTreeMap::new();
    let mut folders = vec![(folder.to_path_buf(), Vec::<String>::new())];
    while let Some((folder, path)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
            let file = entry.expect("an entry").path();
            let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
            let own = || path.iter().cloned().chain([name.clone()]).collect::<Vec<_>>();
            if file.is_dir() && name != "tests" {
                folders.push((file, own()));
            } else if file.extension().is_some_and(|e| e == "rs") && !["tests", "main"].contains(&&*name) {
                let module = if ["mod", "lib"].contains(&&*name) { path.clone() } else { own() };
                let text = std::fs::read_to_string(&file).expect("a source");
                list.insert(module.join("::"), code(&text));
            }
        }
    }
    list
}

fn code(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]" && !line.starts_with("mod tests {"));
    lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The paths in the crate that a module's code names, absolute: those of `use` and of expressions.
fn paths(module: &str, code: &str) -> Vec<String> {
    let flat = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let statements = flat.split(';').filter_map(|s| s.rfind("use ").map(|at| &s[at + 4..]));
    let mut list: Vec<String> = statements.flat_map(expand).collect();
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = flat.split(|c: char| !is_path(c)).filter(|word| word.contains("::"));
    list.extend(words.map(str::to_string));
    let parents: Vec<&str> = if module.is_empty() { Vec::new() } else { module.split("::").collect() };
    let absolute = |path: String| {
        let base = match path.split("::").find(|segment| !segment.is_empty()) {
            Some("crate" | "$crate") => &[],
            Some("self" | "super") => &parents[..],
            _ => return None,
        };
        let supers = path.split("::").filter(|segment| *segment == "super").count();
        let base = &base[..base.len().saturating_sub(supers)];
        let names = path.split("::").filter(|s| !["", "crate", "$crate", "self", "super"].contains(s));
        Some(base.iter().copied().chain(names).collect::<Vec<_>>().join("::"))
    };
    list.into_iter().filter_map(absolute).collect()
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let (mut list, mut heads) = (Vec::new(), vec![String::new()]);
    for part in tree.split_inclusive(['{', ',', '}']) {
        let name = part.trim_end_matches(['{', ',', '}']).trim();
        let path = heads.last().cloned().unwrap_or_default() + name.split(" as ").next().unwrap_or_default();
        if part.ends_with('{') {
            heads.push(path);
            continue;
        }
        if !name.is_empty() {
            list.push(path);
        }
        if part.ends_with('}') {
            heads.pop();
        }
    }
    list
}

/// The modules that each module imports, of its own crate.
fn imports(modules: &BTreeMap<String, String>) -> BTreeMap<&str, BTreeSet<&str>> {
    let of = |module: &str, code: &str| {
        let named = paths(module, code).into_iter().filter_map(|path| {
            let holds = |known: &&String| {
                !known.is_empty() && (path == **known || path.starts_with(&format!("{known}::")))
            };
            modules.keys().filter(holds).max_by_key(|known| known.len())
        });
        named.map(String::as_str).filter(|other| *other != module).collect::<BTreeSet<&str>>()
    };
    modules.iter().map(|(module, code)| (module.as_str(), of(module, code))).collect()
}

/// A path from a module back to itself; modules that only declare and export others are on none.
fn cycle<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    let mut rest: BTreeSet<&str> = imports.keys().copied().collect();
    let next =
        |module: &str, rest: &BTreeSet<&str>| imports[module].iter().copied().find(|m| rest.contains(m));
    // A module that imports none of the others is on no cycle.
    while let Some(leaf) = rest.iter().copied().find(|module| next(module, &rest).is_none()) {
        rest.remove(leaf);
    }
    let mut path = vec![*rest.first()?];
    loop {
        let module = next(path[path.len() - 1], &rest)?;
        let start = path.iter().position(|on| *on == module);
        path.push(module);
        if let Some(start) = start {
            return Some(path.split_off(start));
        }
    }
}

fn layer_of(layers: &str, module: &str) -> Option<usize> {
    let top = module.split("::").next();
    layers.split(" < ").position(|layer| layer.split(' ').any(|name| Some(name) == top))
}

/// Imports that go up, as text.
fn upward(layers: &str, imports: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
    let mut list = Vec::new();
    for (module, others) in imports.iter().filter(|(module, _)| !module.is_empty()) {
        let own = layer_of(layers, module);
        for other in others {
            if own.is_none() || layer_of(layers, other) > own {
                list.push(format!("{module} imports {other}"));
            }
        }
    }
    list
}

#[test]
fn no_import_goes_up_and_no_files_import_each_other() {
    for (folder, layers) in CRATES {
        let modules = modules(&root().join(folder));
        assert!(modules.len() > 20, "{folder}: {} modules", modules.len());
        for module in modules.keys().filter(|module| !module.is_empty()) {
            assert!(layer_of(layers, module).is_some(), "{folder}: {module} is in no layer");
        }
        let imports = imports(&modules);
        let up = upward(layers, &imports);
        assert!(up.is_empty(), "{folder}: {up:#?}");
        if let Some(cycle) = cycle(&imports) {
            panic!("{folder}: {}", cycle.join(" imports "));
        }
    }
}

#[test]
fn reports_import_nothing_else_of_the_tuner() {
    let modules = modules(&root().join("tuner/src"));
    for (module, mut others) in imports(&modules).into_iter().filter(|(m, _)| m.starts_with("report")) {
        others.retain(|other| other.split("::").next() != Some("report"));
        assert!(others.is_empty(), "{module} imports {others:?}");
    }
}

#[test]
fn what_runs_a_network_needs_nothing_of_a_command_line() {
    let manifest = std::fs::read_to_string(root().join("tuner/engine/Cargo.toml")).expect("a manifest");
    for name in ["clap", "indicatif", "plotters", "criterion"] {
        assert!(!manifest.contains(name), "engine depends on {name}");
    }
}

#[test]
fn a_planted_cycle_is_found_and_an_import_that_goes_up_too() {
    let sources = |list: &[(&str, &str)]| {
        list.iter().map(|(module, text)| (module.to_string(), code(text))).collect::<BTreeMap<_, _>>()
    };
    let planted = sources(&[
        ("low::a", "use super::b::{\n    C,\n    D,\n};"),
        ("low::b", "fn f() { crate::high::g(); }"),
        ("high", "use crate::low::{a::B};"),
        ("lone", "#[cfg(test)]\nmod tests { use crate::high; }"),
    ]);
    let all = imports(&planted);
    assert_eq!(cycle(&all).map(|cycle| cycle.len()), Some(4), "{all:?}");
    assert_eq!(upward("low lone < high", &all), ["low::b imports high"]);
    let straight = sources(&[("low", "use std::fmt;"), ("high", "use crate::low::X;")]);
    assert_eq!(cycle(&imports(&straight)), None);
}
