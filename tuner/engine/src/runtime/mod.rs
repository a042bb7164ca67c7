//! A network ready to run.

pub mod layout;
pub mod load;
pub mod machine;
pub mod memory;
pub mod order;
pub mod prepared;
pub mod reference;
pub mod run;
pub mod threads;
pub mod weight_cache;
