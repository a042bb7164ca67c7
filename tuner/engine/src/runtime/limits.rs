//! How much memory this process may take: what the system has, what the control groups (cgroups) of
//! the process leave, and what its own limits leave.
//!
//! All of it is read from files below a root, `/` but in tests. Control groups are looked for where
//! systems mount them, `/sys/fs/cgroup`, at the level of the process and at all levels above it: a
//! container may see only the upper ones, at the top of the mount.

use std::path::{Path, PathBuf};

/// A limit of memory, and what it leaves to this process with what the process has already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes.
    pub available: u64,
    /// What sets it, like `memory.max of the control group /a`.
    pub name: String,
}

/// Bytes that a process has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Physical memory.
    pub resident: u64,
    /// Of its address space.
    pub mapped: u64,
    /// Of that, what counts as data.
    pub data: u64,
}

/// Where the files are that say how much memory there is.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    root: &'a Path,
}

impl Default for Limits<'_> {
    fn default() -> Self {
        Self { root: Path::new("/") }
    }
}

impl Limits<'_> {
    /// What this process has; zeros where the system does not say.
    pub fn taken(&self) -> Taken {
        let status = self.text("proc/self/status");
        let [resident, mapped, data] =
            ["VmRSS:", "VmSize:", "VmData:"].map(|name| field(&status, name).unwrap_or(0) << 10);
        Taken { resident, mapped, data }
    }

    /// The lowest limit of physical memory; none where the system does not say.
    pub fn resident(&self) -> Option<Limit> {
        let taken = self.taken().resident;
        let system = field(&self.text("proc/meminfo"), "MemAvailable:");
        let system = system
            .map(|kib| Limit { available: (kib << 10) + taken, name: "what the system has".to_owned() });
        let groups = self.text("proc/self/cgroup");
        let groups = groups.lines().flat_map(|line| self.of_group(line, taken));
        system.into_iter().chain(groups).min_by_key(|limit| limit.available)
    }

    /// The limit of the address space; none where there is none.
    pub fn mapped(&self) -> Option<Limit> {
        self.of_process("Max address space", "the limit of the address space (ulimit -v)")
    }

    /// The limit of the part of the address space that is data; none where there is none.
    pub fn data(&self) -> Option<Limit> {
        self.of_process("Max data size", "the limit of data (ulimit -d)")
    }

    fn of_process(&self, field_name: &str, name: &str) -> Option<Limit> {
        let available = field(&self.text("proc/self/limits"), field_name)?;
        Some(Limit { available, name: name.to_owned() })
    }

    /// The limits of a line of `/proc/self/cgroup`, `NUMBER:CONTROLLERS:PATH`: of version 2, which has
    /// no controllers there, or of version 1. `taken` is resident.
    fn of_group(&self, line: &str, taken: u64) -> Vec<Limit> {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
        let version = match controllers {
            "" => &V2,
            list if list.split(',').any(|controller| controller == "memory") => &V1,
            _ => return Vec::new(),
        };
        let levels = Path::new(path).ancestors();
        levels.flat_map(|level| self.of_level(version, level, taken)).collect()
    }

    fn of_level(&self, version: &Version, level: &Path, taken: u64) -> Vec<Limit> {
        let folder = Path::new(version.mount).join(level.strip_prefix("/").unwrap_or(level));
        let number = |file: &str| field(&self.text(folder.join(file)), "");
        // The cache of files that nobody uses now is given up before a limit is enforced.
        let cache = field(&self.text(folder.join("memory.stat")), version.cache).unwrap_or(0);
        let Some(usage) = number(version.usage) else { return Vec::new() };
        let used = usage.saturating_sub(cache);
        let limit = |file: &&str| {
            let available = number(file)?.saturating_sub(used).saturating_add(taken);
            Some(Limit { available, name: format!("{file} of the control group {}", level.display()) })
        };
        version.limits.iter().filter_map(limit).collect()
    }

    fn text(&self, path: impl Into<PathBuf>) -> String {
        std::fs::read_to_string(self.root.join(path.into())).unwrap_or_default()
    }
}

/// A version of control groups: the folder below the root where they are, and the names of files.
struct Version {
    mount: &'static str,
    limits: &'static [&'static str],
    usage: &'static str,
    /// The field of `memory.stat`.
    cache: &'static str,
}

const V2: Version = Version {
    mount: "sys/fs/cgroup",
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    cache: "inactive_file ",
};

const V1: Version = Version {
    mount: "sys/fs/cgroup/memory",
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    cache: "total_inactive_file ",
};

/// The first number behind a name at the start of a line; none where a word such as `unlimited` or
/// `max` stands there.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A root with such files, by path and content.
    fn root(files: &[(&str, String)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, content).expect("written");
        }
        root
    }

    fn process(cgroup: &str) -> Vec<(&'static str, String)> {
        let status = "Name:\ttuner\nVmSize:\t  20480 kB\nVmRSS:\t  10240 kB\nVmData:\t  4096 kB\n";
        vec![
            ("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    1048576 kB\n".to_owned()),
            ("proc/self/status", status.to_owned()),
            ("proc/self/cgroup", cgroup.to_owned()),
        ]
    }

    fn resident(files: &[(&str, String)]) -> (u64, String) {
        let root = root(files);
        let limit = Limits { root: root.path() }.resident().expect("a limit");
        (limit.available / MIB, limit.name)
    }

    #[test]
    fn without_groups_there_is_what_the_system_has() {
        let expected = (1024 + 10, "what the system has".to_owned());
        assert_eq!(resident(&process("")), expected);
        assert_eq!(resident(&process("0::/\nno line of a group\n7:memory\n")), expected);
    }

    #[test]
    fn the_lowest_level_of_version_2_counts_less_what_its_group_uses_and_cannot_give_up() {
        let level = |folder: &'static str, max: &str, high: &str, current: u64| {
            let path = |file: &str| -> &'static str { format!("sys/fs/cgroup{folder}/{file}").leak() };
            [
                (path("memory.max"), max.to_owned()),
                (path("memory.high"), high.to_owned()),
                (path("memory.current"), (current * MIB).to_string()),
            ]
        };
        let of = |levels: &[[(&'static str, String); 3]]| {
            let mut files = process("0::/slice/unit.service\n");
            files.extend(levels.iter().flatten().cloned());
            files.push(("sys/fs/cgroup/slice/memory.stat", format!("anon 9\ninactive_file {}\n", 20 * MIB)));
            resident(&files)
        };
        let mib = |mib: u64| (mib * MIB).to_string();
        let none = level("/slice/unit.service", "max\n", "max\n", 15);
        assert_eq!(of(std::slice::from_ref(&none)).0, 1034);
        let unit = level("/slice/unit.service", &mib(500), "max\n", 40);
        assert_eq!(
            of(&[unit]),
            (500 - 40 + 10, "memory.max of the control group /slice/unit.service".to_owned())
        );
        let slice = level("/slice", &mib(500), &mib(200), 50);
        let expected = (200 - (50 - 20) + 10, "memory.high of the control group /slice".to_owned());
        assert_eq!(of(&[none.clone(), slice]), expected);
        let top = level("", &mib(100), "max\n", 300);
        assert_eq!(of(&[none, top]), (10, "memory.max of the control group /".to_owned()));
    }

    #[test]
    fn version_1_counts_at_every_level_and_where_a_container_sees_only_the_top() {
        let number = |path: &'static str, mib: u64| (path, (mib * MIB).to_string());
        let inner = [
            number("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", 300),
            number("sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", 100),
            (
                "sys/fs/cgroup/memory/docker/abc/memory.stat",
                format!("cache 1\ntotal_inactive_file {}", 30 * MIB),
            ),
        ];
        let outer = [
            number("sys/fs/cgroup/memory/memory.limit_in_bytes", 250),
            number("sys/fs/cgroup/memory/memory.usage_in_bytes", 50),
        ];
        let groups = "5:cpu,cpuacct:/docker/abc\n4:hugetlb,memory:/docker/abc\n0::/docker/abc\n";
        let mut files = process(groups);
        files.extend(outer);
        let name = |level: &str| format!("memory.limit_in_bytes of the control group {level}");
        assert_eq!(resident(&files), (250 - 50 + 10, name("/")));
        files[3].1 = (9_223_372_036_854_771_712u64).to_string();
        assert_eq!(resident(&files).0, 1034, "no limit");
        files.extend(inner);
        assert_eq!(resident(&files), (300 - (100 - 30) + 10, name("/docker/abc")));
    }

    #[test]
    fn limits_of_the_process_are_those_that_are_numbers() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max data size             unlimited            unlimited            bytes     \n\
                      Max address space         314572800            unlimited            bytes     \n";
        let mut files = process("");
        files.push(("proc/self/limits", limits.to_owned()));
        let root = root(&files);
        let limits = Limits { root: root.path() };
        assert_eq!(limits.data(), None);
        assert_eq!(limits.mapped().map(|limit| limit.available), Some(300 * MIB));
        assert_eq!(limits.taken(), Taken { resident: 10 * MIB, mapped: 20 * MIB, data: 4 * MIB });
    }
}
