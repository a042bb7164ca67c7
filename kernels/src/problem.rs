//! What is to be computed: a convolution, a pool or a softmax, as shapes and nothing else.
//!
//! All extents are in elements. Activations are `[n, h, w, c]`, filters `[r, s, c, k]` (Keras's HWIO).

use std::fmt;
use std::str::FromStr;

use crate::kernel::MAX_SEGMENTS;
use crate::tensor::Shape;

/// The largest extent of any axis, and the largest number of elements of any tensor of a problem.
///
/// Both are far above what fits a machine of today; they keep every product of extents inside `usize`.
const MAX_EXTENT: usize = 1 << 20;
const MAX_ELEMENTS: u128 = 1 << 31;

/// What happens to an output channel after the sum of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epilogue {
    /// Add the filter's folded bias.
    pub bias: bool,
    /// Clamp at zero from below, after the bias.
    pub relu: bool,
}

impl Epilogue {
    /// Nothing after the sum.
    pub const NONE: Self = Self { bias: false, relu: false };
    /// Bias, then ReLU: the end of every convolution of InceptionV3.
    pub const BIAS_RELU: Self = Self { bias: true, relu: true };
    /// Bias alone: a dense layer.
    pub const BIAS: Self = Self { bias: true, relu: false };
}

/// A range of output channels with its own epilogue and its own destination.
///
/// The segments of a problem lie one after the other along the output channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Number of output channels.
    pub channels: usize,
    /// What follows the sum.
    pub epilogue: Epilogue,
}

/// Zeros around an image, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// The same padding on opposite sides.
    pub fn symmetric(rows: usize, columns: usize) -> Self {
        Self { top: rows, bottom: rows, left: columns, right: columns }
    }

    /// Keras's and TensorFlow's `same`: the output has `ceil(extent / stride)` pixels, and an odd
    /// amount of padding puts the extra pixel below and to the right.
    pub fn same(image: [usize; 2], kernel: [usize; 2], stride: [usize; 2]) -> Self {
        let [rows, columns] = [0, 1].map(|axis| {
            let outputs = image[axis].div_ceil(stride[axis]);
            let needed = (outputs - 1) * stride[axis] + kernel[axis];
            let total = needed.saturating_sub(image[axis]);
            (total / 2, total - total / 2)
        });
        Self { top: rows.0, bottom: rows.1, left: columns.0, right: columns.1 }
    }
}

/// The geometry that convolutions and pools share: a window that slides over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Rows and columns between two neighbouring outputs.
    pub stride: [usize; 2],
    /// Zeros around the image.
    pub padding: Padding,
}

impl Window {
    /// A window with Keras's `valid` padding: none.
    pub fn valid(kernel: [usize; 2], stride: [usize; 2]) -> Self {
        Self { kernel, stride, padding: Padding::default() }
    }

    /// Height and width of the output over an image of the given height and width.
    pub fn output(&self, image: [usize; 2]) -> [usize; 2] {
        let p = &self.padding;
        let padded = [image[0] + p.top + p.bottom, image[1] + p.left + p.right];
        [0, 1].map(|axis| (padded[axis] - self.kernel[axis]) / self.stride[axis] + 1)
    }
}

/// A convolution (cross-correlation, as every framework means the word).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Images.
    pub batch: usize,
    /// Input height and width.
    pub image: [usize; 2],
    /// Input channels.
    pub channels: usize,
    /// Kernel, stride and padding.
    pub window: Window,
    /// Output channels, in order.
    pub segments: Vec<Segment>,
}

impl Conv {
    /// Output height and width.
    pub fn output(&self) -> [usize; 2] {
        self.window.output(self.image)
    }

    /// Output channels of all segments.
    pub fn filters(&self) -> usize {
        self.segments.iter().map(|s| s.channels).sum()
    }

    /// Products summed for one output: `r * s * c`.
    pub fn depth(&self) -> usize {
        self.window.kernel[0] * self.window.kernel[1] * self.channels
    }

    /// Multiply-adds of a direct computation of the whole batch.
    pub fn multiply_adds(&self) -> u64 {
        let [oh, ow] = self.output();
        (self.batch * oh * ow) as u64 * self.depth() as u64 * self.filters() as u64
    }

    /// Kernel `[1, 1]`, stride 1, no padding.
    pub fn is_pointwise(&self) -> bool {
        self.window == Window::valid([1, 1], [1, 1])
    }
}

/// What a pool does with the pixels of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// The largest; padding never wins.
    Max,
    /// The mean over the pixels inside the image: Keras and TensorFlow.
    Average,
    /// The mean over the whole window, padding counted as zeros: torchvision's default.
    AverageCountingBorder,
}

/// A pool. Its epilogue lets a convolution before it leave bias and ReLU to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Images.
    pub batch: usize,
    /// Input height and width.
    pub image: [usize; 2],
    /// Channels, in and out.
    pub channels: usize,
    /// Kernel, stride and padding.
    pub window: Window,
    /// Maximum or mean.
    pub kind: PoolKind,
    /// What follows.
    pub epilogue: Epilogue,
}

impl Pool {
    /// Output height and width.
    pub fn output(&self) -> [usize; 2] {
        self.window.output(self.image)
    }
}

/// One problem, as kernels see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// A convolution; a dense layer is one over a 1x1 image.
    Conv(Conv),
    /// A pool; global pooling has the image as its window.
    Pool(Pool),
    /// `exp(x - max) / sum` over the channels of each pixel.
    Softmax {
        /// Images, of one pixel each.
        batch: usize,
        /// Channels.
        channels: usize,
    },
}

impl Problem {
    /// Shape of the input.
    pub fn src(&self) -> Shape {
        match self {
            Self::Conv(p) => Shape::new(p.batch, p.image, p.channels),
            Self::Pool(p) => Shape::new(p.batch, p.image, p.channels),
            Self::Softmax { batch, channels } => Shape::new(*batch, [1, 1], *channels),
        }
    }

    /// Shapes of the destinations, one a segment.
    pub fn dst(&self) -> Vec<Shape> {
        match self {
            Self::Conv(p) => p.segments.iter().map(|s| Shape::new(p.batch, p.output(), s.channels)).collect(),
            Self::Pool(p) => vec![Shape::new(p.batch, p.output(), p.channels)],
            Self::Softmax { .. } => vec![self.src()],
        }
    }

    /// Floating-point operations of a direct computation, for the whole batch.
    pub fn flops(&self) -> u64 {
        match self {
            Self::Conv(p) => 2 * p.multiply_adds(),
            Self::Pool(p) => {
                let outputs = self.dst()[0].elements() as u64;
                outputs * (p.window.kernel[0] * p.window.kernel[1]) as u64
            }
            Self::Softmax { .. } => 4 * self.src().elements() as u64,
        }
    }

    /// Images.
    pub fn batch(&self) -> usize {
        self.src().n
    }

    /// The same problem for another number of images.
    pub fn with_batch(&self, n: usize) -> Self {
        let mut problem = self.clone();
        match &mut problem {
            Self::Conv(p) => p.batch = n,
            Self::Pool(p) => p.batch = n,
            Self::Softmax { batch, .. } => *batch = n,
        }
        problem
    }
}

/// Why a text is not a shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A letter that no field has.
    #[error("shape `{text}`: unknown field `{field}`, expected n h w c k r s u p q")]
    UnknownField {
        /// The whole text.
        text: String,
        /// The letter.
        field: char,
    },
    /// A field without a number, or with one that is no count.
    #[error("shape `{text}`: field `{field}` is `{found}`, expected {expected}")]
    BadValue {
        /// The whole text.
        text: String,
        /// The letter.
        field: char,
        /// What stands there.
        found: String,
        /// What should.
        expected: String,
    },
    /// A field given twice or left out.
    #[error("shape `{text}`: field `{field}` is {problem}")]
    Presence {
        /// The whole text.
        text: String,
        /// The letter.
        field: char,
        /// `missing` or `given twice`.
        problem: &'static str,
    },
    /// Fields that do not go together.
    #[error("shape `{text}`: {reason}")]
    Inconsistent {
        /// The whole text.
        text: String,
        /// What does not fit.
        reason: String,
    },
}

/// Splits `n1h17w17` into `('n', "1"), ('h', "17"), ('w', "17")`.
fn fields(text: &str) -> Vec<(char, &str)> {
    let starts: Vec<usize> =
        text.char_indices().filter(|(_, ch)| ch.is_alphabetic()).map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| {
            let letter = text[start..].chars().next().expect("start is a char boundary");
            (letter, &text[start + letter.len_utf8()..end])
        })
        .collect()
}

fn pair(found: &str, separator: char) -> Option<(usize, usize)> {
    match found.split_once(separator) {
        Some((a, b)) => Some((a.parse().ok()?, b.parse().ok()?)),
        None => found.parse().ok().map(|v| (v, v)),
    }
}

/// The text form of a convolution: `n1h17w17c768k192r1s7`, then optional `u2` (stride of rows and
/// columns; `u2-1` where they differ) and `p0q3` (padding of rows and of columns; `p0-1` where the
/// two sides differ). Without them the stride is 1 and the padding Keras's `same` for stride 1 and
/// none for any other. Several segments, at most [`MAX_SEGMENTS`], are written `k64+48`.
///
/// The epilogue is no part of the text; parsing gives [`Epilogue::BIAS_RELU`].
impl FromStr for Conv {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let owned = text.to_string();
        let mut seen: Vec<(char, &str)> = Vec::new();
        if !text.starts_with(|ch: char| ch.is_alphabetic()) {
            let reason = "expected fields like n1h17w17c768k192r1s7".to_string();
            return Err(ShapeError::Inconsistent { text: owned, reason });
        }
        for (field, found) in fields(text) {
            if !"nhwckrsupq".contains(field) {
                return Err(ShapeError::UnknownField { text: owned, field });
            }
            if seen.iter().any(|(f, _)| *f == field) {
                return Err(ShapeError::Presence { text: owned, field, problem: "given twice" });
            }
            seen.push((field, found));
        }
        let find = |field| seen.iter().find(|(f, _)| *f == field).map(|(_, found)| *found);
        let bad = |field, found: &str, expected: &str| ShapeError::BadValue {
            text: owned.clone(),
            field,
            found: found.to_string(),
            expected: expected.to_string(),
        };
        let in_range = |v: &usize| (1..=MAX_EXTENT).contains(v);
        let range = format!("a whole number from 1 to {MAX_EXTENT}");
        let extent = |field| {
            let found = find(field).ok_or_else(|| ShapeError::Presence {
                text: owned.clone(),
                field,
                problem: "missing",
            })?;
            found.parse().ok().filter(in_range).ok_or_else(|| bad(field, found, &range))
        };
        let sides = |field| match find(field) {
            None => Ok(None),
            Some(found) => pair(found, '-')
                .filter(|(a, b)| *a <= MAX_EXTENT && *b <= MAX_EXTENT)
                .map(Some)
                .ok_or_else(|| bad(field, found, "a padding like 1, or 0-1 for two sides")),
        };

        let image = [extent('h')?, extent('w')?];
        let kernel = [extent('r')?, extent('s')?];
        let (batch, channels) = (extent('n')?, extent('c')?);
        let filters = find('k').ok_or_else(|| ShapeError::Presence {
            text: owned.clone(),
            field: 'k',
            problem: "missing",
        })?;
        let segments = filters
            .split('+')
            .map(|part| part.parse().ok().filter(in_range))
            .map(|channels| channels.map(|channels| Segment { channels, epilogue: Epilogue::BIAS_RELU }))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| bad('k', filters, &range))?;
        if segments.len() > MAX_SEGMENTS {
            return Err(bad('k', filters, &format!("at most {MAX_SEGMENTS} segments")));
        }
        let stride = match find('u') {
            None => [1, 1],
            Some(found) => pair(found, '-')
                .filter(|(a, b)| in_range(a) && in_range(b))
                .map(|(a, b)| [a, b])
                .ok_or_else(|| bad('u', found, &range))?,
        };
        let default = match stride {
            [1, 1] => Padding::same(image, kernel, stride),
            _ => Padding::default(),
        };
        let (top, bottom) = sides('p')?.unwrap_or((default.top, default.bottom));
        let (left, right) = sides('q')?.unwrap_or((default.left, default.right));
        let window = Window { kernel, stride, padding: Padding { top, bottom, left, right } };
        Self::checked(&owned, Self { batch, image, channels, window, segments })
    }
}

impl Conv {
    fn checked(text: &str, conv: Self) -> Result<Self, ShapeError> {
        let inconsistent = |reason| Err(ShapeError::Inconsistent { text: text.to_string(), reason });
        let p = conv.window.padding;
        let padded = [conv.image[0] + p.top + p.bottom, conv.image[1] + p.left + p.right];
        for (axis, name) in ["height", "width"].into_iter().enumerate() {
            let (kernel, image) = (conv.window.kernel[axis], padded[axis]);
            if kernel > image {
                return inconsistent(format!(
                    "the kernel's {name} {kernel} exceeds the padded image's {image}"
                ));
            }
        }
        let product = |extents: &[usize]| extents.iter().map(|&e| e as u128).product::<u128>();
        let [oh, ow] = conv.output();
        for (name, extents) in [
            ("padded input", [conv.batch, padded[0], padded[1], conv.channels]),
            ("output", [conv.batch, oh, ow, conv.filters()]),
            ("filter", [conv.window.kernel[0], conv.window.kernel[1], conv.channels, conv.filters()]),
        ] {
            let elements = product(&extents);
            if elements > MAX_ELEMENTS {
                return inconsistent(format!(
                    "the {name} has {elements} elements, expected at most {MAX_ELEMENTS}"
                ));
            }
        }
        Ok(conv)
    }
}

/// `3`, or `2-1` where the two differ.
fn both(a: usize, b: usize) -> String {
    if a == b { a.to_string() } else { format!("{a}-{b}") }
}

impl fmt::Display for Conv {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let ([h, w], [r, s], c) = (self.image, self.window.kernel, self.channels);
        let filters: Vec<String> = self.segments.iter().map(|s| s.channels.to_string()).collect();
        write!(f, "n{}h{h}w{w}c{c}k{}r{r}s{s}", self.batch, filters.join("+"))?;
        write_stride_and_padding(f, &self.window, self.image)
    }
}

fn write_stride_and_padding(f: &mut fmt::Formatter, window: &Window, image: [usize; 2]) -> fmt::Result {
    let stride = window.stride;
    if stride != [1, 1] {
        write!(f, "u{}", both(stride[0], stride[1]))?;
    }
    let default = match stride {
        [1, 1] => Padding::same(image, window.kernel, stride),
        _ => Padding::default(),
    };
    let p = window.padding;
    if p != default {
        write!(f, "p{}q{}", both(p.top, p.bottom), both(p.left, p.right))?;
    }
    Ok(())
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Conv(conv) => {
                write!(f, "{conv}")?;
                if conv.segments.iter().any(|s| s.epilogue != Epilogue::BIAS_RELU) {
                    let ends: Vec<String> =
                        conv.segments.iter().map(|s| epilogue(s.epilogue).to_string()).collect();
                    write!(f, ":{}", ends.join("+"))?;
                }
                Ok(())
            }
            Self::Pool(p) => {
                let kind = match p.kind {
                    PoolKind::Max => "max",
                    PoolKind::Average => "average",
                    PoolKind::AverageCountingBorder => "average_counting_border",
                };
                let ([h, w], [r, s]) = (p.image, p.window.kernel);
                write!(f, "{kind}:n{}h{h}w{w}c{}r{r}s{s}", p.batch, p.channels)?;
                write_stride_and_padding(f, &p.window, p.image)?;
                if p.epilogue != Epilogue::NONE {
                    write!(f, ":{}", epilogue(p.epilogue))?;
                }
                Ok(())
            }
            Self::Softmax { batch, channels } => write!(f, "softmax:n{batch}c{channels}"),
        }
    }
}

fn epilogue(e: Epilogue) -> &'static str {
    match (e.bias, e.relu) {
        (false, false) => "sum",
        (true, false) => "bias",
        (false, true) => "relu",
        (true, true) => "bias_relu",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conv(text: &str) -> Conv {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn text_round_trips() {
        for text in [
            "n1h17w17c768k192r1s7",
            "n1h299w299c3k32r3s3u2",
            "n2h9w8c5k7r2s3u2-1p1q0-2",
            "n1h147w147c32k64r3s3p0q0",
            "n1h8w8c1280k320+384+448r1s1",
        ] {
            assert_eq!(conv(text).to_string(), text);
        }
    }

    #[test]
    fn padding_defaults_to_same_for_stride_one_and_none_otherwise() {
        assert_eq!(conv("n1h17w17c8k8r1s7").output(), [17, 17]);
        assert_eq!(conv("n1h17w17c8k8r2s4").output(), [17, 17]);
        assert_eq!(conv("n1h17w17c8k8r3s3u2").output(), [8, 8]);
    }

    #[test]
    fn same_puts_the_odd_pixel_below_and_to_the_right() {
        let p = Padding::same([5, 6], [2, 3], [1, 2]);
        assert_eq!((p.top, p.bottom, p.left, p.right), (0, 1, 0, 1));
    }

    #[test]
    fn bad_texts_name_field_and_expectation() {
        for (text, part) in [
            ("", "expected fields"),
            ("17", "expected fields"),
            ("n1h17w17c768k192r1", "`s` is missing"),
            ("n1h17w17c768k192r1s7s7", "`s` is given twice"),
            ("n1h17w17c768k192r1s7z2", "unknown field `z`"),
            ("n0h17w17c768k192r1s7", "`n` is `0`"),
            ("n1h-3w17c768k192r1s7", "`h` is `-3`"),
            ("n1h17w17c768k192r1s7u0", "`u` is `0`"),
            ("n1h17w17c768k192r1s7px", "field"),
            ("n1h17w17c768k1+1+1+1+1+1+1+1+1r1s7", "at most 8 segments"),
            ("n1h17w17c768k1++1r1s7", "`k` is `1++1`"),
            ("n1h3w3c1k1r5s5p0q0", "exceeds the padded image"),
            ("n1048576h1048576w1048576c1048576k1r1s1", "elements"),
            ("n99999999999999999999h1w1c1k1r1s1", "`n`"),
            ("é1", "unknown field"),
        ] {
            let error = text.parse::<Conv>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
