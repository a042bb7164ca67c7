//! From measurements to a network.

pub mod batch_split;
pub mod block_dp;
pub mod choose;
pub mod chosen;
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
