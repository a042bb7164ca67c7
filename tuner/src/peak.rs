//! `tuner peak`: the fused multiply-adds that the cores do in a second and how far apart they are, right now; and beside a
//! measurement.

use std::io::Write;
use std::sync::Mutex;

use kernels::Tier;
use kernels::cpu::Cpu;
use kernels::peak::{clock, tier_peak};
use kernels::team::Team;
use serde_json::{Value, json};

use crate::apart::{CoreDistanceMonitor, core_to_core, far_rounds, ns};
use crate::bench::BUSY;
use crate::options::{Failure, cpu, threads};
use crate::stats::median;
use crate::table::Table;
use crate::threads::{Threads, available};
use crate::types::Types;

/// Arguments of `peak`.
#[derive(Clone, Debug, clap::Args)]
pub struct PeakArgs {
    /// Measure 1 to N threads at once; the cores this process may use by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Highest instruction tier to use: plain, avx2, avx512, avx512bf16 or amx
    #[arg(long, value_name = "TIER", env = "TUNER_ISA")]
    isa: Option<Tier>,
    /// Print one line of JSON and nothing else
    #[arg(long)]
    json: bool,
}

/// Length of a measurement.
const MICROSECONDS: usize = 30_000;
/// Measurements, of which the best counts: whatever else runs only takes away.
const ROUNDS: usize = 3;

/// Runs the command.
pub fn peak(args: &PeakArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let cpu = cpu(args.isa);
    let most = args.threads.map_or_else(available, usize::from);
    let tiers = tiers(&cpu);
    let apart = {
        let threads = threads(most)?;
        threads.install(|| core_to_core(&threads, &mut Team::new(most))).map(ns)
    };
    let mut peaks = Vec::new();
    for count in 1..=most {
        for &tier in &tiers {
            peaks.push((tier, count, a_core(&cpu, tier, count)?));
        }
    }
    if args.json {
        let list: Vec<Value> = peaks
            .iter()
            .map(|(tier, threads, gflops)| {
                json!({ "isa": tier.to_string(), "threads": threads, "gflops_a_core": gflops })
            })
            .collect();
        writeln!(
            out,
            "{}",
            json!({ "cpu": cpu.name, "isa": cpu.tier().to_string(), "core_to_core_ns": apart, "peaks": list })
        )?;
        return Ok(());
    }
    let mut table = Table::new(&["instructions", "threads", "GFLOP/s a core"]);
    for (tier, threads, gflops) in peaks {
        table.row([tier.to_string(), threads.to_string(), format!("{gflops:.1}")]);
    }
    write!(out, "{table}")?;
    if let Some(ns) = apart {
        writeln!(out, "\n{ns:.0} ns from core to core")?;
    }
    Ok(())
}

/// The tiers whose instructions are there and allowed.
fn tiers(cpu: &Cpu) -> Vec<Tier> {
    Tier::ALL.into_iter().filter(|tier| tier_peak(cpu, *tier, 1).is_some()).collect()
}

/// Length of a sample beside something else.
const SAMPLE: usize = 40;

/// What the cores do at their best, sampled beside the rounds of something that is measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beside {
    /// Samples of a core's clock.
    clock: Vec<f64>,
    /// Samples of what a core does by the instructions of a tier.
    peaks: Vec<(Tier, Vec<f64>)>,
    /// Core-to-core latencies in seconds.
    apart: Vec<f64>,
}

impl Beside {
    /// Without samples: of the highest tier of f32, and of the highest below it where lower types are allowed.
    pub fn new(cpu: &Cpu, types: Types) -> Self {
        let (of_f32, lower): (Vec<Tier>, Vec<Tier>) =
            tiers(cpu).into_iter().partition(|tier| tier.is_of_f32());
        let lower = lower.last().filter(|_| types == Types::Lower);
        let tiers = of_f32.last().into_iter().chain(lower);
        let peaks = tiers.map(|tier| (*tier, Vec::new())).collect();
        Self { peaks, ..Self::default() }
    }

    /// Takes one sample of each, on all threads at once.
    pub fn sample(&mut self, cpu: &Cpu, threads: &Threads, team: &mut Team) {
        let means = means(threads, team, || {
            let peaks = self.peaks.iter().map(|(tier, _)| tier_peak(cpu, *tier, SAMPLE).unwrap_or(0.0));
            std::iter::once(clock(SAMPLE)).chain(peaks).collect()
        });
        let samples = std::iter::once(&mut self.clock).chain(self.peaks.iter_mut().map(|(_, list)| list));
        samples.zip(means).for_each(|(samples, mean)| samples.push(mean));
    }

    /// Adds a core-to-core latency in seconds.
    pub fn apart(&mut self, core_to_core: Option<f64>) {
        self.apart.extend(core_to_core);
    }

    /// Whether more than some of the rounds were on cores far apart, by what is known of how near they can be.
    pub fn is_far(&self, apart: &CoreDistanceMonitor) -> bool {
        let far = apart.near().map_or(0, |near| far_rounds(&self.apart, near));
        far as f64 > BUSY * self.apart.len() as f64
    }

    /// The median.
    pub fn core_to_core_ns(&self) -> Option<f64> {
        Some(median(&self.apart)? * 1e9)
    }

    /// Of a core, the median.
    pub fn clock_ghz(&self) -> Option<f64> {
        Some(median(&self.clock)? / 1e9)
    }

    /// Of a core, the medians by tier.
    pub fn peak_gflops(&self) -> Vec<(Tier, f64)> {
        let of = |(tier, samples): &(Tier, Vec<f64>)| Some((*tier, median(samples)? / 1e9));
        self.peaks.iter().filter_map(of).collect()
    }
}

/// The means of what all threads measure at once.
fn means(threads: &Threads, team: &mut Team, measure: impl Fn() -> Vec<f64> + Sync) -> Vec<f64> {
    let all = Mutex::new(Vec::new());
    threads.region(team, |member| {
        member.wait();
        let own = measure();
        all.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(own);
    });
    let all = all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let count = all.iter().map(Vec::len).min().unwrap_or(0);
    (0..count).map(|i| all.iter().map(|own| own[i]).sum::<f64>() / all.len() as f64).collect()
}

/// GFLOP/s of a core while `count` threads measure at once: their mean, in the best of some rounds.
fn a_core(cpu: &Cpu, tier: Tier, count: usize) -> Result<f64, Failure> {
    let threads = threads(count)?;
    let mut team = Team::new(count);
    let mut round = || {
        let own = || vec![tier_peak(cpu, tier, MICROSECONDS).unwrap_or(0.0)];
        means(&threads, &mut team, own).iter().sum::<f64>() / 1e9
    };
    let best = (0..ROUNDS).map(|_| round()).fold(0.0, f64::max);
    Ok((best * 100.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sampled_on_cores_far_apart_in_more_than_a_tenth_of_the_rounds_is_far() {
        let of = |near: usize, far: usize| {
            let mut beside = Beside::default();
            (0..near).for_each(|_| beside.apart(Some(21e-9)));
            (0..far).for_each(|_| beside.apart(Some(190e-9)));
            beside
        };
        let apart = |near| {
            let apart = CoreDistanceMonitor::default();
            apart.known(near);
            apart
        };
        assert!(!of(0, 0).is_far(&apart(20e-9)));
        assert!(!of(9, 1).is_far(&apart(20e-9)));
        assert!(of(8, 2).is_far(&apart(20e-9)));
        // As far as nobody knows, that is near.
        assert!(!of(0, 10).is_far(&apart(190e-9)));
        assert!(!of(0, 10).is_far(&CoreDistanceMonitor::default()));
    }
}
