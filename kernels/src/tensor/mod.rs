//! Where tensors live: types of elements, formats, pitches, and the views that kernels use.

mod dtype;
mod format;
mod placement;
mod view;

pub use dtype::{Dtype, Element};
pub use format::{Format, Formats, Pitch};
pub use placement::{Placement, Tensor};
pub use view::{View, ViewMut};
