//! Measurements on disk.

pub mod file;
pub mod history;
pub mod journal;
pub mod schema;

pub use file::LogError;
pub use history::History;
pub use journal::{Journal, Log};
pub use schema::{Checked, LoggedCandidate, Time};
