//! From measurements to a network: block variants, kernels within the bounds, networks in turn.

use std::path::Path;
use std::time::Instant;

use engine::network::{Block, BlockVariant, Graph, Precision, built_in};
use engine::plan::{BlockVariantRecord, NetworkVariant, Plan, PlanSplit, Planning, VariantReason};

use crate::autotune::record::block_variant_record;
use crate::bench::{POLICY, Warning, noise};
use crate::measure::widest_tie;
use crate::planner::{
    Batch, BlockChoice, Chosen, Network, NetworkTime, PlannerError, RULES, by_rule, cheapest_variants,
    choose_variants, contest, in_forms, layerwise, split,
};

pub struct Planned<'a> {
    pub chosen: Chosen<'a>,
    pub split: Option<PlanSplit>,
    pub variants: Vec<BlockVariantRecord>,
    /// How near that is to the lower bound by isolated times.
    pub planning: Option<Planning>,
    /// Whole networks in turn, that of the plan first.
    pub networks: Vec<(NetworkVariant, NetworkTime)>,
    /// Others had the cores when it was chosen.
    pub beside_load: bool,
    /// Seconds that were missing to time close candidates in the network, where there were not enough.
    pub missing_s: Option<f64>,
    pub prediction: Prediction,
}

pub struct Prediction {
    /// Seconds of its steps: those of the network by isolated times, measured whole, times what
    /// each step's candidate took in the network for each second of that network's. So drift of the
    /// machine between the two stages does not show. Isolated times where nothing was timed in the
    /// network; none where a step was not measured, or choices were not made step by step.
    pub steps: Option<Vec<f64>>,
    /// Seconds around the steps: what the network by isolated times takes next to its own steps, to
    /// wake, to end, and to wait for those who take other images at the same time.
    pub overhead: f64,
}

/// A network that may become the plan.
struct Contestant<'m> {
    name: NetworkVariant,
    chosen: Chosen<'m>,
    split: Option<PlanSplit>,
    variants: Vec<BlockVariantRecord>,
}

/// When a share of the time that is left until then has gone by.
fn part(end: Instant, share: f64) -> Instant {
    let now = Instant::now();
    now + end.saturating_duration_since(now).mul_f64(share)
}

/// Chooses block variants and kernels within the bounds, and measures whole networks until `end`.
/// The fastest of them is the plan: where no other is faster by more than the noise, what measuring
/// step by step has chosen; or the earlier plan, see [`keeps_earlier`].
pub fn plan<'m>(
    network: &Network<'_, 'm>,
    earlier: Option<&Plan>,
    is_busy: bool,
    end: Instant,
) -> Result<Planned<'m>, PlannerError> {
    let patience = POLICY.stages.patience_share;
    let patient = network.in_network_until.map_or_else(Instant::now, |end| part(end, patience));
    network.distance.wait_until(patient);
    let Batch { graph, split, at_once } = split(network)?;
    let variants = choose_variants(&graph, network.measurements, network.precision());
    let bound = lower_bound(network, &graph);
    let mut contestants = tuned(network, &graph, split.as_ref(), &variants)?;
    network.distance.wait_until(part(end, patience));
    contestants.extend(at_once.map(|(chosen, forms)| Contestant {
        name: NetworkVariant::AllImagesAtOnce,
        chosen,
        split: None,
        variants: forms.iter().map(block_variant_record).collect(),
    }));
    contestants.extend(earlier.and_then(|plan| by_earlier(network, plan)));
    let rivals = contestants.len();
    let missing_s = contestants[0].chosen.missing_s;
    contestants.extend(by_rules(network, &variants)?);
    let sessions = contestants.iter_mut().map(|contestant| &mut contestant.chosen.session).collect();
    let times = contest(network, sessions, rivals, end);
    let mut at = winner(network, &mut contestants, &times);
    let place = contestants.iter().position(|contestant| contestant.name == NetworkVariant::Earlier);
    if let Some((plan, place)) = earlier.zip(place.filter(|&place| place != at))
        && keeps_earlier(
            &times[place],
            &times[at],
            widest_tie(network.measurements),
            [was_busy(plan), is_busy],
        )
        && keeps_bounds(network, &mut contestants[place].chosen)
    {
        at = place;
    }
    let names = contestants.iter().map(|contestant| contestant.name.clone());
    let mut networks: Vec<_> = names.zip(times).collect();
    networks.swap(0, at);
    let Contestant { chosen, split, variants, .. } = contestants.swap_remove(at);
    // What was not chosen step by step has another split and other variants than the bound.
    let is_by_step = networks[0].0.is_by_step();
    let planning = bound.filter(|_| is_by_step);
    let planning = planning.map(|bound| Planning { plan_ms: ms(chosen.isolated_seconds()), ..bound });
    let prediction = predict(&chosen, &networks);
    let stays = networks[0].0 == NetworkVariant::Earlier;
    let beside_load = earlier.filter(|_| stays).map_or(is_busy, was_busy);
    Ok(Planned { chosen, split, variants, planning, networks, beside_load, missing_s, prediction })
}

/// What a choice layer by layer takes, and what no choice can be below, by isolated times.
fn lower_bound(network: &Network, graph: &Graph) -> Option<Planning> {
    let (measurements, precision) = (network.measurements, network.precision());
    let bound = cheapest_variants(graph, measurements, precision, |_, _| 0.0)?;
    let layerwise_ms = layerwise(graph, measurements, precision).map(ms);
    Some(Planning { layerwise_ms, bound_ms: ms(bound.seconds), plan_ms: 0.0 })
}

/// The network in block variants, and the plain one; that alone where no other keeps the bounds.
/// Behind each comes what it was by isolated times.
fn tuned<'m>(
    network: &Network<'_, 'm>,
    graph: &Graph,
    split: Option<&PlanSplit>,
    choices: &[BlockChoice],
) -> Result<Vec<Contestant<'m>>, PlannerError> {
    let choose = |graph: &Graph, until| Network { graph, in_network_until: until, ..*network }.choose();
    let until = network.in_network_until;
    let variants: Vec<BlockVariantRecord> = choices.iter().map(block_variant_record).collect();
    let with_isolated = |names: [NetworkVariant; 2],
                         mut chosen: Chosen<'m>,
                         variants: &[BlockVariantRecord]| {
        let isolated = chosen.isolated.take().map(|isolated| *isolated);
        let each = std::iter::once(chosen).chain(isolated);
        let contestant =
            |(name, chosen)| Contestant { name, chosen, split: split.cloned(), variants: variants.to_vec() };
        names.into_iter().zip(each).map(contestant).collect::<Vec<_>>()
    };
    let as_tuned = [NetworkVariant::Tuned, NetworkVariant::TunedIsolated];
    if choices.iter().all(|choice| choice.variant == BlockVariant::PLAIN) {
        return Ok(with_isolated(as_tuned, choose(graph, until)?, &variants));
    }
    let first = until.map(|end| part(end, POLICY.stages.variants_share));
    match choose(&in_forms(graph, choices), first) {
        Ok(tuned) => {
            let mut contestants = with_isolated(as_tuned, tuned, &variants);
            if let Ok(plain) = choose(graph, until) {
                let names = [NetworkVariant::Plain, NetworkVariant::PlainIsolated];
                contestants.extend(with_isolated(names, plain, &overruled(variants)));
            }
            Ok(contestants)
        }
        Err(error) => {
            let tuned = choose(graph, until)?;
            network.progress.warning(&Warning::VariantsExcluded { reason: error.to_string() });
            Ok(with_isolated(as_tuned, tuned, &overruled(variants)))
        }
    }
}

/// All blocks plain, whatever their steps gain alone.
fn overruled(mut variants: Vec<BlockVariantRecord>) -> Vec<BlockVariantRecord> {
    let other = variants.iter_mut().filter(|record| record.variant != BlockVariant::PLAIN.to_string());
    other.for_each(BlockVariantRecord::overrule);
    variants
}

/// The network by an earlier plan; none where that does not fit any more.
fn by_earlier<'m>(network: &Network<'_, 'm>, plan: &Plan) -> Option<Contestant<'m>> {
    let (graph, choices) = plan.network(Path::new("plan"), network.graph, network.cpu).ok()?;
    let chosen = Network { graph: &graph, ..*network }.given(choices).ok()?;
    let (split, variants) = (plan.split.clone(), plan.block_variants.clone());
    Some(Contestant { name: NetworkVariant::Earlier, chosen, split, variants })
}

/// The built-in choice, and in f32 the plain network by published rules.
fn by_rules<'m>(
    network: &Network<'_, 'm>,
    choices: &[BlockChoice],
) -> Result<Vec<Contestant<'m>>, PlannerError> {
    let variants: Vec<BlockVariantRecord> = choices.iter().map(block_variant_record).collect();
    let (graph, choices) = built_in(network.graph, network.cpu);
    let mut contestants = vec![Contestant {
        name: NetworkVariant::BuiltIn,
        chosen: Network { graph: &graph, ..*network }.given(choices)?,
        split: None,
        variants: with_most(&variants, &Block::all(network.graph)),
    }];
    if network.precision() == Precision::F32 {
        let variants = overruled(variants);
        for rule in &RULES {
            let name = NetworkVariant::Rule(rule.name.to_string());
            let chosen = network.given(by_rule(network, rule))?;
            contestants.push(Contestant { name, chosen, split: None, variants: variants.clone() });
        }
    }
    Ok(contestants)
}

/// All blocks in the variant that changes most, as the built-in choice has them.
fn with_most(variants: &[BlockVariantRecord], blocks: &[Block]) -> Vec<BlockVariantRecord> {
    let most = |record: &BlockVariantRecord| {
        let block = blocks.iter().find(|block| block.name == record.block);
        let variant = block.map_or(BlockVariant::PLAIN, Block::most).to_string();
        BlockVariantRecord { variant, reason: VariantReason::NotMeasured, ..record.clone() }
    };
    variants.iter().map(most).collect()
}

/// The fastest that keeps the bounds: the first where none is faster than it by more than the noise.
fn winner(network: &Network, contestants: &mut [Contestant], times: &[NetworkTime]) -> usize {
    let ratio = |at: usize| times[at].over(&times[0]).map_or(f64::INFINITY, |ratio| ratio.value);
    let tie = widest_tie(network.measurements);
    let is_faster = |at: &usize| times[*at].is_faster(&times[0], tie);
    let mut faster: Vec<usize> = (1..times.len()).filter(is_faster).collect();
    faster.sort_by(|&a, &b| ratio(a).total_cmp(&ratio(b)));
    faster.into_iter().find(|&at| keeps_bounds(network, &mut contestants[at].chosen)).unwrap_or(0)
}

/// Whether a network keeps the bounds on error and memory; its error is measured if it was not.
fn keeps_bounds(network: &Network, chosen: &mut Chosen) -> bool {
    if chosen.error.is_infinite() {
        (chosen.error, _) = network.reference.error(&mut chosen.session, network.threads);
    }
    let memory = network.bounds.memory.map_or(usize::MAX, |mib| (mib as usize) << 20);
    chosen.error <= network.bounds.error && chosen.process_bytes() <= memory
}

/// Whether others had the cores when a plan was tuned.
fn was_busy(plan: &Plan) -> bool {
    plan.chosen_beside_load.unwrap_or_else(|| plan.noise.as_ref().is_some_and(noise::is_busy))
}

/// Whether an earlier plan stays where a new one is the fastest else. Where neither is faster by more
/// than the noise, the one stays that was tuned on a quiet machine, and of two such ones that with
/// the smaller median ratio.
fn keeps_earlier(earlier: &NetworkTime, new: &NetworkTime, tie: f64, [was_busy, is_busy]: [bool; 2]) -> bool {
    if earlier.is_faster(new, tie) || new.is_faster(earlier, tie) {
        return earlier.is_faster(new, tie);
    }
    match (was_busy, is_busy) {
        (false, true) => true,
        (true, false) => false,
        _ => earlier.over(new).is_some_and(|ratio| ratio.value < 1.0),
    }
}

/// What a choice step by step is predicted to take as a whole network; the first of the networks is
/// that.
fn predict(chosen: &Chosen, networks: &[(NetworkVariant, NetworkTime)]) -> Prediction {
    let isolated = match networks[0].0 {
        NetworkVariant::Tuned => NetworkVariant::TunedIsolated,
        NetworkVariant::Plain => NetworkVariant::PlainIsolated,
        _ => return Prediction { steps: None, overhead: 0.0 },
    };
    let isolated = networks.iter().find(|(name, _)| *name == isolated);
    let steps = 0..chosen.winners.len();
    match isolated {
        Some((_, network)) => Prediction {
            steps: Some(steps.map(|step| network.steps[step] * chosen.in_network_ratio(step)).collect()),
            overhead: network.timing.median - network.steps.iter().sum::<f64>(),
        },
        None => {
            Prediction { steps: steps.map(|step| Some(chosen.timing(step)?.median)).collect(), overhead: 0.0 }
        }
    }
}

fn ms(seconds: f64) -> f64 {
    (seconds * 1e9).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_faster_plan_stays_and_where_none_is_that_of_a_quiet_machine() {
        let of = NetworkTime::of_rounds;
        let fast = of(&[9.0, 9.1, 9.0, 9.2, 9.0]);
        let slow = of(&[10.0, 10.1, 10.2, 10.0, 10.1]);
        let unclear = of(&[8.0, 10.0, 8.5, 11.0, 8.9]);
        let [quiet, busy] = [false, true];
        for both in [[quiet, quiet], [quiet, busy], [busy, quiet], [busy, busy]] {
            assert!(keeps_earlier(&fast, &slow, 0.02, both) && !keeps_earlier(&slow, &fast, 0.02, both));
        }
        assert!(keeps_earlier(&fast, &unclear, 0.02, [quiet, busy]));
        assert!(!keeps_earlier(&fast, &unclear, 0.02, [busy, quiet]));
        for alike in [[quiet, quiet], [busy, busy]] {
            assert!(keeps_earlier(&unclear, &fast, 0.02, alike));
            assert!(!keeps_earlier(&fast, &unclear, 0.02, alike));
        }
    }
}
