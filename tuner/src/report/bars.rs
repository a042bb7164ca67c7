//! Horizontal bars from zero with quartile whiskers, a text beside each and notes below.

use engine::util::error::Failure;
use plotters::style::{RGBColor, WHITE};

use crate::report::canvas::{
    Canvas, GREY, GRID, INK, MARGIN, Style, WIDTH, fit, ink_on, picture, text_width, ticks, wrap,
};

/// One bar.
pub struct Bar {
    /// Its name.
    pub label: String,
    /// More about it, smaller.
    pub sublabel: String,
    /// Whether the name is bold.
    pub bold: bool,
    /// Its colour.
    pub colour: RGBColor,
    /// Its length, above zero.
    pub value: f64,
    /// Quartiles, not above and not below the length.
    pub quartiles: [f64; 2],
    /// Values of the same kind, none larger than the length.
    pub ticks: Vec<f64>,
    /// A value to point at.
    pub pointer: Option<f64>,
    /// Beside the bar: two lines.
    pub text: [String; 2],
}

/// A picture of bars.
pub struct Bars {
    /// First line.
    pub title: String,
    /// Lines below it.
    pub subtitle: Vec<String>,
    /// Name of the axis, with its unit.
    pub axis: String,
    /// The bars from above.
    pub bars: Vec<Bar>,
    /// What stands where there are no bars.
    pub without: &'static str,
    /// Paragraphs below the axis.
    pub notes: Vec<String>,
}

const TITLE: i32 = 18;

const BODY: i32 = 13;

const SMALL: i32 = 11;

const LINE: i32 = 16;

/// Height of a bar, and of a bar with the space around it.
const BAR: i32 = 28;

const PITCH: i32 = 48;

/// Between a bar and its texts.
const GAP: i32 = 10;

/// Pixels a unit, so that every bar with its whisker and the text beside it ends before `room`.
/// Extents and widths a bar.
fn scale(extents: &[(f64, i32)], room: i32) -> f64 {
    let of = |&(extent, text): &(f64, i32)| f64::from((room - text).max(40)) / extent;
    extents.iter().map(of).fold(f64::INFINITY, f64::min)
}

impl Bars {
    /// Draws the picture.
    ///
    /// # Errors
    /// If plotters fails.
    pub fn draw(&self) -> Result<String, Failure> {
        let room = WIDTH - 2 * MARGIN;
        let subtitle: Vec<String> = self.subtitle.iter().flat_map(|text| wrap(text, BODY, room)).collect();
        let notes: Vec<String> = self.notes.iter().flat_map(|text| wrap(text, SMALL, room)).collect();
        let top = MARGIN + TITLE + 8 + LINE * subtitle.len() as i32 + 12;
        let bottom = top + PITCH * self.bars.len().max(1) as i32;
        let height = bottom + 52 + LINE * notes.len() as i32 + MARGIN / 2;
        picture(height, |canvas| {
            canvas.text(&fit(&self.title, TITLE, room), (MARGIN, MARGIN), Style::of(TITLE).bold())?;
            for (i, line) in subtitle.iter().enumerate() {
                let y = MARGIN + TITLE + 8 + LINE * i as i32;
                canvas.text(line, (MARGIN, y), Style::of(BODY).colour(GREY))?;
            }
            if self.bars.is_empty() {
                canvas.text(self.without, (MARGIN, top + PITCH / 2), Style::of(BODY))?;
            } else {
                self.draw_bars(canvas, top, bottom)?;
            }
            for (i, line) in notes.iter().enumerate() {
                let y = bottom + 60 + LINE * i as i32;
                canvas.text(line, (MARGIN, y), Style::of(SMALL).colour(GREY))?;
            }
            Ok(())
        })
    }

    fn draw_bars(&self, canvas: &Canvas, top: i32, bottom: i32) -> Result<(), Failure> {
        let label = |bar: &Bar| text_width(&bar.label, BODY + 1).max(text_width(&bar.sublabel, SMALL));
        let labels = self.bars.iter().map(label).max().unwrap_or(0).min(300);
        let left = MARGIN + labels + GAP;
        let room = WIDTH - MARGIN - left;
        let text = |bar: &Bar| text_width(&bar.text[0], BODY).max(text_width(&bar.text[1], SMALL)).min(420);
        let extents: Vec<(f64, i32)> =
            self.bars.iter().map(|bar| (bar.quartiles[1].max(bar.value), text(bar) + 2 * GAP)).collect();
        let scale = scale(&extents, room);
        let x = |value: f64| left + (value * scale).round() as i32;

        // The axis ends at the first round number beyond all bars.
        let most = extents.iter().map(|(extent, _)| *extent).fold(0.0, f64::max);
        let marks = ticks(0.0, f64::from(room) / scale, 12);
        let end = marks.iter().position(|(value, _)| *value >= most).unwrap_or(marks.len());
        for (value, name) in marks.iter().take(end + 1) {
            canvas.line((x(*value), top), (x(*value), bottom + 4), GRID)?;
            canvas.text(name, (x(*value), bottom + 14), Style::of(SMALL).colour(GREY).centred())?;
        }
        canvas.line((left, top), (left, bottom), GREY)?;
        canvas.text(&self.axis, (left, bottom + 32), Style::of(BODY).colour(GREY))?;

        for (i, bar) in self.bars.iter().enumerate() {
            let y = top + PITCH * i as i32 + (PITCH - BAR) / 2;
            let (middle, end) = (y + BAR / 2, y + BAR);
            let two = !bar.sublabel.is_empty();
            let style = Style::of(BODY).right();
            let style = if bar.bold { style.bold() } else { style };
            let name = fit(&bar.label, BODY, labels);
            canvas.text(&name, (left - GAP, middle - if two { 7 } else { 0 }), style)?;
            let style = Style::of(SMALL).right().colour(GREY);
            canvas.text(&fit(&bar.sublabel, SMALL, labels), (left - GAP, middle + 9), style)?;

            canvas.rectangle((left, y), (x(bar.value).max(left + 1), end), bar.colour)?;
            for value in &bar.ticks {
                canvas.line((x(*value), end - 9), (x(*value), end), ink_on(bar.colour))?;
            }
            let [low, high] = bar.quartiles.map(x);
            let inside = ink_on(bar.colour);
            canvas.line((low, middle), (x(bar.value), middle), inside)?;
            canvas.line((low, middle - 4), (low, middle + 4), inside)?;
            canvas.line((x(bar.value), middle), (high, middle), INK)?;
            canvas.line((high, middle - 4), (high, middle + 4), INK)?;
            if let Some(value) = bar.pointer {
                canvas.pointer((x(value), y))?;
            }
            let beside = high.max(x(bar.value)) + GAP;
            let [first, second] = &bar.text;
            // The grid does not cross the text.
            canvas.rectangle((beside - 4, middle - 15), (beside + text(bar), middle + 17), WHITE)?;
            canvas.text(&fit(first, BODY, 420), (beside, middle - 7), Style::of(BODY))?;
            canvas.text(&fit(second, SMALL, 420), (beside, middle + 9), Style::of(SMALL).colour(GREY))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_and_its_text_end_before_the_edge() {
        let extents = [(100.0, 200), (90.0, 400), (1e-9, 900)];
        let scale = scale(&extents, 800);
        for (extent, text) in &extents[..2] {
            assert!(extent * scale + f64::from(*text) <= 800.0 + 1e-9);
        }
    }
}
