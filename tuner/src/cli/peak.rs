//! `tuner peak`: the multiply-adds that the cores do in a second and how far apart they are, right now.

use std::io::Write;

use engine::runtime::threads::available;
use engine::util::error::Failure;
use engine::util::stats::ns;
use kernels::Tier;
use kernels::cpu::Cpu;
use kernels::peak::tier_peak;
use kernels::team::Team;
use serde_json::{Value, json};

use crate::bench::conditions::{means, tiers};
use crate::bench::core_distance::core_to_core;
use crate::cli::args::{cpu, threads};
use crate::report::table::Table;

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
