//! The network as a strip of steps: time from left to right, in as many rows as it takes to read it.

use engine::plan::schema::Plan;
use engine::util::error::Failure;

use crate::report::canvas::{
    Canvas, GREY, GRID, INK, MARGIN, Style, WIDTH, colour, fit, ink_on, picture, text_width, ticks,
};
use crate::report::charts::{setting, times};
use crate::report::data::{StepView, by_family, percent, total};
use crate::report::text::{count, time_text};

const TITLE: i32 = 18;

const BODY: i32 = 13;

const SMALL: i32 = 11;

/// Height of the rectangles: an upright name of a layer fits.
const STRIP: i32 = 116;

/// Height of a row with its axis above and its blocks below.
const ROW: i32 = STRIP + 92;

/// Where the first row begins, and where its strip does in a row.
const TOP: i32 = 76;

const STRIP_AT: i32 = 20;

/// Steps that one row shows legibly.
const STEPS_A_ROW: usize = 28;

/// A part of the time axis: what it belongs to, its row, and where it is in that row.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Piece {
    index: usize,
    row: usize,
    from: f64,
    to: f64,
}

/// Lays spans end to end in rows of equal length; what crosses the end of a row goes on in the next.
fn pieces(spans: &[f64], rows: usize) -> Vec<Piece> {
    let length = spans.iter().sum::<f64>() / rows as f64;
    let mut pieces = Vec::new();
    let (mut row, mut from) = (0, 0.0);
    for (index, &span) in spans.iter().enumerate() {
        let mut left = span;
        while from + left > length && row + 1 < rows {
            if length > from {
                pieces.push(Piece { index, row, from, to: length });
                left -= length - from;
            }
            (row, from) = (row + 1, 0.0);
        }
        if left > 0.0 {
            pieces.push(Piece { index, row, from, to: from + left });
            from += left;
        }
    }
    pieces
}

/// The widest piece of each of `count` spans: the one that is named.
fn widest(pieces: &[Piece], count: usize) -> Vec<usize> {
    let mut named = vec![usize::MAX; count];
    for (i, piece) in pieces.iter().enumerate() {
        let best = pieces.get(named[piece.index]);
        if best.is_none_or(|best| piece.to - piece.from > best.to - best.from) {
            named[piece.index] = i;
        }
    }
    named
}

/// Places labels, given by centre and width, so that none covers another or leaves `0..room`: a left
/// end and a line for each.
fn place(labels: &[(i32, i32)], room: i32) -> Vec<(i32, usize)> {
    let mut ends: Vec<i32> = Vec::new();
    let mut at = |&(centre, width): &(i32, i32)| {
        let left = (centre - width / 2).min(room - width).max(0);
        if width == 0 {
            return (left, 0);
        }
        let line = ends.iter().position(|end| end + 8 <= left).unwrap_or_else(|| {
            ends.push(0);
            ends.len() - 1
        });
        ends[line] = left + width;
        (left, line)
    };
    labels.iter().map(&mut at).collect()
}

/// Runs of steps of one block: its name and the steps' indices.
fn blocks<'a>(steps: &[StepView<'a>]) -> Vec<(&'a str, std::ops::Range<usize>)> {
    let mut runs: Vec<(&str, std::ops::Range<usize>)> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        match runs.last_mut() {
            Some((name, range)) if *name == step.block => range.end = index + 1,
            _ => runs.push((step.block, index..index + 1)),
        }
    }
    runs
}

/// Draws the network.
///
/// # Errors
/// If plotters fails.
pub fn network(plan: &Plan, steps: &[StepView]) -> Result<String, Failure> {
    let total = total(steps);
    let measured = steps.iter().filter(|s| s.time.is_some()).count();
    let rows = if measured == 0 { 0 } else { measured.div_ceil(STEPS_A_ROW).min(4) };
    let room = WIDTH - 2 * MARGIN;
    let families = by_family(steps);
    let legend: Vec<(&str, String)> = families
        .iter()
        .filter(|share| share.us > 0.0)
        .map(|share| {
            let text = format!("{}: {} ({})", share.name, time_text(share.us), percent(share.us, total));
            (share.name, fit(&text, BODY, room / 2))
        })
        .collect();
    // Places in the legend: left end and line.
    let mut places = Vec::new();
    let (mut x, mut line) = (0, 0);
    for (_, text) in &legend {
        let width = 20 + text_width(text, BODY) + 16;
        if x + width > room && x > 0 {
            (x, line) = (0, line + 1);
        }
        places.push((x, line));
        x += width;
    }
    let bottom = if rows == 0 { TOP + 60 } else { TOP + ROW * rows as i32 };
    picture(bottom + 22 * (line + 2) + MARGIN, |canvas| {
        let title = format!("{}: {}, {}", plan.model, count(steps.len(), "step"), times(plan));
        canvas.text(&fit(&title, TITLE, room), (MARGIN, MARGIN), Style::of(TITLE).bold())?;
        let style = Style::of(BODY).colour(GREY);
        canvas.text(&fit(&setting(plan), BODY, room), (MARGIN, MARGIN + 24), style)?;
        if rows == 0 {
            canvas.text("no step has a measured time", (MARGIN, TOP + 30), Style::of(BODY))?;
        } else {
            draw_rows(canvas, steps, rows)?;
        }
        for ((name, text), (x, line)) in legend.iter().zip(places) {
            let (x, y) = (MARGIN + x, bottom + 22 * line);
            canvas.rectangle((x, y - 7), (x + 14, y + 7), colour(name))?;
            canvas.text(text, (x + 20, y), Style::of(BODY))?;
        }
        let mut note =
            "Each rectangle is a step, as wide as its median time; colours are families of kernels."
                .to_string();
        if measured < steps.len() {
            note += &format!(" {} without a measured time not drawn.", count(steps.len() - measured, "step"));
        }
        let y = bottom + 22 * (line + 1);
        canvas.text(&note, (MARGIN, y), Style::of(SMALL).colour(GREY))
    })
}

fn draw_rows(canvas: &Canvas, steps: &[StepView], rows: usize) -> Result<(), Failure> {
    let spans: Vec<f64> = steps.iter().map(StepView::us).collect();
    let length = spans.iter().sum::<f64>() / rows as f64;
    let room = WIDTH - 2 * MARGIN;
    let x = |us: f64| MARGIN + (us / length * f64::from(room)).round().min(f64::from(room)) as i32;
    let strip = |row: usize| TOP + ROW * row as i32 + STRIP_AT;

    for row in 0..rows {
        let (y, start) = (strip(row), length * row as f64);
        for (ms, text) in ticks(start / 1e3, (start + length) / 1e3, 12) {
            let x = x(ms * 1e3 - start);
            canvas.line((x, y - 6), (x, y), GREY)?;
            let text = format!("{text} ms");
            // Centred on the edge, it would leave the picture.
            let half = text_width(&text, SMALL) / 2 + 4;
            let x = x.clamp(half, WIDTH - half);
            canvas.text(&text, (x, y - 14), Style::of(SMALL).colour(GREY).centred())?;
        }
        canvas.rectangle((MARGIN, y), (MARGIN + room, y + STRIP), GRID)?;
    }

    let drawn = pieces(&spans, rows);
    let named = widest(&drawn, steps.len());
    for (i, piece) in drawn.iter().enumerate() {
        let step = &steps[piece.index];
        let (left, right, y) = (x(piece.from), x(piece.to), strip(piece.row));
        let fill = colour(step.family);
        // A gap between neighbours, as long as there is something left of the step.
        let right = if right - left > 2 { right - 1 } else { right };
        canvas.rectangle((left, y), (right, y + STRIP), fill)?;
        let width = right - left;
        if named[piece.index] != i {
            continue;
        }
        let centre = ((left + right) / 2, y + STRIP / 2);
        let style = Style::of(SMALL).colour(ink_on(fill)).centred();
        let name = fit(&step.layer, SMALL, STRIP - 4);
        if text_width(&name, SMALL) + 8 <= width {
            canvas.text(&name, (centre.0, centre.1 - 8), style)?;
            canvas.text(&fit(&time_text(step.us()), SMALL, width), (centre.0, centre.1 + 8), style)?;
        } else if width >= SMALL + 2 {
            canvas.text(&name, centre, style.upright())?;
        }
    }
    draw_blocks(canvas, steps, &spans, rows, &x)
}

/// Brackets below the rows with the blocks' names and times.
fn draw_blocks(
    canvas: &Canvas,
    steps: &[StepView],
    spans: &[f64],
    rows: usize,
    x: &impl Fn(f64) -> i32,
) -> Result<(), Failure> {
    let room = WIDTH - 2 * MARGIN;
    let runs = blocks(steps);
    let sums: Vec<f64> = runs.iter().map(|(_, range)| spans[range.clone()].iter().sum()).collect();
    let drawn = pieces(&sums, rows);
    let named = widest(&drawn, sums.len());
    for row in 0..rows {
        let y = TOP + ROW * row as i32 + STRIP_AT + STRIP + 8;
        let here = || drawn.iter().enumerate().filter(|(_, piece)| piece.row == row);
        // A block that is cut has its name at the widest piece, at others where there is room.
        let text = |(i, piece): (usize, &Piece)| {
            let (name, width) = (runs[piece.index].0, x(piece.to) - x(piece.from));
            let rest = format!("({name})");
            match named[piece.index] == i {
                true => fit(&format!("{name}, {}", time_text(sums[piece.index])), BODY, room / 3),
                false if text_width(&rest, BODY) <= width => rest,
                false => String::new(),
            }
        };
        let texts: Vec<String> = here().map(text).collect();
        let ends: Vec<(i32, i32)> = here().map(|(_, piece)| (x(piece.from), x(piece.to))).collect();
        let labels: Vec<(i32, i32)> = ends
            .iter()
            .zip(&texts)
            .map(|((left, right), text)| ((left + right) / 2 - MARGIN, text_width(text, BODY)))
            .collect();
        for (((left, right), text), (at, line)) in ends.iter().zip(&texts).zip(place(&labels, room)) {
            let (left, right) = (left + 1, (right - 2).max(left + 1));
            canvas.line((left, y), (right, y), INK)?;
            for end in [left, right] {
                canvas.line((end, y - 4), (end, y), INK)?;
            }
            // More lines than a row has room for come from odd plans only.
            if line < 3 {
                let width = text_width(text, BODY);
                let centre = (MARGIN + at + width / 2, y + 14 + 17 * line as i32);
                canvas.text(text, centre, Style::of(BODY).centred())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_rows_without_gap_or_overlap() {
        let spans = [3.0, 0.0, 5.0, 1.0, 11.0, 0.25];
        for rows in 1..6 {
            let drawn = pieces(&spans, rows);
            let length = spans.iter().sum::<f64>() / rows as f64;
            for pair in drawn.windows(2) {
                let same = pair[0].row == pair[1].row && pair[0].to == pair[1].from;
                let next = pair[0].row + 1 == pair[1].row && pair[0].to == length && pair[1].from == 0.0;
                assert!(same || next, "{pair:?}");
            }
            for (index, span) in spans.iter().enumerate() {
                let own: f64 = drawn.iter().filter(|p| p.index == index).map(|p| p.to - p.from).sum();
                assert!((own - span).abs() < 1e-9, "{rows} rows: step {index} is {own}, expected {span}");
            }
        }
        assert!(pieces(&[0.0, 0.0], 3).is_empty());
    }

    #[test]
    fn labels_neither_overlap_nor_leave_the_room() {
        let labels = [(0, 100), (40, 100), (60, 100), (500, 200), (990, 100)];
        let placed = place(&labels, 1000);
        for (i, &(left, line)) in placed.iter().enumerate() {
            assert!(left >= 0 && left + labels[i].1 <= 1000);
            for (j, &(other, other_line)) in placed.iter().enumerate().skip(i + 1) {
                assert!(line != other_line || left + labels[i].1 <= other || other + labels[j].1 <= left);
            }
        }
        assert_eq!(placed[1].1, 1);
    }
}
