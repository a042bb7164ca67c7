//! Pictures and a page of a plan: what it chose and why.
//!
//! `data` reads the plan with every time checked, `traffic` counts bytes and operations, `numbers` has
//! the rows of a [`dataset`]. `charts`, `networks`, `blocks` (as `bars`), `strip`, `predicted` and
//! `roofline` (with `axis` and `roofs`) draw on a `canvas`. `sections` brings charts and numbers in
//! order; `html` and `page` write the pages around them, which begin with `facts`; `files` has all
//! files. `candidates` shows one problem as a table.

pub mod axis;
mod bars;
mod blocks;
mod candidates;
pub mod canvas;
mod charts;
mod data;
pub mod dataset;
pub mod facts;
pub mod files;
pub mod html;
mod networks;
mod numbers;
mod page;
mod predicted;
pub mod rewrites;
mod roofline;
mod roofs;
pub mod sections;
mod strip;
mod table;
mod text;
mod traffic;

pub use candidates::{COLUMNS, Candidates};
pub use charts::shape;
pub use data::{
    Share, StepView, by_family, candidate_time, convolution, group, is_edited, percent, positive,
    reason_text, record, shares, steps, time,
};
pub use files::{Written, write};
pub use page::step_time;
pub use table::{Table, layers_text};
pub use text::{
    RUNS, count, date, mib, more, paragraphs, quartiles, ratio_text, sections, short, time_text, wrap,
};

#[cfg(test)]
pub mod tests;
