//! What was measured to choose the steps of a plan, as the plan states it.

use std::collections::BTreeMap;

use kernels::{Tier, entry};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::network::{BlockVariant, CandidateId};
use crate::plan::reasons::{CandidateOutcome, VariantReason};
use crate::plan::step::TimeUs;
pub use crate::runtime::prepared::MemoryBytes;

/// How quiet the machine was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// How far from 1 the ratio of a kernel's times to a copy's may be, in 95 of 100 cases.
    #[serde(alias = "floor")]
    pub noise_floor: f64,
    /// The share within which times are ties.
    pub tie: f64,
    /// Where weights were when kernels were timed alone.
    #[serde(alias = "cold", default)]
    pub weights_from: WeightResidency,
    /// Share of the isolated runs that something else disturbed, however often they were repeated.
    /// Runs of earlier tunings that were reused count as well.
    pub disturbed: f64,
    /// The same of the runs of the whole network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disturbed_networks: Option<f64>,
    /// What other processes used of the cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadRecord>,
    /// Share of all cores' time that the host gave to others.
    #[serde(alias = "stolen")]
    pub steal_share: f64,
    /// GHz of a core, sampled with the rounds: least, median and most of all problems.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_ghz: Option<[f64; 3]>,
    /// Core-to-core latency of the workers' cores.
    #[serde(alias = "apart", skip_serializing_if = "Option::is_none")]
    pub core_distance: Option<CoreDistance>,
}

/// Images a second of inferences at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamsRecord {
    /// Inferences at the same time.
    pub streams: usize,
    /// Threads of each.
    pub threads: usize,
    /// The median of the rounds.
    pub images_per_second: f64,
    /// The ratio to one inference after the other in the same rounds, and the interval that holds
    /// it in 95 of 100 cases; none for that itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio_ci95: Option<[f64; 3]>,
}

/// How many cores other processes used, on average: of those that this one may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadRecord {
    /// Cores that this process may use.
    pub cores: usize,
    /// Before anything was measured.
    pub before: f64,
    /// While candidates were timed in isolation.
    pub isolated: f64,
    /// While candidates and whole networks ran in the network; none without a network.
    pub networks: Option<f64>,
    /// When all was measured.
    pub after: f64,
}

impl LoadRecord {
    /// The most in a stage of measuring, as a share of the cores.
    pub fn meanwhile(&self) -> f64 {
        self.isolated.max(self.networks.unwrap_or(0.0)) / self.cores.max(1) as f64
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CandidateRecord {
    #[serde(flatten)]
    pub id: CandidateId,
    /// Measured time; none if its results were wrong.
    pub time_us: Option<TimeUs>,
    pub samples: usize,
    /// Its time over that of the fastest of the same types in the rounds that both were in: the
    /// median, and the interval that holds it in 95 of 100 cases.
    #[serde(alias = "versus")]
    pub ratio_ci95: Option<[f64; 3]>,
    /// Of the runs, those that something else disturbed.
    #[serde(default)]
    pub disturbed: usize,
    /// Largest error over the largest output.
    pub rel_error: f64,
    /// Root mean square of the errors over that of the outputs.
    pub rms_error: Option<f64>,
    /// Of packed weights and scratch.
    pub bytes: usize,
    pub multiply_adds: u64,
    pub outcome: CandidateOutcome,
}

/// What the cores did in the rounds of a problem.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConditionsRecord {
    pub clock_ghz: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_to_core_ns: Option<f64>,
    /// The most that the instructions of a tier do on a core while all are busy, in GFLOP/s.
    pub peak_gflops: BTreeMap<String, f64>,
}

impl ConditionsRecord {
    /// The peak of the instructions that a kernel uses, in f32 where its id does not say; none of
    /// whole numbers without instructions of their own.
    pub fn peak(&self, kernel: &str) -> Option<f64> {
        if kernel.contains("_int8") || kernel.contains("_int16") {
            let tier = entry(kernel)?.tier?;
            return self.peak_gflops.get(&tier.to_string()).copied().filter(|_| !tier.is_of_f32());
        }
        let of_tier = |tier: Tier| self.peak_gflops.get(&tier.to_string()).copied().filter(|p| *p > 0.0);
        match entry(kernel).and_then(|entry| entry.tier) {
            Some(tier) => of_tier(tier),
            None => Tier::ALL.into_iter().rev().filter(|tier| tier.is_of_f32()).find_map(of_tier),
        }
    }
}

/// How far the search for tunings went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchRecord {
    /// Tunings of all kernels that the search has tried.
    #[serde(alias = "tried")]
    pub evaluated: usize,
    /// Those that there are.
    #[serde(alias = "offered")]
    pub space: usize,
    /// Where all were tried afterwards: the time of the best that the search has found over that of
    /// the best of all, and the interval that holds it in 95 of 100 cases.
    #[serde(alias = "missed", skip_serializing_if = "Option::is_none")]
    pub regret: Option<[f64; 3]>,
    /// The search has left the best of all out; else it took another by the times it had then.
    #[serde(alias = "left_out", default)]
    pub best_skipped: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProblemRecord {
    pub problem: String,
    /// Its candidates, the fastest first.
    pub candidates: Vec<CandidateRecord>,
    /// Rows without candidates: id and reason.
    #[serde(alias = "left_out")]
    pub excluded: Map<String, Value>,
    #[serde(alias = "beside", skip_serializing_if = "Option::is_none")]
    pub conditions: Option<ConditionsRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchRecord>,
    /// What published rules would take, by name: numbers of candidates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, usize>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleRecord {
    pub rule: String,
    #[serde(alias = "says")]
    pub description: String,
    /// Sum of the isolated times of what it takes for the convolutions.
    #[serde(alias = "alone_us")]
    pub isolated_us: f64,
    /// The same of the fastest in f32.
    pub fastest_us: f64,
}

impl RuleRecord {
    /// Share of the time that the rule adds.
    pub fn regret(&self) -> f64 {
        self.isolated_us / self.fastest_us - 1.0
    }
}

/// How the kernels of a whole network were chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum NetworkVariant {
    /// Kernels, block variants and split as measuring step by step has chosen them.
    Tuned,
    /// The same before close candidates were timed in the network.
    TunedIsolated,
    /// Tuned with plain blocks, where the plan has others.
    Plain,
    /// The same by isolated times.
    PlainIsolated,
    /// What [`Self::Tuned`] is in plans of earlier versions where plain blocks were faster.
    WithVariants,
    /// The same by isolated times.
    WithVariantsIsolated,
    /// All images of a batch at once, by isolated times, where the tuned one splits the batch.
    AllImagesAtOnce,
    /// The plan that was there before.
    Earlier,
    BuiltIn,
    Rule(String),
}

impl NetworkVariant {
    /// Each variant's name, and its name in plans of the first schema.
    const NAMES: [(Self, &str, &str); 9] = [
        (Self::Tuned, "tuned", "tuned"),
        (Self::TunedIsolated, "tuned, isolated times", "tuned, by times alone"),
        (Self::Plain, "plain blocks", "tuned, without rewrites"),
        (Self::PlainIsolated, "plain blocks, isolated times", "tuned, without rewrites, by times alone"),
        (Self::WithVariants, "block variants", "tuned, with rewrites"),
        (
            Self::WithVariantsIsolated,
            "block variants, isolated times",
            "tuned, with rewrites, by times alone",
        ),
        (Self::AllImagesAtOnce, "all images at once, isolated times", "tuned alone, all images at once"),
        (Self::Earlier, "earlier plan", "earlier plan"),
        (Self::BuiltIn, "built-in choice", "default"),
    ];
}

impl NetworkVariant {
    /// Whether its kernels were chosen step by step, by isolated times and those in the network.
    pub fn is_by_step(&self) -> bool {
        matches!(self, Self::Tuned | Self::Plain)
    }
}

impl std::fmt::Display for NetworkVariant {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Rule(name) => write!(f, "rule: {name}"),
            _ => f.write_str(Self::NAMES.iter().find(|names| names.0 == *self).map_or("", |names| names.1)),
        }
    }
}

impl From<NetworkVariant> for String {
    fn from(variant: NetworkVariant) -> Self {
        variant.to_string()
    }
}

impl TryFrom<String> for NetworkVariant {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = Self::NAMES.iter().find(|(_, name, old)| [*name, *old].contains(&text.as_str()));
        let rule = || text.strip_prefix("rule: ").map(|name| Self::Rule(name.to_string()));
        known.map(|(variant, ..)| variant.clone()).or_else(rule).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(_, name, _)| *name).collect();
            format!("found `{text}`, expected one of {} or rule: NAME", names.join("; "))
        })
    }
}

/// A whole network in one variant, measured in turn with the others. The first of a plan's is the
/// plan itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkRecord {
    #[serde(alias = "plan")]
    pub network: NetworkVariant,
    pub time_us: TimeUs,
    /// How many runs that is of; none in plans of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<usize>,
    /// Its time over that of the plan in the rounds that both were in: the median, and the interval
    /// that holds it in 95 of 100 cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio_ci95: Option<[f64; 3]>,
}

impl NetworkRecord {
    /// Its time over that of the plan; by medians where nothing else is known.
    pub fn ratio(&self, plan: &Self) -> f64 {
        self.ratio_ci95.map_or(self.time_us.median / plan.time_us.median, |[ratio, ..]| ratio)
    }

    /// The interval of that; none of a single round.
    pub fn interval(&self) -> Option<[f64; 2]> {
        self.ratio_ci95.map(|[_, low, high]| [low, high]).filter(|[low, high]| low < high)
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A plan of which no other is both faster and more exact.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParetoPoint {
    pub time_us: TimeUs,
    pub rel_error: f64,
    /// Steps that read or write a type below f32.
    #[serde(alias = "lower_steps")]
    pub bf16_steps: usize,
    /// Those of them that read or write u8.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub u8_steps: usize,
    pub multiply_adds: u64,
}

/// Sums of the steps' isolated times, by which the network was planned at first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planning {
    /// A choice layer by layer, on the plain network; none where its types do not agree.
    #[serde(alias = "greedy_ms")]
    pub layerwise_ms: Option<f64>,
    /// The least of all forms, types and kernels, whatever their error and memory.
    #[serde(alias = "least_ms")]
    pub bound_ms: f64,
    /// What was chosen: more by ties that went to less memory or error, and by the bounds.
    #[serde(alias = "chosen_ms")]
    pub plan_ms: f64,
}

impl Planning {
    /// Share of the time by which the choice is above the least.
    pub fn gap(&self) -> f64 {
        self.plan_ms / self.bound_ms - 1.0
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    #[serde(alias = "rewrite")]
    pub variant: String,
    /// Sum of the medians of the steps that differ from form to form, in microseconds.
    pub time_us: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockVariantRecord {
    pub block: String,
    #[serde(alias = "rewrite")]
    pub variant: String,
    /// All its forms, the plain one first.
    pub alternatives: Vec<Alternative>,
    pub reason: VariantReason,
}

impl BlockVariantRecord {
    /// Makes the block plain: it did not gain in the whole network what its steps gain alone.
    pub fn overrule(&mut self) {
        self.variant = BlockVariant::PLAIN.to_string();
        self.reason = VariantReason::Overruled;
    }

    pub fn gain_us(&self) -> Option<[f64; 2]> {
        let of = |name: &str| self.alternatives.iter().find(|a| a.variant == name)?.time_us;
        Some([of(&BlockVariant::PLAIN.to_string())?, of(&self.variant)?])
    }
}

/// A latency is high above so many times the least that was measured.
const FAR: f64 = 2.0;

/// Core-to-core latency in the rounds of what was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoreDistance {
    /// The least that is known, earlier runs included.
    pub near_ns: f64,
    /// At its least in the rounds.
    pub least_ns: f64,
    /// At its most.
    pub most_ns: f64,
    /// Share of the rounds in which it was high.
    pub far: f64,
    /// Seconds of waiting until it was low.
    pub waited_s: f64,
    /// When whole networks were measured, the median; none where none were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks_ns: Option<f64>,
}

impl CoreDistance {
    /// That when whole networks were measured, if it was high.
    pub fn far_networks_ns(&self) -> Option<f64> {
        self.networks_ns.filter(|&ns| is_far(ns, self.near_ns))
    }
}

/// Whether a core-to-core latency is high, where `near` has been measured.
pub fn is_far(own: f64, near: f64) -> bool {
    own > FAR * near
}

/// Where weights are when a kernel is timed in isolation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightResidency {
    /// In memory: those of all layers together are more than the caches hold.
    #[default]
    #[serde(rename = "memory")]
    Dram,
    /// In the cache that the cores share, and in none of a core's own.
    #[serde(rename = "shared")]
    SharedCache,
}

impl std::fmt::Display for WeightResidency {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dram => "memory",
            Self::SharedCache => "the cache that the cores share",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_by_their_names_and_by_those_of_the_first_schema() {
        for (variant, name, old) in NetworkVariant::NAMES {
            for text in [name, old] {
                assert_eq!(NetworkVariant::try_from(text.to_string()), Ok(variant.clone()), "{text}");
            }
            assert_eq!(variant.to_string(), name);
        }
        let rule = NetworkVariant::Rule("direct always".to_string());
        assert_eq!(NetworkVariant::try_from(rule.to_string()), Ok(rule));
        assert!(NetworkVariant::try_from("another".to_string()).is_err());
    }
}
