//! From measurements to the plan: the order of the stages.

use std::time::{Duration, Instant};

use engine::network::block_variant::BlockVariant;
use engine::network::candidates::default_choices;
use engine::network::dtypes::Precision;
use engine::network::graph::Graph;
use engine::plan::records::{BlockVariantRecord, Planning};
use engine::plan::schema::{Bounds, PlanSplit};
use engine::runtime::reference::Reference;
use engine::util::error::Failure;

use crate::autotune::record::block_variant_record;
use crate::bench::core_distance::CoreDistanceMonitor;
use crate::bench::policy::POLICY;
use crate::log::journal::Log;
use crate::measure::types::ProblemResult;
use crate::planner::batch_split::{AT_ONCE, split};
use crate::planner::block_dp::{greedy, joint};
use crate::planner::chosen::Chosen;
use crate::planner::compare::{BY_TIMES_ALONE, NetworkTime, WITHOUT_REWRITES, contest, is_faster};
use crate::planner::context::Network;
use crate::planner::forms::{choose_forms_and_types, in_forms};
use crate::planner::rules::{RULES, by_rule};

/// A monitor that lets rounds wait for near cores, as near as the log knows them.
pub(crate) fn monitor(budget: Duration, log: Option<&Log>) -> CoreDistanceMonitor {
    let distance = CoreDistanceMonitor::default();
    log.and_then(Log::nearest).into_iter().for_each(|seconds| distance.known(seconds));
    distance.set_patience(budget.mul_f64(POLICY.stages.patience_share));
    distance
}

/// A network in some form, and what was chosen for it.
pub struct Tuned<'a> {
    /// Its steps.
    pub graph: Graph,
    /// The choice for each.
    pub chosen: Chosen<'a>,
}

/// What planning came to.
pub(crate) struct Planned<'a> {
    /// The best.
    pub tuned: Tuned<'a>,
    /// Where its batch is split.
    pub split: Option<PlanSplit>,
    /// The forms of its blocks.
    pub block_variants: Vec<BlockVariantRecord>,
    /// How near that is to the least by times alone.
    pub planning: Option<Planning>,
    /// Whole networks in turn, the best first.
    pub networks: Vec<NetworkTime>,
    /// Seconds of the best's steps as they are predicted: those of the network by times alone in the contest, times
    /// what each step's candidate took for each second of that network's in place, so that drift of the machine
    /// between the two stages does not show. Where nothing was timed in place, the times alone.
    pub predicted: Option<Vec<f64>>,
    /// Seconds around the steps: what the network by times alone takes beside its own, to wake, to end, and to wait for
    /// those who take other steps at the same time.
    pub around: f64,
}

/// When a share of the time that is left until then has gone by.
pub fn part(end: Instant, share: f64) -> Instant {
    let now = Instant::now();
    now + end.saturating_duration_since(now).mul_f64(share)
}

/// Chooses forms and kernels within the bounds, and measures the network by them and by others.
pub(crate) fn plan<'a>(
    network: &Network,
    measurements: &'a [ProblemResult],
    bounds: &Bounds,
    exact: &Reference,
    end: Instant,
) -> Result<Planned<'a>, Failure> {
    let choose = |graph: Graph, settled: Option<Instant>| {
        let chosen = Network { graph: &graph, settled, ..*network }.choose(measurements, bounds, exact)?;
        Ok::<_, Failure>(Tuned { graph, chosen })
    };
    let patient = network.settled.map_or_else(Instant::now, |end| part(end, POLICY.stages.patience_share));
    network.distance.wait_until(patient);
    let (split, graph, mut at_once) = split(network, measurements, bounds, exact)?;
    let types = Precision::within(bounds.error);
    let ms = |seconds: f64| (seconds * 1e9).round() / 1e6;
    let layerwise_ms = greedy(&graph, measurements, types).map(ms);
    let least = joint(&graph, measurements, types, |_, _| 0.0).map(|joint| ms(joint.seconds));
    let forms = choose_forms_and_types(&graph, measurements, types);
    let mut rewrites: Vec<BlockVariantRecord> = forms.iter().map(block_variant_record).collect();
    let is_plain = |variants: &[BlockVariantRecord]| {
        variants.iter().all(|own| own.variant == BlockVariant::PLAIN.to_string())
    };
    let own_part = |end| part(end, POLICY.stages.variants_share);
    let first = if is_plain(&rewrites) { network.settled } else { network.settled.map(own_part) };
    let mut plain = None;
    let mut tuned = match choose(in_forms(&graph, &forms), first) {
        Ok(tuned) if is_plain(&rewrites) => tuned,
        Ok(tuned) => {
            plain = choose(graph, network.settled).ok();
            tuned
        }
        Err(failure) if is_plain(&rewrites) => return Err(failure),
        Err(failure) => {
            let plain = choose(graph, network.settled)?;
            eprintln!("the plan with rewrites is left out: {failure}");
            rewrites.iter_mut().for_each(BlockVariantRecord::overrule);
            plain
        }
    };

    let default = network.session(&default_choices(network.graph, network.cpu))?;
    let mut others = vec![("default".to_string(), default)];
    if types == Precision::F32 {
        for rule in &RULES {
            let choices = by_rule(network.graph, measurements, rule, network.cpu);
            others.push((format!("rule: {}", rule.name), network.session(&choices)?));
        }
    }
    let mut entries = Vec::new();
    let both = [("tuned", Some(&mut tuned)), (WITHOUT_REWRITES, plain.as_mut())];
    for (name, tuned) in both {
        let Some(Chosen { session, alone, .. }) = tuned.map(|tuned| &mut tuned.chosen) else { continue };
        entries.push((name.to_string(), session));
        entries.extend(alone.iter_mut().map(|alone| (format!("{name}, {BY_TIMES_ALONE}"), alone)));
    }
    entries.extend(at_once.iter_mut().map(|session| (AT_ONCE.to_string(), session)));
    let rivals = entries.len();
    entries.extend(others.iter_mut().map(|(name, session)| (name.clone(), session)));
    network.distance.wait_until(part(end, POLICY.stages.patience_share));
    let mut contest = contest(network, entries, rivals, end);
    let other = contest.iter().position(|entry| entry.name == WITHOUT_REWRITES);
    let faster = other.filter(|&other| is_faster(&contest[other].timing, &contest[0].timing));
    if let Some((plain, other)) = plain.zip(faster) {
        tuned = plain;
        let replaced: Vec<NetworkTime> = contest.drain(..other).collect();
        contest.iter_mut().for_each(|entry| entry.name = entry.name.replace(WITHOUT_REWRITES, "tuned"));
        let renamed = |entry: NetworkTime| NetworkTime {
            name: entry.name.replace("tuned", "tuned, with rewrites"),
            ..entry
        };
        contest.extend(replaced.into_iter().map(renamed));
        rewrites.iter_mut().for_each(BlockVariantRecord::overrule);
    }
    let steps = 0..tuned.graph.steps.len();
    let predict = |step: usize| match tuned.chosen.alone {
        Some(_) => Some(contest[1].steps[step] * tuned.chosen.against_alone(step)),
        None => Some(tuned.chosen.timing(step)?.median),
    };
    let predicted = steps.map(predict).collect();
    let around = match tuned.chosen.alone {
        Some(_) => contest[1].timing.median - contest[1].steps.iter().sum::<f64>(),
        None => 0.0,
    };
    let plan_ms = ms(tuned.chosen.alone_seconds());
    let planning = least.map(|bound_ms| Planning { layerwise_ms, bound_ms, plan_ms });
    Ok(Planned { tuned, split, block_variants: rewrites, planning, networks: contest, predicted, around })
}
