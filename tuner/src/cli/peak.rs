//! `tuner peak`: the multiply-adds that the cores do in a second and how far apart they are, right now.

use std::io::Write;

use engine::runtime::threads::available;
use engine::util::error::Failure;
use engine::util::stats::ns;
use kernels::Tier;
use kernels::cpu::Cpu;
use kernels::peak::tier_peak;
use kernels::team::Team;
use serde::Serialize;

use crate::bench::conditions::{means, tiers};
use crate::bench::core_distance::core_to_core;
use crate::cli::args::{cpu, threads};
use crate::cli::output::{Answer, OutputArgs};
use crate::report::table::Table;
use crate::report::text::short;

/// Arguments of `peak`.
#[derive(Clone, Debug, clap::Args)]
pub struct PeakArgs {
    /// Measure 1 to N threads at once; the cores this process may use by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Highest instruction tier to use: plain, avx2, avx512, avx512bf16 or amx
    #[arg(long, value_name = "TIER", env = "TUNER_ISA")]
    isa: Option<Tier>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What the cores do.
#[derive(Debug, Serialize)]
struct Peaks {
    cpu: String,
    isa: String,
    core_to_core_ns: Option<f64>,
    peaks: Vec<Peak>,
}

#[derive(Debug, Serialize)]
struct Peak {
    isa: String,
    threads: usize,
    gflops_a_core: f64,
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
    let core_to_core_ns = {
        let threads = threads(most)?;
        threads.install(|| core_to_core(&threads, &mut Team::new(most))).map(ns)
    };
    let mut peaks = Vec::new();
    for count in 1..=most {
        for &tier in &tiers {
            let gflops_a_core = a_core(&cpu, tier, count)?;
            peaks.push(Peak { isa: tier.to_string(), threads: count, gflops_a_core });
        }
    }
    let answer = Peaks { cpu: cpu.name.clone(), isa: cpu.tier().to_string(), core_to_core_ns, peaks };
    args.output.print(&answer, out)
}

impl Answer for Peaks {
    fn text(&self, width: usize) -> String {
        let mut table = Table::new(&["instructions", "threads", "GFLOP/s a core"]);
        for Peak { isa, threads, gflops_a_core } in &self.peaks {
            table.row([isa.clone(), threads.to_string(), short(*gflops_a_core)]);
        }
        let latency =
            self.core_to_core_ns.map_or(String::new(), |ns| format!("\n{ns:.0} ns from core to core\n"));
        table.fold(width) + &latency
    }
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
