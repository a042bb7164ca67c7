//! Elements of tensors that tiles multiply.

use crate::arch::amx::TileElement;
use crate::tensor::Element;

pub trait TilePixel: TileElement + Element {}

impl<T: TileElement + Element> TilePixel for T {}
