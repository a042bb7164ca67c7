//! The command line: one file a command.

mod args;
mod check;
mod classes;
mod detail;
mod explain;
mod labels;
mod layer_names;
mod list;
mod merge;
pub mod npy;
mod output;
mod peak;
mod program;
mod progress;
mod report;
mod run;
mod shape_list;
mod shapes;
mod spot;
mod summary;
mod transfer;
mod tune;
mod tune_shapes;
mod warnings;

pub use program::main;

#[cfg(test)]
mod tests;
