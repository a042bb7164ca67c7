//! Messages on standard error: one line each, of a length that a person reads, whatever they quote.
//!
//! Nobody may be reading them, and the disk may be full. A command ends as it would with a reader.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr};

use console::Term;
use engine::util::files::message;

use crate::cli::stdin;

pub fn error(text: impl Display) {
    line(format!("error: {text}"));
}

pub fn warning(text: impl Display) {
    line(format!("warning: {text}"));
}

pub fn note(text: impl Display) {
    line(format!("note: {text}"));
}

/// Prints notes.
pub fn notes<'a>(notes: impl IntoIterator<Item = &'a String>) {
    notes.into_iter().for_each(note);
}

/// Prints a text that says itself what it is.
pub fn line(text: impl Display) {
    let text = message(&stdin::shown(&text.to_string()));
    // In one piece, so that lines of several processes stay whole.
    let _ = stderr().write_all(format!("{text}\n").as_bytes());
}

/// Removes the bar that shows progress from the terminal, so that a line can follow.
pub fn end_progress() {
    if stderr().is_terminal() {
        let _ = Term::stderr().clear_line();
    }
}
