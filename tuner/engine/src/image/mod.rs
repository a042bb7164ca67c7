//! Photographs as network inputs.

use std::fmt::Display;
use std::io::Cursor;
use std::path::Path;

use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, Rgb32FImage};

use crate::network::Model;
use crate::util::files::{InputError, file_name, one_line};

#[cfg(test)]
mod tests;

/// The most pixels accepted, so that a small file cannot ask for all memory.
const MAX_PIXELS: u64 = 1 << 26;

/// Why an image could not be read. One line each: the file, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The system refused to read, or the file is of another format, damaged or too large.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The model does not take images: it is a part of a network.
    #[error("{file}: {model} takes {expected:?}, not images")]
    Model {
        /// The file.
        file: String,
        /// The model.
        model: String,
        /// Height, width and channels of its input.
        expected: [usize; 3],
    },
}

/// Reads a JPEG or PNG of any size as a model wants it: RGB `[height, width, 3]`, in its range.
///
/// Grey images get three equal channels, alpha is dropped, 16-bit values keep their precision. The
/// image is stretched to the model's size, whatever its proportions, by a triangle filter in f32:
/// bilinear, and widened where the image shrinks, so that every pixel counts. As in Keras, an
/// orientation stated by EXIF is not applied.
///
/// # Errors
/// If the file is no JPEG or PNG, is damaged, has over 2^26 pixels, or the model takes no image.
pub fn load(path: impl AsRef<Path>, model: &Model) -> Result<Vec<f32>, ImageError> {
    let path = path.as_ref();
    let file = file_name(path);
    if !model.takes_images() {
        return Err(ImageError::Model { file, model: model.to_string(), expected: model.input() });
    }
    let bytes = std::fs::read(path).map_err(|source| InputError::Read { file: file.clone(), source })?;
    if bytes.starts_with(&[0xff, 0xd8]) && !has_jpeg_end(&bytes) {
        return Err(damaged(&file, "a truncated JPEG").into());
    }
    let [height, width, _] = model.input();
    let pixels = decode(&file, &bytes)?;
    let resized = image::imageops::resize(&pixels, width as u32, height as u32, FilterType::Triangle);
    let [black, white] = model.info.pixel_range;
    let scaled = |value: f32| (value * (white - black) + black).clamp(black, white);
    Ok(resized.into_raw().into_iter().map(scaled).collect())
}

fn damaged(file: &str, found: impl Display) -> InputError {
    let (file, found) = (file.to_owned(), one_line(&found.to_string()));
    InputError::Format { file, found, expected: "a whole JPEG or PNG image".to_owned() }
}

fn decode(file: &str, bytes: &[u8]) -> Result<Rgb32FImage, InputError> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let mut reader = reader.map_err(|error| damaged(file, error))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| damaged(file, error))?;
    let (width, height) = decoder.dimensions();
    if !(1..=MAX_PIXELS).contains(&(width as u64 * height as u64)) {
        let (file, found) = (file.to_owned(), format!("an image of {width}x{height}"));
        return Err(InputError::Format { file, found, expected: format!("1 to {MAX_PIXELS} pixels") });
    }
    let image = DynamicImage::from_decoder(decoder).map_err(|error| damaged(file, error))?;
    Ok(image.into_rgb32f())
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
