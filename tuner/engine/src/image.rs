//! Photographs as network inputs.

use std::io::Cursor;
use std::path::Path;

use image::imageops::FilterType;
use image::{ImageDecoder, ImageError, ImageReader, Limits};

use crate::util::files::{InputError, file_name, one_line};

/// Height and width of the network's input.
pub const IMAGE_SIDE: u32 = 299;

/// The most pixels accepted, so that a small file cannot ask for all memory.
const MAX_PIXELS: u64 = 1 << 26;

/// Reads a JPEG or PNG of any size as `[299, 299, 3]` in \[-1, 1\], channels RGB.
///
/// Grey images get three equal channels, alpha is dropped, 16-bit values keep their precision. The
/// image is stretched to 299x299, whatever its proportions, by a triangle filter in f32: bilinear,
/// and widened where the image shrinks, so that every pixel counts. As in Keras, an orientation
/// stated by EXIF is not applied.
///
/// # Errors
/// If the file is neither format, is damaged, or has more than 2^26 pixels.
pub fn load_image(path: &Path) -> Result<Vec<f32>, InputError> {
    let file = file_name(path);
    let bytes = std::fs::read(path).map_err(|source| InputError::Read { file: file.clone(), source })?;
    if bytes.starts_with(&[0xff, 0xd8]) && !has_jpeg_end(&bytes) {
        let (found, expected) = ("a truncated JPEG".to_owned(), "a whole JPEG or PNG image".to_owned());
        return Err(InputError::Format { file, found, expected });
    }
    decode(&file, &bytes)
}

fn decode(file: &str, bytes: &[u8]) -> Result<Vec<f32>, InputError> {
    let format = |error: ImageError| InputError::Format {
        file: file.to_owned(),
        found: one_line(&error.to_string()),
        expected: "a whole JPEG or PNG image".to_owned(),
    };
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| format(error.into()))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(format)?;
    let (width, height) = decoder.dimensions();
    if !(1..=MAX_PIXELS).contains(&(width as u64 * height as u64)) {
        return Err(InputError::ImageSize { file: file.to_owned(), width, height, limit: MAX_PIXELS });
    }
    let pixels = image::DynamicImage::from_decoder(decoder).map_err(format)?.into_rgb32f();
    let resized = image::imageops::resize(&pixels, IMAGE_SIDE, IMAGE_SIDE, FilterType::Triangle);
    Ok(resized.into_raw().into_iter().map(|value| (value * 2.0 - 1.0).clamp(-1.0, 1.0)).collect())
}

/// Whether the pixels of a JPEG are followed by the end marker. The decoder would make up what is
/// missing. Thumbnails have end markers too, so the segments before the pixels are stepped over.
fn has_jpeg_end(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let [0xff, marker, high, low, ..] = *rest {
        let length = if marker == 0xff { 1 } else { 2 + u16::from_be_bytes([high, low]) as usize };
        rest = rest.get(length..).unwrap_or_default();
        if marker == 0xda {
            break;
        }
    }
    rest.windows(2).any(|pair| pair == [0xff, 0xd9])
}
