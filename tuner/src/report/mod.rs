//! Pictures and a page of a plan: what it chose and why.
//!
//! [`data`] reads the plan with every time checked; [`bars`] and [`strip`] draw it on a [`canvas`];
//! [`page`] writes the Markdown around the pictures, [`files`] has all of them.

pub mod bars;
pub mod canvas;
pub mod charts;
pub mod data;
pub mod files;
pub mod page;
pub mod rewrites;
pub mod strip;
pub mod table;
pub mod text;

#[cfg(test)]
pub(crate) mod tests;
