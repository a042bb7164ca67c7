//! The text forms of problems: `n1h17w17c768k192r1s7` and its kin, parsed and written.

use std::fmt;
use std::str::FromStr;

use crate::problem::{Conv, Epilogue, MAX_SEGMENTS, PoolKind, Problem, Segment, Window};
use crate::shape::Padding;

/// The largest extent of any axis of a problem. With [`MAX_ELEMENTS`] it keeps all products of
/// extents inside `usize`.
const MAX_EXTENT: usize = 1 << 20;
/// The most elements of a tensor of a problem.
pub const MAX_ELEMENTS: u128 = 1 << 31;

/// Why a text is not a shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shape `{text}`: {reason}")]
pub struct ShapeError {
    text: String,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("expected fields like n1h17w17c768k192r1s7")]
    NoFields,
    #[error("unknown field `{0}`, expected n h w c k r s u p q, or `{SAME}` at the end")]
    UnknownField(char),
    #[error("field `{0}` is given with `{SAME}`, which stands for p and q")]
    PaddingAndSame(char),
    #[error("field `{0}` is given twice")]
    Repeated(char),
    #[error("field `{0}` is missing")]
    Missing(char),
    #[error("field `{field}` is `{found}`, expected {expected}")]
    BadValue { field: char, found: String, expected: String },
    #[error("the kernel's {axis} {kernel} exceeds the padded image's {image}")]
    LargeKernel { axis: &'static str, kernel: usize, image: usize },
    #[error("the {tensor} has {elements} elements, expected at most {MAX_ELEMENTS}")]
    LargeTensor { tensor: &'static str, elements: u128 },
}

/// What a text ends with where the padding is [`Padding::same`].
const SAME: &str = "same";

/// A number from `least` to [`MAX_EXTENT`].
fn number(text: &str, least: usize) -> Option<usize> {
    text.parse().ok().filter(|value| (least..=MAX_EXTENT).contains(value))
}

/// What an extent is, for errors.
fn an_extent() -> String {
    format!("a whole number from 1 to {MAX_EXTENT}")
}

/// The padding where a text has none.
fn default_padding(image: [usize; 2], kernel: [usize; 2], stride: [usize; 2]) -> Padding {
    if stride == [1, 1] { Padding::same(image, kernel, stride) } else { Padding::default() }
}

/// The fields of a text, each at most once: those of `n1h17` are `('n', "1")` and `('h', "17")`.
struct Fields<'a>(Vec<(char, &'a str)>);

impl<'a> Fields<'a> {
    fn new(text: &'a str) -> Result<Self, Reason> {
        if !text.starts_with(char::is_alphabetic) {
            return Err(Reason::NoFields);
        }
        let mut fields = Self(Vec::new());
        let mut rest = text.chars();
        while let Some(field) = rest.next() {
            let after = rest.as_str();
            let (found, others) = after.split_at(after.find(char::is_alphabetic).unwrap_or(after.len()));
            if !"nhwckrsupq".contains(field) {
                return Err(Reason::UnknownField(field));
            }
            if fields.find(field).is_some() {
                return Err(Reason::Repeated(field));
            }
            fields.0.push((field, found));
            rest = others.chars();
        }
        Ok(fields)
    }

    fn find(&self, field: char) -> Option<&'a str> {
        self.0.iter().find(|(f, _)| *f == field).map(|(_, found)| *found)
    }

    fn required(&self, field: char) -> Result<&'a str, Reason> {
        self.find(field).ok_or(Reason::Missing(field))
    }

    fn bad(&self, field: char, expected: String) -> Reason {
        Reason::BadValue { field, found: self.find(field).unwrap_or_default().to_string(), expected }
    }

    fn extent(&self, field: char) -> Result<usize, Reason> {
        number(self.required(field)?, 1).ok_or_else(|| self.bad(field, an_extent()))
    }

    /// The two numbers of a field, or the same one twice, if the field is there.
    fn two(&self, field: char, least: usize, expected: String) -> Result<Option<(usize, usize)>, Reason> {
        let Some(found) = self.find(field) else { return Ok(None) };
        let (a, b) = found.split_once('-').unwrap_or((found, found));
        let parsed = number(a, least).zip(number(b, least));
        parsed.map(Some).ok_or_else(|| self.bad(field, expected))
    }

    fn padding(&self, field: char) -> Result<Option<(usize, usize)>, Reason> {
        self.two(field, 0, "a padding like 1, or 0-1 for two sides".to_string())
    }

    fn segments(&self) -> Result<Vec<Segment>, Reason> {
        let segment = |channels| Segment { channels, epilogue: Epilogue::BIAS_RELU };
        let parts = self.required('k')?.split('+').map(|part| number(part, 1).map(segment));
        let segments: Option<Vec<Segment>> = parts.collect();
        let segments = segments.ok_or_else(|| self.bad('k', an_extent()))?;
        if segments.len() > MAX_SEGMENTS {
            return Err(self.bad('k', format!("at most {MAX_SEGMENTS} segments")));
        }
        Ok(segments)
    }
}

/// The text form of a convolution: `n1h17w17c768k192r1s7`, then optional `u2` (stride of rows and
/// columns; `u2-1` where they differ) and `p0q3` (padding of rows and of columns; `p0-1` where the
/// two sides differ). Without them the stride is 1 and the padding Keras's `same` for stride 1 and
/// none for any other. Several segments, at most [`MAX_SEGMENTS`], are written `k64+48`.
///
/// A text that ends with `same` in place of `p` and `q` has the padding [`Padding::same`] for its
/// stride. It is written with the numbers that this comes to.
///
/// The epilogue is no part of the text; parsing gives [`Epilogue::BIAS_RELU`].
impl FromStr for Conv {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        parse(text).map_err(|reason| ShapeError { text: text.to_string(), reason })
    }
}

fn parse(text: &str) -> Result<Conv, Reason> {
    let (text, is_same) = text.strip_suffix(SAME).map_or((text, false), |text| (text, true));
    let fields = Fields::new(text)?;
    let image = [fields.extent('h')?, fields.extent('w')?];
    let kernel = [fields.extent('r')?, fields.extent('s')?];
    let (batch, channels) = (fields.extent('n')?, fields.extent('c')?);
    let segments = fields.segments()?;
    let (down, across) = fields.two('u', 1, an_extent())?.unwrap_or((1, 1));
    let stride = [down, across];
    let default = match is_same {
        true => Padding::same(image, kernel, stride),
        false => default_padding(image, kernel, stride),
    };
    if let Some(field) = ['p', 'q'].into_iter().find(|field| is_same && fields.find(*field).is_some()) {
        return Err(Reason::PaddingAndSame(field));
    }
    let (top, bottom) = fields.padding('p')?.unwrap_or((default.top, default.bottom));
    let (left, right) = fields.padding('q')?.unwrap_or((default.left, default.right));
    let window = Window { kernel, stride, padding: Padding { top, bottom, left, right } };
    let conv = Conv { batch, image, channels, window, segments };
    check_sizes(&conv)?;
    Ok(conv)
}

fn check_sizes(conv: &Conv) -> Result<(), Reason> {
    let ([r, s], p) = (conv.window.kernel, conv.window.padding);
    let [h, w] = [conv.image[0] + p.top + p.bottom, conv.image[1] + p.left + p.right];
    for (axis, kernel, image) in [("height", r, h), ("width", s, w)] {
        if kernel > image {
            return Err(Reason::LargeKernel { axis, kernel, image });
        }
    }
    let [oh, ow] = conv.output();
    for (tensor, extents) in [
        ("padded input", [conv.batch, h, w, conv.channels]),
        ("output", [conv.batch, oh, ow, conv.filters()]),
        ("filter", [r, s, conv.channels, conv.filters()]),
    ] {
        let elements = extents.into_iter().map(|extent| extent as u128).product();
        if elements > MAX_ELEMENTS {
            return Err(Reason::LargeTensor { tensor, elements });
        }
    }
    Ok(())
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
                    let ends: Vec<&str> = conv.segments.iter().map(|s| epilogue(s.epilogue)).collect();
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
            Self::Sigmoid { batch, channels } => write!(f, "sigmoid:n{batch}c{channels}"),
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
    fn same_is_the_padding_of_keras_for_any_stride() {
        for (text, written, output) in [
            ("n1h224w224c3k16r3s3u2same", "n1h224w224c3k16r3s3u2p0-1q0-1", [112, 112]),
            ("n1h225w224c3k16r7s7u2-1same", "n1h225w224c3k16r7s7u2-1p3q3", [113, 224]),
            ("n1h17w17c8k8r1s7same", "n1h17w17c8k8r1s7", [17, 17]),
            ("n1h8w8c8k8r1s1u2same", "n1h8w8c8k8r1s1u2", [4, 4]),
        ] {
            assert_eq!((conv(text).to_string().as_str(), conv(text).output()), (written, output));
            assert_eq!(conv(written), conv(text));
        }
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
            ("same", "expected fields"),
            ("n1h17w17c8k8r3s3samesame", "field"),
            ("n1h17w17c8k8r3s3p1same", "`p` is given with `same`"),
            ("n1h17w17c8k8r3s3q1u2same", "`q` is given with `same`"),
        ] {
            let error = text.parse::<Conv>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
