//! The order of the stages.

pub mod record;
pub mod stages;
