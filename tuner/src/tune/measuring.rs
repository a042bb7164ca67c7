//! Measures all problems within a budget.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use kernels::problem::Problem;

use super::TuneArgs;
use crate::cold::Cold;
use crate::graph::{Graph, Step};
use crate::log::{Log, LogError};
use crate::machine::Machine;
use crate::measure::{Effort, Host, Measurement, measure};
use crate::options::{Failure, create_folder};
use crate::rewrite;
use crate::types::Types;

/// Share of a problem's time that must be left to measure it again.
const AGAIN: f64 = 0.5;
/// Rounds of a problem's candidates at most.
const ROUNDS: usize = 48;

/// The log of this machine; none where its folder can't be written.
pub fn open_log(
    machine: &Machine,
    args: &TuneArgs,
    threads: usize,
    types: Types,
    cold: Cold,
) -> Result<Option<Log>, Failure> {
    let folder = machine.folder(&args.host.results);
    let opened = create_folder(&folder)
        .and_then(|()| Ok(Log::open(&folder, machine, threads, types, cold, args.fresh || args.exhaustive)?));
    match opened {
        Ok(log) => Ok(Some(log)),
        Err(error)
            if matches!(error.downcast_ref(), Some(LogError::Foreign { .. } | LogError::Schema { .. })) =>
        {
            Err(error)
        }
        Err(error) => {
            eprintln!("note: {error}; measurements are not logged");
            Ok(None)
        }
    }
}

/// A problem to be measured.
pub struct Job {
    pub problem: Problem,
    /// How many steps have it.
    pub count: usize,
    /// The first of them.
    pub name: String,
}

/// Every distinct problem of graphs and of the other forms of their blocks.
pub fn jobs(graphs: &[Graph]) -> Vec<Job> {
    let mut seen = HashSet::new();
    let job = |(problem, steps): (Problem, Vec<Step>)| Job {
        problem,
        count: steps.len(),
        name: steps[0].layers[0].clone(),
    };
    let all = graphs.iter().flat_map(rewrite::problems).map(job);
    all.filter(|job| seen.insert(job.problem.to_string())).collect()
}

/// Measures problems, giving each a share, by its work, of the time since the start; trying what the search has left
/// out, if that is asked for, is not part of it.
pub fn measure_all(
    jobs: &[Job],
    host: &Host,
    types: Types,
    (start, time): (Instant, Duration),
    exhaustive: bool,
) -> Vec<Measurement> {
    let mut deadline = start + time;
    let weights: Vec<f64> = jobs.iter().map(|job| weight(&job.problem, job.count)).collect();
    let total: f64 = weights.iter().sum();
    let bar = ProgressBar::new(1000);
    bar.set_style(
        ProgressStyle::with_template("{bar:30} {percent:>3}% {elapsed} {msg}").expect("a template"),
    );
    // Measures one of problems that are left, which have so much of all the weight.
    let measured = |index: usize, left: f64, deadline: Instant| {
        let (Job { problem, name, .. }, own) = (&jobs[index], weights[index]);
        let time_left = deadline.saturating_duration_since(Instant::now());
        let budget = time_left.mul_f64((own / left).min(1.0));
        // What is left behind is for the other problems, wherever the cores are.
        host.threads.apart().wait_until(Instant::now() + time_left / 2);
        let effort =
            Effort { budget, share: time.mul_f64(own / total), deadline, rounds: ROUNDS, exhaustive };
        bar.set_message(name.clone());
        let progress = |part: f64| bar.set_position(((total - left + own * part) / total * 1e3) as u64);
        measure(problem, host, types, effort, progress)
    };
    let (mut left, mut list) = (total, Vec::new());
    for (index, own) in weights.iter().enumerate() {
        let measurement = measured(index, left, deadline);
        deadline += measurement.search.exhausted;
        list.push(measurement);
        left -= own;
    }
    // Where the cores have come near since, as near as nobody knew they can be, what was before is measured again.
    let is_far = |measurement: &Measurement| {
        host.threads.apart().near().is_some_and(|near| measurement.beside.is_far(near))
    };
    let far: Vec<usize> = (0..list.len()).filter(|&index| is_far(&list[index])).collect();
    let mut left: f64 = far.iter().map(|&index| weights[index]).sum();
    for index in far {
        let own = weights[index];
        let time_left = deadline.saturating_duration_since(Instant::now());
        if time_left.mul_f64(own / left) >= time.mul_f64(AGAIN * own / total) {
            list[index] = measured(index, left, deadline);
            deadline += list[index].search.exhausted;
        }
        left -= own;
    }
    bar.finish_and_clear();
    list
}

/// Share of a problem in the budget: its work, and something for having candidates at all.
fn weight(problem: &Problem, steps: usize) -> f64 {
    let work = problem.flops() as f64 * (steps as f64).sqrt();
    match problem {
        Problem::Conv(_) => work + 5e7,
        _ => 10.0 * work + 1e6,
    }
}
