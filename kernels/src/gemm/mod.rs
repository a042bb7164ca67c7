//! Matrix products on packed weights: panels and the register tiles that consume them.

pub mod multiply;
pub mod panels;
pub mod product;
pub mod rows;
pub mod tile;
