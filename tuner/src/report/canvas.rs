//! A surface in pixels over plotters' SVG backend; colours and sizes that all pictures share.

use std::collections::HashSet;

use kernels::table;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Why plotters can't draw, which it has no reason to.
pub type DrawError = DrawingAreaErrorKind<std::io::Error>;

pub type Drawn = Result<(), DrawError>;

/// Width of every picture.
pub const WIDTH: i32 = 1200;

/// Space at its edges.
pub const MARGIN: i32 = 24;

/// Sizes of letters.
pub const TITLE: i32 = 18;
pub const BODY: i32 = 13;
pub const SMALL: i32 = 11;

/// Width between the margins.
pub const ROOM: i32 = WIDTH - 2 * MARGIN;

/// The colour of text and lines.
pub const INK: RGBColor = rgb(0x222222);

/// The colour of text on light fills. A page shows [`INK`] light where its background is dark, this not.
pub const DARK: RGBColor = rgb(0x111111);

/// That of less important text.
pub const GREY: RGBColor = rgb(0x595959);

/// That of grid lines.
pub const GRID: RGBColor = rgb(0xdddddd);

/// That of what has no family.
pub const OTHER: RGBColor = rgb(0x999999);

/// Colours of the families in the order of the table of kernels: Okabe and Ito's palette ("Color
/// Universal Design", 2008), then Tol's muted one for families to come.
const PALETTE: [u32; 20] = [
    0xbbbbbb, 0x0072b2, 0xe69f00, 0x009e73, 0xcc79a7, 0x56b4e9, 0xf0e442, 0xd55e00, 0x332288, 0x882255,
    0x44aa99, 0x999933, 0xaa4499, 0x117733, 0xddcc77, 0x661100, 0xcc6677, 0x88ccee, 0x6699cc, 0x994455,
];

/// A colour as CSS writes it.
pub const fn rgb(hex: u32) -> RGBColor {
    let [_, red, green, blue] = hex.to_be_bytes();
    RGBColor(red, green, blue)
}

/// The colour of a family, the same in every picture.
pub fn colour(family: &str) -> RGBColor {
    let mut families: Vec<&str> = table().iter().map(|row| row.family).collect();
    let mut seen = HashSet::new();
    families.retain(|family| seen.insert(*family));
    let index = families.iter().position(|name| *name == family);
    index.map_or(OTHER, |index| rgb(PALETTE[index % PALETTE.len()]))
}

/// Black or white, whichever has more contrast on a colour (WCAG 2.1, relative luminance).
pub fn ink_on(RGBColor(r, g, b): RGBColor) -> RGBColor {
    let linear = |c: u8| (c as f64 / 255.0).powf(2.2);
    let luminance = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    if (luminance + 0.05).powi(2) > 1.05 * 0.05 { DARK } else { WHITE }
}

/// Upper estimate of a text's width in pixels; sans-serif fonts differ.
pub fn text_width(text: &str, size: i32) -> i32 {
    (text.chars().map(|c| if c.is_ascii() { 0.62 } else { 1.0 }).sum::<f64>() * size as f64).ceil() as i32
}

/// A text cut to a width where it is longer; characters that XML does not take become spaces.
pub fn fit(text: &str, size: i32, width: i32) -> String {
    let clean = |c: char| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { ' ' } else { c };
    let text: String = text.chars().take(4000).map(clean).collect();
    if text_width(&text, size) <= width {
        return text;
    }
    let fits = |n: &usize| text_width(&text.chars().take(*n).collect::<String>(), size) + size <= width;
    let kept = (1..).take_while(fits).last().unwrap_or(0);
    text.chars().take(kept).chain(['…']).collect()
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

/// Which end of a text is where it is put; it is vertically centred there.
pub const CENTRE: Pos = Pos { h_pos: HPos::Center, v_pos: VPos::Center };
pub const RIGHT: Pos = Pos { h_pos: HPos::Right, v_pos: VPos::Center };

/// A text of letters of so many pixels, from the left.
pub fn text_style(size: i32, colour: RGBColor) -> TextStyle<'static> {
    // The backend divides sizes by 1.24.
    let font = ("sans-serif", size as f64 * 1.24).into_font();
    font.color(&colour).pos(Pos::new(HPos::Left, VPos::Center))
}

pub fn bold(style: TextStyle) -> TextStyle {
    TextStyle { font: style.font.style(FontStyle::Bold), ..style }
}

pub struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
}

/// Draws a picture of [`WIDTH`] and a height.
pub fn picture(height: i32, draw: impl FnOnce(&Canvas) -> Drawn) -> Result<String, DrawError> {
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
    pub fn text(&self, text: &str, at: (i32, i32), style: TextStyle) -> Drawn {
        self.area.draw(&Text::new(text.to_string(), at, style))
    }

    pub fn rectangle(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Drawn {
        self.area.draw(&Rectangle::new([from, to], colour.filled()))
    }

    pub fn title(&self, text: &str) -> Drawn {
        self.text(&fit(text, TITLE, ROOM), (MARGIN, MARGIN), bold(text_style(TITLE, INK)))
    }

    pub fn line(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor) -> Drawn {
        self.area.draw(&PathElement::new(vec![from, to], colour))
    }

    /// A disc with a thin line around it.
    pub fn disc(&self, at: (i32, i32), radius: i32, colour: RGBColor) -> Drawn {
        self.area.draw(&Circle::new(at, radius, colour.filled()))?;
        self.area.draw(&Circle::new(at, radius, INK))
    }

    pub fn ring(&self, at: (i32, i32), radius: i32, colour: RGBColor) -> Drawn {
        self.area.draw(&Circle::new(at, radius, colour.stroke_width(2)))
    }

    /// A triangle that points down to `at`.
    pub fn pointer(&self, (x, y): (i32, i32)) -> Drawn {
        self.area.draw(&Polygon::new(vec![(x - 5, y - 8), (x + 5, y - 8), (x, y)], INK.filled()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_the_table_have_colours_of_their_own() {
        let mut seen: Vec<(&str, RGBColor)> = Vec::new();
        for row in table() {
            let colour = colour(row.family);
            assert!(seen.iter().all(|(family, c)| *family == row.family || *c != colour), "{}", row.family);
            seen.push((row.family, colour));
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
