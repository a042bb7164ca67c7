//! What kernels are compared with: [`reference`](mod@reference) has exact outputs of single pixels
//! and the tolerance that each kernel is held to, [`mod@f64`] whole tensors in f64.

pub mod f64;
pub mod reference;

pub use self::f64::exact;
pub use reference::{Expected, Pixel, Reference, all_pixels, as_seen, expected, over_scales};
