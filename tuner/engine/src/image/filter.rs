//! Filters in one dimension: which inputs an output is made of, and by how much.

/// How pixels in between are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// A triangle, widened where the image shrinks, so that every pixel counts. Pillow's `BILINEAR`.
    Bilinear,
    /// Keys' cubic with a = -0.5, widened where the image shrinks. Pillow's `BICUBIC`.
    Bicubic,
    /// The two nearest pixels on each axis, however far the image shrinks: torch's `bilinear` with
    /// `align_corners=False` and without antialiasing.
    BilinearNoAntialias,
    /// As `BilinearNoAntialias`, with the first pixels of image and output in one place:
    /// TensorFlow 1's `resize_bilinear` with `align_corners=False`.
    BilinearTensorFlow1,
}

impl Interpolation {
    /// All, with their names on the command line.
    pub const ALL: [(&'static str, Self); 4] = [
        ("bilinear", Self::Bilinear),
        ("bicubic", Self::Bicubic),
        ("bilinear-no-antialias", Self::BilinearNoAntialias),
        ("bilinear-tensorflow1", Self::BilinearTensorFlow1),
    ];

    /// The one of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, interpolation)| *interpolation)
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// How far from its middle the curve is not 0, in pixels.
    fn support(self) -> f64 {
        if self == Self::Bicubic { 2.0 } else { 1.0 }
    }

    fn curve(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Self::Bicubic => 0.0,
            _ => (1.0 - x).max(0.0),
        }
    }
}

/// One axis of an image that is resized.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// Pixels of the image.
    pub input: usize,
    /// Pixels that it is resized to.
    pub output: usize,
    pub interpolation: Interpolation,
}

/// The weights of consecutive inputs, from `first` on. Their sum is 1.
#[derive(Clone, Debug, Default)]
pub struct Taps {
    pub first: usize,
    pub weights: Vec<f32>,
}

impl Axis {
    fn ratio(&self) -> f64 {
        self.input as f64 / self.output as f64
    }

    /// How much wider the filter is than its curve.
    fn stretch(&self) -> f64 {
        match self.interpolation {
            Interpolation::BilinearNoAntialias | Interpolation::BilinearTensorFlow1 => 1.0,
            _ => self.ratio().max(1.0),
        }
    }

    /// Where an output lies among the inputs, whose middles are at halves.
    ///
    /// torch rounds the ratio to f32, and TensorFlow the place too. Far to the right of a wide image
    /// this moves a place by 1e-4, which is seen in the pixels. Neither has a pixel beyond the first
    /// and the last.
    fn center(&self, output: usize) -> f64 {
        let (at, ratio) = (output as f64, self.ratio() as f32);
        let from_first = match self.interpolation {
            Interpolation::BilinearNoAntialias => (at + 0.5) * f64::from(ratio) - 0.5,
            Interpolation::BilinearTensorFlow1 => f64::from(output as f32 * ratio),
            _ => return (at + 0.5) * self.ratio(),
        };
        from_first.clamp(0.0, self.input as f64 - 1.0) + 0.5
    }

    /// The inputs that an output is made of: the first, and the one after the last.
    pub fn span(&self, output: usize) -> [usize; 2] {
        let (center, reach) = (self.center(output), self.interpolation.support() * self.stretch());
        let first = ((center - reach).floor().max(0.0) as usize).min(self.input - 1);
        let end = ((center + reach).ceil() as usize).clamp(first + 1, self.input);
        [first, end]
    }

    /// The weights of an output, in the place of those in `taps`.
    pub fn taps(&self, output: usize, taps: &mut Taps) {
        let ([first, end], center, stretch) = (self.span(output), self.center(output), self.stretch());
        let weight = |input: usize| self.interpolation.curve((input as f64 + 0.5 - center) / stretch);
        let sum: f64 = (first..end).map(weight).sum();
        taps.first = first;
        taps.weights.clear();
        taps.weights.extend((first..end).map(|input| (weight(input) / sum) as f32));
    }
}
