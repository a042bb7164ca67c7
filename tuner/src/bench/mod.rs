//! One prepared kernel, timed; and what else the machine did meanwhile.

pub mod conditions;
pub mod contention;
pub mod core_distance;
pub mod inputs;
pub mod noise;
pub mod oracle;
pub mod policy;
pub mod progress;
pub mod residency;
pub mod rounds;
pub mod samples;
pub mod timer;
