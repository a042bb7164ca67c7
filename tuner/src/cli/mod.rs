//! The command line: one file a command.

mod args;
mod check;
mod explain;
mod labels;
mod list;
mod merge;
pub mod npy;
mod peak;
mod print;
mod program;
mod progress;
mod report;
mod run;
mod shape_list;
mod shapes;
mod spot;
mod transfer;
mod tune;
mod tune_shapes;

pub use program::main;

#[cfg(test)]
mod tests;
