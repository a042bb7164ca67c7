//! How a command prints what it has found: as text that fits the terminal, or as one JSON object.

use std::io::Write;

use console::Term;
use serde::Serialize;

use crate::cli::{Failure, stdin};

/// Columns of a text where standard output is no terminal.
const COLUMNS: usize = 100;

/// The narrowest text.
const LEAST: usize = 40;

#[derive(Clone, Debug, Default, clap::Args)]
pub struct OutputArgs {
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub json: bool,
    /// Print tables as wide as they are, whatever the width of the terminal
    #[arg(long)]
    pub wide: bool,
}

/// What a command has found.
pub trait Answer: Serialize {
    /// As text, in lines of at most `width` characters.
    fn text(&self, width: usize) -> String;
}

impl OutputArgs {
    /// The most characters of a line: the terminal's, or [`COLUMNS`] where there is none.
    pub fn width(&self) -> usize {
        if self.wide {
            return usize::MAX;
        }
        Term::stdout().size_checked().map_or(COLUMNS, |(_, columns)| usize::from(columns).max(LEAST))
    }

    pub fn print(&self, answer: &impl Answer, out: &mut dyn Write) -> Result<(), Failure> {
        match self.json {
            true => Ok(writeln!(out, "{}", stdin::shown(&serde_json::to_string(answer)?))?),
            false => Ok(out.write_all(stdin::shown(&answer.text(self.width())).as_bytes())?),
        }
    }
}
