//! Steps of a block that workers take beside each other, one each, instead of sharing every step: no waiting between them,
//! and each worker reads the weights of its own steps only; but the block takes as long as the worker that has most to
//! do.
//!
//! ```text
//! shared    every step by all workers                                          the sum of the steps' times
//! beside    some steps shared, of the rest each branch by one worker           that of the shared ones, and the longest worker's
//! ```
//!
//! What is best depends on the form of the block and on the kernels: siblings that are joined have no branches, and one worker
//! alone may want other tuning than all together. So the finalists of all steps of all forms are timed in running networks
//! both ways, and of each block the form, the kernels and the deal are the least of all together by these times. Blocks where
//! that is faster than the form and the kernels chosen for sharing, in the running network, have it, unless others use the cores
//! meanwhile. Kernels are then settled in place as those of all steps are.

mod deal;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::contest::{is_busy, least_of_two, two_in_turn};
use super::record::us;
use crate::choose::{Bounds, Network, built_in_images, fits};
use crate::exact::Exact;
use crate::graph::{Graph, Step};
use crate::measure::{Measurement, Timing, widest_tie};
use crate::options::Failure;
use crate::plan::BlockBeside;
use crate::planner::{BlockChoice, in_forms};
use crate::rewrite::Rewrite;
use crate::session::{Choice, Session};
use crate::settle::{Settled, has_time, settle};
use crate::stats::ratio;
use deal::{assigned, bound, total};

/// Share of the time that is left for measuring in place, which this may take; and of it what goes into times of steps.
const SHARE: f64 = 0.35;
const STEPS: f64 = 0.7;
/// Candidates of a step at most, whose times both ways are taken.
const FINALISTS: usize = 3;
/// Inferences that a comparison takes at least, however long they take.
const RUNS: f64 = 8.0;
/// Comparisons in turn at least, for an interval, and at most.
const ROUNDS: [usize; 2] = [4, 12];

/// A network with its blocks in some forms, and what its steps take in it by the fastest of their finalists.
struct Form {
    /// The form of each block that has several.
    rewrites: Vec<(&'static str, Rewrite)>,
    graph: Graph,
    shared: Vec<(Choice, f64)>,
    /// By one worker alone.
    one: Vec<(Choice, f64)>,
    /// The worker of each step, by these times.
    taken: Vec<Option<usize>>,
}

impl Form {
    fn rewrite(&self, block: &str) -> Option<Rewrite> {
        self.rewrites.iter().find(|(own, _)| *own == block).map(|(_, rewrite)| *rewrite)
    }

    /// What a block takes at least so, with every step shared, and the bound of all ways.
    fn block(&self, block: &str, workers: usize) -> [f64; 3] {
        let steps = self.graph.block_steps(block);
        let seconds = |list: &[(Choice, f64)]| list.iter().map(|(_, s)| *s).collect::<Vec<f64>>();
        let [shared, one] = [&self.shared, &self.one].map(|list| seconds(&list[steps.clone()]));
        let least = total(&self.taken[steps], &shared, &one, workers);
        [least, shared.iter().sum(), bound(&shared, &one, workers)]
    }

    /// The worker and the choice of a step of it.
    fn of(&self, step: &Step) -> Option<(Option<usize>, &Choice)> {
        let index = self.graph.steps.iter().position(|own| own.layers == step.layers)?;
        let worker = self.taken[index];
        Some((worker, if worker.is_some() { &self.one[index].0 } else { &self.shared[index].0 }))
    }
}

/// A graph, what its blocks that were tried take, and which of them have another form for it.
type Placed = (Graph, Vec<BlockBeside>, Vec<(&'static str, Rewrite)>);

/// A plain graph in chosen forms, of which the blocks that are faster so by more than a tie have steps beside each other, in
/// whichever form; what all that were tried take; and which blocks have another form for it. None are tried where there is
/// no time for it.
///
/// # Errors
/// If steps can't be taken as they were assigned.
pub fn beside(
    network: &Network,
    forms: &[BlockChoice],
    measurements: &[Measurement],
    bounds: &Bounds,
    exact: &Exact,
) -> Result<Placed, Failure> {
    let graph = in_forms(network.graph, forms);
    let workers = network.threads.count();
    let shared = |graph: Graph| Ok((graph, Vec::new(), Vec::new()));
    let start = Instant::now();
    let left = network.settled.map_or(Duration::ZERO, |end| end.saturating_duration_since(start));
    let time = left.mul_f64(SHARE);
    // What would be taken beside each other if that cost nothing.
    let [shared_each, alone_each] = [1.0, 0.0].map(|seconds| vec![seconds; graph.steps.len()]);
    let has_branches = || assigned(&graph, &shared_each, &alone_each, workers).iter().any(Option::is_some);
    let is_short = time < least_of_two() * (1 + ROUNDS[0] as u32);
    if workers == 1 || is_short || !has_branches() {
        return shared(graph);
    }
    let until = start + time.mul_f64(STEPS);
    let time_of = |forms: &[BlockChoice]| timed(network, forms, measurements, bounds, exact, until);
    let Some(own) = time_of(forms)? else { return shared(graph) };
    let mut all = vec![own];
    for rewrite in Rewrite::ALL {
        let each = start.elapsed() / all.len() as u32;
        let others = uniform(forms, rewrite);
        let is_known = all.iter().any(|form| form.graph == in_forms(network.graph, &others));
        if !is_known && Instant::now() + each <= until {
            // What can't be is not tried.
            all.extend(time_of(&others).ok().flatten());
        }
    }
    let (list, taken) = in_turn(network, forms, &all, bounds, widest_tie(measurements), start + time)?;
    let (graph, _) = placed(network.graph, forms, &all, &taken)?;
    let changed = taken.iter().filter_map(|tried| Some((tried.block, tried.other_form(&all)?)));
    Ok((graph, list, changed.collect()))
}

/// What the blocks take that may gain by steps beside each other, in the running network in turn with the first form where all
/// steps are shared; and those of them that gain, each in its best form.
fn in_turn(
    network: &Network,
    forms: &[BlockChoice],
    all: &[Form],
    bounds: &Bounds,
    tie: f64,
    end: Instant,
) -> Result<(Vec<BlockBeside>, Vec<Tried>), Failure> {
    let mut session = of_forms(network, forms, all, &[])?;
    let mut rest = proposed(all, tie, network.threads.count());
    rest.retain(|tried| !tried.is_empty());
    let mut list: Vec<(Tried, BlockBeside)> = Vec::new();
    let an_inference: f64 = all[0].shared.iter().map(|(_, seconds)| seconds).sum();
    let a_pair = least_of_two().max(Duration::from_secs_f64(RUNS * an_inference));
    while let Some(tried) = rest.pop() {
        // Other forms may hand on tensors of other types, and more steps at a time take more scratch.
        let Ok(mut other) = of_forms(network, forms, all, &tried) else { continue };
        if !fits(&other, network, bounds) {
            continue;
        }
        let left = end.saturating_duration_since(Instant::now()) / (rest.len() + 1) as u32;
        if left < ROUNDS[0] as u32 * a_pair {
            continue;
        }
        let own_end = Instant::now() + left;
        let (blocks, is_busy) = compared(network, &mut session, &mut other, &tried, own_end);
        for (tried, [shared, own]) in tried.into_iter().zip(&blocks) {
            let Some(versus) = ratio(own, shared) else { continue };
            let beside = BlockBeside {
                block: tried.block.to_string(),
                rewrite: tried.other_form(all).map(|rewrite| rewrite.to_string()),
                shared_us: us(Timing::of(shared).median),
                versus: [versus.value, versus.low, versus.high],
                least: Some(tried.least),
                chosen: !is_busy && versus.is_gain(tie),
            };
            list.push((tried, beside));
        }
    }
    let place = |block: &str| all[0].graph.blocks().iter().position(|own| *own == block);
    list.sort_by(|(a, x), (b, y)| {
        place(a.block).cmp(&place(b.block)).then(x.versus[0].total_cmp(&y.versus[0]))
    });
    let mut blocks = HashSet::new();
    list.iter_mut().for_each(|(tried, own)| own.chosen = own.chosen && blocks.insert(tried.block));
    let (tried, list): (Vec<Tried>, Vec<BlockBeside>) = list.into_iter().unzip();
    let taken = tried.into_iter().zip(&list).filter(|(_, own)| own.chosen).map(|(tried, _)| tried);
    let taken = taken.collect();
    Ok((list, taken))
}

/// All blocks in one form, where they have it.
fn uniform(forms: &[BlockChoice], rewrite: Rewrite) -> Vec<BlockChoice> {
    let mut list = forms.to_vec();
    for choice in &mut list {
        if choice.costs.iter().any(|(own, cost)| *own == rewrite && cost.is_some()) {
            choice.rewrite = rewrite;
        }
    }
    list
}

/// Times the finalists of all steps of a network in some forms, shared and by one worker; none where nothing keeps the
/// bounds, or there is no time for it.
fn timed(
    plain: &Network,
    forms: &[BlockChoice],
    measurements: &[Measurement],
    bounds: &Bounds,
    exact: &Exact,
    until: Instant,
) -> Result<Option<Form>, Failure> {
    let graph = in_forms(plain.graph, forms);
    let network = Network { graph: &graph, settled: None, ..*plain };
    let Ok(mut chosen) = network.choose(measurements, bounds, exact) else { return Ok(None) };
    let finalists = network.finalists(measurements, &chosen, FINALISTS);
    let (images, tie) = (built_in_images(&graph, graph.batch), widest_tie(measurements));
    let all_by_one: Vec<Option<usize>> =
        (0..graph.steps.len()).map(|step| (!graph.is_apart(step)).then_some(0)).collect();
    let mut by_one = chosen.session.with_workers(&all_by_one).map_err(|step| cannot_be(&graph, step))?;
    let now = Instant::now();
    let half = now + until.saturating_duration_since(now) / 2;
    let has_time = |session: &mut Session| has_time(&network, session, &finalists, &images, half);
    if !has_time(&mut chosen.session) || !has_time(&mut by_one) {
        return Ok(None);
    }
    let [shared, one] = [
        settle(&network, &mut chosen.session, &finalists, &images, tie, now)?,
        settle(&network, &mut by_one, &finalists, &images, tie, now)?,
    ];
    let workers = plain.threads.count() as f64;
    let best = |(step, times): (usize, &Vec<Settled>), scale: f64| {
        let seconds = |index: &usize| times[*index].timing.median;
        let best = (0..times.len()).min_by(|a, b| seconds(a).total_cmp(&seconds(b))).unwrap_or(0);
        let choice = finalists[step].get(best).map(|candidate| candidate.choice());
        (choice.unwrap_or_else(|| chosen.choices[step].clone()), scale * seconds(&best))
    };
    let shared: Vec<(Choice, f64)> = shared.iter().enumerate().map(|step| best(step, 1.0)).collect();
    let one: Vec<(Choice, f64)> = one.iter().enumerate().map(|step| best(step, workers)).collect();
    let [of_all, of_one] = [&shared, &one].map(|list| list.iter().map(|(_, s)| *s).collect::<Vec<f64>>());
    let taken = assigned(&graph, &of_all, &of_one, plain.threads.count());
    let rewrites = forms.iter().map(|choice| (choice.block, choice.rewrite)).collect();
    Ok(Some(Form { rewrites, graph, shared, one, taken }))
}

/// A block that is tried with steps beside each other, in the form that is best for it.
struct Tried {
    block: &'static str,
    /// Which of the forms.
    form: usize,
    /// The bound of all ways in all forms, over the block's time with all steps shared.
    least: f64,
}

impl Tried {
    /// The form that it has for it, where the first has another.
    fn other_form(&self, all: &[Form]) -> Option<Rewrite> {
        let own = all[self.form].rewrite(self.block);
        own.filter(|_| own != all[0].rewrite(self.block))
    }
}

/// The blocks that have steps beside each other where they take least, by the times of steps: in another form than the first,
/// where that is faster than the first by more than a tie, and in the first.
fn proposed(all: &[Form], tie: f64, workers: usize) -> Vec<Vec<Tried>> {
    let mut lists = vec![Vec::new(), Vec::new()];
    for block in all[0].graph.blocks() {
        let [own, shared, _] = all[0].block(block, workers);
        let bounds = all.iter().map(|form| form.block(block, workers)[2]);
        let least = bounds.fold(f64::INFINITY, f64::min) / shared;
        let is_other = |form: &Form| form.rewrite(block) != all[0].rewrite(block);
        let others = all.iter().enumerate().filter(|(_, form)| is_other(form));
        let timed = others.map(|(index, form)| (index, form.block(block, workers)[0]));
        let best = timed.min_by(|(_, a), (_, b)| a.total_cmp(b));
        let best = best.filter(|(_, seconds)| *seconds < own * (1.0 - tie)).map(|(index, _)| index);
        for (list, form) in lists.iter_mut().zip([best, Some(0)]) {
            let is_beside =
                |form: &Form| form.taken[form.graph.block_steps(block)].iter().any(Option::is_some);
            let form = form.filter(|&form| is_beside(&all[form]));
            list.extend(form.map(|form| Tried { block, form, least }));
        }
    }
    lists
}

/// A graph in the first of forms, but for the blocks that are tried; and the choice for each step.
fn placed(
    plain: &Graph,
    forms: &[BlockChoice],
    all: &[Form],
    tried: &[Tried],
) -> Result<(Graph, Vec<Choice>), Failure> {
    let tried = |block: &str| tried.iter().find(|tried| tried.block == block);
    let mut forms = forms.to_vec();
    for choice in &mut forms {
        let own = tried(choice.block).and_then(|tried| all[tried.form].rewrite(choice.block));
        choice.rewrite = own.unwrap_or(choice.rewrite);
    }
    let graph = in_forms(plain, &forms);
    let of = |step: &Step| match tried(step.block) {
        Some(tried) => all[tried.form].of(step).map(|(worker, choice)| (worker, choice.clone())),
        None => {
            let index = all[0].graph.steps.iter().position(|own| own.layers == step.layers)?;
            Some((None, all[0].shared[index].0.clone()))
        }
    };
    let of_all = |graph: &Graph| graph.steps.iter().map(of).collect::<Option<Vec<_>>>();
    let unknown = || Failure::from("a step of another form was not timed");
    let workers: Vec<Option<usize>> =
        of_all(&graph).ok_or_else(unknown)?.into_iter().map(|(worker, _)| worker).collect();
    let graph = graph.with_workers(&workers).map_err(|step| cannot_be(&graph, step))?;
    let choices = of_all(&graph).ok_or_else(unknown)?.into_iter().map(|(_, choice)| choice).collect();
    Ok((graph, choices))
}

/// The network of [`placed`].
fn of_forms(
    network: &Network,
    forms: &[BlockChoice],
    all: &[Form],
    tried: &[Tried],
) -> Result<Session, Failure> {
    let (graph, choices) = placed(network.graph, forms, all, tried)?;
    Network { graph: &graph, ..*network }.session(&choices)
}

/// Seconds of the blocks that are tried in turn until the time is over, round by round: with all steps shared, and with some
/// beside each other; and whether others used the cores.
fn compared(
    network: &Network,
    session: &mut Session,
    other: &mut Session,
    tried: &[Tried],
    end: Instant,
) -> (Vec<[Vec<f64>; 2]>, bool) {
    let mut blocks: Vec<[Vec<f64>; 2]> = tried.iter().map(|_| [const { Vec::new() }; 2]).collect();
    let mut disturbed = Vec::new();
    for round in 0..ROUNDS[1] {
        if round >= ROUNDS[0] && Instant::now() >= end {
            break;
        }
        let entries = two_in_turn(network, session, other);
        for (which, graph) in [session.graph(), other.graph()].into_iter().enumerate() {
            let seconds = entries[which].with_waits();
            for (tried, samples) in tried.iter().zip(&mut blocks) {
                samples[which].push(seconds[graph.block_steps(tried.block)].iter().sum());
            }
        }
        disturbed.push(entries[0].disturbed);
    }
    (blocks, is_busy(&disturbed))
}

fn cannot_be(graph: &Graph, step: usize) -> Failure {
    format!("step `{}`: it can't be taken beside others", graph.steps[step].layers[0]).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Available, Measured, available};
    use crate::model::Model;
    use crate::planner::{choose_forms, default_choices};
    use crate::rewrite::problems;
    use crate::threads::Threads;
    use crate::types::Types;
    use crate::weights::{Source, Spec, Weights};
    use kernels::Tier;
    use kernels::cpu::Cpu;
    use kernels::problem::{PoolKind, Problem};

    /// A block in each form, where a step takes so many seconds shared and by one worker alone.
    fn all_forms(plain: &Graph, seconds: impl Fn(Rewrite) -> [f64; 2]) -> (Vec<BlockChoice>, Vec<Form>) {
        let mut forms = choose_forms(plain, &[], |_| true);
        forms.iter_mut().flat_map(|choice| &mut choice.costs).for_each(|(_, cost)| *cost = Some(1.0));
        let cpu = Cpu::detect().limited_to(Tier::Plain);
        let form = |rewrite: Rewrite| {
            let choices = uniform(&forms, rewrite);
            let graph = in_forms(plain, &choices);
            let [shared, one] = seconds(rewrite).map(|seconds| {
                default_choices(&graph, &cpu).into_iter().map(|choice| (choice, seconds)).collect::<Vec<_>>()
            });
            let each = |list: &[(Choice, f64)]| list.iter().map(|(_, s)| *s).collect::<Vec<f64>>();
            let taken = assigned(&graph, &each(&shared), &each(&one), 2);
            let rewrites = choices.iter().map(|choice| (choice.block, choice.rewrite)).collect();
            Form { rewrites, graph, shared, one, taken }
        };
        let list = Rewrite::ALL.map(form).into();
        (forms, list)
    }

    #[test]
    fn finalists_are_timed_both_ways_in_the_network_as_it_is_laid_out() {
        let model = Model::block("mixed9").expect("a block");
        let graph = Graph::new(&model, 1, PoolKind::Average);
        let (cpu, threads) = (Cpu::detect(), Threads::new(2).expect("threads"));
        // Fastest is what wants no halo; close behind, what does.
        let place = |id: &str| ["winograd", "separable", "direct"].iter().position(|own| id.starts_with(own));
        let measurement = |problem: Problem| {
            let candidate = |a: &Available| {
                let tuning = a.kernel.tunings(&problem).into_iter().next()?;
                let formats = *Types::F32.formats(&*a.kernel, &problem, &tuning).first()?;
                let seconds = 1.0 + 0.02 * place(a.row.id).unwrap_or(3) as f64;
                Some(Measured::taking(seconds, a.row.id, formats, tuning))
            };
            let candidates = available(&cpu, &problem).0.iter().filter_map(candidate).collect();
            Measurement::of(problem.clone(), candidates)
        };
        let problems = problems(&graph).into_iter().map(|(problem, _)| problem);
        let known: Vec<Measurement> = problems.map(measurement).collect();
        let spec = Spec { convs: graph.conv_specs().cloned().collect(), features: 0 };
        let weights = Weights::open(&Source::Synthetic { seed: 1 }, &spec).expect("weights");
        let exact = Exact::new(&graph, &weights, &threads).expect("a result");
        let bounds = Bounds { error: 1e-5, memory: None };
        let network =
            Network { graph: &graph, weights: &weights, cpu: &cpu, threads: &threads, settled: None };
        let of = |time| {
            let until = Instant::now() + Duration::from_secs(time);
            threads
                .install(|| timed(&network, &[], &known, &bounds, &exact, until))
                .expect("kernels that run")
        };
        assert!(of(0).is_none());
        let form = of(600).expect("a form");
        assert_eq!((form.shared.len(), form.one.len()), (graph.steps.len(), graph.steps.len()));
        let total: f64 = form.shared.iter().chain(&form.one).map(|(_, seconds)| *seconds).sum();
        assert!(total > 0.0 && form.graph.with_workers(&form.taken).is_ok());
    }

    #[test]
    fn a_block_is_tried_in_the_form_in_which_its_workers_take_least() {
        let plain = Graph::new(&Model::block("mixed0").expect("a block"), 1, PoolKind::Average);
        let [_, _, swap, _] = Rewrite::ALL;
        let blocks = |seconds: &dyn Fn(Rewrite) -> [f64; 2]| {
            let (forms, all) = all_forms(&plain, seconds);
            let lists = proposed(&all, 0.02, 2);
            let rewrites = |list: &Vec<Tried>| list.iter().map(|tried| tried.form).collect::<Vec<_>>();
            let found: Vec<Vec<usize>> = lists.iter().map(rewrites).collect();
            for tried in &lists {
                let (graph, choices) = placed(&plain, &forms, &all, tried).expect("a graph");
                assert_eq!(choices.len(), graph.steps.len());
                assert_eq!(tried.is_empty(), graph.steps.iter().all(|step| step.worker.is_none()));
                let form = tried.first().map_or(0, |tried| tried.form);
                assert_eq!(graph.steps.len(), all[form].graph.steps.len());
            }
            found
        };
        let none: [Vec<usize>; 2] = [vec![], vec![]];
        // Two workers halve a step that they share, in all forms: nothing is to be gained.
        assert_eq!(blocks(&|_| [1.0, 2.0]), none);
        // They do not, and all forms are alike but for the number of steps: the form of the fewest, and the first one.
        let [other, first] = blocks(&|_| [1.0, 1.2]).try_into().expect("two lists");
        assert_eq!((other.len(), first), (1, vec![0]));
        // One form is far better.
        let best = |rewrite| if rewrite == swap { [1.0, 0.5] } else { [1.0, 2.0] };
        assert_eq!(blocks(&best), [vec![2], vec![]]);
        // It is no better than sharing all in the first.
        let all_alike = |rewrite| if rewrite == swap { [9.0, 5.0] } else { [1.0, 2.0] };
        assert_eq!(blocks(&all_alike), none);
    }
}
