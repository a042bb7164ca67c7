//! Images of the command line: how they are preprocessed, and notes on what is found in them.

use std::path::PathBuf;

use engine::image::{GeometryError, ImageError, Interpolation, PRESETS, Preprocessing, Resize, load_with};
use engine::util::files::check_writable;
use engine::{AveragePooling, Model, Weights};
use ndarray::ArrayView4;

use crate::cli::npy::save_npy;
use crate::cli::{Failure, stdin};

pub struct Images {
    /// `[n, h, w, c]`.
    pub values: Vec<f32>,
    pub names: Vec<String>,
    /// What to know of them: lines for the user.
    pub notes: Vec<String>,
}

impl Images {
    /// The values `[h, w, c]` of each image.
    pub fn each(&self) -> Vec<Vec<f32>> {
        let size = self.values.len() / self.names.len().max(1);
        self.values.chunks(size.max(1)).map(<[f32]>::to_vec).collect()
    }
}

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
    /// Reads and preprocesses images.
    pub fn load(&self, paths: &[PathBuf], model: &Model, weights: &Weights) -> Result<Images, Failure> {
        if let Some(path) = &self.write_input {
            check_writable(path)?;
        }
        load_images(paths, model, &self.preprocessing(weights))
    }

    /// Writes the preprocessed images, if that is asked for.
    pub fn save(&self, images: &Images, model: &Model) -> Result<(), Failure> {
        let Some(path) = &self.write_input else { return Ok(()) };
        let [h, w, c] = model.input();
        Ok(save_npy(path, &ArrayView4::from_shape((images.names.len(), h, w, c), &images.values)?)?)
    }

    /// What is asked for: the preset that goes with the weights, or the named one, with changes.
    fn preprocessing(&self, weights: &Weights) -> Preprocessing {
        let mut preprocessing = self.preprocess.unwrap_or_else(|| default_of(weights));
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

/// What weights of these names were trained with.
fn default_of(weights: &Weights) -> Preprocessing {
    let name = match weights.average_pooling() {
        AveragePooling::Torchvision => "torchvision-transform-input",
        _ => "keras",
    };
    Preprocessing::preset(name).unwrap_or_default()
}

/// Red, green and blue. A type of its own, since clap takes an array for many values.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Colors([f32; 3]);

fn preset_help() -> String {
    let names = PRESETS.map(|preset| preset.name).join(", ");
    format!("How images are preprocessed: {names}; by default what goes with the names in the weights")
}

fn filter_help() -> String {
    format!("How pixels in between are made: {}", filter_names())
}

fn filter_names() -> String {
    Interpolation::ALL.map(|(name, _)| name).join(", ")
}

fn preset(text: &str) -> Result<Preprocessing, String> {
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

fn load_images(paths: &[PathBuf], model: &Model, preprocessing: &Preprocessing) -> Result<Images, Failure> {
    let [height, width, _] = model.input();
    let name = preprocessing.name().map(|name| format!("{name}: ")).unwrap_or_default();
    let (mut values, mut lying, mut enlarged) = (Vec::new(), Vec::new(), Vec::new());
    for path in paths {
        let image = load_with(path, model, preprocessing).map_err(|error| with_hint(error, model))?;
        values.extend(image.values);
        if image.is_enlarged {
            let [h, w] = image.size;
            enlarged.push(format!("{} of {h}x{w}", path.display()));
        }
        if image.orientation != 1 {
            lying.push(format!("{}: EXIF orientation {}", path.display(), image.orientation));
        }
    }
    let mut notes =
        vec![format!("images are preprocessed by {name}{}", preprocessing.describe([height, width]))];
    let among = |others: &[String]| match others.len() {
        0 => String::new(),
        others => format!(", one of {}", others + 1),
    };
    if let ([first, others @ ..], false) = (&lying[..], preprocessing.exif) {
        notes.push(format!("{first}{} is not applied (--exif applies it)", among(others)));
    }
    if let [first, others @ ..] = &enlarged[..] {
        let others = among(others);
        notes.push(format!("{first}{others} is enlarged (--size runs a network on images of another size)"));
    }
    let names = paths.iter().map(|path| stdin::shown(&path.display().to_string())).collect();
    Ok(Images { values, names, notes })
}

/// An error with what to do about images of another size.
fn with_hint(error: ImageError, model: &Model) -> Failure {
    match &error {
        ImageError::Geometry { source: GeometryError::Size { found, .. }, .. } => {
            let hint = size_hint(model, *found);
            format!("{error}{hint}").into()
        }
        _ => error.into(),
    }
}

/// The option that runs a network on images of a height and width, in brackets; nothing where it
/// can't.
pub fn size_hint(model: &Model, [h, w]: [usize; 2]) -> String {
    match model.with_input([h, w, model.input()[2]]) {
        Ok(_) => format!(" (--size {h}x{w} runs {model} on such images)"),
        Err(_) => String::new(),
    }
}

/// What tells that no image of a batch has been preprocessed: levels of 0..255, or 0..1 with black.
pub fn not_preprocessed(values: &[f32]) -> Option<&'static str> {
    let [least, most] =
        values.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[a, b], v| [a.min(*v), b.max(*v)]);
    if least >= 0.0 && most > 3.0 && most <= 255.0 {
        Some("found values that look like levels in 0..255")
    } else if least == 0.0 && most <= 1.0 {
        Some("found values that look like levels in 0..1")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_that_were_not_preprocessed_are_recognised() {
        for (values, levels) in [
            (&[0.0, 255.0][..], true),
            (&[0.0, 1.0], true),
            (&[0.5, 4.0], true),
            (&[-1.0, 1.0], false),
            (&[-0.1, 4.0], false),
            (&[0.1, 1.0], false),
            (&[0.0, 2.5], false),
            (&[0.0, 256.0], false),
        ] {
            assert_eq!(not_preprocessed(values).is_some(), levels, "{values:?}");
        }
    }

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
