//! How a command prints what it has found: as text that fits the terminal, or as one JSON object.

use std::io::Write;

use console::Term;
use engine::util::error::Failure;
use serde::Serialize;

/// Columns of a text where standard output is no terminal.
const COLUMNS: usize = 100;

/// The narrowest text.
const LEAST: usize = 40;

/// How to print.
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
    /// The most characters of a line.
    pub fn width(&self) -> usize {
        match self.wide {
            true => usize::MAX,
            false => terminal_width(),
        }
    }

    /// Prints an answer.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn print(&self, answer: &impl Answer, out: &mut dyn Write) -> Result<(), Failure> {
        match self.json {
            true => print_json(answer, out),
            false => Ok(out.write_all(answer.text(self.width()).as_bytes())?),
        }
    }
}

/// The width of the terminal, or [`COLUMNS`] where standard output is none.
fn terminal_width() -> usize {
    let columns = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    columns.map_or(COLUMNS, |columns| columns.max(LEAST))
}

/// Prints an object in one line.
///
/// # Errors
/// If the system refuses.
pub fn print_json(object: &impl Serialize, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "{}", serde_json::to_string(object)?)?;
    Ok(())
}
