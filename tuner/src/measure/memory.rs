//! Whether there is memory for what is to be measured.

use engine::MemoryError;
use engine::network::available;
use engine::runtime::{elements, ensure};
use kernels::{Cpu, Formats, Problem};

use crate::bench::POLICY;

/// Refuses problems of which one does not fit in memory while each of its candidates has tensors of its own.
/// The error says how much the first that does not needs and how much there is.
pub fn ensure_measured<'a>(
    problems: impl IntoIterator<Item = &'a Problem>,
    cpu: &Cpu,
) -> Result<(), MemoryError> {
    for problem in problems {
        let (kernels, _) = available(cpu, problem);
        let tunings: usize = kernels.iter().map(|a| a.kernel.tunings(problem).len()).sum();
        // Those that are left, and some tunings more or the best of each kernel in all formats.
        let in_all_formats = kernels.len() * POLICY.race.finalists * Formats::ALL.len();
        let candidates = tunings.min(POLICY.race.most + POLICY.search.at_a_time.max(in_all_formats));
        let [src, dst, filters] = elements(problem);
        ensure(&problem.to_string(), src + filters + candidates as u128 * (src + dst + 2 * filters))?;
    }
    Ok(())
}
