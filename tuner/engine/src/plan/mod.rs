//! Plans: the file, its records, and how it fits a graph.

pub mod bandwidth;
pub mod error;
pub mod list;
pub mod reasons;
pub mod records;
pub mod request;
pub mod resolve;
pub mod schema;
pub mod step;
pub mod store;
pub mod variants;

pub use bandwidth::{BandwidthRecord, MemoryLevel};
pub use reasons::{CandidateOutcome, StepReason, VariantReason};
pub use records::{
    Alternative, BlockVariantRecord, CandidateRecord, ConditionsRecord, CoreDistance, LoadRecord,
    MemoryBytes, NetworkRecord, NetworkVariant, Noise, ParetoPoint, Planning, ProblemRecord, RuleRecord,
    SearchRecord, StreamsRecord, WeightResidency, is_far,
};
pub use schema::{Bounds, Plan, PlanSplit, SCHEMA};
pub use step::{InNetwork, PlanStep, RunnerUp, TimeUs, time_us};
