//! The layers of the workspace: who may import whom, read from the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Folders or files of each crate from the lowest to the highest; one imports those before it alone.
const LAYERS: [(&str, &[&[&str]]); 3] = [
    (
        "kernels/src",
        &[
            &["shape", "tier", "error"],
            &["arch"],
            &["cpu", "memory"],
            &["tensor"],
            &["vector", "problem", "shape_text", "filter"],
            &["team", "kernel"],
            &["gemm"],
            &["peak", "conv", "pool", "softmax"],
            &["verify"],
            &["registry"],
        ],
    ),
    (
        "tuner/engine/src",
        &[&["util"], &["network"], &["weights", "image"], &["runtime"], &["plan"], &["session", "docs"]],
    ),
    (
        "tuner/src",
        &[&["docs"], &["bench"], &["log"], &["measure"], &["planner"], &["autotune"], &["report"], &["cli"]],
    ),
];

/// What each crate may name of the workspace's others.
const CRATES: [(&str, &[&str]); 3] =
    [("kernels/src", &[]), ("tuner/engine/src", &["kernels"]), ("tuner/src", &["kernels", "engine"])];

/// Modules that reports may import of the tuner: themselves. What they show comes from a plan.
const REPORT_SEES: [&str; 1] = ["report"];

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
    let bare = lines.filter(|line| !line.trim_start().starts_with("//"));
    bare.collect::<Vec<_>>().join("\n")
}

/// The paths that a module's code names, absolute: those of `use` and of expressions.
fn paths(module: &str, code: &str) -> Vec<String> {
    let flat = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut list = Vec::new();
    for statement in flat.split(';').filter_map(|s| s.rfind("use ").map(|at| &s[at + 4..])) {
        expand(statement.trim(), "", &mut list);
    }
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = flat.split(|c: char| !is_path(c)).filter(|word| word.contains("::"));
    list.extend(words.map(str::to_string));
    let parents: Vec<&str> = if module.is_empty() { Vec::new() } else { module.split("::").collect() };
    let absolute = |path: String| {
        let mut segments: Vec<&str> = path.split("::").filter(|s| !s.is_empty()).collect();
        let mut base = match segments.first() {
            Some(&"crate" | &"$crate") => Vec::new(),
            Some(&"self") => parents.clone(),
            Some(&"super") => parents[..parents.len().saturating_sub(1)].to_vec(),
            _ => return path.clone(),
        };
        segments.remove(0);
        while segments.first() == Some(&"super") {
            segments.remove(0);
            base.pop();
        }
        let all: Vec<&str> = ["crate"].into_iter().chain(base).chain(segments).collect();
        all.join("::")
    };
    list.into_iter().map(absolute).collect()
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn expand(tree: &str, prefix: &str, list: &mut Vec<String>) {
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        list.push(format!("{prefix}{path}"));
        return;
    };
    let head = format!("{prefix}{}", tree[..open].trim());
    let inside = tree[open + 1..].rsplit_once('}').map_or("", |(inside, _)| inside);
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inside.char_indices().chain([(inside.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inside[start..at].trim();
                if !part.is_empty() {
                    expand(part, &head, list);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The modules that each module imports, of its own crate.
fn imports(modules: &BTreeMap<String, String>) -> BTreeMap<&str, BTreeSet<&str>> {
    let of = |module: &str, code: &str| {
        let named = paths(module, code).into_iter().filter_map(|path| {
            let path = path.strip_prefix("crate::")?.to_string();
            let holds = |known: &&String| {
                !known.is_empty() && (path == **known || path.starts_with(&format!("{known}::")))
            };
            modules.keys().filter(holds).max_by_key(|known| known.len())
        });
        named.map(String::as_str).filter(|other| *other != module).collect::<BTreeSet<&str>>()
    };
    modules.iter().map(|(module, code)| (module.as_str(), of(module, code))).collect()
}

/// A way from a module back to itself; modules that only declare and export others are no part of one.
fn circle(imports: &BTreeMap<&str, BTreeSet<&str>>) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    for &start in imports.keys() {
        let mut way: Vec<(&str, Vec<&str>)> = vec![(start, imports[start].iter().copied().collect())];
        while let Some((module, next)) = way.last_mut().map(|(module, rest)| (*module, rest.pop())) {
            match next {
                Some(next) if way.iter().any(|(on, _)| *on == next) => {
                    let names = way.iter().map(|(on, _)| on.to_string()).skip_while(|on| on != next);
                    return Some(names.chain([next.to_string()]).collect());
                }
                Some(next) if !done.contains(next) => {
                    way.push((next, imports[next].iter().copied().collect()));
                }
                Some(_) => {}
                None => {
                    done.insert(module);
                    way.pop();
                }
            }
        }
    }
    None
}

fn layer_of(layers: &[&[&str]], module: &str) -> Option<usize> {
    let top = module.split("::").next().unwrap_or_default();
    layers.iter().position(|layer| layer.contains(&top))
}

/// Imports that go up, as text.
fn upward(layers: &[&[&str]], imports: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
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
    for (folder, layers) in LAYERS {
        let modules = modules(&root().join(folder));
        assert!(modules.len() > 20, "{folder}: {} modules", modules.len());
        for module in modules.keys().filter(|module| !module.is_empty()) {
            assert!(layer_of(layers, module).is_some(), "{folder}: {module} is in no layer");
        }
        let imports = imports(&modules);
        let up = upward(layers, &imports);
        assert!(up.is_empty(), "{folder}: {up:#?}");
        if let Some(circle) = circle(&imports) {
            panic!("{folder}: {}", circle.join(" imports "));
        }
    }
}

#[test]
fn crates_name_only_those_below_them() {
    let all = ["kernels", "engine", "tuner"];
    for (folder, allowed) in CRATES {
        for (module, code) in modules(&root().join(folder)) {
            for path in paths(&module, &code) {
                let first = path.split("::").next().unwrap_or_default();
                let is_other = all.contains(&first) && !allowed.contains(&first);
                assert!(!is_other, "{folder}: {module} names {path}");
            }
        }
    }
}

#[test]
fn reports_see_plans_alone() {
    let modules = modules(&root().join("tuner/src"));
    for (module, others) in imports(&modules).iter().filter(|(module, _)| module.starts_with("report")) {
        let is_seen = |other: &&&str| REPORT_SEES.contains(&other.split("::").next().unwrap_or_default());
        let unseen: Vec<&&str> = others.iter().filter(|other| !is_seen(other)).collect();
        assert!(unseen.is_empty(), "{module} imports {unseen:?}");
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
fn a_planted_circle_is_found_and_an_import_that_goes_up_too() {
    let sources = |list: &[(&str, &str)]| {
        list.iter().map(|(module, text)| (module.to_string(), code(text))).collect::<BTreeMap<_, _>>()
    };
    let planted = sources(&[
        ("low::a", "use super::b::{\n    C,\n    D,\n};"),
        ("low::b", "fn f() { crate::high::g(); }"),
        ("high", "use crate::low::{a::B};"),
        ("alone", "#[cfg(test)]\nmod tests { use crate::high; }"),
    ]);
    let all = imports(&planted);
    assert_eq!(circle(&all).map(|circle| circle.len()), Some(4), "{all:?}");
    assert_eq!(upward(&[&["low", "alone"], &["high"]], &all), ["low::b imports high"]);
    let straight = sources(&[("low", "use std::fmt;"), ("high", "use crate::low::X;")]);
    assert_eq!(circle(&imports(&straight)), None);
}
