//! Hashes the code of each module, with that of the modules it uses, so that a measurement can say
//! which code it is of. Comments, tests and the table of kernels do not count: adding a kernel
//! leaves the others as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules that say what kernels there are and what they take, not what they do.
const WITHOUT: [&str; 4] = ["lib", "kernel", "error", "registry"];

fn main() {
    println!("cargo::rerun-if-changed=src");
    let mut code = BTreeMap::new();
    read(Path::new("src"), &mut Vec::new(), &mut code);
    let used: BTreeMap<&str, BTreeSet<&str>> =
        code.iter().map(|(module, text)| (module.as_str(), uses(module, text, &code))).collect();
    let mut list = String::new();
    for module in code.keys() {
        let hash = closure(module, &used).iter().fold(FNV_BASIS, |hash, module| fnv(hash, &code[*module]));
        list += &format!("({module:?}, \"{hash:016x}\"),\n");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("a folder for what is generated"));
    fs::write(out.join("code.rs"), format!("&[{list}]")).expect("the list can be written");
}

/// All modules under a folder: their paths, like `conv::direct`, and their code.
fn read(folder: &Path, path: &mut Vec<String>, code: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let file = entry.expect("a file of sources").path();
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        if file.is_dir() {
            path.push(name);
            read(&file, path, code);
            path.pop();
        } else if file.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&file).expect("a source");
            let parts = path.iter().chain((name != "mod").then_some(&name));
            code.insert(parts.map(String::as_str).collect::<Vec<_>>().join("::"), without_comments(&text));
        }
    }
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The modules that one uses: those whose items it names, by their path from the root or from its
/// parent, and those that it declares for itself alone.
fn uses<'a>(module: &str, text: &str, code: &'a BTreeMap<String, String>) -> BTreeSet<&'a str> {
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let text = text.replace("(super)", "");
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let names = |known: &str| {
        let below = |base: &str| known.strip_prefix(base)?.strip_prefix("::").map(str::to_string);
        // The end of a path, or an item of the module: not a module inside it.
        let ends = |rest: &str| match rest.strip_prefix("::") {
            Some(item) => {
                let word = item.find(|c| !is_word(c)).unwrap_or(item.len());
                !code.contains_key(&format!("{known}::{}", &item[..word]))
            }
            None => !rest.starts_with(is_word),
        };
        let starts = |before: &str| !before.ends_with(|c| is_word(c) || c == ':');
        let is_there = |path: &str| {
            let mut found = text.match_indices(path);
            found.any(|(at, _)| starts(&text[..at]) && ends(&text[at + path.len()..]))
        };
        is_there(&format!("crate::{known}"))
            || known == parent && is_there("super")
            || below(parent).is_some_and(|path| is_there(&format!("super::{path}")))
            || below(module).is_some_and(|path| text.lines().any(|line| line == format!("mod {path};")))
    };
    code.keys().map(String::as_str).filter(|known| !WITHOUT.contains(known) && names(known)).collect()
}

/// A module and all that it uses, and what these use.
fn closure<'a>(module: &'a str, used: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut all = BTreeSet::from([module]);
    let mut waiting = vec![module];
    while let Some(next) = waiting.pop() {
        waiting.extend(used[next].iter().filter(|used| all.insert(used)));
    }
    all
}

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a (G. Fowler, L. C. Noll, K.-P. Vo), 64 bits.
fn fnv(hash: u64, text: &str) -> u64 {
    text.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
