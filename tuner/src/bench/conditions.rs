//! What the cores do at their best, right now (`tuner peak`) and while something is measured.

use engine::network::Precision;
use engine::plan::ConditionsRecord;
use engine::runtime::Threads;
use engine::util::median;
use kernels::peak::{clock, tier_peak};
use kernels::{Cpu, Team, Tier};

use crate::bench::contention::each_worker;
use crate::bench::core_distance::{CoreDistanceMonitor, far_rounds};
use crate::bench::policy::POLICY;

/// The tiers whose instructions are there and allowed.
pub fn tiers(cpu: &Cpu) -> Vec<Tier> {
    Tier::ALL.into_iter().filter(|tier| tier_peak(cpu, *tier, 1).is_some()).collect()
}

/// What the cores do at their best, sampled in the rounds of what is measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Samples of a core's clock.
    clock: Vec<f64>,
    /// Samples of what a core does by the instructions of a tier.
    peaks: Vec<(Tier, Vec<f64>)>,
    /// Core-to-core latencies in seconds.
    core_to_core: Vec<f64>,
}

impl Conditions {
    /// Without samples: of the highest tier of f32, and of all others where types are lower.
    pub fn new(cpu: &Cpu, types: Precision) -> Self {
        let (of_f32, lower): (Vec<_>, Vec<_>) = tiers(cpu).into_iter().partition(|tier| tier.is_of_f32());
        let lower = lower.into_iter().filter(|_| types != Precision::F32);
        let tiers = of_f32.last().copied().into_iter().chain(lower);
        let peaks = tiers.map(|tier| (tier, Vec::new())).collect();
        Self { peaks, ..Self::default() }
    }

    pub fn sample(&mut self, cpu: &Cpu, threads: &Threads, team: &mut Team) {
        let means = means(threads, team, || {
            let peak = |tier| tier_peak(cpu, tier, POLICY.conditions_sample_us).unwrap_or(0.0);
            let peaks = self.peaks.iter().map(|(tier, _)| peak(*tier));
            std::iter::once(clock(POLICY.conditions_sample_us)).chain(peaks).collect()
        });
        let samples = std::iter::once(&mut self.clock).chain(self.peaks.iter_mut().map(|(_, list)| list));
        samples.zip(means).for_each(|(samples, mean)| samples.push(mean));
    }

    pub fn add_core_to_core(&mut self, core_to_core: Option<f64>) {
        self.core_to_core.extend(core_to_core);
    }

    /// Whether too many of the rounds were at high latency, by the least that is known.
    pub fn is_far(&self, distance: &CoreDistanceMonitor) -> bool {
        let far = distance.nearest_s().map_or(0, |near| far_rounds(&self.core_to_core, near));
        far as f64 > POLICY.contention.busy_share * self.core_to_core.len() as f64
    }

    /// The median of a core's clock.
    pub fn clock_ghz(&self) -> Option<f64> {
        Some(median(&self.clock)? / 1e9)
    }

    /// Medians; none without samples.
    pub fn record(&self) -> Option<ConditionsRecord> {
        let peak = |(tier, samples): &(Tier, Vec<f64>)| Some((tier.to_string(), median(samples)? / 1e9));
        Some(ConditionsRecord {
            clock_ghz: self.clock_ghz()?,
            core_to_core_ns: median(&self.core_to_core).map(|seconds| seconds * 1e9),
            peak_gflops: self.peaks.iter().filter_map(peak).collect(),
        })
    }
}

/// What a core does by the instructions of a tier while all threads measure at once, in GFLOP/s: the
/// mean, in the best of some rounds. 0 where the tier is not there.
pub fn best_peak(cpu: &Cpu, tier: Tier, threads: &Threads) -> f64 {
    best_of_rounds(threads, || tier_peak(cpu, tier, POLICY.peak_sample_us).unwrap_or(0.0))
}

/// The clock of a core while all threads measure at once, in GHz.
pub fn best_clock(threads: &Threads) -> f64 {
    best_of_rounds(threads, || clock(POLICY.peak_sample_us))
}

/// In billions, rounded to hundredths.
fn best_of_rounds(threads: &Threads, measure: impl Fn() -> f64 + Sync) -> f64 {
    let mut team = Team::new(threads.count());
    let mut round = || means(threads, &mut team, || vec![measure()]).iter().sum::<f64>() / 1e9;
    let best = (0..POLICY.peak_rounds).map(|_| round()).fold(0.0, f64::max);
    (best * 100.0).round() / 100.0
}

/// The means of what all threads measure at once.
pub fn means(threads: &Threads, team: &mut Team, measure: impl Fn() -> Vec<f64> + Sync) -> Vec<f64> {
    let all = each_worker(threads, team, measure);
    let count = all.iter().map(Vec::len).min().unwrap_or(0);
    (0..count).map(|i| all.iter().map(|own| own[i]).sum::<f64>() / all.len() as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sampled_on_cores_far_apart_in_more_than_a_tenth_of_the_rounds_is_far() {
        let of = |near: usize, far: usize| {
            let mut conditions = Conditions::default();
            (0..near).for_each(|_| conditions.add_core_to_core(Some(21e-9)));
            (0..far).for_each(|_| conditions.add_core_to_core(Some(190e-9)));
            conditions
        };
        let nearest = |near| {
            let distance = CoreDistanceMonitor::default();
            distance.known(near);
            distance
        };
        assert!(!of(0, 0).is_far(&nearest(20e-9)));
        assert!(!of(9, 1).is_far(&nearest(20e-9)));
        assert!(of(8, 2).is_far(&nearest(20e-9)));
        // As far as nobody knows, that is near.
        assert!(!of(0, 10).is_far(&nearest(190e-9)));
        assert!(!of(0, 10).is_far(&CoreDistanceMonitor::default()));
    }
}
