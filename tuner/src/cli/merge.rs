//! `tuner merge`: the logs of several machines, or copies of one, as one.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;

use engine::util::error::Failure;
use engine::util::files::write_atomically;

use crate::log::file::{LogError, lock, read};
use crate::log::schema::Line;

/// Arguments of `merge`.
#[derive(Clone, Debug, clap::Args)]
pub struct MergeArgs {
    /// Logs of measurements: measurements.jsonl of a machine's folder
    #[arg(required = true, value_name = "LOG.jsonl")]
    logs: Vec<PathBuf>,
    /// Where to write the union; it may be one of them
    #[arg(long, value_name = "LOG.jsonl")]
    out: PathBuf,
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
    let (mut runs, mut rounds) = (0, 0);
    for path in &args.logs {
        let (lines, torn) = read(path)?;
        if torn > 0 {
            eprintln!("note: {}: {torn} torn lines are left out", path.display());
        }
        for line in lines {
            let own = serde_json::to_string(&line)?;
            if seen.insert(own.clone()) {
                runs += usize::from(matches!(line, Line::Run(_)));
                rounds += usize::from(matches!(line, Line::Round { .. }));
                text += &own;
                text.push('\n');
            }
        }
    }
    write_atomically(&args.out, text.as_bytes())?;
    writeln!(out, "{}: {runs} runs, {rounds} rounds of {} logs", args.out.display(), args.logs.len())?;
    Ok(())
}
