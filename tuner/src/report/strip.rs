//! The network as a strip of steps: time from left to right, in as many rows as are legible.

use engine::Plan;
use plotters::style::FontTransform;

use crate::report::canvas::{
    BODY, CENTRE, Canvas, DrawError, Drawn, GREY, GRID, INK, MARGIN, ROOM, SMALL, WIDTH, colour, fit, ink_on,
    picture, text_style, text_width, ticks,
};
use crate::report::charts::{setting, times};
use crate::report::data::{StepView, by_family, percent, total};
use crate::report::text::{count, time_text};

/// Height of the rectangles: an upright name of a layer fits.
const STRIP: i32 = 116;

/// Height of a row with its axis above and its blocks below.
const ROW: i32 = STRIP + 92;

/// Where the first row begins, and where its strip does in a row.
const TOP: i32 = 76;
const STRIP_AT: i32 = 20;

const NOTE: &str = "Each rectangle is a step, as wide as its median time; colours are families of kernels.";

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

/// Lays spans end to end in rows of equal length; what crosses a row's end goes on in the next.
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

/// Places labels, given by centre and width, so that none covers another or leaves `0..room`:
/// a left end and a line for each.
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

/// A family of the legend: its text, its left end and its line.
struct Entry<'a> {
    family: &'a str,
    text: String,
    x: i32,
    line: i32,
}

/// The families that take time.
fn legend<'a>(steps: &[StepView<'a>]) -> Vec<Entry<'a>> {
    let (mut legend, mut x, mut line) = (Vec::new(), 0, 0);
    for share in by_family(steps).into_iter().filter(|share| share.time_us > 0.0) {
        let percent = percent(share.time_us, total(steps));
        let text = format!("{}: {} ({percent})", share.name, time_text(share.time_us));
        let text = fit(&text, BODY, ROOM / 2);
        let width = 20 + text_width(&text, BODY) + 16;
        if x + width > ROOM && x > 0 {
            (x, line) = (0, line + 1);
        }
        legend.push(Entry { family: share.name, text, x, line });
        x += width;
    }
    legend
}

pub fn network(plan: &Plan, steps: &[StepView]) -> Result<String, DrawError> {
    let measured = steps.iter().filter(|s| s.time.is_some()).count();
    let rows = if measured == 0 { 0 } else { measured.div_ceil(STEPS_A_ROW).min(4) };
    let legend = legend(steps);
    let last = legend.last().map_or(0, |entry| entry.line);
    let bottom = if rows == 0 { TOP + 60 } else { TOP + ROW * rows as i32 };
    picture(bottom + 22 * (last + 2) + MARGIN, |canvas| {
        canvas.title(&format!("{}: {}, {}", plan.model, count(steps.len(), "step"), times(plan)))?;
        let style = text_style(BODY, GREY);
        canvas.text(&fit(&setting(plan), BODY, ROOM), (MARGIN, MARGIN + 24), style)?;
        if rows == 0 {
            canvas.text("no step has a measured time", (MARGIN, TOP + 30), text_style(BODY, INK))?;
        } else {
            draw_rows(canvas, steps, rows)?;
        }
        for Entry { family, text, x, line } in &legend {
            let (x, y) = (MARGIN + x, bottom + 22 * line);
            canvas.rectangle((x, y - 7), (x + 14, y + 7), colour(family))?;
            canvas.text(text, (x + 20, y), text_style(BODY, INK))?;
        }
        let mut note = NOTE.to_string();
        if measured < steps.len() {
            note += &format!(" {} without a measured time not drawn.", count(steps.len() - measured, "step"));
        }
        canvas.text(&note, (MARGIN, bottom + 22 * (last + 1)), text_style(SMALL, GREY))
    })
}

fn strip_top(row: usize) -> i32 {
    TOP + ROW * row as i32 + STRIP_AT
}

fn draw_rows(canvas: &Canvas, steps: &[StepView], rows: usize) -> Drawn {
    let spans: Vec<f64> = steps.iter().map(StepView::us).collect();
    let length = spans.iter().sum::<f64>() / rows as f64;
    let x = |us: f64| MARGIN + (us / length * f64::from(ROOM)).round().min(f64::from(ROOM)) as i32;
    for row in 0..rows {
        let (y, start) = (strip_top(row), length * row as f64);
        for (ms, text) in ticks(start / 1e3, (start + length) / 1e3, 12) {
            let x = x(ms * 1e3 - start);
            canvas.line((x, y - 6), (x, y), GREY)?;
            let text = format!("{text} ms");
            // Centred on the edge, it would leave the picture.
            let half = text_width(&text, SMALL) / 2 + 4;
            let x = x.clamp(half, WIDTH - half);
            canvas.text(&text, (x, y - 14), text_style(SMALL, GREY).pos(CENTRE))?;
        }
        canvas.rectangle((MARGIN, y), (MARGIN + ROOM, y + STRIP), GRID)?;
    }

    let drawn = pieces(&spans, rows);
    let named = widest(&drawn, steps.len());
    for (i, piece) in drawn.iter().enumerate() {
        let step = &steps[piece.index];
        let (left, right, y) = (x(piece.from), x(piece.to), strip_top(piece.row));
        let fill = colour(step.family);
        // A gap between neighbours, as long as there is something left of the step.
        let right = if right - left > 2 { right - 1 } else { right };
        canvas.rectangle((left, y), (right, y + STRIP), fill)?;
        if named[piece.index] != i {
            continue;
        }
        let (width, centre, middle) = (right - left, (left + right) / 2, y + STRIP / 2);
        let style = text_style(SMALL, ink_on(fill)).pos(CENTRE);
        let name = fit(&step.layer, SMALL, STRIP - 4);
        if text_width(&name, SMALL) + 8 <= width {
            canvas.text(&name, (centre, middle - 8), style.clone())?;
            canvas.text(&fit(&time_text(step.us()), SMALL, width), (centre, middle + 8), style)?;
        } else if width >= SMALL + 2 {
            canvas.text(&name, (centre, middle), style.transform(FontTransform::Rotate270))?;
        }
    }
    draw_blocks(canvas, steps, rows, x)
}

/// Brackets below the rows with the blocks' names and times.
fn draw_blocks(canvas: &Canvas, steps: &[StepView], rows: usize, x: impl Fn(f64) -> i32) -> Drawn {
    let runs = steps.chunk_by(|a, b| a.block == b.block);
    let (names, sums): (Vec<&str>, Vec<f64>) = runs.map(|run| (run[0].block, total(run))).unzip();
    let drawn = pieces(&sums, rows);
    let named = widest(&drawn, sums.len());
    for row in 0..rows {
        let y = strip_top(row) + STRIP + 8;
        // A block that is cut has its name at the widest piece, at others where there is room.
        let bracket = |(i, piece): (usize, &Piece)| {
            let (name, left, right) = (names[piece.index], x(piece.from), x(piece.to));
            let rest = format!("({name})");
            let text = match named[piece.index] == i {
                true => fit(&format!("{name}, {}", time_text(sums[piece.index])), BODY, ROOM / 3),
                false if text_width(&rest, BODY) <= right - left => rest,
                false => String::new(),
            };
            (left, right, text)
        };
        let here = drawn.iter().enumerate().filter(|(_, piece)| piece.row == row);
        let brackets: Vec<(i32, i32, String)> = here.map(bracket).collect();
        let label =
            |(left, right, text): &(i32, i32, String)| ((left + right) / 2 - MARGIN, text_width(text, BODY));
        let labels: Vec<(i32, i32)> = brackets.iter().map(label).collect();
        for ((left, right, text), (at, line)) in brackets.iter().zip(place(&labels, ROOM)) {
            let (left, right) = (left + 1, (right - 2).max(left + 1));
            canvas.line((left, y), (right, y), INK)?;
            for end in [left, right] {
                canvas.line((end, y - 4), (end, y), INK)?;
            }
            // More lines than a row has room for come from odd plans only.
            if line < 3 {
                let centre = (MARGIN + at + text_width(text, BODY) / 2, y + 14 + 17 * line as i32);
                canvas.text(text, centre, text_style(BODY, INK).pos(CENTRE))?;
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
                let sum: f64 = drawn.iter().filter(|p| p.index == index).map(|p| p.to - p.from).sum();
                assert!((sum - span).abs() < 1e-9, "{rows} rows: step {index} is {sum}, expected {span}");
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
