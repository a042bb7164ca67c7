//! From measurements to a network.

pub mod batch_split;
pub mod block_dp;
pub mod choose;
pub mod compare;
pub mod context;
pub mod error;
pub mod forms;
pub mod in_network;
pub mod knapsack;
pub mod pareto;
pub mod ranking;
pub mod rules;
pub mod search;
pub mod streams;

pub use batch_split::{Batch, split, split_all};
pub use block_dp::{cheapest_variants, layerwise};
pub use compare::{NetworkTime, contest};
pub use context::Network;
pub use error::PlannerError;
pub use forms::{BlockChoice, choose_variants, in_forms};
pub use pareto::pareto;
pub use ranking::{is_eligible, is_f32};
pub use rules::{RULES, Rule, by_rule, costs, counted};
pub use search::Chosen;
pub use streams::measure_streams;
