//! The search for a choice within bounds on error and memory, among candidates of given types.

use engine::network::{Choice, Step};
use engine::runtime::PreparedNetwork;
use engine::util::Timing;
use kernels::Dtype;

use crate::bench::POLICY;
use crate::measure::{CandidateResult, of_step};
use crate::planner::context::{Network, built_in_images};
use crate::planner::error::PlannerError;
use crate::planner::in_network::{InNetworkTime, finalists, missing_time, time_in_network, with_room};
use crate::planner::knapsack::{Cost, Limits, choose, least_memory, picked, total};
use crate::planner::ranking::{by_tie, is_eligible, types_of, winner};

/// A choice that was made into a network and measured.
pub struct Chosen<'a> {
    /// The candidates; `None` for a step that has none.
    pub winners: Vec<Option<&'a CandidateResult>>,
    /// The same, and default choices for the others.
    pub choices: Vec<Choice>,
    pub session: PreparedNetwork,
    pub error: f64,
    /// Of each step, the candidates that were timed in the network; none if there was no time.
    pub in_network: Vec<Vec<(&'a CandidateResult, Timing)>>,
    /// What was chosen by isolated times; none where nothing else was done.
    pub isolated: Option<Box<Self>>,
    /// Seconds that were missing to time candidates in the network, where there were not enough.
    pub missing_s: Option<f64>,
    /// Of each step, which of its options; none where choices were given as a whole.
    pub picks: Vec<usize>,
    /// The image with that error.
    pub image: Vec<f32>,
}

impl Chosen<'_> {
    /// Bytes of a process that runs it.
    pub fn process_bytes(&self) -> usize {
        self.session.memory().total().unwrap_or(usize::MAX)
    }

    /// How many times as long as by the choice by isolated times a step takes in the network.
    pub fn in_network_ratio(&self, step: usize) -> f64 {
        let first = self.in_network[step].first();
        let ratio = |(own, (_, first)): (Timing, &(&CandidateResult, Timing))| own.median / first.median;
        self.timing(step).zip(first).map_or(1.0, ratio)
    }

    /// Seconds of all steps by the choice by isolated times.
    pub fn isolated_seconds(&self) -> f64 {
        let of = |step: usize| {
            let own = self.in_network[step].first().map(|(c, _)| *c).or(self.winners[step]);
            own.map_or(0.0, CandidateResult::seconds) * self.session.graph().repeats(step) as f64
        };
        (0..self.winners.len()).map(of).sum()
    }

    /// The time of a step: in the running network where that was taken, else alone.
    pub fn timing(&self, step: usize) -> Option<Timing> {
        let won = self.winners[step]?;
        let in_network = self.in_network[step].iter().find(|(c, _)| c.choice == won.choice);
        let repeats = self.session.graph().repeats(step) as f64;
        in_network.map(|(_, time)| *time).or(Some(won.timing()?.scaled(repeats)))
    }
}

impl<'m> Network<'_, 'm> {
    /// A network by choices that were made as a whole. Its error is not measured yet: infinite.
    pub fn given(&self, choices: Vec<Choice>) -> Result<Chosen<'m>, PlannerError> {
        let candidate = |(step, choice): (&Step, &Choice)| {
            of_step(self.measurements, step)?.candidates.iter().find(|c| c.choice == *choice)
        };
        Ok(Chosen {
            winners: self.graph.steps.iter().zip(&choices).map(candidate).collect(),
            session: self.session(&choices)?,
            error: f64::INFINITY,
            in_network: vec![Vec::new(); choices.len()],
            isolated: None,
            missing_s: None,
            picks: Vec::new(),
            image: Vec::new(),
            choices,
        })
    }

    /// For tensors of given types, and a process of at most so many bytes.
    pub fn search<'n>(&'n self, types: &[Dtype], memory: usize) -> Search<'m, 'n> {
        let graph = self.graph;
        let options: Vec<Vec<_>> = graph.steps.iter().map(|step| self.options(step, types)).collect();
        let costs = |(step, options): (usize, &Vec<&CandidateResult>)| {
            options.iter().map(|c| cost(c, graph.repeats(step) as f64, 0.0)).collect()
        };
        let costs = options.iter().enumerate().map(costs).collect();
        Search { network: self, options, costs, memory, left: memory }
    }

    /// Eligible candidates of a step for given types, the [`winner`] first, the others by time.
    fn options(&self, step: &Step, types: &[Dtype]) -> Vec<&'m CandidateResult> {
        let Some(measurement) = of_step(self.measurements, step) else { return Vec::new() };
        let allowed = |c: &CandidateResult| is_eligible(c) && c.types() == types_of(step, types);
        let first = winner(measurement, allowed);
        let others = measurement.ranking().into_iter().filter(|c| allowed(c));
        let others = others.filter(|c| first.is_none_or(|first| c.choice != first.choice));
        first.into_iter().chain(others).collect()
    }
}

/// What a candidate costs where it is taken so many times and its errors are magnified so much.
pub fn cost(candidate: &CandidateResult, repeats: f64, gain: f64) -> Cost {
    Cost {
        seconds: candidate.seconds() * repeats,
        error: squared_error(candidate, gain),
        packed: candidate.checked.packed,
        scratch: candidate.checked.scratch,
    }
}

/// The share of a candidate in the squared error of the network.
fn squared_error(candidate: &CandidateResult, gain: f64) -> f64 {
    (gain * candidate.checked.rms_error).powi(2)
}

pub struct Search<'a, 'n> {
    network: &'n Network<'n, 'a>,
    options: Vec<Vec<&'a CandidateResult>>,
    /// What each costs, by isolated times or, once they are known, by those in the network.
    pub costs: Vec<Vec<Cost>>,
    /// Bytes of the process.
    memory: usize,
    /// Bytes of them for packed weights and scratch, as far as known.
    left: usize,
}

impl<'a> Search<'a, '_> {
    /// What the errors of options cost where those of the steps are magnified so much.
    pub fn price(&mut self, gains: &[f64]) {
        for ((options, costs), &gain) in self.options.iter().zip(&mut self.costs).zip(gains) {
            options.iter().zip(costs).for_each(|(c, cost)| cost.error = squared_error(c, gain));
        }
    }

    /// Times what is close to a choice in the running network, and chooses again by that.
    pub fn time_finalists(&mut self, mut chosen: Chosen<'a>, bound: f64) -> Result<Chosen<'a>, PlannerError> {
        let network = self.network;
        let Some(end) = network.in_network_until else { return Ok(chosen) };
        let images = built_in_images(network.graph, network.graph.batch);
        let lists: Vec<Vec<usize>> = (self.options.iter().zip(&chosen.picks).enumerate())
            .map(|(step, (options, &pick))| finalists(&chosen.session, step, options, pick))
            .collect();
        let candidates: Vec<Vec<&'a CandidateResult>> =
            lists.iter().zip(&self.options).map(|(list, o)| list.iter().map(|&i| o[i]).collect()).collect();
        let missing_s = missing_time(network, &mut chosen.session, &candidates, &images, end);
        if missing_s.is_some() {
            return Ok(Chosen { missing_s, ..chosen });
        }
        let mut widened = with_room(network, &chosen.session, &chosen.choices, &candidates)?;
        let session = widened.as_mut().unwrap_or(&mut chosen.session);
        let times = time_in_network(network, session, &candidates, &images, end)?;
        let timed = |(candidates, times): (Vec<&'a CandidateResult>, &Vec<InNetworkTime>)| {
            candidates.into_iter().zip(times).map(|(c, time)| (c, time.timing)).collect()
        };
        let in_network: Vec<_> = candidates.into_iter().zip(&times).map(timed).collect();
        for (step, (list, times)) in lists.iter().zip(&times).enumerate() {
            if !list.is_empty() {
                self.rank(step, list, times);
            }
        }
        self.price(&vec![0.0; network.graph.steps.len()]);
        let again = match self.attempt(f64::INFINITY)? {
            Some(again) if again.error <= bound => Some(again),
            Some(again) => self.within(again, bound).ok(),
            None => None,
        };
        Ok(match again {
            Some(again) => {
                let isolated = Chosen { in_network: in_network.clone(), ..chosen };
                Chosen { in_network, isolated: Some(Box::new(isolated)), ..again }
            }
            None => Chosen { in_network, ..chosen },
        })
    }

    /// Puts a step's options in order by the times of its finalists in the network, the pick of
    /// those that tie first.
    fn rank(&mut self, step: usize, finalists: &[usize], times: &[InNetworkTime]) {
        let (options, costs) = (&mut self.options[step], &mut self.costs[step]);
        // What was not timed in the network is as much slower there as the chosen one.
        let factor = times[0].timing.median / costs[finalists[0]].seconds;
        costs.iter_mut().for_each(|cost| cost.seconds *= factor);
        finalists.iter().zip(times).for_each(|(&option, time)| costs[option].seconds = time.timing.median);
        let tied = finalists.iter().zip(times).filter(|(_, time)| time.tied).map(|(option, _)| *option);
        let first = tied.min_by(|&a, &b| by_tie(options[a], options[b])).unwrap_or(finalists[0]);
        let mut order: Vec<usize> = (0..options.len()).collect();
        order.sort_by(|&a, &b| {
            (a != first).cmp(&(b != first)).then(costs[a].seconds.total_cmp(&costs[b].seconds))
        });
        *options = order.iter().map(|&option| options[option]).collect();
        *costs = order.iter().map(|&option| costs[option]).collect();
    }

    /// The fastest choice whose errors have at most that sum and that keeps the memory, measured.
    pub fn attempt(&mut self, error: f64) -> Result<Option<Chosen<'a>>, PlannerError> {
        while let Some(picks) = choose(&self.costs, &Limits { error, memory: self.left }) {
            let chosen = self.chosen(picks)?;
            let over = chosen.process_bytes().saturating_sub(self.memory);
            if over == 0 {
                return Ok(Some(chosen));
            }
            // Activations, which differ with the halos of kernels, and the process take the rest.
            self.left = self.left.saturating_sub(over);
        }
        Ok(None)
    }

    fn chosen(&self, picks: Vec<usize>) -> Result<Chosen<'a>, PlannerError> {
        let network = self.network;
        let winners: Vec<_> = self.options.iter().zip(&picks).map(|(all, &i)| all.get(i).copied()).collect();
        let choices = network.choices(&winners);
        let mut session = network.session(&choices)?;
        let (error, image) = network.reference.error(&mut session, network.threads);
        Ok(Chosen {
            in_network: vec![Vec::new(); winners.len()],
            isolated: None,
            missing_s: None,
            image: image.to_vec(),
            winners,
            choices,
            error,
            picks,
            session,
        })
    }

    pub fn least_mib(&self) -> Result<usize, PlannerError> {
        let limits = Limits { memory: least_memory(&self.costs), ..Limits::NONE };
        let picks = choose(&self.costs, &limits).expect("the least memory holds one choice of each step");
        let chosen = self.chosen(picks)?;
        Ok(chosen.process_bytes().div_ceil(1 << 20))
    }

    /// The least sum of errors that any choice has.
    pub fn least_error(&self) -> f64 {
        let most_exact = |costs: &Vec<Cost>| costs.iter().map(|c| c.error).min_by(f64::total_cmp);
        // Rounding of the sums must not rule the most exact choice out.
        self.costs.iter().filter_map(most_exact).sum::<f64>() * (1.0 + 1e-9)
    }

    /// The fastest choice with an error of at most `bound`, which the fastest of all exceeds.
    pub fn within(&mut self, mut fastest: Chosen<'a>, bound: f64) -> Result<Chosen<'a>, PlannerError> {
        self.price(&self.network.gains(&mut fastest.session, &fastest.image));
        let sum = |search: &Self, chosen: &Chosen| total(picked(&search.costs, &chosen.picks)).error;
        let least = self.least_error();
        let (mut low, mut high) = (least, sum(self, &fastest));
        let (mut held, mut reached): (Option<Chosen>, f64) = (None, fastest.error);
        let mut target = high * (bound / fastest.error).powi(2);
        for _ in 0..POLICY.bounds.tries {
            target = target.max(least);
            match self.attempt(target)? {
                Some(chosen) if chosen.error <= bound => {
                    low = target;
                    held = Some(chosen);
                }
                Some(chosen) => {
                    reached = reached.min(chosen.error);
                    high = sum(self, &chosen).min(target);
                }
                None => high = target,
            }
            if low * POLICY.bounds.near >= high {
                break;
            }
            target = (low * high).sqrt();
        }
        if held.is_none() {
            held = self.attempt(least)?;
        }
        match held {
            Some(chosen) if chosen.error <= bound => Ok(chosen),
            last => {
                let reached = last.map_or(reached, |chosen| chosen.error.min(reached));
                Err(PlannerError::Error { bound, reached, with_memory: self.memory != usize::MAX })
            }
        }
    }
}
