//! `tuner machine`: what this machine is and can do, and how quiet it is now.

use std::io::Write;

use engine::network::{Graph, Precision};
use engine::plan::MemoryLevel;
use engine::runtime::available;
use engine::util::ns;
use engine::{Machine, Model};
use kernels::{Cpu, PoolKind, Problem, Team, Tier};
use serde::Serialize;

use crate::bench::bandwidth::{bandwidth, sizes};
use crate::bench::conditions::{best_clock, best_peak, tiers};
use crate::bench::core_distance::core_to_core;
use crate::bench::cpufreq::CpuFreq;
use crate::bench::progress::Silent;
use crate::bench::{
    LoadMonitor, POLICY, Progress, Stage, StageProgress, Topology, noise, weight_bytes, weights_come_from,
};
use crate::cli::{Failure, IsaArgs, OutputArgs, thread_count, threads};

#[derive(Clone, Debug, clap::Args)]
pub struct MachineArgs {
    /// Measure on N threads at once, besides one; the cores this process may use by default
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<u16>,
    #[command(flatten)]
    isa: IsaArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What there is, and what was measured.
#[derive(Debug, Serialize)]
pub struct Found {
    #[serde(flatten)]
    pub machine: Machine,
    /// All tiers that are there and allowed.
    pub tiers: Vec<String>,
    /// Cores that this process may use.
    pub cores_allowed: usize,
    /// Those of which the system says what they share.
    #[serde(flatten)]
    pub topology: Topology,
    /// Threads that measured at once.
    pub threads: usize,
    /// The clock of a core while all measured.
    pub clock_ghz: f64,
    pub nominal_ghz: Option<f64>,
    pub max_ghz: Option<f64>,
    pub peaks: Vec<Peak>,
    pub core_to_core_ns: Option<f64>,
    pub bandwidth: Vec<Bandwidth>,
    /// Cores that other processes used before anything was measured.
    pub others_cores: Option<f64>,
    pub noise_floor: f64,
    pub tie: f64,
}

/// What a core does in a second by the instructions of a tier: alone, and while all threads do.
#[derive(Debug, Serialize)]
pub struct Peak {
    pub isa: String,
    /// What these instructions multiply: `f32`, `bf16` or `u8`.
    pub operands: &'static str,
    pub one_thread_gflops: f64,
    pub all_threads_gflops_a_core: f64,
}

/// What is read in a second: by one core alone, and by all threads together.
#[derive(Debug, Serialize)]
pub struct Bandwidth {
    pub level: String,
    /// What each of all threads read again and again; null where there is no room for it.
    pub kib_a_thread: Option<usize>,
    pub one_thread_gb_s: Option<f64>,
    pub all_threads_gb_s: Option<f64>,
}

pub fn machine(args: &MachineArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let cpu = args.isa.cpu();
    let count = args.threads.map_or_else(available, usize::from);
    let load = LoadMonitor::new();
    std::thread::sleep(POLICY.contention.load_sample);
    let others_cores = load.others().map(hundredths);
    let all = threads(count)?;
    let topology = Topology::detect();
    let core_to_core_ns = all.install(|| core_to_core(&all, &mut Team::new(count))).map(ns);
    let CpuFreq { nominal_ghz, max_ghz } = CpuFreq::detect();
    let noise_floor = noise_floor(&cpu, count)?;
    let found = Found {
        machine: Machine::of(&cpu),
        tiers: tiers(&cpu).iter().map(Tier::to_string).collect(),
        cores_allowed: available(),
        threads: count,
        clock_ghz: best_clock(&all),
        nominal_ghz,
        max_ghz,
        peaks: peaks(&cpu, count)?,
        core_to_core_ns,
        bandwidth: bandwidths(&cpu, &topology, count)?,
        topology,
        others_cores,
        tie: noise::tie(noise_floor),
        noise_floor,
    };
    args.output.print(&found, out)
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn peaks(cpu: &Cpu, count: usize) -> Result<Vec<Peak>, Failure> {
    let (one, all) = (threads(1)?, threads(count)?);
    let peak = |tier: Tier| Peak {
        isa: tier.to_string(),
        operands: operands(tier),
        one_thread_gflops: best_peak(cpu, tier, &one),
        all_threads_gflops_a_core: best_peak(cpu, tier, &all),
    };
    Ok(tiers(cpu).into_iter().map(peak).collect())
}

/// What the instructions multiply that a tier adds, and that its peak is of.
fn operands(tier: Tier) -> &'static str {
    match tier {
        Tier::Plain | Tier::Avx2 | Tier::Avx512 => "f32",
        Tier::AvxVnni | Tier::Avx512Vnni => "u8",
        Tier::Avx512Bf16 | Tier::Amx => "bf16",
    }
}

fn bandwidths(cpu: &Cpu, topology: &Topology, count: usize) -> Result<Vec<Bandwidth>, Failure> {
    let measure = |count: usize| -> Result<_, Failure> {
        let (threads, sizes) = (threads(count)?, sizes(&cpu.caches, topology, count));
        Ok((threads.install(|| bandwidth(cpu, &threads, sizes)), sizes))
    };
    let ((one, _), (all, sizes)) = (measure(1)?, measure(count)?);
    let of = |(level, bytes): (MemoryLevel, Option<usize>)| Bandwidth {
        level: level.to_string(),
        kib_a_thread: bytes.map(|bytes| bytes >> 10),
        one_thread_gb_s: one.get(level),
        all_threads_gb_s: all.get(level).map(|rate| rate * count as f64),
    };
    Ok(MemoryLevel::ALL.into_iter().zip(sizes).map(of).collect())
}

/// A kernel against a copy of itself on some convolutions of InceptionV3, as a tuning measures it.
fn noise_floor(cpu: &Cpu, count: usize) -> Result<f64, Failure> {
    let graph = Graph::new(&Model::inception_v3(), 1, PoolKind::Average);
    let problems = graph.problems();
    let counts = problems.iter().map(|(problem, steps)| (problem, steps.len()));
    let weights = weights_come_from(weight_bytes(counts, Precision::F32), cpu);
    let problems: Vec<Problem> = problems.iter().map(|(problem, _)| problem.clone()).collect();
    let (threads, mut silent) = (threads(count)?, Silent);
    let progress = Progress::new(&mut silent);
    let stage = StageProgress::new(&progress, Stage::NoiseFloor);
    let floor = threads.install(|| noise::floor(problems, cpu, &threads, weights, stage));
    Ok((floor * 1e4).round() / 1e4)
}
