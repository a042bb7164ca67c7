//! JPEG: baseline and progressive; grey, YCbCr, RGB, CMYK and YCCK.

use kernels::arch::pages::prefer_huge_pages;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::image::pixels::{Pixels, Refusal, Samples, checked_size};

/// The image, and its EXIF data.
///
/// As in Pillow, CMYK is what Adobe stores: inverted. What is damaged inside is made up, but a file
/// without its end is refused.
pub fn decode(bytes: &[u8]) -> Result<(Pixels, Option<Vec<u8>>), Refusal> {
    if !has_end(bytes) {
        return Err(Refusal::damaged("a truncated JPEG"));
    }
    let options = DecoderOptions::default().set_strict_mode(false);
    let options = options.set_max_width(usize::MAX).set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(Refusal::damaged)?;
    let (width, height) = decoder.dimensions().ok_or_else(|| Refusal::damaged("a JPEG without size"))?;
    let pixels = checked_size(width, height)?;
    let (space, channels) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (ColorSpace::Luma, 1),
        _ => (ColorSpace::RGB, 3),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let mut samples = vec![0; pixels * channels];
    prefer_huge_pages(&mut samples);
    decoder.decode_into(&mut samples).map_err(Refusal::damaged)?;
    Ok((Pixels { width, height, channels, samples: Samples::U8(samples) }, decoder.exif().cloned()))
}

/// Whether the pixels of a JPEG are followed by the end marker. The decoder would make up what is
/// missing. Thumbnails have end markers too, so the segments before the pixels are stepped over.
fn has_end(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let [0xff, marker, high, low, ..] = *rest {
        let length = if marker == 0xff { 1 } else { 2 + u16::from_be_bytes([high, low]) as usize };
        rest = rest.get(length..).unwrap_or_default();
        if marker == 0xda {
            break;
        }
    }
    rest.windows(2).rev().any(|pair| pair == [0xff, 0xd9])
}
