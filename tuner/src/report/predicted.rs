//! The steps in order: what was measured in the whole network, and what was predicted.

use engine::Plan;
use plotters::style::FontTransform;

use crate::report::canvas::{
    BODY, CENTRE, Canvas, DrawError, Drawn, GREY, GRID, INK, MARGIN, RIGHT, ROOM, SMALL, WIDTH, colour, fit,
    picture, text_style, text_width, ticks,
};
use crate::report::charts::{setting, times};
use crate::report::data::{StepView, microseconds};
use crate::report::text::{count, short};

/// A step of which both times are known, in microseconds.
pub struct Pair<'a> {
    pub view: &'a StepView<'a>,
    pub measured: f64,
    pub predicted: f64,
}

pub fn pairs<'a>(steps: &'a [StepView<'a>]) -> Vec<Pair<'a>> {
    let pair = |view: &'a StepView<'a>| {
        let measured = microseconds(view.step.network_us)?;
        Some(Pair { view, measured, predicted: microseconds(view.step.predicted_us)? })
    };
    steps.iter().filter_map(pair).collect()
}

/// Heights of a row: its columns, the upright names below, a block's name, and the space around.
const PLOT: i32 = 130;
const NAMES: i32 = 132;
const ROW: i32 = PLOT + NAMES + 52;
const TOP: i32 = 104;
const LEFT: i32 = MARGIN + 40;

/// Columns of a row, and the width of one.
const COLUMNS: usize = 28;
const PITCH: i32 = (WIDTH - MARGIN - LEFT) / COLUMNS as i32;

const NOTE: &str = "A column is the median time of a step when the whole network ran; its colour is the family of \
                    the kernel. The mark across is the prediction. Each row has a scale of its own.";

pub fn draw(plan: &Plan, steps: usize, pairs: &[Pair]) -> Result<String, DrawError> {
    let rows = pairs.chunks(COLUMNS).count() as i32;
    picture(TOP + ROW * rows, |canvas| {
        canvas.title(&format!("{}: prediction and measurement, {}", plan.model, times(plan)))?;
        canvas.text(&fit(&setting(plan), BODY, ROOM), (MARGIN, MARGIN + 24), text_style(BODY, GREY))?;
        let left = steps.saturating_sub(pairs.len());
        let left =
            if left > 0 { format!(" {} without both times.", count(left, "step")) } else { String::new() };
        canvas.text(&format!("{NOTE}{left}"), (MARGIN, MARGIN + 42), text_style(BODY, GREY))?;
        for (row, pairs) in pairs.chunks(COLUMNS).enumerate() {
            draw_row(canvas, pairs, TOP + ROW * row as i32)?;
        }
        Ok(())
    })
}

/// A row of steps from `top` downwards, on a scale that ends with its longest time.
fn draw_row(canvas: &Canvas, pairs: &[Pair], top: i32) -> Drawn {
    let most = pairs.iter().map(|pair| pair.measured.max(pair.predicted)).fold(0.0, f64::max);
    let bottom = top + PLOT;
    let y = |us: f64| bottom - (us / most * f64::from(PLOT - 14)).round() as i32;
    let right = LEFT + PITCH * pairs.len() as i32;
    for (us, text) in ticks(0.0, most, 5) {
        canvas.line((LEFT, y(us)), (right, y(us)), GRID)?;
        canvas.text(&text, (LEFT - 6, y(us)), text_style(SMALL, GREY).pos(RIGHT))?;
    }
    canvas.text("µs", (MARGIN, top - 8), text_style(SMALL, GREY))?;
    for (i, pair) in pairs.iter().enumerate() {
        let centre = LEFT + PITCH * i as i32 + PITCH / 2;
        canvas.rectangle((centre - 12, y(pair.measured)), (centre + 12, bottom), colour(pair.view.family))?;
        let mark = y(pair.predicted);
        canvas.rectangle((centre - 16, mark - 1), (centre + 16, mark + 1), INK)?;
        let above = y(pair.measured.max(pair.predicted)) - 9;
        canvas.text(&short(pair.measured), (centre, above), text_style(SMALL, INK).pos(CENTRE))?;
        let name = fit(&pair.view.layer, SMALL, NAMES - 8);
        let style = text_style(SMALL, INK).pos(RIGHT).transform(FontTransform::Rotate270);
        canvas.text(&name, (centre, bottom + 6), style)?;
    }
    draw_blocks(canvas, pairs, bottom + NAMES)
}

/// Brackets with the blocks' names and sums, where there is room for them.
fn draw_blocks(canvas: &Canvas, pairs: &[Pair], y: i32) -> Drawn {
    let mut left = LEFT;
    for run in pairs.chunk_by(|a, b| a.view.block == b.view.block) {
        let right = left + PITCH * run.len() as i32;
        canvas.line((left + 2, y), (right - 3, y), INK)?;
        let [measured, predicted] =
            [|p: &Pair| p.measured, |p: &Pair| p.predicted].map(|of| short(run.iter().map(of).sum::<f64>()));
        let long = format!("{}: {measured} µs, {predicted} predicted", run[0].view.block);
        let texts = [long, run[0].view.block.to_string()];
        if let Some(text) = texts.iter().find(|text| text_width(text, BODY) <= right - left) {
            canvas.text(text, ((left + right) / 2, y + 14), text_style(BODY, INK).pos(CENTRE))?;
        }
        left = right;
    }
    Ok(())
}
