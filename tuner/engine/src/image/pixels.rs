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

/// Samples in memory, row by row, all channels of a pixel together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SampleView<'a> {
    /// White is 255.
    U8(&'a [u8]),
    /// White is 65535.
    U16(&'a [u16]),
    /// White is 1. Values beyond 0..1 are those of black or white.
    F32(&'a [f32]),
}

/// An image in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelView<'a> {
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// 1: grey; 2: grey and alpha; 3: RGB; 4: RGB and alpha. Alpha is ignored.
    pub channels: usize,
    /// `height` x `width` x `channels` of them.
    pub samples: SampleView<'a>,
}

impl<'a> From<&'a Pixels> for PixelView<'a> {
    fn from(pixels: &'a Pixels) -> Self {
        let Pixels { width, height, channels, samples } = pixels;
        let samples = match samples {
            Samples::U8(samples) => SampleView::U8(samples),
            Samples::U16(samples) => SampleView::U16(samples),
        };
        Self { width: *width, height: *height, channels: *channels, samples }
    }
}

impl PixelView<'_> {
    /// The value of white.
    pub(crate) fn white(&self) -> f32 {
        match self.samples {
            SampleView::U8(_) => 255.0,
            SampleView::U16(_) => 65535.0,
            SampleView::F32(_) => 1.0,
        }
    }

    /// How many samples there are.
    pub(crate) fn len(&self) -> usize {
        match self.samples {
            SampleView::U8(samples) => samples.len(),
            SampleView::U16(samples) => samples.len(),
            SampleView::F32(samples) => samples.len(),
        }
    }

    /// Which channel is red, green and blue.
    pub(crate) fn rgb(&self) -> [usize; 3] {
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
        let words = found.to_ascii_lowercase();
        let is_short = ["fill whole buffer", "unexpected end of file"].iter().any(|end| words.contains(end));
        Self::Damaged(if is_short { "a file that ends too early".to_owned() } else { found })
    }
}

/// The most pixels accepted, so that a small file cannot ask for all memory; fewer where parsers are
/// fuzzed, in little memory and many times a second.
#[allow(unexpected_cfgs, reason = "cargo-fuzz sets it")]
pub const MAX_PIXELS: usize = if cfg!(fuzzing) { 1_000_000 } else { 200_000_000 };

/// The number of pixels, which is checked before memory is asked for.
pub fn checked_size(width: usize, height: usize) -> Result<usize, Refusal> {
    let pixels = width.checked_mul(height).filter(|pixels| (1..=MAX_PIXELS).contains(pixels));
    pixels.ok_or(Refusal::Size(width, height))
}
