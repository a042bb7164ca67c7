//! Measures the kernels on this machine, plans InceptionV3 and runs it.
//!
//! The way of a network, in reading order: [`model`] (data), [`graph`] (steps on tensors), [`rewrite`] (other
//! forms of its blocks), [`weights`], [`mod@measure`] (candidates of each problem), [`planner`], [`choose`] with
//! [`budget`] and [`exact`] (bounds on error and memory), [`plan`] (JSON), [`session`] (ready to run) on
//! [`threads`]; [`mod@tune`], [`mod@run`], [`mod@check`], [`mod@report`] and [`mod@peak`] are the commands of [`cli`].

pub mod apart;
pub mod bench;
pub mod budget;
pub mod check;
pub mod choose;
pub mod cli;
pub mod cold;
pub mod exact;
pub mod graph;
pub mod input;
pub mod joint;
pub mod list;
pub mod log;
pub mod machine;
pub mod measure;
pub mod model;
pub mod noise;
pub mod options;
pub mod oracle;
pub mod packed;
pub mod peak;
pub mod plan;
pub mod planner;
pub mod report;
pub mod rewrite;
pub mod rules;
pub mod run;
pub mod session;
pub mod settle;
pub mod size;
pub mod spot;
pub mod stats;
pub mod table;
pub mod threads;
pub mod tune;
pub mod types;
pub mod weights;
