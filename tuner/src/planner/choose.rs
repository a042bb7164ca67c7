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
use crate::planner::search::{Chosen, Search, cost};

impl<'m> Network<'_, 'm> {
    /// The fastest choice that keeps the bounds. An error if nothing keeps the bounds, with the
    /// least that can be had.
    pub fn choose(&self) -> Result<Chosen<'m>, PlannerError> {
        let bound = self.bounds.error;
        let memory = self.bounds.memory.map_or(usize::MAX, |mib| (mib as usize) << 20);
        let search = |types: &[Dtype]| self.search(types, memory);
        if self.precision() != Precision::F32 {
            // The fastest first, then by halves between what exceeds the bound and what keeps it.
            let mut classes = self.classes(&vec![0.0; self.graph.steps.len()]);
            let mut list = self.typings(&classes);
            let (mut held, mut next) = (None, 0);
            let (mut low, mut high) = (0, list.len());
            while low < high {
                let mut search = search(&list[next].types);
                match search.attempt(f64::INFINITY)? {
                    Some(chosen) if chosen.error <= bound => {
                        held = Some((list[next].clone(), search, chosen));
                        high = next;
                    }
                    _ if next == 0 => {
                        classes = self.classes(&self.default_gains()?);
                        list = self.typings(&classes);
                        (low, high) = (1, list.len());
                    }
                    _ => low = next + 1,
                }
                next = low.midpoint(high);
            }
            if let Some(held) = held {
                let (mut search, chosen) = self.faster(&classes, &list[0].types, held, memory)?;
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

    /// What the model has wrong: from types that keep the bound on to those of the fastest choice,
    /// tensor by tensor, as far as they prove exact. Where the fastest is u8, bf16 is tried too.
    fn faster<'s>(
        &'s self,
        classes: &[Class],
        fastest: &[Dtype],
        (Typing { price, mut types }, mut search, mut chosen): (Typing, Search<'m, 's>, Chosen<'m>),
        memory: usize,
    ) -> Result<(Search<'m, 's>, Chosen<'m>), PlannerError> {
        let mut fixed = vec![None; types.len()];
        let mut tried = 0;
        let wanted = fastest.iter().enumerate().flat_map(|(at, &first)| [(at, first), (at, Dtype::Bf16)]);
        for (tensor, dtype) in wanted {
            if tried == POLICY.bounds.faster || [dtype, fastest[tensor]].contains(&types[tensor]) {
                continue;
            }
            let mut with = fixed.clone();
            with[tensor] = Some(dtype);
            let is_faster = |other: &Vec<Dtype>| self.seconds(classes, other) < self.seconds(classes, &types);
            let Some(other) = self.cheapest_types(classes, price, &with).filter(is_faster) else { continue };
            tried += 1;
            let mut by_other = self.search(&other, memory);
            if let Some(by) = by_other.attempt(f64::INFINITY)?.filter(|by| by.error <= self.bounds.error) {
                (types, fixed, search, chosen) = (other, with, by_other, by);
            }
        }
        Ok((search, chosen))
    }

    fn all_f32(&self) -> Vec<Dtype> {
        vec![Dtype::F32; self.graph.tensors.len()]
    }

    /// Choices from the fastest that types allow to the most exact in f32, by isolated times: of
    /// each kind up to `count`.
    pub fn frontier(&self, count: usize) -> Result<Vec<Chosen<'m>>, PlannerError> {
        let mut list = Vec::new();
        if self.precision() != Precision::F32 {
            let typings = self.typings(&self.classes(&self.default_gains()?));
            let some = count.min(typings.len());
            for typing in (0..some).map(|i| &typings[i * typings.len() / some]) {
                list.extend(self.search(&typing.types, usize::MAX).attempt(f64::INFINITY)?);
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

    /// For each step the least cost of each pair of types that it can read and write, its errors
    /// magnified by its gain.
    fn classes(&self, gains: &[f64]) -> Vec<Class> {
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
            Class(pairs().filter_map(best).collect())
        };
        self.graph.steps.iter().enumerate().zip(gains).map(of).collect()
    }

    /// What steps of tensors of these types cost; none where no kernel has them.
    fn cost_of(&self, classes: &[Class], types: &[Dtype]) -> Option<Cost> {
        let of = |(step, class): (&Step, &Class)| class.cost(types_of(step, types));
        let costs: Option<Vec<Cost>> = self.graph.steps.iter().zip(classes).map(of).collect();
        Some(total(&costs?))
    }

    fn seconds(&self, classes: &[Class], types: &[Dtype]) -> f64 {
        self.cost_of(classes, types).map_or(f64::INFINITY, |cost| cost.seconds)
    }

    /// The types with the least sum of seconds and of errors at a price, where some are fixed.
    fn cheapest_types(&self, classes: &[Class], price: f64, fixed: &[Option<Dtype>]) -> Option<Vec<Dtype>> {
        let keeps = |tensor: usize, dtype: Dtype| fixed[tensor].is_none_or(|fixed| fixed == dtype);
        cheapest(self.graph, |index, types| {
            let step = &self.graph.steps[index];
            let is_allowed =
                keeps(step.src.tensor, types[0]) && step.dst.iter().all(|dst| keeps(dst.tensor, types[1]));
            classes[index].cost(types).filter(|_| is_allowed).map(|c| c.seconds + price * c.error)
        })
    }

    /// Types of tensors that are worth a try, the fastest first: each keeps fewer of the steps that
    /// add most to the error for the time that a lower type saves.
    fn typings(&self, classes: &[Class]) -> Vec<Typing> {
        let none = vec![None; self.graph.tensors.len()];
        let priced = |price| Some(Typing { price, types: self.cheapest_types(classes, price, &none)? });
        let Some(fastest) = priced(0.0) else { return Vec::new() };
        let Cost { seconds, error, .. } = self.cost_of(classes, &fastest.types).unwrap_or_default();
        let mut list = vec![fastest];
        for exponent in POLICY.bounds.prices {
            let price = 2f64.powf(f64::from(exponent) / 4.0) * seconds / error.max(f64::MIN_POSITIVE);
            if let Some(typing) = priced(price)
                && list.last().is_none_or(|last| last.types != typing.types)
            {
                list.push(typing);
            }
        }
        list
    }
}

/// The types of all tensors.
#[derive(Clone)]
struct Typing {
    /// Seconds that a squared error of 1 costs, by which they were found.
    price: f64,
    types: Vec<Dtype>,
}

/// The least cost of a step for each pair of types that it can read and write.
struct Class(Vec<([Dtype; 2], Cost)>);

impl Class {
    fn cost(&self, types: [Dtype; 2]) -> Option<Cost> {
        self.0.iter().find(|(of, _)| *of == types).map(|found| found.1)
    }
}
