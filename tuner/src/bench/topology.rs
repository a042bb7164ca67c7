//! Which cores share what, as the system says (Linux, `/sys/devices/system/cpu`). What it does not
//! say is absent, in virtual machines and containers often.

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::path::Path;

use engine::runtime::threads::cores;
use serde::Serialize;

/// The cores that this process may use, and what they share.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Topology {
    /// Numbers of the cores.
    #[serde(skip)]
    pub cores: Vec<usize>,
    /// Cores that are a physical one each.
    pub physical_cores: Option<usize>,
    /// The most hardware threads of a physical core, whether or not this process may use them.
    pub threads_a_core: Option<usize>,
    pub packages: Option<usize>,
    pub numa_nodes: Option<usize>,
    /// The caches of these cores, each once.
    pub caches: Vec<SharedCache>,
}

/// A cache, or several of the same size that are shared by as many cores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SharedCache {
    pub level: usize,
    /// `data`, `instruction` or `unified`.
    pub kind: String,
    pub kib: Option<usize>,
    /// Lists of the cores that share one, such as `0-3,8`; all of them, whoever may use them.
    pub shared_by: Vec<String>,
}

impl Topology {
    /// Of the calling thread's cores.
    pub fn detect() -> Self {
        Self::read(Path::new("/sys/devices/system/cpu"), cores())
    }

    fn read(root: &Path, cores: Vec<usize>) -> Self {
        let folder = |core: usize| root.join(format!("cpu{core}"));
        let text = |core: usize, name: &str| line(&folder(core).join(name));
        let distinct = |name: &str| count(cores.iter().filter_map(|&core| text(core, name)));
        let siblings = "topology/thread_siblings_list";
        let threads = cores.iter().filter_map(|&core| Some(members(&text(core, siblings)?).len()));
        let nodes = cores.iter().filter_map(|&core| node(&folder(core)));
        Self {
            physical_cores: distinct(siblings),
            threads_a_core: threads.max(),
            packages: distinct("topology/physical_package_id"),
            numa_nodes: count(nodes),
            caches: caches(cores.iter().map(|&core| folder(core).join("cache"))),
            cores,
        }
    }

    /// The most of these cores that share a cache with data of a level; none where the system does
    /// not say.
    pub fn sharers(&self, level: usize) -> Option<usize> {
        let of = |list: &String| members(list).iter().filter(|core| self.cores.contains(core)).count();
        self.of_data(level).flat_map(|cache| &cache.shared_by).map(of).max()
    }

    /// How many caches with data of a level these cores have; none where the system does not say.
    pub fn instances(&self, level: usize) -> Option<usize> {
        let count = self.of_data(level).map(|cache| cache.shared_by.len()).sum();
        (count > 0).then_some(count)
    }

    fn of_data(&self, level: usize) -> impl Iterator<Item = &SharedCache> {
        self.caches.iter().filter(move |cache| cache.level == level && cache.kind != "instruction")
    }
}

/// The first line of a file; none where it is empty or can't be read.
fn line(path: &Path) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_string())
}

/// How many are different; none of none.
fn count(names: impl Iterator<Item = String>) -> Option<usize> {
    let distinct = names.collect::<BTreeSet<String>>().len();
    (distinct > 0).then_some(distinct)
}

/// The memory of a core: the name of a link in its folder, such as `node0`.
fn node(folder: &Path) -> Option<String> {
    let names = folder.read_dir().ok()?.flatten().map(|entry| entry.file_name());
    let mut names = names.filter_map(|name| name.into_string().ok());
    names.find(|name| name.strip_prefix("node").is_some_and(|number| number.parse::<usize>().is_ok()))
}

/// The caches in some folders, by level and kind. Those of one kind and size come together.
fn caches(folders: impl Iterator<Item = std::path::PathBuf>) -> Vec<SharedCache> {
    let mut all: Vec<SharedCache> = Vec::new();
    for cache in folders.flat_map(|folder| (0..).map_while(move |index| cache(&folder, index))) {
        let like = |known: &&mut SharedCache| {
            (known.level, &known.kind, known.kib) == (cache.level, &cache.kind, cache.kib)
        };
        match all.iter_mut().find(like) {
            Some(known) if known.shared_by.contains(&cache.shared_by[0]) => {}
            Some(known) => known.shared_by.extend(cache.shared_by),
            None => all.push(cache),
        }
    }
    all.sort_by(|a, b| (a.level, &a.kind).cmp(&(b.level, &b.kind)));
    all
}

fn cache(folder: &Path, index: usize) -> Option<SharedCache> {
    let text = |name: &str| line(&folder.join(format!("index{index}")).join(name));
    Some(SharedCache {
        level: text("level")?.parse().ok()?,
        kind: text("type")?.to_lowercase(),
        kib: text("size").and_then(|size| size.strip_suffix('K')?.parse().ok()),
        shared_by: vec![text("shared_cpu_list")?],
    })
}

/// The numbers in a list of ranges such as `0-3,6`; those that are none are left out.
fn members(ranges: &str) -> Vec<usize> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok()?)
    };
    ranges.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Two physical cores of two hardware threads each, 0 and 2, 1 and 3, with one L3.
    fn write(root: &Path) {
        for core in 0..4 {
            let (pair, folder) = (core % 2, root.join(format!("cpu{core}")));
            let siblings = format!("{pair},{}\n", pair + 2);
            let put = |name: &str, text: &str| {
                let path = folder.join(name);
                fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                fs::write(path, text).expect("written");
            };
            put("topology/thread_siblings_list", &siblings);
            put("topology/physical_package_id", "0\n");
            put("node0/cpulist", "0-3\n");
            for (index, [level, kind, size, shared]) in [
                ["1", "Data", "48K", &siblings],
                ["1", "Instruction", "32K", &siblings],
                ["2", "Unified", "2048K", &siblings],
                ["3", "Unified", "32768K", "0-3"],
            ]
            .into_iter()
            .enumerate()
            {
                for (name, text) in [("level", level), ("type", kind), ("size", size)] {
                    put(&format!("cache/index{index}/{name}"), text);
                }
                put(&format!("cache/index{index}/shared_cpu_list"), shared);
            }
        }
    }

    #[test]
    fn hardware_threads_share_a_core_and_cores_share_a_cache() {
        let root = tempfile::tempdir().expect("a folder");
        write(root.path());
        let all = Topology::read(root.path(), vec![0, 1, 2, 3]);
        assert_eq!((all.physical_cores, all.threads_a_core), (Some(2), Some(2)));
        assert_eq!((all.packages, all.numa_nodes), (Some(1), Some(1)));
        assert_eq!([1, 2, 3].map(|level| all.sharers(level)), [Some(2), Some(2), Some(4)]);
        assert_eq!([1, 2, 3].map(|level| all.instances(level)), [Some(2), Some(2), Some(1)]);
        let kinds: Vec<&str> = all.caches.iter().map(|cache| cache.kind.as_str()).collect();
        assert_eq!(kinds, ["data", "instruction", "unified", "unified"]);
        let some = Topology::read(root.path(), vec![0, 1]);
        assert_eq!((some.physical_cores, some.threads_a_core), (Some(2), Some(2)));
        assert_eq!([1, 3].map(|level| some.sharers(level)), [Some(1), Some(2)]);
    }

    #[test]
    fn what_the_system_does_not_say_is_absent() {
        let root = tempfile::tempdir().expect("a folder");
        let none = Topology::read(root.path(), vec![0, 1]);
        assert_eq!(none, Topology { cores: vec![0, 1], ..Topology::default() });
        assert_eq!((none.sharers(3), none.instances(1)), (None, None));
        assert_eq!(members("0-1,7,x"), [0, 1, 7]);
    }
}
