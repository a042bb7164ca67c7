//! `tuner merge`: the logs of several machines, or copies of one, as one.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;

use engine::util::files::write_atomically;
use serde::Serialize;

use crate::cli::{Answer, Failure, OutputArgs, messages};
use crate::log::LogError;
use crate::log::file::{lock, read};
use crate::log::schema::Line;
use crate::report::count;

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

#[derive(Debug, Serialize)]
struct Union {
    out: String,
    logs: usize,
    runs: usize,
    rounds: usize,
}

pub fn merge(args: &MergeArgs, out: &mut dyn Write) -> Result<(), Failure> {
    // Held until the union has its place, so that nothing that another process appends is lost.
    let refused = |source| LogError::Io { file: args.out.display().to_string(), source };
    let _guard = args.out.exists().then(|| lock(&args.out)).transpose().map_err(refused)?;
    let (mut seen, mut text) = (HashSet::new(), String::new());
    let mut union = Union { out: args.out.display().to_string(), logs: args.logs.len(), runs: 0, rounds: 0 };
    for path in &args.logs {
        let (lines, torn) = read(path)?;
        if torn > 0 {
            messages::note(format!("{}: {} left out", path.display(), count(torn, "torn line")));
        }
        for line in lines {
            let json = serde_json::to_string(&line)? + "\n";
            if !seen.contains(&json) {
                union.runs += usize::from(matches!(line, Line::Run(_)));
                union.rounds += usize::from(matches!(line, Line::Round { .. }));
                text += &json;
                seen.insert(json);
            }
        }
    }
    write_atomically(&args.out, text.as_bytes())?;
    OutputArgs { json: args.json, wide: true }.print(&union, out)
}

impl Answer for Union {
    fn text(&self, _: usize) -> String {
        let Self { out, logs, runs, rounds } = self;
        format!("{out}: {}, {} of {}\n", count(*runs, "run"), count(*rounds, "round"), count(*logs, "log"))
    }
}
