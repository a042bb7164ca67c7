//! The images of a command: loaded by their numbers, on any thread.

use std::path::{Path, PathBuf};

use engine::image::{GeometryError, ImageError, LoadedImage, Preprocessing, load_with};
use engine::runtime::Loaded;
use engine::weights::image;
use engine::{InputError, Model};

use crate::cli::image_paths::ImagePaths;
use crate::cli::npy::{NpyImages, NpyWriter};
use crate::cli::{Failure, stdin};

/// Images that a command takes.
pub struct Images<'a> {
    model: &'a Model,
    source: Source<'a>,
    count: usize,
    /// What to know before they are loaded.
    pub notes: Vec<String>,
}

enum Source<'a> {
    BuiltIn,
    Files { paths: Vec<PathBuf>, preprocessing: Preprocessing },
    Npy { path: &'a Path, images: NpyImages },
}

/// An image, or why there is none.
pub struct Image {
    pub name: String,
    /// `[h, w, c]`
    pub values: Result<Vec<f32>, Failure>,
    /// Height and width, where it was smaller than what it is resized to.
    enlarged: Option<[usize; 2]>,
    /// The orientation that EXIF states and that is not applied.
    lying: Option<u8>,
}

impl Loaded for Image {
    fn values(&self) -> Option<&[f32]> {
        self.values.as_deref().ok()
    }
}

/// Images one after the other in memory.
pub struct Batch {
    /// `[n, h, w, c]`
    pub values: Vec<f32>,
    pub names: Vec<String>,
}

impl Batch {
    /// The values `[h, w, c]` of each image.
    pub fn each(&self) -> Vec<Vec<f32>> {
        let size = self.values.len() / self.names.len().max(1);
        self.values.chunks(size.max(1)).map(<[f32]>::to_vec).collect()
    }
}

impl<'a> Images<'a> {
    /// So many built-in images.
    pub fn built_in(model: &'a Model, count: usize) -> Self {
        Self { model, source: Source::BuiltIn, count, notes: Vec::new() }
    }

    /// Files.
    pub fn files(model: &'a Model, files: ImagePaths, preprocessing: Preprocessing) -> Self {
        let [height, width, _] = model.input();
        let ImagePaths { paths, note } = files;
        let name = preprocessing.name().map(|name| format!("{name}: ")).unwrap_or_default();
        let how = format!("images are preprocessed by {name}{}", preprocessing.describe([height, width]));
        let notes = [how].into_iter().chain(note).collect();
        Self { model, count: paths.len(), source: Source::Files { paths, preprocessing }, notes }
    }

    /// A file of preprocessed images.
    pub fn npy(model: &'a Model, path: &'a Path) -> Result<Self, Failure> {
        let images = NpyImages::open(path, model.input()).map_err(|error| match &error {
            InputError::Shape { found, .. } if matches!(found[..], [_, _, _, c] if c == model.input()[2]) => {
                format!("{error}{}", size_hint(model, [found[1], found[2]])).into()
            }
            _ => Failure::from(error),
        })?;
        Ok(Self { model, count: images.count(), source: Source::Npy { path, images }, notes: Vec::new() })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether loading one takes more time than reading it.
    pub fn are_files(&self) -> bool {
        matches!(self.source, Source::Files { .. })
    }

    /// The name of an image.
    pub fn name(&self, number: usize) -> String {
        match &self.source {
            Source::BuiltIn => format!("built-in image {number}"),
            Source::Npy { path, .. } => {
                format!("{}[{number}]", stdin::shown(&path.display().to_string()))
            }
            Source::Files { paths, .. } => stdin::shown(&paths[number].display().to_string()),
        }
    }

    /// Loads an image.
    pub fn load(&self, number: usize) -> Image {
        let (mut enlarged, mut lying) = (None, None);
        let values = match &self.source {
            Source::BuiltIn => {
                let [h, w, c] = self.model.input();
                Ok(image(1, h, w, c, number))
            }
            Source::Npy { images, .. } => images.image(number).map_err(Failure::from),
            Source::Files { paths, preprocessing } => {
                let image = load_with(&paths[number], self.model, preprocessing);
                image.map_err(|error| with_hint(error, self.model)).map(
                    |LoadedImage { values, size, is_enlarged, orientation }| {
                        enlarged = is_enlarged.then_some(size);
                        lying = Some(orientation).filter(|o| *o != 1 && !preprocessing.exif);
                        values
                    },
                )
            }
        };
        Image { name: self.name(number), values, enlarged, lying }
    }

    /// All images.
    ///
    /// # Errors
    /// Of the first that cannot be loaded.
    pub fn all(&self, mut seen: Seen) -> Result<Batch, Failure> {
        let mut batch = Batch { values: Vec::new(), names: Vec::new() };
        for number in 0..self.count {
            let image = self.load(number);
            seen.add(&image)?;
            batch.values.extend(image.values?);
            batch.names.push(image.name);
        }
        super::print_notes(&seen.finish(self)?);
        Ok(batch)
    }
}

/// What is seen of images that pass by in order, and where they are written.
pub struct Seen {
    written: Option<NpyWriter>,
    /// Images that are smaller than what they are resized to.
    enlarged: Several,
    /// Images that EXIF says are not upright.
    lying: Several,
    /// The least and the largest value.
    range: [f32; 2],
}

impl Seen {
    /// Of images that are written to a file as well, if one is given.
    pub fn new(images: &Images, written: Option<&PathBuf>) -> Result<Self, Failure> {
        let [height, width, channels] = images.model.input();
        let shape = [images.count, height, width, channels];
        Ok(Self {
            written: written.map(|path| NpyWriter::create(path, &shape)).transpose()?,
            enlarged: Several::default(),
            lying: Several::default(),
            range: [f32::INFINITY, f32::NEG_INFINITY],
        })
    }

    pub fn add(&mut self, image: &Image) -> Result<(), Failure> {
        let Ok(values) = &image.values else { return Ok(()) };
        if let Some([h, w]) = image.enlarged {
            self.enlarged.add(|| format!("{} of {h}x{w}", image.name));
        }
        if let Some(orientation) = image.lying {
            self.lying.add(|| format!("{}: EXIF orientation {orientation}", image.name));
        }
        self.range = values.iter().fold(self.range, |[least, most], v| [least.min(*v), most.max(*v)]);
        Ok(self.written.as_mut().map_or(Ok(()), |written| written.write(values))?)
    }

    /// Puts the file of preprocessed images in its place: what to know of them all.
    pub fn finish(self, images: &Images) -> Result<Vec<String>, Failure> {
        let Self { written, enlarged, lying, range } = self;
        written.map_or(Ok(()), NpyWriter::finish)?;
        let mut notes = Vec::new();
        if let Some(lying) = lying.text() {
            notes.push(format!("{lying} is not applied (--exif applies it)"));
        }
        if let Some(enlarged) = enlarged.text() {
            // A network with a preprocessing of its own takes images of its size alone.
            let hint = match images.model.info.preprocessing {
                Some(_) => "",
                None => " (--size runs a network on images of another size)",
            };
            notes.push(format!("{enlarged} is enlarged{hint}"));
        }
        if let Source::Npy { path, .. } = images.source
            && let Some(found) = not_preprocessed(range).filter(|_| images.model.takes_images())
        {
            let [black, white] = images.model.info.pixel_range;
            notes.push(format!("{}: {found}, expected values in {black}..{white}", path.display()));
        }
        Ok(notes)
    }
}

/// The first of some things, and how many there are.
#[derive(Default)]
struct Several {
    first: String,
    count: usize,
}

impl Several {
    fn add(&mut self, what: impl FnOnce() -> String) {
        if self.count == 0 {
            self.first = what();
        }
        self.count += 1;
    }

    fn text(&self) -> Option<String> {
        match self.count {
            0 => None,
            1 => Some(self.first.clone()),
            n => Some(format!("{}, one of {n},", self.first)),
        }
    }
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

/// What the least and the largest value tell where no image has been preprocessed: levels of
/// 0..255, or 0..1 with black.
fn not_preprocessed([least, most]: [f32; 2]) -> Option<&'static str> {
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
        for (range, levels) in [
            ([0.0, 255.0], true),
            ([0.0, 1.0], true),
            ([0.5, 4.0], true),
            ([-1.0, 1.0], false),
            ([-0.1, 4.0], false),
            ([0.1, 1.0], false),
            ([0.0, 2.5], false),
            ([0.0, 256.0], false),
        ] {
            assert_eq!(not_preprocessed(range).is_some(), levels, "{range:?}");
        }
    }
}
