//! The error of commands.

/// Any error of a command: one line.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
