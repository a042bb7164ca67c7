//! From measurements to a network: block variants, kernels within the bounds, networks in turn.

use std::path::Path;
use std::time::Instant;

use engine::network::{BlockVariant, Graph, Precision, default_choices};
use engine::plan::{BlockVariantRecord, NetworkVariant, Plan, PlanSplit, Planning};
use engine::runtime::PreparedNetwork;

use crate::autotune::record::block_variant_record;
use crate::bench::{POLICY, Warning};
use crate::planner::{
    BlockChoice, Chosen, Network, NetworkTime, PlannerError, RULES, by_rule, cheapest_variants,
    choose_variants, compare, in_forms, is_faster, layerwise, split,
};

pub struct Planned<'a> {
    pub chosen: Chosen<'a>,
    pub split: Option<PlanSplit>,
    pub variants: Vec<BlockVariantRecord>,
    /// How near that is to the lower bound by isolated times.
    pub planning: Option<Planning>,
    /// Whole networks in turn, the best first.
    pub networks: Vec<(NetworkVariant, NetworkTime)>,
    /// The error of the earlier plan, where there is one that keeps the bound.
    pub earlier_error: Option<f64>,
    pub prediction: Prediction,
}

impl Planned<'_> {
    /// Whether the earlier plan was faster in turn with what was chosen, by more than the noise.
    pub fn is_earlier_faster(&self) -> bool {
        let earlier = self.networks.iter().find(|(name, _)| *name == NetworkVariant::Earlier);
        let chosen = &self.networks[0].1.timing;
        earlier.is_some_and(|(_, earlier)| is_faster(&earlier.timing, chosen))
    }
}

pub struct Prediction {
    /// Seconds of its steps: those of the network by isolated times, measured whole, times what
    /// each step's candidate took in the network for each second of that network's. So drift of the
    /// machine between the two stages does not show. Isolated times where nothing was timed in the
    /// network; none where a step was not measured.
    pub steps: Option<Vec<f64>>,
    /// Seconds around the steps: what the network by isolated times takes next to its own steps, to
    /// wake, to end, and to wait for those who take other images at the same time.
    pub overhead: f64,
}

/// The networks that compete: tuned in block variants, and in plain blocks where that is another.
struct Rivals<'m> {
    tuned: Chosen<'m>,
    plain: Option<Chosen<'m>>,
    variants: Vec<BlockVariantRecord>,
}

/// When a share of the time that is left until then has gone by.
fn part(end: Instant, share: f64) -> Instant {
    let now = Instant::now();
    now + end.saturating_duration_since(now).mul_f64(share)
}

/// Chooses block variants and kernels within the bounds, and measures whole networks until `end`.
pub fn plan<'m>(
    network: &Network<'_, 'm>,
    earlier: Option<&Plan>,
    end: Instant,
) -> Result<Planned<'m>, PlannerError> {
    let patience = POLICY.stages.patience_share;
    let patient = network.in_network_until.map_or_else(Instant::now, |end| part(end, patience));
    network.distance.wait_until(patient);
    let (split, graph, mut at_once) = split(network)?;
    let variants = choose_variants(&graph, network.measurements, network.precision());
    let bound = lower_bound(network, &graph);
    let mut rivals = choose_rivals(network, &graph, &variants)?;
    network.distance.wait_until(part(end, patience));
    let (mut earlier, earlier_error) = earlier.and_then(|plan| session_by(network, plan)).unzip();
    let more =
        [(NetworkVariant::AllImagesAtOnce, at_once.as_mut()), (NetworkVariant::Earlier, earlier.as_mut())];
    let mut networks = compare_rivals(network, &mut rivals, more, end)?;
    let Rivals { tuned: chosen, variants, .. } = fastest(rivals, &mut networks);
    let planning = bound.map(|bound| Planning { plan_ms: ms(chosen.isolated_seconds()), ..bound });
    let prediction = predict(&chosen, &networks);
    Ok(Planned { chosen, split, variants, planning, networks, earlier_error, prediction })
}

/// What a choice layer by layer takes, and what no choice can be below, by isolated times.
fn lower_bound(network: &Network, graph: &Graph) -> Option<Planning> {
    let (measurements, precision) = (network.measurements, network.precision());
    let bound = cheapest_variants(graph, measurements, precision, |_, _| 0.0)?;
    let layerwise_ms = layerwise(graph, measurements, precision).map(ms);
    Some(Planning { layerwise_ms, bound_ms: ms(bound.seconds), plan_ms: 0.0 })
}

/// The network in block variants, and the plain one; that alone where no other keeps the bounds.
fn choose_rivals<'m>(
    network: &Network<'_, 'm>,
    graph: &Graph,
    choices: &[BlockChoice],
) -> Result<Rivals<'m>, PlannerError> {
    let choose = |graph: &Graph, until| Network { graph, in_network_until: until, ..*network }.choose();
    let until = network.in_network_until;
    let mut variants: Vec<BlockVariantRecord> = choices.iter().map(block_variant_record).collect();
    if choices.iter().all(|choice| choice.variant == BlockVariant::PLAIN) {
        return Ok(Rivals { tuned: choose(graph, until)?, plain: None, variants });
    }
    let first = until.map(|end| part(end, POLICY.stages.variants_share));
    match choose(&in_forms(graph, choices), first) {
        Ok(tuned) => Ok(Rivals { tuned, plain: choose(graph, until).ok(), variants }),
        Err(error) => {
            let tuned = choose(graph, until)?;
            network.progress.warning(&Warning::VariantsExcluded { reason: error.to_string() });
            variants.iter_mut().for_each(BlockVariantRecord::overrule);
            Ok(Rivals { tuned, plain: None, variants })
        }
    }
}

/// Runs the rivals in turn, and for some rounds the built-in choice and published rules.
fn compare_rivals(
    network: &Network,
    rivals: &mut Rivals,
    more: [(NetworkVariant, Option<&mut PreparedNetwork>); 2],
    end: Instant,
) -> Result<Vec<(NetworkVariant, NetworkTime)>, PlannerError> {
    let mut others = others(network)?;
    let mut entries: Vec<(NetworkVariant, &mut PreparedNetwork)> = Vec::new();
    let names = [
        (Some(&mut rivals.tuned), NetworkVariant::Tuned, NetworkVariant::TunedIsolated),
        (rivals.plain.as_mut(), NetworkVariant::Plain, NetworkVariant::PlainIsolated),
    ];
    for (tuned, name, isolated_name) in names {
        let Some(Chosen { session, isolated, .. }) = tuned else { continue };
        entries.push((name, session));
        entries.extend(isolated.iter_mut().map(|isolated| (isolated_name.clone(), isolated)));
    }
    entries.extend(more.into_iter().filter_map(|(name, session)| Some((name, session?))));
    let count = entries.len();
    entries.extend(others.iter_mut().map(|(name, session)| (name.clone(), session)));
    let (names, sessions): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
    Ok(names.into_iter().zip(compare(network, sessions, count, end)).collect())
}

/// A network by another plan, and its error; none where the plan does not fit any more, or its error
/// by these weights and images exceeds the bound.
fn session_by(network: &Network, plan: &Plan) -> Option<(PreparedNetwork, f64)> {
    let &Network { graph, weights, cpu, threads, reference, bounds, .. } = network;
    let (graph, choices) = plan.network(Path::new("plan"), graph, cpu).ok()?;
    let mut session = PreparedNetwork::new(graph, &choices, weights, cpu, threads).ok()?;
    let (error, _) = reference.error(&mut session, threads);
    (error <= bounds.error).then_some((session, error))
}

/// The plain network by the built-in choice, and in f32 by published rules.
fn others(network: &Network) -> Result<Vec<(NetworkVariant, PreparedNetwork)>, PlannerError> {
    let built_in = network.session(&default_choices(network.graph, network.cpu))?;
    let mut others = vec![(NetworkVariant::BuiltIn, built_in)];
    if network.precision() == Precision::F32 {
        for rule in &RULES {
            let name = NetworkVariant::Rule(rule.name.to_string());
            others.push((name, network.session(&by_rule(network, rule))?));
        }
    }
    Ok(others)
}

/// The plain network in the tuned one's place where it is faster, with both names; the best first.
fn fastest<'m>(rivals: Rivals<'m>, networks: &mut [(NetworkVariant, NetworkTime)]) -> Rivals<'m> {
    let Rivals { tuned, plain: Some(plain), mut variants } = rivals else { return rivals };
    let at = networks.iter().position(|(name, _)| *name == NetworkVariant::Plain);
    let faster = at.filter(|&at| is_faster(&networks[at].1.timing, &networks[0].1.timing));
    let Some(at) = faster else { return Rivals { tuned, plain: Some(plain), variants } };
    networks.rotate_left(at);
    for (name, _) in networks.iter_mut() {
        *name = match &*name {
            NetworkVariant::Tuned => NetworkVariant::WithVariants,
            NetworkVariant::TunedIsolated => NetworkVariant::WithVariantsIsolated,
            NetworkVariant::Plain => NetworkVariant::Tuned,
            NetworkVariant::PlainIsolated => NetworkVariant::TunedIsolated,
            other => other.clone(),
        };
    }
    variants.iter_mut().for_each(BlockVariantRecord::overrule);
    Rivals { tuned: plain, plain: None, variants }
}

/// What a choice is predicted to take as a whole network.
fn predict(chosen: &Chosen, networks: &[(NetworkVariant, NetworkTime)]) -> Prediction {
    let isolated = networks.iter().find(|(name, _)| *name == NetworkVariant::TunedIsolated);
    let steps = 0..chosen.winners.len();
    match isolated.filter(|_| chosen.isolated.is_some()) {
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
