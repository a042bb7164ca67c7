//! How things are measured: every number that decides how often, how long and what counts.
//!
//! Counts have no unit; shares are of 1; times are [`Duration`]s or say their unit in the name.
//! What a number is for and why it is not smaller or larger is its comment. The guide
//! `docs/measuring.md` tells the same in order.

use std::ops::RangeInclusive;
use std::time::Duration;

/// All numbers of measuring and planning.
pub struct Policy {
    pub contention: Contention,
    pub core_distance: CoreDistancePolicy,
    pub cold: ColdCaches,
    /// Microseconds of one sample of clock and peak.
    pub conditions_sample_us: usize,
    /// Microseconds of one measurement of clock and peak for their own sake (`tuner peak`).
    pub peak_sample_us: usize,
    /// Such measurements, of which the best counts: whatever else runs only takes away.
    pub peak_rounds: usize,
    pub bandwidth: BandwidthPolicy,
    /// Rounds of two in turn that do not count. Memory is touched for the first time in them.
    pub pair_warm_up: usize,
    pub noise: NoisePolicy,
    pub race: RacePolicy,
    pub search: SearchPolicy,
    pub exhaustive: ExhaustivePolicy,
    pub schedule: SchedulePolicy,
    pub in_network: InNetworkPolicy,
    pub networks: NetworksPolicy,
    pub streams: StreamsPolicy,
    pub bounds: BoundsPolicy,
    pub pareto: ParetoPolicy,
    pub stages: StagesPolicy,
    pub log: LogPolicy,
    /// Inferences of `run --repeat` before latencies are taken.
    pub repeat_warm_up: usize,
    /// Runs of each of two candidates in `recheck`.
    pub recheck_rounds: usize,
}

/// When a run counts as disturbed, and what is done then.
pub struct Contention {
    /// Share of a run's time for which its workers may wait for a core.
    pub waited_share: f64,
    /// Tries of a run that is disturbed.
    pub tries: usize,
    /// Sleep before a disturbed run is repeated. Longer than another process's turn on a core.
    pub pause: Duration,
    /// A measurement is busy if a larger share of its runs was disturbed. It is reported, and not
    /// taken from a log.
    pub busy_share: f64,
    /// How long the load of others is looked at, before and after measuring.
    pub load_sample: Duration,
}

/// How core-to-core latency is measured and waited for. A latency counts as high by
/// `plan::records::FAR`.
pub struct CoreDistancePolicy {
    /// Times that a cache line goes to and fro in a turn.
    pub exchanges: usize,
    /// Turns, of which the fastest counts: whatever else runs only slows one down.
    pub turns: usize,
    /// Sleep before the cores are looked at again. A host moves idle cores as well as busy ones.
    pub pause: Duration,
    /// Looks at a line after which a worker lets others use its core.
    pub spins: usize,
}

/// What the cores read in a second, by where it is.
pub struct BandwidthPolicy {
    /// Length of a measurement, less than another process's turn on a core. A first half as much moves
    /// the bytes to where they fit.
    pub sample: Duration,
    /// Measurements, of which the best counts: whatever else runs only takes away.
    pub rounds: usize,
    /// The bytes of a cache are its share of a worker divided by this: others pass through it too.
    pub kept: usize,
    /// They are so many times those of the next nearer cache at least, which has some of them.
    pub beyond: f64,
    /// The bytes of the memory are so many times those of the last caches, of which little is kept.
    pub memory: usize,
    /// Their least and their most, of all workers together.
    pub memory_bytes: [usize; 2],
}

/// How cold weights and scratch are when a candidate is timed.
pub struct ColdCaches {
    /// A shared cache keeps data of up to one in so many parts of it: others pass through it too.
    pub kept: usize,
    /// Parts of the data that passes through a core's caches. None is there when its turn comes.
    pub parts: usize,
}

/// The noise floor: a kernel against a copy of itself.
pub struct NoisePolicy {
    /// Problems that are measured: a small, a middling and a large one.
    pub problems: usize,
    /// Runs of each of the two.
    pub rounds: usize,
    /// Times this near are a tie even on the quietest machine.
    pub least_tie: f64,
    /// Times that differ by more are no tie even on the noisiest: memory would cost as much.
    pub widest_tie: f64,
}

/// The candidates of one problem, isolated.
pub struct RacePolicy {
    /// Rounds of a problem at most. Close leaders need them.
    pub rounds: usize,
    /// Rounds after the search at least.
    pub least_rounds: usize,
    /// Candidates with memory at a time, at most, but for the leaders of each pair of types.
    pub most: usize,
    /// After so many rounds a candidate is dropped whose fastest run is so many times the leader's
    /// median. Few rounds have no intervals yet. Each pair of types has its own leader.
    pub drop: [(usize, f64); 3],
    /// Rounds after which a candidate is dropped whose interval lies above the leader and a tie.
    pub decide: [usize; 5],
    /// Common rounds of two that say which is faster, at least.
    pub rounds_together: usize,
    /// Tunings of a kernel that are measured in its other formats: the fastest in its first.
    pub finalists: usize,
    /// Tunings of a kernel that are measured again at a second visit.
    pub revived: usize,
    /// How many times as slow as the fastest they may be.
    pub revived_ratio: f64,
    /// Share of a problem's time that goes into the search.
    pub search_share: f64,
    /// Share of the rounds' time for the first formats of all tunings, where there are others.
    pub first_formats_share: f64,
}

pub struct SearchPolicy {
    /// Rounds of tunings that are new.
    pub rounds: usize,
    /// Tunings that are tried at a time.
    pub at_a_time: usize,
    /// A kernel is promising if it is at most so many times as slow as the fastest: by its default
    /// tuning alone, and once others are known. Tunings of the rest come last.
    pub promising_ratio: [f64; 2],
}

/// Trying what the search has skipped.
pub struct ExhaustivePolicy {
    /// Rounds of all that are left, enough to drop what loses.
    pub rounds_before: usize,
    /// Rounds at the end that compare the search's best with the best of all.
    pub last_rounds: usize,
    /// How long the rounds of a problem wait for near cores.
    pub patience: Duration,
}

pub struct SchedulePolicy {
    /// Seconds for each problem from which on it is visited twice. Slow memory for a second or two,
    /// which nothing shows, then spoils one visit at most.
    pub twice_s: f64,
    /// Share of the time for the first visit, which tries most tunings. Both have as many rounds.
    pub first_share: f64,
    /// Weight at the second visit of a problem that was measured at high latency.
    pub again_weight: f64,
}

/// Finalists in the running network.
pub struct InNetworkPolicy {
    /// Candidates of a step at most.
    pub candidates: usize,
    /// How many times as slow as the chosen one a candidate may be, isolated: the best of another
    /// family, and another tuning of the same.
    pub slower: [f64; 2],
    /// Rounds at least and at most. The first does not count.
    pub rounds: [usize; 2],
    /// No rounds if the least number of them would take so many times the time that is left.
    pub short: f64,
    /// Times this near are equal whatever their intervals.
    pub equal: f64,
    /// Tries of a run that is disturbed.
    pub tries: usize,
    /// If a larger share of the runs is disturbed, first quartiles decide: medians are of waiting.
    pub busy_share: f64,
}

pub struct NetworksPolicy {
    /// Rounds at least and at most.
    pub rounds: [usize; 2],
    /// Rounds at most of networks that only show what another choice costs.
    pub shown_rounds: usize,
    /// Rounds of two networks that say which is faster, at least. A chance of 1 in 32 that equal
    /// ones are taken for different.
    pub deciding_rounds: usize,
    /// Warm-up of a turn, by at least one run. A processor takes milliseconds to reach its pace
    /// after other instructions, and longer to have other weights out of its caches.
    pub warm_up: Duration,
    /// Length of the runs of a turn that count.
    pub turn: Duration,
    /// Runs of a turn that count, at most.
    pub runs: usize,
}

/// Inferences at the same time.
pub struct StreamsPolicy {
    /// Rounds that count; one more is to warm up.
    pub rounds: usize,
    /// Length of a turn, by at least one inference of each stream.
    pub turn: Duration,
    /// Ways to share the threads that are tried: one thread a stream, two, four and so on.
    pub ways: u32,
}

pub struct BoundsPolicy {
    /// Plans that are measured in search of the largest sum of errors within the bound.
    pub tries: usize,
    /// The search ends at a sum that is so many times below one that fails.
    pub near: f64,
    /// Relative size of the random changes of a step's outputs. Well above the roundings that they
    /// cause, well below what would turn ReLUs on and off.
    pub change: f64,
    /// Tensors that are tried in the fastest type, one after the other, once types are found that
    /// keep the bound.
    pub faster: usize,
    /// Prices of a squared error as large as the fastest types', as powers of the fourth root of two
    /// of their time.
    pub prices: RangeInclusive<i32>,
}

pub struct ParetoPolicy {
    /// Choices of each kind that are measured.
    pub plans: usize,
    /// Time for all of them.
    pub time: Duration,
}

pub struct StagesPolicy {
    /// Seconds for all measuring by default.
    pub budget_s: u32,
    /// Seconds with `--quick`.
    pub quick_s: u32,
    /// Seconds with `--thorough`.
    pub thorough_s: u32,
    /// Measuring that takes longer than the budget by this share is reported.
    pub exceeded_share: f64,
    /// Share of the budget after which isolated candidates are done.
    pub isolated_share: f64,
    /// Share after which candidates in the network are done. Whole networks take the rest.
    pub in_network_share: f64,
    /// Share of the in-network time for the network with block variants, if there is a plain one.
    pub variants_share: f64,
    /// Share of the budget for which rounds may wait until the workers' cores are near.
    pub patience_share: f64,
    /// A prediction further off than this is reported.
    pub prediction_off: f64,
}

/// Which runs of the log say how near cores can be.
pub struct LogPolicy {
    /// The last so many runs count. A machine changes.
    pub runs: usize,
    /// Rounds of a run on cores as near, at least. Fewer are chance.
    pub near_rounds: usize,
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The policy that all measuring follows.
pub const POLICY: Policy = Policy {
    contention: Contention {
        waited_share: 0.02,
        tries: 3,
        pause: ms(4),
        busy_share: 0.1,
        load_sample: ms(200),
    },
    core_distance: CoreDistancePolicy { exchanges: 16, turns: 4, pause: ms(20), spins: 10_000 },
    cold: ColdCaches { kept: 2, parts: 4 },
    conditions_sample_us: 40,
    peak_sample_us: 30_000,
    peak_rounds: 3,
    bandwidth: BandwidthPolicy {
        sample: ms(2),
        rounds: 8,
        kept: 2,
        beyond: 1.5,
        memory: 4,
        memory_bytes: [64 << 20, 512 << 20],
    },
    pair_warm_up: 2,
    noise: NoisePolicy { problems: 3, rounds: 24, least_tie: 0.01, widest_tie: 0.02 },
    race: RacePolicy {
        rounds: 48,
        least_rounds: 2,
        most: 24,
        drop: [(1, 2.0), (2, 1.3), (4, 1.1)],
        decide: [7, 10, 14, 19, 25],
        rounds_together: 3,
        finalists: 2,
        revived: 2,
        revived_ratio: 1.3,
        search_share: 0.8,
        first_formats_share: 0.5,
    },
    search: SearchPolicy { rounds: 2, at_a_time: 8, promising_ratio: [1.6, 1.3] },
    exhaustive: ExhaustivePolicy { rounds_before: 8, last_rounds: 25, patience: Duration::from_secs(30) },
    schedule: SchedulePolicy { twice_s: 0.3, first_share: 0.7, again_weight: 3.0 },
    in_network: InNetworkPolicy {
        candidates: 7,
        slower: [1.2, 1.12],
        rounds: [5, 100],
        short: 1.5,
        equal: 0.003,
        tries: 2,
        busy_share: 0.3,
    },
    networks: NetworksPolicy {
        rounds: [2, 16],
        shown_rounds: 3,
        deciding_rounds: 5,
        warm_up: ms(30),
        turn: ms(100),
        runs: 10,
    },
    streams: StreamsPolicy { rounds: 5, turn: ms(120), ways: 3 },
    bounds: BoundsPolicy { tries: 7, near: 1.15, change: 1e-3, faster: 10, prices: -48..=28 },
    pareto: ParetoPolicy { plans: 6, time: Duration::from_secs(4) },
    stages: StagesPolicy {
        budget_s: 33,
        quick_s: 14,
        thorough_s: 100,
        exceeded_share: 0.1,
        isolated_share: 0.6,
        in_network_share: 0.8,
        variants_share: 0.6,
        patience_share: 0.3,
        prediction_off: 0.05,
    },
    log: LogPolicy { runs: 10, near_rounds: 5 },
    repeat_warm_up: 3,
    recheck_rounds: 20,
};
