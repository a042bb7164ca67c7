//! How a network expects its images: presets, and what they amount to.

use std::fmt;

use crate::image::error::GeometryError;
use crate::image::filter::Interpolation;
use crate::image::resize::Window;
use crate::network::{AveragePooling, Model};
use crate::weights::Weights;

/// The size that an image is resized to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Resize {
    /// The model's size, whatever the proportions of the image.
    ToInput,
    /// This height and width, whatever the proportions of the image.
    To([usize; 2]),
    /// This length of the short side; the long side keeps the proportions, rounded down.
    ShortSide(usize),
    /// As `ShortSide`: the model's size divided by this fraction, rounded up.
    FractionUp(f64),
    /// As `ShortSide`: the model's size divided by this fraction, rounded down.
    FractionDown(f64),
}

/// How an image becomes the input of a network: it is resized, its middle is cropped, and values v
/// in 0..1 become (v - mean) / std.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocessing {
    /// The size that the image is resized to.
    pub resize: Resize,
    /// Height and width of the middle that is kept; the model's if there is none.
    pub crop: Option<usize>,
    /// How pixels in between are made.
    pub interpolation: Interpolation,
    /// Of red, green and blue.
    pub mean: [f32; 3],
    /// Standard deviations of red, green and blue.
    pub std: [f32; 3],
    /// Whether an orientation stated by EXIF is applied.
    pub exif: bool,
}

/// What one of the frameworks does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does.
    pub preprocessing: Preprocessing,
}

/// From -1 to 1.
const HALVES: [f32; 3] = [0.5; 3];
/// From -1 to 127/128, by (level - 128) / 128 of levels in 0..255.
const TENSORFLOW: [f32; 3] = [128.0 / 255.0; 3];
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
/// How much of the short side the crop keeps: 299 of 342 in torchvision, of 341 in timm.
const CROP_FRACTION: f64 = 0.875;

const fn preset(
    name: &'static str,
    resize: Resize,
    interpolation: Interpolation,
    [mean, std]: [[f32; 3]; 2],
) -> Preset {
    let preprocessing = Preprocessing { resize, crop: None, interpolation, mean, std, exif: false };
    Preset { name, preprocessing }
}

use Interpolation::{Bicubic, Bilinear, BilinearNoAntialias, BilinearTensorFlow1};
use Resize::{FractionDown, FractionUp, ToInput};

/// All presets. A new one is a row here.
pub const PRESETS: [Preset; 7] = [
    preset("keras", ToInput, Bilinear, [HALVES; 2]),
    preset("torchvision", FractionUp(CROP_FRACTION), Bilinear, [IMAGENET_MEAN, IMAGENET_STD]),
    preset("torchvision-transform-input", FractionUp(CROP_FRACTION), Bilinear, [HALVES; 2]),
    preset("timm", FractionDown(CROP_FRACTION), Bicubic, [HALVES; 2]),
    // As pytorch-fid, clean-fid and torch-fidelity.
    preset("fid", ToInput, BilinearNoAntialias, [HALVES; 2]),
    preset("fid-clean", ToInput, Bicubic, [TENSORFLOW; 2]),
    preset("fid-torch-fidelity", ToInput, BilinearTensorFlow1, [TENSORFLOW; 2]),
];

impl Default for Preprocessing {
    /// That of Keras.
    fn default() -> Self {
        PRESETS[0].preprocessing
    }
}

impl Preprocessing {
    /// What a network was trained with, or else what weights of these names were.
    pub fn usual(model: &Model, weights: &Weights) -> Self {
        let of_weights = match weights.average_pooling() {
            AveragePooling::Torchvision => "torchvision-transform-input",
            AveragePooling::Keras => "keras",
        };
        Self::preset(model.info.preprocessing.unwrap_or(of_weights)).unwrap_or_default()
    }

    /// The preset of this name.
    pub fn preset(name: &str) -> Option<Self> {
        PRESETS.iter().find(|preset| preset.name == name).map(|preset| preset.preprocessing)
    }

    /// The name of the preset that it is, but for EXIF.
    pub fn name(&self) -> Option<&'static str> {
        let same = |preset: &&Preset| Self { exif: self.exif, ..preset.preprocessing } == *self;
        PRESETS.iter().find(same).map(|preset| preset.name)
    }

    /// The length of the short side, where the proportions are kept. `input` is height and width.
    fn short_side(&self, input: [usize; 2]) -> Option<usize> {
        let input = input[0].min(input[1]) as f64;
        match self.resize {
            Resize::ToInput | Resize::To(_) => None,
            Resize::ShortSide(length) => Some(length),
            Resize::FractionUp(fraction) => Some((input / fraction).ceil() as usize),
            Resize::FractionDown(fraction) => Some((input / fraction).floor() as usize),
        }
    }

    /// The part of a resized image that becomes the input. All pairs are height and width.
    pub(crate) fn window(&self, image: [usize; 2], input: [usize; 2]) -> Result<Window, GeometryError> {
        let resized = match (self.short_side(input), self.resize) {
            (Some(length), _) => keep_proportions(image, length),
            (None, Resize::To(size)) => size,
            (None, _) => input,
        };
        // Without a crop of its own, a preprocessing that stretches must hit the model's size.
        let crop = match (self.crop, self.resize) {
            (Some(side), _) => [side; 2],
            (None, Resize::To(size)) => size,
            (None, _) => input,
        };
        if crop[0] > resized[0] || crop[1] > resized[1] {
            return Err(GeometryError::Crop { crop, resized });
        }
        if crop != input {
            return Err(GeometryError::Size { found: crop, expected: input });
        }
        let start = [0, 1].map(|axis| middle(resized[axis], crop[axis]));
        Ok(Window { resized, start, size: crop })
    }

    /// What it does to images of a model that takes `input`, height and width, in words.
    pub fn describe(&self, input: [usize; 2]) -> String {
        let mut text = match (self.short_side(input), self.resize) {
            (Some(length), _) => format!("short side to {length}"),
            (None, Resize::To([height, width])) => format!("stretched to {height}x{width}"),
            (None, _) => format!("stretched to {}x{}", input[0], input[1]),
        };
        text += &format!(", {}", self.interpolation);
        if self.short_side(input).is_some() || self.crop.is_some() {
            let [height, width] = self.crop.map_or(input, |side| [side; 2]);
            text += &format!(", centre crop {height}x{width}");
        }
        text + &format!(", mean {}, standard deviation {}", colors(self.mean), colors(self.std))
    }
}

/// One number where all are the same.
fn colors([red, green, blue]: [f32; 3]) -> String {
    if red == green && green == blue { red.to_string() } else { format!("{red},{green},{blue}") }
}

impl fmt::Display for Interpolation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// As torchvision rounds.
fn keep_proportions([height, width]: [usize; 2], short: usize) -> [usize; 2] {
    let long = |long: usize, side: usize| ((short as u64 * long as u64 / side as u64) as usize).max(1);
    if height <= width { [short, long(width, height)] } else { [long(height, width), short] }
}

/// Where a centred part starts; as torchvision rounds: half a pixel to the even side.
fn middle(whole: usize, part: usize) -> usize {
    ((whole - part) as f64 / 2.0).round_ties_even() as usize
}
