//! What all others use and what uses none of them: errors, files, statistics, random numbers.

pub mod bounded;
pub mod files;
pub mod in_order;
pub mod names;
pub mod random;
pub mod read_at;
pub mod stats;
pub mod temporary;
pub mod words;

pub use files::{create_folder, now};
pub use random::{shuffle, unit};
pub use read_at::read_at;
pub use stats::{Interval, Timing, median, ns, ratio, relative_l2, us};
