//! The clock that a core should have, as the system says (Linux). Virtual machines seldom say it.

use std::fs::read_to_string;
use std::path::Path;

use engine::runtime::threads::cores;

/// Clocks in GHz, of the core with the highest; none where the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuFreq {
    /// That which the maker names.
    pub nominal_ghz: Option<f64>,
    /// The most that the system lets a core have.
    pub max_ghz: Option<f64>,
}

/// Files of a core below its folder with its nominal clock, and their unit in GHz.
const NOMINAL: [(&str, f64); 2] = [("cpufreq/base_frequency", 1e-6), ("acpi_cppc/nominal_freq", 1e-3)];
const MAX: [(&str, f64); 1] = [("cpufreq/cpuinfo_max_freq", 1e-6)];

impl CpuFreq {
    /// Of the calling thread's cores.
    pub fn detect() -> Self {
        Self::read(Path::new("/sys/devices/system/cpu"), &cores())
    }

    fn read(root: &Path, cores: &[usize]) -> Self {
        let number = |core: usize, (file, unit): (&str, f64)| {
            let text = read_to_string(root.join(format!("cpu{core}")).join(file)).ok()?;
            text.trim().parse::<f64>().ok().filter(|number| *number > 0.0).map(|number| number * unit)
        };
        let most = |files: &[(&str, f64)]| {
            let of_core = |&core: &usize| files.iter().find_map(|file| number(core, *file));
            cores.iter().filter_map(of_core).reduce(f64::max)
        };
        Self { nominal_ghz: most(&NOMINAL), max_ghz: most(&MAX) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn clocks_are_those_of_the_core_with_the_highest_or_absent() {
        let root = tempfile::tempdir().expect("a folder");
        for (core, [nominal, max]) in
            [["2600000", "3700000\n"], ["2000000\n", "4100000\n"]].iter().enumerate()
        {
            let folder = root.path().join(format!("cpu{core}/cpufreq"));
            fs::create_dir_all(&folder).expect("made");
            fs::write(folder.join("base_frequency"), nominal).expect("written");
            fs::write(folder.join("cpuinfo_max_freq"), max).expect("written");
        }
        let found = CpuFreq::read(root.path(), &[0, 1]);
        assert_eq!(found, CpuFreq { nominal_ghz: Some(2.6), max_ghz: Some(4.1) });
        assert_eq!(CpuFreq::read(root.path(), &[7]), CpuFreq::default());
    }
}
