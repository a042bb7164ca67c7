//! Matrix products on packed weights: panels and the register blocks that consume them.

pub mod multiply;
pub mod panels;
pub mod product;
pub mod register_block;
pub mod rows;
