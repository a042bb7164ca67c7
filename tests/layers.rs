//! The layers of the workspace: who may import whom, read from the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cross_checks::walk;

/// The sources of each crate, and their folders or files from the lowest layer to the highest: one
/// imports only those up to its layer. That no crate names one above it is Cargo's to check.
const CRATES: [(&str, &str); 3] = [
    (
        "kernels/src",
        "shape tier error < arch < cpu memory < tensor < vector problem shape_text filter \
         < team kernel < gemm pixel_function < verify peak bandwidth conv pool softmax sigmoid < registry",
    ),
    ("tuner/engine/src", "util < network < weights image < runtime < plan < session docs"),
    ("tuner/src", "docs npy < fid < bench < log < measure < planner < autotune < report < compare < cli"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Modules of a crate, like `conv::direct`, with their code: without comments and tests.
fn modules(folder: &Path) -> BTreeMap<String, String> {
    let sources = walk(folder).into_iter().filter(|file| file.extension().is_some_and(|e| e == "rs"));
    let modules = sources.filter_map(|file| {
        let path = file.strip_prefix(folder).expect("below the folder").with_extension("");
        let names =
            path.iter().map(|name| name.to_string_lossy()).filter(|name| name != "mod" && name != "lib");
        let names: Vec<_> = names.collect();
        let is_test = names.iter().any(|name| name == "tests" || name == "main");
        (!is_test).then(|| (names.join("::"), code(&std::fs::read_to_string(&file).expect("a source"))))
    });
    modules.collect()
}

fn code(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]" && !line.starts_with("mod tests {"));
    lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The paths in the crate that a module's code names, absolute: those of expressions and of `use`,
/// where `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths(module: &str, code: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let (mut list, mut heads) = (Vec::new(), Vec::<String>::new());
    for part in code.split_inclusive(|c| !is_path(c)) {
        let path = heads.last().cloned().unwrap_or_default() + part.trim_end_matches(|c| !is_path(c));
        if part.ends_with('{') {
            heads.push(if path.ends_with("::") { path.clone() } else { String::new() });
        } else if part.ends_with('}') {
            heads.pop();
        }
        // Not the `super` of `pub(super)`.
        if path.contains("::") {
            list.push(path);
        }
    }
    let parents: Vec<&str> = if module.is_empty() { Vec::new() } else { module.split("::").collect() };
    let absolute = |path: String| {
        let base = match path.split("::").find(|segment| !segment.is_empty()) {
            Some("crate") => &[],
            Some("self" | "super") => &parents[..],
            _ => return None,
        };
        let supers = path.split("::").filter(|segment| *segment == "super").count();
        let base = &base[..base.len().saturating_sub(supers)];
        let names = path.split("::").filter(|name| !["", "crate", "self", "super"].contains(name));
        Some(base.iter().copied().chain(names).collect::<Vec<_>>().join("::"))
    };
    list.into_iter().filter_map(absolute).collect()
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
