//! Photographs as network inputs.
//!
//! ```text
//! decode        a file's bytes to pixels of 8 or 16 bits (jpeg, gif, tiff, and the crate `image`)
//! preprocessing what a framework does with them: presets as data, and the part that is wanted
//! filter        the weights on one axis
//! resize        pixels to f32, without a copy of the whole image
//! orientation   images that are stored lying down
//! ```

mod decode;
mod error;
mod filter;
mod gif;
mod jpeg;
mod orientation;
mod pixels;
mod preprocessing;
mod resize;
mod tiff;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ::image::metadata::Orientation;

use crate::network::Model;
use crate::util::files::{InputError, file_name, one_line};

use decode::Decoded;
pub use error::{GeometryError, ImageError};
pub use filter::Interpolation;
pub use preprocessing::{PRESETS, Preprocessing, Preset, Resize};

pub use pixels::{PixelView, SampleView};

use pixels::{MAX_PIXELS, Refusal, checked_size};

/// The largest file that is read: pixels of four channels and 16 bits, and as much as a page more.
const MAX_BYTES: u64 = MAX_PIXELS as u64 * 8 + (1 << 20);

/// How much of a file says what it is.
const START_BYTES: u64 = 64;

/// An image as a network takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedImage {
    /// RGB `[height, width, 3]`, or grey `[height, width, 1]`, preprocessed.
    pub values: Vec<f32>,
    /// Height and width in the file, upright.
    pub size: [usize; 2],
    /// Whether it was resized to more pixels than it has, on either axis.
    pub is_enlarged: bool,
    /// The orientation that EXIF states, from 1 (upright) to 8. It is applied if
    /// [`Preprocessing::exif`] asks for it.
    pub orientation: u8,
}

/// Reads an image of any size as Keras would for this model: RGB `[height, width, 3]` from -1 to 1,
/// stretched to the model's size by a bilinear filter with antialiasing.
///
/// # Errors
/// See [`load_with`].
pub fn load(path: impl AsRef<Path>, model: &Model) -> Result<Vec<f32>, ImageError> {
    Ok(load_with(path, model, &Preprocessing::default())?.values)
}

/// Reads an image of any size and preprocesses it for a model.
///
/// JPEG, PNG, WebP, BMP, TIFF and the first frame of a GIF are recognised by content and decoded as
/// Pillow does: grey images get three equal channels, alpha is dropped. 16-bit values keep their
/// precision. All computing is in f32. A model of one channel gets the luma of ITU-R BT.601:
/// 0.299 R + 0.587 G + 0.114 B.
///
/// # Errors
/// If the file is no such image, is damaged, or has over 200 million pixels; if the model takes no
/// images; if the preprocessing does not give the model's size, or has three means for one channel.
pub fn load_with(
    path: impl AsRef<Path>,
    model: &Model,
    preprocessing: &Preprocessing,
) -> Result<LoadedImage, ImageError> {
    let path = path.as_ref();
    let file = file_name(path);
    ensure_takes(&file, model, preprocessing)?;
    let bytes = read(path, &file)?;
    decoded(&file, bytes, model, preprocessing)
}

/// As [`load_with`], of a file whose bytes are in memory. Messages call it `name`.
///
/// # Errors
/// As [`load_with`].
pub fn from_bytes(
    name: &str,
    bytes: Vec<u8>,
    model: &Model,
    preprocessing: &Preprocessing,
) -> Result<LoadedImage, ImageError> {
    ensure_takes(name, model, preprocessing)?;
    if !decode::is_image(&bytes) {
        return Err(damaged(name, &starts_like(&bytes)).into());
    }
    decoded(name, bytes, model, preprocessing)
}

/// The image of a file's bytes, which start like one.
fn decoded(
    file: &str,
    bytes: Vec<u8>,
    model: &Model,
    preprocessing: &Preprocessing,
) -> Result<LoadedImage, ImageError> {
    let Decoded { pixels, layout, exif } = decode::decode(bytes).map_err(|refusal| refused(file, refusal))?;
    let orientation = match (layout, preprocessing.exif) {
        (Orientation::NoTransforms, true) => exif,
        (layout, _) => layout,
    };
    let image = of_model(file, (&pixels).into(), orientation, model, preprocessing)?;
    Ok(LoadedImage { orientation: exif.to_exif(), ..image })
}

/// Preprocesses an image in memory, upright and of any size, for a model: as [`load_with`] does
/// with those of files. Messages call it `name`.
///
/// # Errors
/// If there are not as many samples as the size states, or over 200 million pixels; if the model
/// takes no images; if the preprocessing does not give the model's size, or has three means for one
/// channel.
pub fn from_pixels(
    name: &str,
    pixels: PixelView,
    model: &Model,
    preprocessing: &Preprocessing,
) -> Result<LoadedImage, ImageError> {
    ensure_takes(name, model, preprocessing)?;
    let PixelView { width, height, channels, .. } = pixels;
    let count = checked_size(width, height).map_err(|refusal| refused(name, refusal))?;
    if !(1..=4).contains(&channels) || pixels.len() != count * channels {
        let (name, found) = (name.to_owned(), pixels.len());
        return Err(ImageError::Samples { name, found, height, width, channels });
    }
    of_model(name, pixels, Orientation::NoTransforms, model, preprocessing)
}

/// Refuses what no image can be the input of.
fn ensure_takes(file: &str, model: &Model, preprocessing: &Preprocessing) -> Result<(), ImageError> {
    let file = file.to_owned();
    if !model.takes_images() {
        return Err(ImageError::Model { file, model: model.to_string(), expected: model.input() });
    }
    let of_colours = [preprocessing.mean, preprocessing.std].iter().any(|[r, g, b]| r != g || g != b);
    match model.input()[2] == 1 && of_colours {
        true => Err(ImageError::Colours { file }),
        false => Ok(()),
    }
}

/// Pixels as the input of a model.
fn of_model(
    file: &str,
    pixels: PixelView,
    orientation: Orientation,
    model: &Model,
    preprocessing: &Preprocessing,
) -> Result<LoadedImage, ImageError> {
    let [height, width, channels] = model.input();
    let image = preprocess(pixels, orientation, preprocessing, [height, width]);
    let mut image = image.map_err(|source| ImageError::Geometry { file: file.to_owned(), source })?;
    if channels == 1 {
        let luma = |rgb: &[f32]| 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
        image.values = image.values.chunks_exact(3).map(luma).collect();
    }
    Ok(image)
}

/// Whether a file starts as the images do that [`load_with`] reads.
pub fn is_image(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(START_BYTES).read_to_end(&mut start));
    read.is_ok() && decode::is_image(&start)
}

/// The bytes of a file, if it starts like an image.
fn read(path: &Path, file: &str) -> Result<Vec<u8>, ImageError> {
    let failed = |source| InputError::Read { file: file.to_owned(), source };
    let mut reader = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    reader.by_ref().take(START_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    if !decode::is_image(&bytes) {
        return Err(damaged(file, &starts_like(&bytes)).into());
    }
    let length = reader.metadata().map_or(0, |metadata| metadata.len().min(MAX_BYTES));
    let left = (length as usize).saturating_sub(bytes.len());
    bytes.try_reserve_exact(left).map_err(|error| failed(error.into()))?;
    reader.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn starts_like(bytes: &[u8]) -> String {
    match bytes {
        [] => "an empty file".to_owned(),
        _ => {
            let start: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("a file that starts with {}", start.join(" "))
        }
    }
}

fn damaged(file: &str, found: &str) -> InputError {
    let expected = "a whole JPEG, PNG, WebP, BMP, TIFF or GIF image".to_owned();
    InputError::Format { file: file.to_owned(), found: one_line(found), expected }
}

fn refused(file: &str, refusal: Refusal) -> ImageError {
    match refusal {
        Refusal::Damaged(found) => damaged(file, &found).into(),
        Refusal::Size(width, height) => {
            ImageError::Pixels { file: file.to_owned(), width, height, limit: MAX_PIXELS }
        }
    }
}

/// An image in RGB as the input of `[height, width]`.
fn preprocess(
    pixels: PixelView,
    orientation: Orientation,
    preprocessing: &Preprocessing,
    input: [usize; 2],
) -> Result<LoadedImage, GeometryError> {
    let size = orientation::upright_size([pixels.height, pixels.width], orientation);
    let window = preprocessing.window(size, input)?;
    let is_enlarged = window.resized[0] > size[0] || window.resized[1] > size[1];
    let window = orientation::stored_window(&window, orientation);
    let values = resize::resize(pixels, &window, preprocessing.interpolation);
    let mut values = orientation::upright(values, window.size, orientation);
    let (white, Preprocessing { mean, std, .. }) = (pixels.white(), preprocessing);
    for pixel in values.chunks_exact_mut(3) {
        for ((value, mean), std) in pixel.iter_mut().zip(mean).zip(std) {
            *value = (*value / white - mean) / std;
        }
    }
    Ok(LoadedImage { values, size, is_enlarged, orientation: Orientation::NoTransforms.to_exif() })
}
