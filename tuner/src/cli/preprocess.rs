//! How the images of a command are preprocessed.

use std::path::PathBuf;

use engine::image::{Interpolation, PRESETS, Preprocessing, Resize};
use engine::{Model, Weights};

#[derive(Clone, Debug, clap::Args)]
pub struct PreprocessArgs {
    #[arg(long, value_name = "PRESET", value_parser = preset, conflicts_with = "input", help = preset_help())]
    preprocess: Option<Preprocessing>,
    /// Means to subtract from values in 0..1: one, or red, green and blue
    #[arg(long, value_name = "R,G,B", value_parser = means, allow_hyphen_values = true, conflicts_with = "input")]
    mean: Option<Colors>,
    /// Standard deviations to divide by
    #[arg(long, value_name = "R,G,B", value_parser = deviations, conflicts_with = "input")]
    std: Option<Colors>,
    /// Resize the short side to N, or stretch to a height and width
    #[arg(long, value_name = "N|HxW", value_parser = resize, conflicts_with = "input")]
    resize: Option<Resize>,
    /// Keep the middle N x N pixels of the resized image
    #[arg(long, value_name = "N", value_parser = side, conflicts_with = "input")]
    crop: Option<usize>,
    #[arg(long, value_name = "FILTER", value_parser = interpolation, conflicts_with = "input", help = filter_help())]
    interpolation: Option<Interpolation>,
    /// Turn images upright where EXIF says that they are not
    #[arg(long, conflicts_with = "input")]
    exif: bool,
    /// Write the preprocessed images as float32 .npy, as --input takes them
    #[arg(long, value_name = "X.npy", requires = "image", conflicts_with = "input")]
    pub write_input: Option<PathBuf>,
}

impl PreprocessArgs {
    /// What is asked for: the preset that goes with the model or else with the weights, or the named
    /// one, with changes.
    pub fn preprocessing(&self, model: &Model, weights: &Weights) -> Preprocessing {
        let mut preprocessing = self.preprocess.unwrap_or_else(|| Preprocessing::usual(model, weights));
        preprocessing.exif = self.exif;
        if let Some(Colors(mean)) = self.mean {
            preprocessing.mean = mean;
        }
        if let Some(Colors(std)) = self.std {
            preprocessing.std = std;
        }
        preprocessing.resize = self.resize.unwrap_or(preprocessing.resize);
        preprocessing.crop = self.crop.or(preprocessing.crop);
        preprocessing.interpolation = self.interpolation.unwrap_or(preprocessing.interpolation);
        preprocessing
    }
}

/// Red, green and blue. A type of its own, since clap takes an array for many values.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Colors([f32; 3]);

pub fn preset_help() -> String {
    let names = PRESETS.map(|preset| preset.name).join(", ");
    format!(
        "How images are preprocessed: {names}; by default what goes with the model and the names in the weights"
    )
}

fn filter_help() -> String {
    format!("How pixels in between are made: {}", filter_names())
}

fn filter_names() -> String {
    Interpolation::ALL.map(|(name, _)| name).join(", ")
}

pub fn preset(text: &str) -> Result<Preprocessing, String> {
    let names = || format!("expected {}", PRESETS.map(|preset| preset.name).join(", "));
    Preprocessing::preset(text).ok_or_else(names)
}

fn interpolation(text: &str) -> Result<Interpolation, String> {
    Interpolation::by_name(text).ok_or_else(|| format!("expected {}", filter_names()))
}

/// The longest side that is asked for; sizes of real images are below.
const MAX_SIDE: usize = 1 << 16;

fn side(text: &str) -> Result<usize, String> {
    let side = text.parse().ok().filter(|side| (1..=MAX_SIDE).contains(side));
    side.ok_or_else(|| format!("expected a number of pixels from 1 to {MAX_SIDE}"))
}

fn resize(text: &str) -> Result<Resize, String> {
    match text.split_once('x') {
        Some((height, width)) => Ok(Resize::To([side(height)?, side(width)?])),
        None => Ok(Resize::ShortSide(side(text)?)),
    }
}

/// One finite number, or three with commas between.
fn colors(text: &str) -> Option<[f32; 3]> {
    let numbers: Vec<f32> =
        text.split(',').map(|number| number.trim().parse().ok()).collect::<Option<_>>()?;
    let colors = match numbers[..] {
        [all] => [all; 3],
        [red, green, blue] => [red, green, blue],
        _ => return None,
    };
    colors.iter().all(|color| color.is_finite()).then_some(colors)
}

fn means(text: &str) -> Result<Colors, String> {
    colors(text).map(Colors).ok_or_else(|| "expected one number, or three like 0.485,0.456,0.406".into())
}

fn deviations(text: &str) -> Result<Colors, String> {
    let positive = colors(text).filter(|colors| colors.iter().all(|&color| color >= 1e-6));
    positive.map(Colors).ok_or_else(|| "expected one number above 0, or three like 0.229,0.224,0.225".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_sizes_are_read_or_refused() {
        assert_eq!(means("0.5"), Ok(Colors([0.5; 3])));
        assert_eq!(means("0.1,-0.2, 0.3"), Ok(Colors([0.1, -0.2, 0.3])));
        for text in ["", "1,2", "1,2,3,4", "nan", "1,2,inf", "a"] {
            assert!(means(text).is_err(), "{text}");
        }
        assert!(deviations("0.5,0,1").is_err() && deviations("-1").is_err());
        assert_eq!(resize("342"), Ok(Resize::ShortSide(342)));
        assert_eq!(resize("10x20"), Ok(Resize::To([10, 20])));
        for text in ["0", "x", "3x", "3x0", "99999999", "-1"] {
            assert!(resize(text).is_err(), "{text}");
        }
    }
}
