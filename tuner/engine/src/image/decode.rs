//! From bytes of a file to pixels.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::image::pixels::{Pixels, Refusal, Samples, checked_size};
use crate::image::{gif, jpeg, tiff};

/// What a file holds.
pub struct Decoded {
    pub pixels: Pixels,
    /// How the rows of pixels are stored. It is always applied.
    pub layout: Orientation,
    /// What EXIF says about how the camera was held.
    pub exif: Orientation,
}

impl Decoded {
    fn upright(pixels: Pixels) -> Self {
        Self { pixels, layout: Orientation::NoTransforms, exif: Orientation::NoTransforms }
    }
}

/// Whether a file that starts like this may be an image.
pub fn is_image(start: &[u8]) -> bool {
    kind(start).is_some()
}

fn kind(start: &[u8]) -> Option<ImageFormat> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    if start.starts_with(&[0xff, 0xd8]) {
        return Some(Jpeg);
    }
    image::guess_format(start).ok().filter(|kind| [Bmp, Gif, Png, Tiff, WebP].contains(kind))
}

/// As Pillow decodes it. The content decides what it is.
pub fn decode(bytes: Vec<u8>) -> Result<Decoded, Refusal> {
    match kind(&bytes).ok_or_else(|| Refusal::damaged("an unknown format"))? {
        ImageFormat::Jpeg => {
            let (pixels, exif) = jpeg::decode(&bytes)?;
            let exif = exif.and_then(|exif| Orientation::from_exif_chunk(&exif));
            let exif = exif.unwrap_or(Orientation::NoTransforms);
            Ok(Decoded { exif, ..Decoded::upright(pixels) })
        }
        ImageFormat::Gif => gif::decode(&bytes).map(Decoded::upright),
        ImageFormat::Tiff => {
            let (pixels, orientation) = tiff::decode(bytes)?;
            let layout = Orientation::from_exif(orientation).unwrap_or(Orientation::NoTransforms);
            Ok(Decoded { layout, ..Decoded::upright(pixels) })
        }
        ImageFormat::Png if !has_whole_palette(&bytes) => {
            Err(Refusal::damaged("a PNG whose palette ends in a colour"))
        }
        ImageFormat::WebP if !has_riff_length(&bytes) => Err(Refusal::damaged("a truncated WebP")),
        kind => other(&bytes, kind),
    }
}

/// Whether a WebP is as long as its header states. The decoder would make up what is missing.
fn has_riff_length(bytes: &[u8]) -> bool {
    let length = bytes.get(4..).and_then(|rest| rest.first_chunk::<4>());
    length.is_some_and(|length| bytes.len() as u64 >= 8 + u64::from(u32::from_le_bytes(*length)))
}

/// More than any colour profile or text of a PNG, in bytes.
const PNG_METADATA: u64 = 16 << 20;

/// The width that the header of a PNG states: of its rows of up to 8 bytes a pixel some are kept.
fn png_width(bytes: &[u8]) -> u64 {
    bytes.get(16..).and_then(|rest| rest.first_chunk()).map_or(0, |width| u32::from_be_bytes(*width).into())
}

/// Whether the palettes of a PNG have whole colours. The decoder would read beyond the last of others.
fn has_whole_palette(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((&[a, b, c, d, ref kind @ ..], body)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if kind == b"PLTE" && !length.is_multiple_of(3) {
            return false;
        }
        // A checksum follows.
        rest = body.get(length.saturating_add(4)..).unwrap_or_default();
    }
    true
}

/// PNG, WebP and BMP.
fn other(bytes: &[u8], kind: ImageFormat) -> Result<Decoded, Refusal> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), kind);
    // The number of pixels bounds the memory, but for what a PNG has compressed next to them.
    reader.no_limits();
    if kind == ImageFormat::Png {
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(4 * 8 * png_width(bytes) + PNG_METADATA);
        reader.limits(limits);
    }
    let mut decoder = reader.into_decoder().map_err(Refusal::damaged)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    let pixels = checked_size(width, height)?;
    let exif = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let color = decoder.color_type();
    let channels = usize::from(color.channel_count());
    let samples = match color {
        ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => {
            let mut samples = vec![0; pixels * channels];
            decoder.read_image(&mut samples).map_err(Refusal::damaged)?;
            Samples::U8(samples)
        }
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => {
            let mut samples = vec![0u16; pixels * channels];
            decoder.read_image(bytemuck::cast_slice_mut(&mut samples)).map_err(Refusal::damaged)?;
            Samples::U16(samples)
        }
        _ => return Err(Refusal::damaged(format!("an image of {color:?}"))),
    };
    Ok(Decoded { exif, ..Decoded::upright(Pixels { width, height, channels, samples }) })
}
