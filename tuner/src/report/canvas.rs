//! A surface in pixels over plotters' SVG backend, with the colours and sizes that all pictures share.

use engine::util::error::Failure;
use kernels::table;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Width of every picture.
pub const WIDTH: i32 = 1200;

/// Space at its edges.
pub const MARGIN: i32 = 24;

/// Text and lines.
pub const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);

/// Less important text.
pub const GREY: RGBColor = RGBColor(0x59, 0x59, 0x59);

/// Grid lines.
pub const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

/// What has no family.
pub const OTHER: RGBColor = RGBColor(0x99, 0x99, 0x99);

/// Colours of the families in the order of the table of kernels: Okabe and Ito's palette ("Color
/// Universal Design", 2008), then Tol's muted one for families to come.
const PALETTE: [RGBColor; 12] = [
    RGBColor(0xbb, 0xbb, 0xbb),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0xf0, 0xe4, 0x42),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x33, 0x22, 0x88),
    RGBColor(0x88, 0x22, 0x55),
    RGBColor(0x44, 0xaa, 0x99),
    RGBColor(0x99, 0x99, 0x33),
];

/// The colour of a family, the same in every picture.
pub fn colour(family: &str) -> RGBColor {
    let mut families: Vec<&str> = Vec::new();
    for row in table() {
        if !families.contains(&row.family) {
            families.push(row.family);
        }
    }
    let index = families.iter().position(|name| *name == family);
    index.map_or(OTHER, |index| PALETTE[index % PALETTE.len()])
}

/// Black or white, whichever has more contrast on a colour (WCAG 2.1, relative luminance).
pub fn ink_on(RGBColor(r, g, b): RGBColor) -> RGBColor {
    let linear = |c: u8| (c as f64 / 255.0).powf(2.2);
    let luminance = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    if (luminance + 0.05).powi(2) > 1.05 * 0.05 { INK } else { WHITE }
}

/// Upper estimate of a text's width in pixels; sans-serif fonts differ.
pub fn text_width(text: &str, size: i32) -> i32 {
    (text.chars().map(|c| if c.is_ascii() { 0.62 } else { 1.0 }).sum::<f64>() * size as f64).ceil() as i32
}

/// A text that fits a width, cut where it is longer; characters that XML does not take become spaces.
pub fn fit(text: &str, size: i32, width: i32) -> String {
    let clean = |c: char| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { ' ' } else { c };
    let text: String = text.chars().take(4000).map(clean).collect();
    if text_width(&text, size) <= width {
        return text;
    }
    let mut cut = String::new();
    for c in text.chars() {
        cut.push(c);
        if text_width(&cut, size) + size > width {
            cut.pop();
            cut.push('…');
            break;
        }
    }
    cut
}

/// Breaks a text into lines that fit a width.
pub fn wrap(text: &str, size: i32, width: i32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let word = fit(word, size, width);
        match lines.last_mut() {
            Some(line) if text_width(&format!("{line} {word}"), size) <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

/// Round values of a range and their texts.
pub fn ticks(from: f64, to: f64, count: usize) -> Vec<(f64, String)> {
    let axis: RangedCoordf64 = (from..to).into();
    let values = axis.key_points(count);
    let step = if values.len() > 1 { values[1] - values[0] } else { to - from };
    let decimals = (-step.log10() - 0.001).ceil().clamp(0.0, 9.0) as usize;
    values.into_iter().map(|value| (value, format!("{value:.decimals$}"))).collect()
}

/// Where a text stands.
#[derive(Clone, Copy)]
pub struct Style {
    /// Height of an em in pixels.
    pub size: i32,
    /// Its colour.
    pub colour: RGBColor,
    /// Which of its ends the position is.
    pub anchor: HPos,
    /// Bold.
    pub bold: bool,
    /// Written upwards.
    pub upright: bool,
}

impl Style {
    /// Dark, from the left.
    pub fn of(size: i32) -> Self {
        Self { size, colour: INK, anchor: HPos::Left, bold: false, upright: false }
    }

    /// In another colour.
    pub fn colour(self, colour: RGBColor) -> Self {
        Self { colour, ..self }
    }

    /// Ending at the position.
    pub fn right(self) -> Self {
        Self { anchor: HPos::Right, ..self }
    }

    /// Centred on the position.
    pub fn centred(self) -> Self {
        Self { anchor: HPos::Center, ..self }
    }

    /// Bold.
    pub fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    /// Upwards.
    pub fn upright(self) -> Self {
        Self { upright: true, ..self }
    }
}

/// A picture that is being drawn.
pub struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

/// Draws a picture of [`WIDTH`] and a height.
///
/// # Errors
/// If plotters fails, which it has no reason to.
pub fn picture(height: i32, draw: impl FnOnce(&Canvas) -> Result<(), Failure>) -> Result<String, Failure> {
    let mut svg = String::new();
    {
        let size = (WIDTH as u32, height.max(1) as u32);
        let canvas = Canvas { area: SVGBackend::with_string(&mut svg, size).into_drawing_area() };
        canvas.area.fill(&WHITE)?;
        draw(&canvas)?;
        canvas.area.present()?;
    }
    Ok(svg)
}

impl Canvas<'_> {
    /// A text, vertically centred on `at`.
    pub fn text(&self, text: &str, at: (i32, i32), style: Style) -> Result<(), Failure> {
        // The backend divides sizes by 1.24.
        let mut font = ("sans-serif", style.size as f64 * 1.24).into_font();
        if style.bold {
            font = font.style(FontStyle::Bold);
        }
        if style.upright {
            font = font.transform(FontTransform::Rotate270);
        }
        let style = font.color(&style.colour).pos(Pos::new(style.anchor, VPos::Center));
        Ok(self.area.draw(&Text::new(text.to_string(), at, style))?)
    }

    /// A filled rectangle.
    pub fn rectangle(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Result<(), Failure> {
        Ok(self.area.draw(&Rectangle::new([from, to], colour.filled()))?)
    }

    /// A line.
    pub fn line(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Result<(), Failure> {
        Ok(self.area.draw(&PathElement::new(vec![from, to], colour))?)
    }

    /// A triangle that points down to `at`.
    pub fn pointer(&self, (x, y): (i32, i32)) -> Result<(), Failure> {
        Ok(self.area.draw(&Polygon::new(vec![(x - 5, y - 8), (x + 5, y - 8), (x, y)], INK.filled()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_the_table_have_colours_of_their_own() {
        let mut seen: Vec<(&str, RGBColor)> = Vec::new();
        for row in table() {
            let own = colour(row.family);
            assert!(seen.iter().all(|(family, c)| *family == row.family || *c != own), "{}", row.family);
            seen.push((row.family, own));
        }
        assert_eq!(colour("no such family"), OTHER);
    }

    #[test]
    fn texts_are_cut_and_broken_to_their_width() {
        assert_eq!(fit("short", 10, 100), "short");
        let cut = fit(&"x".repeat(10_000), 10, 100);
        assert!(cut.ends_with('…') && text_width(&cut, 10) <= 110, "{cut}");
        assert_eq!(fit("a\u{0}b\nc", 10, 100), "a b c");
        assert_eq!(wrap("one two three", 10, 50), ["one two", "three"]);
        assert!(wrap("", 10, 50).is_empty());
    }

    #[test]
    fn ticks_are_round_numbers_in_the_range() {
        let texts = |from, to| ticks(from, to, 6).into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts(0.0, 100.0), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(texts(0.0, 6.0)[..2], ["0", "2"]);
        for to in [0.03, 0.4, 2.5, 7.0, 11.0, 450.0] {
            for (value, text) in ticks(0.0, to, 8) {
                let read: f64 = text.parse().expect("a number");
                assert!((read - value).abs() < 1e-9, "{value} is written {text}");
            }
        }
        for (from, to) in [(0.0, 1e-9), (0.0, 1e12), (17.3, 17.4)] {
            assert!(ticks(from, to, 6).iter().all(|(value, _)| (from..=to).contains(value)));
        }
    }
}
