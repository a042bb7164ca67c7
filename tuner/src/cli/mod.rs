//! The command line: one file a command.

mod args;
mod bench;
mod check;
mod classes;
mod compare;
mod detail;
mod explain;
mod fid;
mod findings;
pub mod fuzz;
mod heap;
pub mod image_paths;
mod images;
mod infer;
mod interrupt;
mod latency;
mod layer_names;
mod list;
mod machine;
mod machine_text;
mod manual;
mod merge;
mod messages;
pub mod npy;
mod output;
mod peak;
mod plan_choice;
mod plans;
mod preprocess;
mod program;
mod progress;
mod report;
mod results;
mod run;
mod shape_list;
mod shapes;
mod spot;
mod stdin;
mod summary;
mod transfer;
mod tune;
mod tune_shapes;
mod warnings;

use args::{
    FileOption, HostArgs, ImageArgs, ImageSize, IsaArgs, ModelArgs, PlanArgs, PlanFilter, TuneArgs, at_size,
    check_distinct, conv_output, crowded, model_options, of_size, planned_model, results_folder, shards,
    size, thread_count, threads, threads_of,
};
pub use heap::Heap;
use images::{Batch, Images};
use messages::notes as print_notes;
use output::{Answer, OutputArgs};
pub use program::main;
use progress::Meter;

/// Any error of a command: one line.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[cfg(test)]
mod tests;
