//! Matrix products on packed weights: panels and the register blocks that consume them.

#![allow(unsafe_code, reason = "vector code")]

pub mod integers;
pub mod multiply;
pub mod panels;
pub mod product;
pub mod register_block;
pub mod rows;
