//! The images of a command, read some at a time: memory does not grow with their number.

use std::path::{Path, PathBuf};

use engine::image::{GeometryError, ImageError, Preprocessing, load_with};
use engine::weights::image;
use engine::{InputError, Model};

use crate::cli::npy::{NpyImages, NpyWriter};
use crate::cli::{Failure, stdin};

/// Images that are read one after the other.
pub struct Images<'a> {
    model: &'a Model,
    source: Source<'a>,
    count: usize,
    read: usize,
    /// Where preprocessed images go as well.
    written: Option<NpyWriter>,
    /// Notes that are due.
    notes: Vec<String>,
    /// Images that are smaller than what they are resized to.
    enlarged: Several,
    /// Images that EXIF says are not upright.
    lying: Several,
    /// The least and the largest value of preprocessed images.
    range: [f32; 2],
}

enum Source<'a> {
    BuiltIn,
    Files { paths: &'a [PathBuf], preprocessing: Preprocessing },
    Npy { path: &'a Path, images: NpyImages },
}

/// The first of some things, and how many there are.
#[derive(Default)]
struct Several {
    first: String,
    count: usize,
}

/// Images one after the other in memory.
#[derive(Default)]
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
    fn of(model: &'a Model, source: Source<'a>, count: usize) -> Self {
        Self {
            model,
            source,
            count,
            read: 0,
            written: None,
            notes: Vec::new(),
            enlarged: Several::default(),
            lying: Several::default(),
            range: [f32::INFINITY, f32::NEG_INFINITY],
        }
    }

    /// So many built-in images.
    pub fn built_in(model: &'a Model, count: usize) -> Self {
        Self::of(model, Source::BuiltIn, count)
    }

    /// Image files, and where to write them preprocessed.
    pub fn files(
        model: &'a Model,
        paths: &'a [PathBuf],
        preprocessing: Preprocessing,
        written: Option<&Path>,
    ) -> Result<Self, Failure> {
        let [height, width, channels] = model.input();
        let shape = [paths.len(), height, width, channels];
        let name = preprocessing.name().map(|name| format!("{name}: ")).unwrap_or_default();
        let note = format!("images are preprocessed by {name}{}", preprocessing.describe([height, width]));
        let written = written.map(|path| NpyWriter::create(path, &shape)).transpose()?;
        let images = Self::of(model, Source::Files { paths, preprocessing }, paths.len());
        Ok(Self { written, notes: vec![note], ..images })
    }

    /// A file of preprocessed images.
    pub fn npy(model: &'a Model, path: &'a Path) -> Result<Self, Failure> {
        let images = NpyImages::open(path, model.input()).map_err(|error| match &error {
            InputError::Shape { found, .. } if matches!(found[..], [_, _, _, c] if c == model.input()[2]) => {
                format!("{error}{}", size_hint(model, [found[1], found[2]])).into()
            }
            _ => Failure::from(error),
        })?;
        let count = images.count();
        Ok(Self::of(model, Source::Npy { path, images }, count))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The next images, at most so many; none at the end.
    pub fn next(&mut self, most: usize) -> Result<Batch, Failure> {
        let end = self.count.min(self.read.saturating_add(most));
        let numbers = self.read..end;
        let mut batch = Batch::default();
        match &mut self.source {
            Source::BuiltIn => {
                let ([h, w, c], n) = (self.model.input(), numbers.len());
                batch.values = image(n, h, w, c, numbers.start);
                batch.names = numbers.map(|n| format!("built-in image {n}")).collect();
            }
            Source::Npy { path, images } => {
                batch.values = images.next(numbers.len())?;
                self.range =
                    batch.values.iter().fold(self.range, |[least, most], v| [least.min(*v), most.max(*v)]);
                let file = stdin::shown(&path.display().to_string());
                batch.names = numbers.map(|n| format!("{file}[{n}]")).collect();
            }
            Source::Files { paths, preprocessing } => {
                for path in &paths[numbers] {
                    let image = load_with(path, self.model, preprocessing);
                    let image = image.map_err(|error| with_hint(error, self.model))?;
                    batch.values.extend(image.values);
                    batch.names.push(stdin::shown(&path.display().to_string()));
                    let [h, w] = image.size;
                    if image.is_enlarged {
                        self.enlarged.add(|| format!("{} of {h}x{w}", path.display()));
                    }
                    if image.orientation != 1 && !preprocessing.exif {
                        let orientation = image.orientation;
                        self.lying.add(|| format!("{}: EXIF orientation {orientation}", path.display()));
                    }
                }
                self.written.as_mut().map_or(Ok(()), |written| written.write(&batch.values))?;
            }
        }
        if self.read < end && end == self.count {
            self.note_all();
        }
        self.read = end;
        Ok(batch)
    }

    /// Notes on all images.
    fn note_all(&mut self) {
        if let Some(lying) = self.lying.text() {
            self.notes.push(format!("{lying} is not applied (--exif applies it)"));
        }
        if let Some(enlarged) = self.enlarged.text() {
            // A network with a preprocessing of its own takes images of its size alone.
            let hint = match self.model.info.preprocessing {
                Some(_) => "",
                None => " (--size runs a network on images of another size)",
            };
            self.notes.push(format!("{enlarged} is enlarged{hint}"));
        }
        if let Source::Npy { path, .. } = self.source
            && let Some(found) = not_preprocessed(self.range).filter(|_| self.model.takes_images())
        {
            let [black, white] = self.model.info.pixel_range;
            self.notes.push(format!("{}: {found}, expected values in {black}..{white}", path.display()));
        }
    }

    /// What to know of them, as lines for the user: those that were not taken yet.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Reads what is left, and puts the file of preprocessed images in its place: notes that were
    /// not taken yet.
    pub fn finish(mut self) -> Result<Vec<String>, Failure> {
        while self.read < self.count {
            self.next(1)?;
        }
        self.written.map_or(Ok(()), NpyWriter::finish)?;
        Ok(self.notes)
    }
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

    #[test]
    fn images_are_the_same_however_many_are_read_at_a_time() {
        let model = Model::block("mixed10").expect("a block");
        let of = |most: usize| {
            let mut images = Images::built_in(&model, 5);
            let (mut values, mut names) = (Vec::new(), Vec::new());
            loop {
                let batch = images.next(most).expect("images");
                if batch.names.is_empty() {
                    return (values, names);
                }
                values.extend(batch.values);
                names.extend(batch.names);
            }
        };
        assert_eq!(of(2), of(usize::MAX));
        assert_eq!(of(3).1.len(), 5);
    }
}
