//! Chooses the kernels of a network: the least time within bounds on its error and its memory. Of
//! candidates that tie, the one with the least memory.
//!
//! The error of a plan is measured: the whole network against f64, see
//! [`engine::runtime::reference`]. Where the fastest choice exceeds the bound, a model says which
//! others are worth a try:
//!
//! ```text
//! error^2 ~ sum over steps of (gain * rms error of the step's candidate)^2
//! ```
//!
//! The candidate's error is against the oracle, on synthetic data; a step's gain is what the result
//! makes of a small random change of its outputs. Errors of real kernels depend on each other from
//! pixel to pixel, those of the model do not. So the model is off by a constant factor for each
//! network. Bisection finds the largest sum whose plan keeps the bound when it is measured.

use engine::network::{Precision, Step, cheapest, pairs};
use kernels::Dtype;

use crate::bench::POLICY;
use crate::measure::{CandidateResult, of_step};
use crate::planner::context::Network;
use crate::planner::error::PlannerError;
use crate::planner::knapsack::{Cost, picked, total};
use crate::planner::ranking::{is_eligible, types_of, winner};
use crate::planner::search::{Chosen, cost};

impl<'m> Network<'_, 'm> {
    /// The fastest choice that keeps the bounds. An error if nothing keeps the bounds, with the
    /// least that can be had.
    pub fn choose(&self) -> Result<Chosen<'m>, PlannerError> {
        let bound = self.bounds.error;
        let memory = self.bounds.memory.map_or(usize::MAX, |mib| (mib as usize) << 20);
        let search = |types: &[Dtype]| self.search(types, memory);
        if self.precision() != Precision::F32 {
            // The fastest first, then by halves between what exceeds the bound and what keeps it.
            let mut list = self.typings(&vec![0.0; self.graph.steps.len()]);
            let (mut held, mut next) = (None, 0);
            let (mut low, mut high) = (0, list.len());
            while low < high {
                let mut search = search(&list[next]);
                match search.attempt(f64::INFINITY)? {
                    Some(chosen) if chosen.error <= bound => {
                        held = Some((search, chosen));
                        high = next;
                    }
                    _ if next == 0 => {
                        list = self.typings(&self.default_gains()?);
                        (low, high) = (1, list.len());
                    }
                    _ => low = next + 1,
                }
                next = low.midpoint(high);
            }
            if let Some((mut search, chosen)) = held {
                return search.time_finalists(chosen, bound);
            }
        }
        let mut search = search(&self.all_f32());
        let Some(fastest) = search.attempt(f64::INFINITY)? else {
            return Err(PlannerError::Memory { bound: memory >> 20, least: search.least_mib()? });
        };
        let chosen = if fastest.error <= bound { fastest } else { search.within(fastest, bound)? };
        search.time_finalists(chosen, bound)
    }

    fn all_f32(&self) -> Vec<Dtype> {
        vec![Dtype::F32; self.graph.tensors.len()]
    }

    /// Choices from the fastest that types allow to the most exact in f32, by isolated times: of
    /// each kind up to `count`.
    pub fn frontier(&self, count: usize) -> Result<Vec<Chosen<'m>>, PlannerError> {
        let mut list = Vec::new();
        if self.precision() != Precision::F32 {
            let typings = self.typings(&self.default_gains()?);
            let some = count.min(typings.len());
            for types in (0..some).map(|i| &typings[i * typings.len() / some]) {
                list.extend(self.search(types, usize::MAX).attempt(f64::INFINITY)?);
            }
        }
        let mut search = self.search(&self.all_f32(), usize::MAX);
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

    /// Types of tensors that are worth a try, the fastest first: each keeps fewer of the steps that
    /// add most to the error, magnified by each step's gain, for the time that a lower type saves.
    fn typings(&self, gains: &[f64]) -> Vec<Vec<Dtype>> {
        let of = |((index, step), &gain): ((usize, &Step), &f64)| {
            let repeats = self.graph.repeats(index) as f64;
            let measurement = of_step(self.measurements, step);
            let best = |types| {
                let allowed = |c: &CandidateResult| is_eligible(c) && c.types() == types;
                match measurement {
                    Some(measurement) => Some((types, cost(winner(measurement, allowed)?, repeats, gain))),
                    // What was not measured is a default choice, in f32.
                    None => (types == [Dtype::F32; 2]).then_some((types, Cost::default())),
                }
            };
            pairs().filter_map(best).collect()
        };
        let classes: Vec<Vec<([Dtype; 2], Cost)>> =
            self.graph.steps.iter().enumerate().zip(gains).map(of).collect();
        let class = |step: usize, types| classes[step].iter().find(|(t, _)| *t == types).map(|found| found.1);
        let priced = |price: f64| {
            cheapest(self.graph, |step, types| class(step, types).map(|c| c.seconds + price * c.error))
        };
        let Some(fastest) = priced(0.0) else { return Vec::new() };
        let sum = |types: &[Dtype]| {
            let of = |(index, step): (usize, &Step)| class(index, types_of(step, types)).unwrap_or_default();
            total(&self.graph.steps.iter().enumerate().map(of).collect::<Vec<_>>())
        };
        let Cost { seconds, error, .. } = sum(&fastest);
        let mut list = vec![fastest];
        for exponent in POLICY.bounds.prices {
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
