//! Outputs of a tile on their way to memory, in any type.

use crate::conv::Isa;
use crate::tensor::Element;
use crate::vector::narrow_first;

/// A vector of channels of the outputs of a tile.
pub(super) struct Outputs {
    /// Of the first output.
    pub(super) first: *mut u8,
    /// Bytes along the two axes.
    pub(super) pitch: [usize; 2],
    /// Outputs that lie inside the image, along the two axes.
    pub(super) inside: [usize; 2],
    /// Channels from the vector on.
    pub(super) width: usize,
}

impl Outputs {
    /// Stores row `i`, with the bias added and nothing below the floor: what lies inside.
    ///
    /// # Safety
    /// The outputs, of type `T`, are this caller's alone.
    #[inline(always)]
    pub(super) unsafe fn store<I: Isa, T: Element, const M: usize>(
        &self,
        isa: I,
        i: usize,
        values: [I::f32s; M],
        [bias, floor]: [I::f32s; 2],
    ) {
        let is_whole = self.inside[1] == M && self.width >= I::F32_LANES;
        let mut at = self.first.wrapping_add(i * self.pitch[0]).cast::<T>();
        for (j, value) in values.into_iter().enumerate() {
            let value = isa.at_least(floor, isa.add_f32s(value, bias));
            // SAFETY: by the caller.
            unsafe {
                if is_whole {
                    narrow_first(isa, at, value, I::F32_LANES);
                } else if j < self.inside[1] {
                    narrow_first(isa, at, value, self.width);
                }
            }
            at = at.wrapping_byte_add(self.pitch[1]);
        }
    }
}
