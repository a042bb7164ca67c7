//! GIF: the first frame.

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use crate::image::pixels::{Pixels, Refusal, Samples, checked_size};

/// The first frame on its screen, as Pillow shows it: what the frame leaves out has the transparent
/// colour, else the first of the palette, and transparent pixels have the palette's colour.
pub fn decode(bytes: &[u8]) -> Result<Pixels, Refusal> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = options.read_info(bytes).map_err(Refusal::damaged)?;
    let screen = [usize::from(decoder.width()), usize::from(decoder.height())];
    let frame = decoder.next_frame_info().map_err(Refusal::damaged)?;
    let frame = frame.ok_or_else(|| Refusal::damaged("a GIF without a frame"))?;
    let [left, top, frame_width, frame_height] =
        [frame.left, frame.top, frame.width, frame.height].map(usize::from);
    let background = frame.transparent.unwrap_or(0);
    let (width, height) = (screen[0].max(left + frame_width), screen[1].max(top + frame_height));
    let pixels = checked_size(width, height)?;
    checked_size(frame_width, frame_height)?;
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(Refusal::damaged)?;
    let palette = decoder.palette().map_err(Refusal::damaged)?;
    // Pillow's palettes go on in black.
    let color = |index: u8| palette.get(usize::from(index) * 3..).and_then(|rest| rest.first_chunk::<3>());
    let color = |index: u8| color(index).copied().unwrap_or_default();
    let mut samples = color(background).repeat(pixels);
    for (row, line) in indices.chunks(frame_width).zip(samples.chunks_mut(width * 3).skip(top)) {
        for (index, pixel) in row.iter().zip(line[left * 3..].chunks_mut(3)) {
            pixel.copy_from_slice(&color(*index));
        }
    }
    Ok(Pixels { width, height, channels: 3, samples: Samples::U8(samples) })
}
