//! Two sides compared, as text and as a page with a chart of their ratios.

use std::path::Path;

use engine::util::files::write_atomically;
use plotters::style::RGBColor;
use serde_json::json;

use crate::compare::{Comparison, Row, TIE, Verdict};
use crate::report::axis::LogAxis;
use crate::report::canvas::{
    BODY, CENTRE, Canvas, DrawError, Drawn, GREY, GRID, INK, MARGIN, OTHER, RIGHT, SMALL, TITLE, WIDTH, bold,
    fit, picture, rgb, text_style, text_width,
};
use crate::report::dataset::{Chart, Dataset};
use crate::report::facts::{Fact, Figure};
use crate::report::files::ReportError;
use crate::report::html::Page;
use crate::report::sections::Section;
use crate::report::{Table, count, more, paragraphs, percent, short, time_text};

/// A comparison as lines of at most `width` characters.
pub fn text(comparison: &Comparison, width: usize) -> String {
    let mut table =
        Table::new("problem | x | (kernel of A) | us | (kernel of B) | us | B / A, interval | verdict");
    for row in comparison.rows() {
        let [a_us, b_us] = [&row.a, &row.b].map(|side| short(side.us));
        let (a, b) = (&row.a.kernel, &row.b.kernel);
        table.row(&[&row.name, &row.count, a, &a_us, b, &b_us, &ratio(row), &row.verdict]);
    }
    let sides = paragraphs([format!("A: {}", comparison.a), format!("B: {}", comparison.b)], width, 3);
    format!("{sides}\n{}\n{}", table.fold(width), paragraphs(findings(comparison), width, 2))
}

/// A ratio with its interval.
fn ratio(row: &Row) -> String {
    row.ratio.map_or("-".to_string(), |[value, low, high]| format!("{value:.3} ({low:.3} .. {high:.3})"))
}

/// What has been found, in sentences.
fn findings(comparison: &Comparison) -> Vec<String> {
    let mut texts: Vec<String> = comparison.network.iter().map(network).collect();
    let verdicts = [Verdict::Slower, Verdict::Faster, Verdict::Same, Verdict::CannotTell];
    let counts: Vec<String> =
        verdicts.iter().map(|verdict| format!("{} {verdict}", comparison.count(*verdict))).collect();
    texts.push(match comparison.problems.len() {
        0 => "There are no times of steps: one of the programs does not print them.".to_string(),
        n => format!("{} in both: {}.", count(n, "problem"), counts.join(", ")),
    });
    for (alone, side) in [(&comparison.only_a, "A"), (&comparison.only_b, "B")] {
        if !alone.is_empty() {
            texts.push(format!("In {side} alone: {}: {}.", count(alone.len(), "problem"), alone.join(" ")));
        }
    }
    let rounds = comparison.rounds.map_or(String::new(), |rounds| format!(", of {rounds} rounds in turn,"));
    texts.push(format!(
        "The intervals{rounds} hold all ratios together in 95 of 100 cases. Ratios within {} are the same.",
        percent(TIE, 1.0)
    ));
    if let Some(pace) = comparison.pace {
        texts.push(format!(
            "Of {} in both, the median took {} in B, with a spread of {}. The intervals have room for both, since \
             the machine may have changed. --live tells smaller differences.",
            count(pace.candidates, "candidate"),
            more(pace.ratio),
            percent(pace.spread, 1.0)
        ));
    }
    texts
}

fn network(row: &Row) -> String {
    let [a, b] = [&row.a, &row.b].map(|side| time_text(side.us));
    let ratio = row.ratio.map_or(String::new(), |[value, low, high]| {
        format!(", {} ({} .. {})", more(value), more(low), more(high))
    });
    let verdict = match row.verdict {
        Verdict::CannotTell => "whether B is faster cannot be told".to_string(),
        Verdict::Same => "B takes the same".to_string(),
        verdict => format!("B is {verdict}"),
    };
    format!("The whole network: {verdict}: {a} and {b}{ratio}.")
}

/// Writes comparisons as one page.
///
/// # Errors
/// If it cannot be written.
pub fn write(comparisons: &[Comparison], path: &Path) -> Result<(), ReportError> {
    let sections: Result<Vec<Section>, DrawError> = comparisons.iter().enumerate().map(section).collect();
    let figure = |verdict: Verdict, text: &str| Figure {
        number: comparisons.iter().map(|c| c.count(verdict)).sum::<usize>().to_string(),
        text: format!("of the problems: {text}"),
    };
    let networks = comparisons.iter().filter_map(|comparison| comparison.network.as_ref());
    let networks = networks.map(|row| Figure {
        number: row.ratio.map_or("-".to_string(), |[value, ..]| more(value)),
        text: format!("the time of the whole network, B against A: {}", row.verdict),
    });
    let counts = [
        figure(Verdict::Slower, "B is slower"),
        figure(Verdict::Faster, "B is faster"),
        figure(Verdict::Same, "the same"),
        figure(Verdict::CannotTell, "cannot be told"),
    ];
    let setting = match comparisons {
        [Comparison { rounds: Some(rounds), .. }] => format!("{rounds} rounds in turn"),
        all => format!("{} of recordings", count(all.len(), "comparison")),
    };
    let page = Page {
        title: "Comparison of A and B".to_string(),
        setting,
        figures: networks.take(2).chain(counts).collect(),
        facts: Vec::<Fact>::new(),
        sections: &sections?,
        has_files: false,
    };
    write_atomically(path, page.html()?.as_bytes())?;
    Ok(())
}

fn section((number, comparison): (usize, &Comparison)) -> Result<Section, DrawError> {
    let chart = Chart {
        name: format!("ratios-{}", number + 1),
        title: "The time of B over that of A".to_string(),
        svg: draw(comparison)?,
        data: data(comparison),
    };
    let sides = [format!("A: {}.", comparison.a), format!("B: {}.", comparison.b)];
    Ok(Section {
        id: "ratios",
        title: "Ratios".to_string(),
        paragraphs: sides.into_iter().chain(findings(comparison)).collect(),
        index: None,
        charts: vec![chart],
        is_folded: false,
    })
}

fn data(comparison: &Comparison) -> Dataset {
    let mut data = Dataset::new(&[
        ["problem", "problem"],
        ["steps", "steps"],
        ["a_kernel", "kernel of A"],
        ["a_us", "A, µs"],
        ["b_kernel", "kernel of B"],
        ["b_us", "B, µs"],
        ["ratio", "B / A"],
        ["ratio_low", "from"],
        ["ratio_high", "to"],
        ["verdict", "verdict"],
    ]);
    for Row { name, count, a, b, ratio, verdict } in comparison.rows() {
        let [value, low, high] = [0, 1, 2].map(|i| json!(ratio.map(|ratio| ratio[i])));
        data.row([
            json!(name),
            json!(count),
            json!(a.kernel),
            json!(a.us),
            json!(b.kernel),
            json!(b.us),
            value,
            low,
            high,
            json!(verdict.to_string()),
        ]);
    }
    data
}

/// Height of a row.
const PITCH: i32 = 22;

/// Where names end, and texts begin.
const LEFT: i32 = 420;
const TEXT: i32 = WIDTH - 250;

/// Okabe and Ito's vermilion, green and grey.
fn colour(verdict: Verdict) -> RGBColor {
    match verdict {
        Verdict::Slower => rgb(0xd55e00),
        Verdict::Faster => rgb(0x009e73),
        Verdict::Same => rgb(0x0072b2),
        Verdict::CannotTell => OTHER,
    }
}

/// The ratios with their intervals around a line at 1.
fn draw(comparison: &Comparison) -> Result<String, DrawError> {
    let rows: Vec<&Row> = comparison.rows().collect();
    let top = MARGIN + TITLE + 40;
    let bottom = top + PITCH * rows.len().max(1) as i32;
    picture(bottom + 56, |canvas| {
        canvas.title("The time of B over that of A, with intervals")?;
        legend(canvas, MARGIN + TITLE + 14)?;
        let ends = rows.iter().filter_map(|row| row.ratio).flatten();
        // Wide intervals of rows that cannot be told would hide the others.
        let ends = ends.map(|ratio| ratio.clamp(0.5, 2.0)).chain([0.97, 1.03]);
        let axis = LogAxis::around(ends, TEXT - LEFT - 20);
        let x = |ratio: f64| LEFT + axis.at(ratio);
        canvas.rectangle((x(1.0 / (1.0 + TIE)), top), (x(1.0 + TIE), bottom), rgb(0xf0f0f0))?;
        for mark in axis.linear_marks() {
            canvas.line((x(mark), top), (x(mark), bottom + 4), GRID)?;
            canvas.text(
                &format!("{mark:.2}"),
                (x(mark), bottom + 14),
                text_style(SMALL, GREY).pos(CENTRE),
            )?;
        }
        canvas.line((x(1.0), top), (x(1.0), bottom), GREY)?;
        let name = "time of B / time of A; the band is a tie; below 1 B is faster";
        canvas.text(name, (LEFT, bottom + 34), text_style(BODY, GREY))?;
        for (index, row) in rows.iter().enumerate() {
            draw_row(canvas, row, top + PITCH * index as i32 + PITCH / 2, x)?;
        }
        Ok(())
    })
}

fn legend(canvas: &Canvas, y: i32) -> Drawn {
    let mut x = MARGIN;
    for verdict in [Verdict::Slower, Verdict::Faster, Verdict::Same, Verdict::CannotTell] {
        let text = if verdict == Verdict::CannotTell {
            "cannot tell".to_string()
        } else {
            format!("B is {verdict}")
        };
        let text = if verdict == Verdict::Same { "the same".to_string() } else { text };
        canvas.disc((x + 6, y), 5, colour(verdict))?;
        canvas.text(&text, (x + 18, y), text_style(BODY, INK))?;
        x += 18 + text_width(&text, BODY) + 24;
    }
    Ok(())
}

fn draw_row(canvas: &Canvas, row: &Row, y: i32, x: impl Fn(f64) -> i32) -> Drawn {
    let style = text_style(BODY, INK).pos(RIGHT);
    let style = if row.a.kernel.is_empty() { bold(style) } else { style };
    canvas.text(&fit(&row.name, BODY, LEFT - MARGIN - 10), (LEFT - 10, y), style)?;
    let colour = colour(row.verdict);
    if let Some([value, low, high]) = row.ratio {
        canvas.rectangle((x(low), y - 1), (x(high), y + 1), colour)?;
        canvas.disc((x(value), y), 5, colour)?;
    }
    canvas.text(&format!("{} {}", ratio(row), row.verdict), (TEXT, y), text_style(SMALL, GREY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Timed;
    use crate::report::tests::assert_has;
    use engine::util::Interval;

    fn row(name: &str, ratio: Option<[f64; 3]>) -> Row {
        let timed = |us| Timed { kernel: "direct_plain".to_string(), us };
        let interval = ratio.map(|[value, low, high]| Interval { value, low, high });
        Row::new(name.to_string(), 2, [timed(100.0), timed(110.0)], interval)
    }

    fn comparison() -> Comparison {
        Comparison {
            a: "a.json".to_string(),
            b: "<b>.json".to_string(),
            rounds: Some(20),
            pace: None,
            network: Some(row("network", Some([1.002, 0.998, 1.006]))),
            problems: vec![
                row("p0", Some([1.1, 1.08, 1.12])),
                row("p1", Some([0.99, 0.2, 9.0])),
                row("p2", None),
            ],
            only_a: vec!["p3".to_string()],
            only_b: Vec::new(),
        }
    }

    #[test]
    fn a_comparison_says_what_is_slower_and_what_cannot_be_told() {
        let text = text(&comparison(), 100);
        assert_has(
            &text,
            &[
                "1.100 (1.080 .. 1.120)  slower",
                "0.990 (0.200 .. 9.000)  cannot tell",
                "The whole network: B takes the same: 100 µs and 110 µs",
                "3 problems in both: 1 slower, 0 faster, 0 same, 2 cannot tell.",
                "In A alone: 1 problem: p3.",
            ],
        );
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn the_page_has_every_row_and_escapes_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("page.html");
        write(&[comparison()], &path).expect("written");
        let page = std::fs::read_to_string(&path).expect("a page");
        assert_has(&page, &["<svg", "p0", "p1", "p2", "1.080", "&lt;b&gt;.json"]);
        assert!(!page.contains("<b>.json") && !page.contains(".csv"), "no links to files");
    }
}
