//! How images are preprocessed: the preset that goes with the weights or a named one, and changes
//! of it.

use engine::image::{Interpolation, PRESETS, Resize};
use engine::{Model, Preprocessing, Weights};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A preset by name, and what is changed of it; the fields are those of the command line's options.
#[derive(Debug, Default, FromPyObject)]
#[pyo3(from_item_all)]
pub struct PreprocessArgs {
    preset: Option<String>,
    resize: Option<ResizeArg>,
    crop: Option<usize>,
    interpolation: Option<String>,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    exif: bool,
}

/// The length of the short side, or height and width.
#[derive(Debug, FromPyObject)]
enum ResizeArg {
    ShortSide(usize),
    To([usize; 2]),
}

/// The longest side that is asked for; sizes of real images are below.
const MAX_SIDE: usize = 1 << 16;

impl PreprocessArgs {
    /// What is asked for.
    pub fn preprocessing(self, model: &Model, weights: &Weights) -> PyResult<Preprocessing> {
        let mut preprocessing = match &self.preset {
            None => Preprocessing::usual(model, weights),
            Some(name) => Preprocessing::preset(name).ok_or_else(|| {
                unknown("preset", name, PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>())
            })?,
        };
        if let Some(name) = &self.interpolation {
            let names = Interpolation::ALL.iter().map(|(name, _)| *name).collect();
            preprocessing.interpolation =
                Interpolation::by_name(name).ok_or_else(|| unknown("interpolation", name, names))?;
        }
        let sides = match &self.resize {
            None => Vec::new(),
            Some(ResizeArg::ShortSide(side)) => vec![*side],
            Some(ResizeArg::To(sides)) => sides.to_vec(),
        };
        if let Some(side) = sides.iter().chain(&self.crop).find(|side| !(1..=MAX_SIDE).contains(*side)) {
            let expected = format!("expected pixels from 1 to {MAX_SIDE}");
            return Err(PyValueError::new_err(format!("preprocess: found a side of {side}, {expected}")));
        }
        preprocessing.resize = match self.resize {
            None => preprocessing.resize,
            Some(ResizeArg::ShortSide(side)) => Resize::ShortSide(side),
            Some(ResizeArg::To(sides)) => Resize::To(sides),
        };
        preprocessing.crop = self.crop.or(preprocessing.crop);
        preprocessing.mean = self.mean.unwrap_or(preprocessing.mean);
        preprocessing.std = self.std.unwrap_or(preprocessing.std);
        preprocessing.exif = self.exif;
        let is_usable = |mean: &f32, std: &f32| mean.is_finite() && std.is_finite() && *std >= 1e-6;
        if !preprocessing.mean.iter().zip(&preprocessing.std).all(|(mean, std)| is_usable(mean, std)) {
            let expected = "expected finite means, and standard deviations above 0";
            return Err(PyValueError::new_err(format!("preprocess: {expected}")));
        }
        Ok(preprocessing)
    }
}

fn unknown(what: &str, found: &str, known: Vec<&str>) -> PyErr {
    let known = known.join(", ");
    PyValueError::new_err(format!("preprocess: {what} is `{found}`, expected one of {known}"))
}
