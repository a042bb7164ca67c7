//! Chooses the kernels of a network: the least time within bounds on its error and its memory, and of what is
//! within half a hundredth of that the least memory.
//!
//! The error of a plan is measured: the whole network against f64, see [`crate::exact`]. Where the fastest
//! choice exceeds the bound, a model says which others are worth a try:
//!
//! ```text
//! error^2 ~ sum over steps of (gain * rms error of the step's candidate)^2
//! ```
//!
//! The candidate's error is against the oracle, on synthetic data; a step's gain is what the result makes of a
//! small random change of its outputs. Errors of real kernels are not independent from pixel to pixel as those
//! of the model are, so that it is off by a factor of its own for each network. Bisection finds the largest sum
//! whose plan keeps the bound when it is measured.

mod search;

use std::ops::RangeInclusive;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use kernels::cpu::Cpu;
use kernels::tensor::{Dtype, Formats};

use crate::apart::CoreDistanceMonitor;
use crate::budget::{Cost, picked, total};
use crate::exact::Exact;
use crate::graph::{Graph, Step};
use crate::measure::{Measured, Measurement, Timing};
use crate::options::{Failure, relative_l2};
use crate::planner::{default_choice, default_choices, is_eligible, winner};
use crate::session::{Choice, Session};
use crate::threads::Threads;
use crate::types::{Types, cheapest, pair};
use crate::weights::Weights;
use crate::weights::synthetic::{image, unit};
use search::cost;

/// A graph with what it needs to be run.
pub struct Network<'a> {
    /// The steps.
    pub graph: &'a Graph,
    /// Their weights.
    pub weights: &'a Weights,
    /// The processor.
    pub cpu: &'a Cpu,
    /// Worker threads.
    pub threads: &'a Threads,
    /// How far apart their cores are.
    pub distance: &'a CoreDistanceMonitor,
    /// When candidates in the running network must be done; times alone decide where there is no time for them.
    pub settled: Option<Instant>,
}

/// What a plan must keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Relative L2 error of the features against f64.
    pub error: f64,
    /// MiB of the process that runs the plan, with [`process_bytes`].
    pub memory: Option<u32>,
}

/// Bytes that a process takes beside what [`Session::memory`] counts: the program, images and results, and for
/// each thread a layer's weights on their way from the file to their packed form, and what the heap keeps of them.
pub fn process_bytes(threads: usize) -> usize {
    (12 + 22 * threads) << 20
}

/// Bytes of a process that runs a network.
pub fn bytes_with(session: &Session, threads: &Threads) -> usize {
    session.memory().iter().sum::<usize>() + process_bytes(threads.count())
}

/// Whether a process that runs a network keeps the bound on its memory.
pub fn fits(session: &Session, network: &Network, bounds: &Bounds) -> bool {
    bounds.memory.is_none_or(|mib| bytes_with(session, network.threads) <= (mib as usize) << 20)
}

/// A choice that was made into a network and measured.
pub struct Chosen<'a> {
    /// The candidates; `None` for a step that has none.
    pub winners: Vec<Option<&'a Measured>>,
    /// The same, and default choices for the others.
    pub choices: Vec<Choice>,
    /// The network.
    pub session: Session,
    /// Its error against f64.
    pub error: f64,
    /// Of each step, the candidates that were timed in the running network.
    pub settled: Vec<Vec<(&'a Measured, Timing)>>,
    /// The network that was chosen by times alone; none where nothing else would do.
    pub alone: Option<Session>,
    picks: Vec<usize>,
    /// The image with that error.
    image: Vec<f32>,
}

impl Chosen<'_> {
    /// How many times as long as by the choice of times alone a step takes in place.
    pub fn against_alone(&self, step: usize) -> f64 {
        let first = self.settled.get(step).and_then(|list| list.first());
        let ratio = |(own, (_, first)): (Timing, &(&Measured, Timing))| own.median / first.median;
        self.timing(step).zip(first).map_or(1.0, ratio)
    }

    /// Seconds of all steps by the choice of times alone.
    pub fn alone_seconds(&self) -> f64 {
        let first = |step: usize| self.settled.get(step).and_then(|list| list.first()).map(|(c, _)| *c);
        let of = |step: usize| {
            let own = first(step).or(self.winners[step]);
            own.map_or(0.0, Measured::seconds) * self.session.graph().repeats(step) as f64
        };
        (0..self.winners.len()).map(of).sum()
    }

    /// The time of a step: in the running network where that was taken, else alone.
    pub fn timing(&self, step: usize) -> Option<Timing> {
        let won = self.winners[step]?;
        let settled = self.settled.get(step).into_iter().flatten().find(|(c, _)| std::ptr::eq(*c, won));
        let repeats = self.session.graph().repeats(step) as f64;
        settled.map(|(_, time)| *time).or(Some(won.timing()?.scaled(repeats)))
    }
}

impl Network<'_> {
    /// The network by the given choices.
    pub fn session(&self, choices: &[Choice]) -> Result<Session, Failure> {
        Ok(Session::new(self.graph.clone(), choices, self.weights, self.cpu, self.threads)?)
    }

    /// The choices of winners, and default choices for steps without one.
    pub fn choices(&self, winners: &[Option<&Measured>]) -> Vec<Choice> {
        let choose = |(won, step): (&Option<&Measured>, &Step)| match won {
            Some(c) => c.choice(),
            None => default_choice(&step.problem, self.cpu),
        };
        winners.iter().zip(&self.graph.steps).map(choose).collect()
    }

    /// [`Self::gains`] of the network by default choices, which is in f32.
    pub fn default_gains(&self) -> Result<Vec<f64>, Failure> {
        let mut session = self.session(&default_choices(self.graph, self.cpu))?;
        Ok(self.gains(&mut session, &built_in_images(self.graph, 1)))
    }

    /// For each step, how many times its own relative size a small random change of the step's outputs
    /// has in the result.
    pub fn gains(&self, session: &mut Session, image: &[f32]) -> Vec<f64> {
        session.run(self.threads, image, 1);
        let before = session.result(1);
        let mut gain = |step: usize| {
            let change = |values: &mut [f32]| {
                let squares: f64 = values.iter().map(|&v| (v as f64).powi(2)).sum();
                let size = CHANGE * (12.0 * squares / values.len() as f64).sqrt();
                for (i, value) in values.iter_mut().enumerate().filter(|(_, v)| **v != 0.0) {
                    *value += (size * (unit(17, step as u64, i as u64) - 0.5)) as f32;
                }
            };
            relative_l2(&session.run_changed(self.threads, image, step, change), &before) / CHANGE
        };
        let bar = ProgressBar::new(self.graph.steps.len() as u64);
        bar.set_style(
            ProgressStyle::with_template("{bar:30} {percent:>3}% {elapsed} errors of steps")
                .expect("a template"),
        );
        (0..self.graph.steps.len()).map(|step| (gain(step), bar.inc(1)).0).collect()
    }
}

impl Network<'_> {
    /// The lightest choice of those within half a hundredth of the fastest that keeps the bounds; `exact` is of
    /// this graph or another form of it.
    ///
    /// # Errors
    /// If nothing keeps the bounds, with the least that can be had.
    pub fn choose<'a>(
        &self,
        measurements: &'a [Measurement],
        bounds: &Bounds,
        exact: &Exact,
    ) -> Result<Chosen<'a>, Failure> {
        let memory = bounds.memory.map_or(usize::MAX, |mib| (mib as usize) << 20);
        let search = |types: &[Dtype]| self.search(measurements, exact, types, memory);
        if Types::within(bounds.error) == Types::Lower {
            // The fastest first, then by halves between what exceeds the bound and what keeps it.
            let mut list = self.typings(measurements, &vec![0.0; self.graph.steps.len()]);
            let (mut held, mut next) = (None, 0);
            let (mut low, mut high) = (0, list.len());
            while low < high {
                let mut search = search(&list[next]);
                match search.attempt(f64::INFINITY)? {
                    Some(chosen) if chosen.error <= bounds.error => {
                        held = Some((search, chosen));
                        high = next;
                    }
                    _ if next == 0 => {
                        list = self.typings(measurements, &self.default_gains()?);
                        (low, high) = (1, list.len());
                    }
                    _ => low = next + 1,
                }
                next = low.midpoint(high);
            }
            if let Some((mut search, chosen)) = held {
                return search.in_place(chosen, bounds.error);
            }
        }
        let mut search = search(&self.all_f32());
        let Some(fastest) = search.attempt(f64::INFINITY)? else {
            let least = search.least_mib()?;
            return Err(format!(
                "--max-memory {} MiB: no plan keeps it, the least is {least} MiB",
                memory >> 20
            )
            .into());
        };
        let chosen = match fastest.error <= bounds.error {
            true => fastest,
            false => search.within(fastest, bounds.error)?,
        };
        search.in_place(chosen, bounds.error)
    }

    /// All tensors in f32.
    fn all_f32(&self) -> Vec<Dtype> {
        vec![Dtype::F32; self.graph.tensors.len()]
    }

    /// Choices from the fastest that types allow to the most exact in f32, by times alone: of each kind up to `count`.
    ///
    /// # Errors
    /// If a kernel refuses what it was measured with.
    pub fn frontier<'a>(
        &self,
        measurements: &'a [Measurement],
        exact: &Exact,
        types: Types,
        count: usize,
    ) -> Result<Vec<Chosen<'a>>, Failure> {
        let mut list = Vec::new();
        if types == Types::Lower {
            let typings = self.typings(measurements, &self.default_gains()?);
            let some = count.min(typings.len());
            for types in (0..some).map(|i| &typings[i * typings.len() / some]) {
                list.extend(self.search(measurements, exact, types, usize::MAX).attempt(f64::INFINITY)?);
            }
        }
        let mut search = self.search(measurements, exact, &self.all_f32(), usize::MAX);
        let Some(mut fastest) = search.attempt(f64::INFINITY)? else { return Ok(list) };
        search.price(&self.gains(&mut fastest.session, &fastest.image));
        let [least, most] = [search.least_error(), total(picked(&search.costs, &fastest.picks)).error];
        list.push(fastest);
        for i in 1..count {
            let part = i as f64 / (count - 1).max(1) as f64;
            list.extend(search.attempt(most * (least / most).powf(part))?);
        }
        Ok(list)
    }

    /// Types of tensors that are worth a try, the fastest first: each keeps fewer of the steps that add most to
    /// the error, magnified by each step's gain, for the time they save in a lower type.
    fn typings(&self, measurements: &[Measurement], gains: &[f64]) -> Vec<Vec<Dtype>> {
        let of = |((index, step), &gain): ((usize, &Step), &f64)| {
            let repeats = self.graph.repeats(index) as f64;
            let measurement = measurements.iter().find(|m| m.problem == step.problem);
            let best = |types| {
                let allowed = |c: &Measured| is_eligible(c) && pair(&c.formats) == types;
                match measurement {
                    Some(measurement) => Some((types, cost(winner(measurement, allowed)?, repeats, gain))),
                    // What was not measured is a default choice, in f32.
                    None => (types == [Dtype::F32; 2]).then_some((types, Cost::default())),
                }
            };
            Formats::ALL.iter().filter_map(|formats| best(pair(formats))).collect()
        };
        let classes: Vec<Vec<([Dtype; 2], Cost)>> =
            self.graph.steps.iter().enumerate().zip(gains).map(of).collect();
        let class =
            |step: usize, types| classes[step].iter().find(|(t, _)| *t == types).map(|(_, cost)| *cost);
        let priced = |price: f64| {
            cheapest(self.graph, |step, types| class(step, types).map(|c| c.seconds + price * c.error))
        };
        let Some(fastest) = priced(0.0) else { return Vec::new() };
        let sum = |types: &[Dtype]| {
            let of = |(index, step): (usize, &Step)| {
                class(index, [types[step.src.tensor], types[step.dst[0].tensor]]).unwrap_or_default()
            };
            total(&self.graph.steps.iter().enumerate().map(of).collect::<Vec<_>>())
        };
        let Cost { seconds, error, .. } = sum(&fastest);
        let mut list = vec![fastest];
        for exponent in PRICES {
            let price = 2f64.powi(exponent) * seconds / error.max(f64::MIN_POSITIVE);
            if let Some(types) = priced(price)
                && list.last() != Some(&types)
            {
                list.push(types);
            }
        }
        list
    }
}

/// Size of the random changes that gains are taken from: well above the roundings that they cause, well below
/// what would turn ReLUs on and off.
const CHANGE: f64 = 1e-3;
/// What a squared error as large as that of the fastest types may cost in search of types that keep a bound: powers
/// of two of their time.
const PRICES: RangeInclusive<i32> = -12..=7;

/// As many built-in images.
pub fn built_in_images(graph: &Graph, n: usize) -> Vec<f32> {
    let input = graph.tensors[0];
    image(n, input.h, input.w, input.c, 0)
}
