//! The order of the stages: set-up, candidates, planning, whole networks, the plan.

pub mod calibration;
pub mod commit;
pub mod error;
pub mod file;
pub mod memory;
pub mod network;
pub mod options;
pub mod planning;
pub mod record;
pub mod setup;
