//! What `tuner machine` prints: each number with what it means.

use crate::bench::POLICY;
use crate::bench::topology::SharedCache;
use crate::cli::Answer;
use crate::cli::machine::{Bandwidth, Found, Peak};
use crate::report::{Table, count, paragraphs, sections, short};

/// Lists of cores that are shown of a kind of cache.
const LISTS: usize = 4;

impl Answer for Found {
    fn text(&self, width: usize) -> String {
        let rates = format!("Bandwidths and peaks are measured on one thread, and on {} at once.", {
            count(self.threads, "thread")
        });
        sections([
            paragraphs([self.title()], width, 2),
            self.facts().fold(width),
            self.caches(width),
            self.bandwidth().fold(width),
            self.peaks().fold(width) + &paragraphs([rates], width, 2),
        ])
    }
}

/// A number, or `-` where it is not known.
fn known(value: Option<impl ToString>) -> String {
    value.map_or("-".to_string(), |value| value.to_string())
}

fn ghz(value: Option<f64>) -> String {
    value.map_or("-".to_string(), |ghz| format!("{ghz:.2}"))
}

fn size(kib: usize) -> String {
    if kib >= 1 << 10 { format!("{} MiB", short((kib as f64) / 1024.0)) } else { format!("{kib} KiB") }
}

impl Found {
    fn title(&self) -> String {
        let machine = &self.machine;
        let microcode = match machine.microcode.as_str() {
            "" => String::new(),
            revision => format!(", microcode {revision}"),
        };
        format!("{}, {}{microcode}; tiers: {}", machine.cpu, machine.os, self.tiers.join(", "))
    }

    fn facts(&self) -> Table {
        let mut table = Table::new("what | now | meaning");
        let mut row = |what: &str, now: String, meaning: &str| table.row(&[&what, &now, &meaning]);
        let topology = &self.topology;
        let online = format!("that this process may use, of {} that are online", self.machine.cores);
        row("cores", self.cores_allowed.to_string(), &online);
        row("physical cores", known(topology.physical_cores), "of these: --threads is so many by default");
        row("threads a core", known(topology.threads_a_core), "hardware threads that share a physical core");
        row("packages", known(topology.packages), "processors: a cache line takes longer between two");
        row("NUMA nodes", known(topology.numa_nodes), "parts of the memory, each near to some of the cores");
        row("clock, GHz", ghz(Some(self.clock_ghz)), "of a core while all threads multiply, measured");
        row("nominal, GHz", ghz(self.nominal_ghz), "what the system calls the clock without turbo");
        row("maximum, GHz", ghz(self.max_ghz), "the most that the system lets a core have");
        let latency = self.core_to_core_ns.map(|ns| format!("{ns:.0}"));
        row("core to core, ns", known(latency), "for a cache line, between the two that are furthest apart");
        let others = self.others_cores.map(|cores| format!("{cores:.2}"));
        let busy = POLICY.contention.busy_share * self.cores_allowed as f64;
        row("others, cores", known(others), &format!("that other processes used; above {busy:.1} is busy"));
        let percent = |share: f64| format!("{:.1}%", share * 100.0);
        row("noise floor", percent(self.noise_floor), "a kernel against its copy: less is no difference");
        row("tie", percent(self.tie), "what a tuning takes for no difference at this noise floor");
        table
    }

    /// By the system, or else by the processor, which does not say who shares them.
    fn caches(&self, width: usize) -> String {
        let mut table = Table::new("cache | size | there are | each for the cores");
        for SharedCache { level, kind, kib, shared_by } in &self.topology.caches {
            let more = shared_by.len().saturating_sub(LISTS);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let lists = shared_by[..shared_by.len().min(LISTS)].join(" | ") + &more;
            table.row(&[&format!("L{level} {kind}"), &known(kib.map(size)), &shared_by.len(), &lists]);
        }
        if self.topology.caches.is_empty() {
            for (name, kib) in ["L1 data", "L2", "L3"].iter().zip(self.machine.caches_kib) {
                table.row(&[name, &size(kib), &"-", &"-"]);
            }
        }
        table.fold(width)
    }

    fn bandwidth(&self) -> Table {
        let mut table = Table::new("read from | a thread reads | one thread, GB/s | all threads, GB/s");
        for Bandwidth { level, kib_a_thread, one_thread_gb_s, all_threads_gb_s } in &self.bandwidth {
            let [one, all] = [one_thread_gb_s, all_threads_gb_s].map(|rate| known(rate.map(short)));
            table.row(&[level, &known(kib_a_thread.map(size)), &one, &all]);
        }
        table
    }

    fn peaks(&self) -> Table {
        let mut table =
            Table::new("instructions | operands | one thread, GFLOP/s | all threads, GFLOP/s a core");
        for Peak { isa, operands, one_thread_gflops, all_threads_gflops_a_core } in &self.peaks {
            table.row(&[isa, operands, &short(*one_thread_gflops), &short(*all_threads_gflops_a_core)]);
        }
        table
    }
}
