//! A network ready to run.

pub mod calibrate;
pub mod estimate;
pub mod layout;
pub mod limits;
pub mod load;
pub mod machine;
pub mod memory;
pub mod order;
pub mod prepared;
pub mod reference;
pub mod run;
pub mod streams;
pub mod threads;
pub mod weight_cache;

pub use calibrate::{LayerRule, Outputs, RangeRule};
pub use estimate::{Running, ensure_network};
pub use load::graph;
pub use machine::Machine;
pub use memory::{MemoryError, elements, ensure, ensure_more, ensure_runs, least_bytes, process_bytes};
pub use prepared::{PrepareError, PrepareOptions, PreparedNetwork};
pub use reference::Reference;
pub use run::{NotFinite, NotFiniteOutput, StepSeconds};
pub use streams::{Loaded, Ran, Stream, Work, are_worth_splitting, streams};
pub use threads::{
    Threads, ThreadsError, available, expected_threads, most_threads, physical_cores, start_thread,
};
