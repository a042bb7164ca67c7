//! Pictures and a page of a plan: what it chose and why.
//!
//! `data` reads the plan with every time checked; `bars` and `strip` draw it on a `canvas`;
//! `page` writes the Markdown around the pictures, `files` has all of them.

mod bars;
mod canvas;
mod charts;
mod data;
mod files;
mod page;
pub mod rewrites;
mod strip;
mod table;
mod text;

pub use charts::shape;
pub use data::{
    Share, StepView, by_family, candidate_time, convolution, group, is_edited, percent, positive,
    reason_text, record, shares, steps, time,
};
pub use files::write;
pub use page::step_time;
pub use table::{Table, layers_text};
pub use text::{
    RUNS, count, date, mib, more, paragraphs, quartiles, ratio_text, sections, short, time_text, wrap,
};

#[cfg(test)]
pub mod tests;
