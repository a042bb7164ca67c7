//! `tuner merge`: the logs of several machines, or copies of one, as one.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;

use engine::util::error::Failure;
use engine::util::files::write_atomically;
use serde::Serialize;

use crate::cli::output::print_json;
use crate::log::file::{LogError, lock, read};
use crate::log::schema::Line;
use crate::report::text::count;

/// Arguments of `merge`.
#[derive(Clone, Debug, clap::Args)]
pub struct MergeArgs {
    /// Logs of measurements: measurements.jsonl of a machine's folder
    #[arg(required = true, value_name = "LOG.jsonl")]
    logs: Vec<PathBuf>,
    /// Where to write the union; it may be one of them
    #[arg(long, value_name = "LOG.jsonl")]
    out: PathBuf,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

/// What was united.
#[derive(Debug, Serialize)]
struct Union {
    out: String,
    logs: usize,
    runs: usize,
    rounds: usize,
}

/// Runs the command.
///
/// # Errors
/// If a log can't be read, or the union not be written.
pub fn merge(args: &MergeArgs, out: &mut dyn Write) -> Result<(), Failure> {
    // Held until the union has its place, so that nothing that another process appends is lost.
    let _guard = match args.out.exists() {
        true => Some(
            lock(&args.out)
                .map_err(|source| LogError::Io { file: args.out.display().to_string(), source })?,
        ),
        false => None,
    };
    let (mut seen, mut text) = (HashSet::new(), String::new());
    let mut union = Union { out: args.out.display().to_string(), logs: args.logs.len(), runs: 0, rounds: 0 };
    for path in &args.logs {
        let (lines, torn) = read(path)?;
        if torn > 0 {
            eprintln!("note: {}: {} left out", path.display(), count(torn, "torn line"));
        }
        for line in lines {
            let own = serde_json::to_string(&line)?;
            if seen.insert(own.clone()) {
                union.runs += usize::from(matches!(line, Line::Run(_)));
                union.rounds += usize::from(matches!(line, Line::Round { .. }));
                text += &own;
                text.push('\n');
            }
        }
    }
    write_atomically(&args.out, text.as_bytes())?;
    if args.json {
        return print_json(&union, out);
    }
    let [runs, rounds, logs] =
        [(union.runs, "run"), (union.rounds, "round"), (union.logs, "log")].map(|(n, what)| count(n, what));
    writeln!(out, "{}: {runs}, {rounds} of {logs}", union.out)?;
    Ok(())
}
