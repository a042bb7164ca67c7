//! The text forms of problems: `n1h17w17c768k192r1s7` and its kin, parsed and written.

use std::fmt;
use std::str::FromStr;

use crate::problem::{Conv, Epilogue, MAX_SEGMENTS, PoolKind, Problem, Segment, Window};
use crate::shape::Padding;

/// The largest extent of any axis, and the largest number of elements of any tensor of a problem.
///
/// Both are far above what fits a machine of today; they keep every product of extents inside
/// `usize`.
const MAX_EXTENT: usize = 1 << 20;
const MAX_ELEMENTS: u128 = 1 << 31;

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

/// A number, or two.
fn pair(found: &str) -> Option<(usize, usize)> {
    match found.split_once('-') {
        Some((a, b)) => Some((a.parse().ok()?, b.parse().ok()?)),
        None => found.parse().ok().map(|v| (v, v)),
    }
}

fn is_extent(value: &usize) -> bool {
    (1..=MAX_EXTENT).contains(value)
}

/// What [`is_extent`] takes, for errors.
fn an_extent() -> String {
    format!("a whole number from 1 to {MAX_EXTENT}")
}

/// The padding where a text has none.
fn default_padding(image: [usize; 2], kernel: [usize; 2], stride: [usize; 2]) -> Padding {
    if stride == [1, 1] { Padding::same(image, kernel, stride) } else { Padding::default() }
}

/// The fields of a text, each at most once.
struct Fields<'a> {
    text: &'a str,
    values: Vec<(char, &'a str)>,
}

impl<'a> Fields<'a> {
    fn new(text: &'a str) -> Result<Self, ShapeError> {
        let mut values: Vec<(char, &str)> = Vec::new();
        let owned = || text.to_string();
        if !text.starts_with(|ch: char| ch.is_alphabetic()) {
            let reason = "expected fields like n1h17w17c768k192r1s7".to_string();
            return Err(ShapeError::Inconsistent { text: owned(), reason });
        }
        for (field, found) in fields(text) {
            if !"nhwckrsupq".contains(field) {
                return Err(ShapeError::UnknownField { text: owned(), field });
            }
            if values.iter().any(|(f, _)| *f == field) {
                return Err(ShapeError::Presence { text: owned(), field, problem: "given twice" });
            }
            values.push((field, found));
        }
        Ok(Self { text, values })
    }

    fn find(&self, field: char) -> Option<&'a str> {
        self.values.iter().find(|(f, _)| *f == field).map(|(_, found)| *found)
    }

    fn required(&self, field: char) -> Result<&'a str, ShapeError> {
        let missing = || ShapeError::Presence { text: self.text.to_string(), field, problem: "missing" };
        self.find(field).ok_or_else(missing)
    }

    fn bad(&self, field: char, expected: &str) -> ShapeError {
        let found = self.find(field).unwrap_or_default().to_string();
        ShapeError::BadValue { text: self.text.to_string(), field, found, expected: expected.to_string() }
    }

    fn extent(&self, field: char) -> Result<usize, ShapeError> {
        let parsed = self.required(field)?.parse().ok();
        parsed.filter(is_extent).ok_or_else(|| self.bad(field, &an_extent()))
    }

    /// The two numbers of a field, if it is there.
    fn two(
        &self,
        field: char,
        is_good: impl Fn(usize) -> bool,
        expected: &str,
    ) -> Result<Option<(usize, usize)>, ShapeError> {
        let Some(found) = self.find(field) else { return Ok(None) };
        let parsed = pair(found).filter(|(a, b)| is_good(*a) && is_good(*b));
        parsed.map(Some).ok_or_else(|| self.bad(field, expected))
    }

    fn padding(&self, field: char) -> Result<Option<(usize, usize)>, ShapeError> {
        self.two(field, |v| v <= MAX_EXTENT, "a padding like 1, or 0-1 for two sides")
    }

    fn segments(&self) -> Result<Vec<Segment>, ShapeError> {
        let parts = self.required('k')?.split('+').map(|part| part.parse().ok().filter(is_extent));
        let segment = |channels| Segment { channels, epilogue: Epilogue::BIAS_RELU };
        let segments = parts.map(|channels| channels.map(segment)).collect::<Option<Vec<_>>>();
        let segments = segments.ok_or_else(|| self.bad('k', &an_extent()))?;
        if segments.len() > MAX_SEGMENTS {
            return Err(self.bad('k', &format!("at most {MAX_SEGMENTS} segments")));
        }
        Ok(segments)
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
        let fields = Fields::new(text)?;
        let image = [fields.extent('h')?, fields.extent('w')?];
        let kernel = [fields.extent('r')?, fields.extent('s')?];
        let (batch, channels) = (fields.extent('n')?, fields.extent('c')?);
        let segments = fields.segments()?;
        let (down, across) = fields.two('u', |v| is_extent(&v), &an_extent())?.unwrap_or((1, 1));
        let stride = [down, across];
        let default = default_padding(image, kernel, stride);
        let (top, bottom) = fields.padding('p')?.unwrap_or((default.top, default.bottom));
        let (left, right) = fields.padding('q')?.unwrap_or((default.left, default.right));
        let window = Window { kernel, stride, padding: Padding { top, bottom, left, right } };
        Self::checked(text, Self { batch, image, channels, window, segments })
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
    let p = window.padding;
    if p != default_padding(image, window.kernel, stride) {
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
