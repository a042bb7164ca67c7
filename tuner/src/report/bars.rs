//! Horizontal bars from zero with quartile whiskers, a text next to each and notes below.

use plotters::style::{RGBColor, WHITE};

use crate::report::canvas::{
    BODY, CENTRE, Canvas, DrawError, Drawn, GREY, GRID, INK, MARGIN, RIGHT, ROOM, SMALL, TITLE, WIDTH, bold,
    fit, ink_on, picture, text_style, text_width, ticks, wrap,
};

pub struct Bar {
    pub label: String,
    /// More about it, smaller.
    pub sublabel: String,
    /// Whether the label is bold.
    pub bold: bool,
    pub colour: RGBColor,
    /// Its length, above zero.
    pub value: f64,
    /// Quartiles, not above and not below the length.
    pub quartiles: [f64; 2],
    /// Values of the same kind, none larger than the length.
    pub ticks: Vec<f64>,
    /// A value to point at.
    pub pointer: Option<f64>,
    /// Two lines next to the bar.
    pub text: [String; 2],
}

pub struct Bars {
    pub title: String,
    /// Lines below the title.
    pub subtitle: Vec<String>,
    /// Name of the axis, with its unit.
    pub axis: String,
    /// From above.
    pub bars: Vec<Bar>,
    /// What stands where there are no bars.
    pub without: &'static str,
    /// Paragraphs below the axis.
    pub notes: Vec<String>,
}

const LINE: i32 = 16;

/// Height of a bar, and of a bar with the space around it.
const BAR: i32 = 28;
const PITCH: i32 = 48;

/// The most that the text next to a bar is wide.
const TEXT: i32 = 500;

/// Between a bar and its texts.
const GAP: i32 = 10;

/// Pixels a unit, so that every bar with its whisker and the text next to it ends before `room`.
/// Extents and widths a bar.
fn scale(extents: &[(f64, i32)], room: i32) -> f64 {
    let of = |&(extent, text): &(f64, i32)| f64::from((room - text).max(40)) / extent;
    extents.iter().map(of).fold(f64::INFINITY, f64::min)
}

/// Width of the text next to a bar.
fn width(bar: &Bar) -> i32 {
    text_width(&bar.text[0], BODY).max(text_width(&bar.text[1], SMALL)).min(TEXT)
}

fn draw_lines(canvas: &Canvas, lines: &[String], y: i32, size: i32) -> Drawn {
    let at = (y..).step_by(LINE as usize).map(|y| (MARGIN, y));
    lines.iter().zip(at).try_for_each(|(line, at)| canvas.text(line, at, text_style(size, GREY)))
}

impl Bars {
    pub fn draw(&self) -> Result<String, DrawError> {
        let lines = |texts: &[String], size| -> Vec<String> {
            texts.iter().flat_map(|text| wrap(text, size, ROOM)).collect()
        };
        let (subtitle, notes) = (lines(&self.subtitle, BODY), lines(&self.notes, SMALL));
        let top = MARGIN + TITLE + 8 + LINE * subtitle.len() as i32 + 12;
        let bottom = top + PITCH * self.bars.len().max(1) as i32;
        let height = bottom + 52 + LINE * notes.len() as i32 + MARGIN / 2;
        picture(height, |canvas| {
            canvas.title(&self.title)?;
            draw_lines(canvas, &subtitle, MARGIN + TITLE + 8, BODY)?;
            if self.bars.is_empty() {
                canvas.text(self.without, (MARGIN, top + PITCH / 2), text_style(BODY, INK))?;
            } else {
                self.draw_bars(canvas, top, bottom)?;
            }
            draw_lines(canvas, &notes, bottom + 60, SMALL)
        })
    }

    fn draw_bars(&self, canvas: &Canvas, top: i32, bottom: i32) -> Drawn {
        let label = |bar: &Bar| text_width(&bar.label, BODY + 1).max(text_width(&bar.sublabel, SMALL));
        let labels = self.bars.iter().map(label).max().unwrap_or(0).min(300);
        let left = MARGIN + labels + GAP;
        let room = WIDTH - MARGIN - left;
        let extent = |bar: &Bar| (bar.quartiles[1].max(bar.value), width(bar) + 2 * GAP);
        let extents: Vec<(f64, i32)> = self.bars.iter().map(extent).collect();
        let scale = scale(&extents, room);
        let x = |value: f64| left + (value * scale).round() as i32;

        // The axis ends at the first round number beyond all bars.
        let most = extents.iter().map(|(extent, _)| *extent).fold(0.0, f64::max);
        let marks = ticks(0.0, f64::from(room) / scale, 12);
        let end = marks.iter().position(|(value, _)| *value >= most).unwrap_or(marks.len());
        for (value, name) in marks.iter().take(end + 1) {
            canvas.line((x(*value), top), (x(*value), bottom + 4), GRID)?;
            canvas.text(name, (x(*value), bottom + 14), text_style(SMALL, GREY).pos(CENTRE))?;
        }
        canvas.line((left, top), (left, bottom), GREY)?;
        canvas.text(&self.axis, (left, bottom + 32), text_style(BODY, GREY))?;
        for (i, bar) in self.bars.iter().enumerate() {
            bar.draw(canvas, left, top + PITCH * i as i32 + (PITCH - BAR) / 2, x)?;
        }
        Ok(())
    }
}

impl Bar {
    /// Draws the bar from `left` and `y` downwards, and its texts; `x` places a value.
    fn draw(&self, canvas: &Canvas, left: i32, y: i32, x: impl Fn(f64) -> i32) -> Drawn {
        let (middle, end, labels) = (y + BAR / 2, y + BAR, left - GAP - MARGIN);
        let raised = if self.sublabel.is_empty() { 0 } else { 7 };
        let style = text_style(BODY, INK).pos(RIGHT);
        let style = if self.bold { bold(style) } else { style };
        canvas.text(&fit(&self.label, BODY, labels), (left - GAP, middle - raised), style)?;
        let style = text_style(SMALL, GREY).pos(RIGHT);
        canvas.text(&fit(&self.sublabel, SMALL, labels), (left - GAP, middle + 9), style)?;

        let (length, inside) = (x(self.value), ink_on(self.colour));
        canvas.rectangle((left, y), (length.max(left + 1), end), self.colour)?;
        for &value in &self.ticks {
            canvas.line((x(value), end - 9), (x(value), end), inside)?;
        }
        let [low, high] = self.quartiles.map(&x);
        canvas.line((low, middle), (length, middle), inside)?;
        canvas.line((low, middle - 4), (low, middle + 4), inside)?;
        canvas.line((length, middle), (high, middle), INK)?;
        canvas.line((high, middle - 4), (high, middle + 4), INK)?;
        if let Some(value) = self.pointer {
            canvas.pointer((x(value), y))?;
        }
        let start = high.max(length) + GAP;
        let [first, second] = &self.text;
        // The grid does not cross the text.
        canvas.rectangle((start - 4, middle - 15), (start + width(self), middle + 17), WHITE)?;
        canvas.text(&fit(first, BODY, TEXT), (start, middle - 7), text_style(BODY, INK))?;
        canvas.text(&fit(second, SMALL, TEXT), (start, middle + 9), text_style(SMALL, GREY))
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
