//! What the portable SIMD of `pulp` has no words for.

pub mod cache;
pub mod cpuid;
pub mod pages;
pub mod prefetch;
