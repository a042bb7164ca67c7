//! A decoded image.

/// Samples of an image, row by row, all channels of a pixel together.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    U8(Vec<u8>),
    U16(Vec<u16>),
}

/// An image as its file has it: nothing is widened before it is resized.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    pub width: usize,
    pub height: usize,
    /// Grey; grey and alpha; RGB; RGB and alpha. Alpha is ignored.
    pub channels: usize,
    pub samples: Samples,
}

impl Pixels {
    /// The value of white.
    pub fn white(&self) -> f32 {
        match self.samples {
            Samples::U8(_) => 255.0,
            Samples::U16(_) => 65535.0,
        }
    }

    /// Which channel is red, green and blue.
    pub fn rgb(&self) -> [usize; 3] {
        if self.channels < 3 { [0; 3] } else { [0, 1, 2] }
    }
}

/// Why bytes are no image that can be used.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// What was found.
    Damaged(String),
    /// Width and height.
    Size(usize, usize),
}

impl Refusal {
    /// What a decoder says. Its words for a read beyond the end are those of buffers.
    pub fn damaged(found: impl std::fmt::Display) -> Self {
        let found = found.to_string();
        let is_short = found.contains("fill whole buffer") || found.contains("unexpected end of file");
        Self::Damaged(if is_short { "a file that ends too early".to_owned() } else { found })
    }
}

/// The most pixels accepted, so that a small file cannot ask for all memory.
pub const MAX_PIXELS: usize = 200_000_000;

/// The number of pixels, which is checked before memory is asked for.
pub fn checked_size(width: usize, height: usize) -> Result<usize, Refusal> {
    let pixels = width.checked_mul(height).filter(|pixels| (1..=MAX_PIXELS).contains(pixels));
    pixels.ok_or(Refusal::Size(width, height))
}
