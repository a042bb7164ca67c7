//! `tuner peak`: what the cores multiply in a second, and their latency, right now.

use std::io::Write;

use engine::runtime::available;
use engine::util::ns;
use kernels::Team;
use serde::Serialize;

use crate::bench::conditions::{best_peak, tiers};
use crate::bench::core_distance::core_to_core;
use crate::cli::{Answer, Failure, IsaArgs, OutputArgs, thread_count, threads};
use crate::report::{Table, short};

#[derive(Clone, Debug, clap::Args)]
pub struct PeakArgs {
    /// Measure 1 to N threads at once; the cores this process may use by default
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<u16>,
    #[command(flatten)]
    isa: IsaArgs,
    #[command(flatten)]
    output: OutputArgs,
}

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

pub fn peak(args: &PeakArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let cpu = args.isa.cpu();
    let most = args.threads.map_or_else(available, usize::from);
    let tiers = tiers(&cpu);
    let core_to_core_ns = {
        let threads = threads(most)?;
        threads.install(|| core_to_core(&threads, &mut Team::new(most))).map(ns)
    };
    let mut peaks = Vec::new();
    for count in 1..=most {
        let threads = threads(count)?;
        for &tier in &tiers {
            let gflops_a_core = best_peak(&cpu, tier, &threads);
            peaks.push(Peak { isa: tier.to_string(), threads: count, gflops_a_core });
        }
    }
    let answer = Peaks { cpu: cpu.name.clone(), isa: cpu.tier().to_string(), core_to_core_ns, peaks };
    args.output.print(&answer, out)
}

impl Answer for Peaks {
    fn text(&self, width: usize) -> String {
        let mut table = Table::new("instructions | threads | GFLOP/s a core");
        for Peak { isa, threads, gflops_a_core } in &self.peaks {
            table.row(&[isa, threads, &short(*gflops_a_core)]);
        }
        let latency =
            self.core_to_core_ns.map_or(String::new(), |ns| format!("\n{ns:.0} ns from core to core\n"));
        table.fold(width) + &latency
    }
}
