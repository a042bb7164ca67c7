//! One prepared kernel, timed; and what else the machine did meanwhile.

pub mod bandwidth;
pub mod conditions;
pub mod contention;
pub mod core_distance;
pub mod cpufreq;
pub mod inputs;
pub mod load;
pub mod noise;
pub mod oracle;
pub mod policy;
pub mod progress;
pub mod residency;
pub mod rounds;
pub mod samples;
pub mod timer;
pub mod topology;

pub use conditions::Conditions;
pub use contention::{RunCount, RunQueueMonitor, RunTally, undisturbed};
pub use core_distance::CoreDistanceMonitor;
pub use inputs::Inputs;
pub use load::LoadMonitor;
pub use oracle::{Comparison, Oracle, sample_pixels};
pub use policy::POLICY;
pub use progress::{Observer, Progress, Report, Stage, StageProgress, Stopped, Warning};
pub use residency::{weight_bytes, weights_come_from};
pub use rounds::Rounds;
pub use samples::Samples;
pub use timer::{Bench, BenchContext, each_in_turn};
pub use topology::Topology;
