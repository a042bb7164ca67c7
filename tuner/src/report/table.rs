//! Text tables that fit a width.
//!
//! A table that is wider than it may be is folded by three rules, one after the other:
//!
//! 1. Columns that are details are left out, the last one first, while cells of text count as `TEXT` wide at most.
//! 2. The widest columns of text are cut to one width, at least `LEAST`. A cell loses its middle: `…` stands for it.
//! 3. Numbers, ranges of numbers among them, are never cut.

use std::fmt::Write;

/// A column of text keeps so many characters before details are left out.
const TEXT: usize = 24;

/// The fewest characters to which a cell is cut.
const LEAST: usize = 8;

/// Characters between two columns.
const GAP: usize = 2;

/// Rows of cells; columns of numbers are set to the right.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    details: Vec<usize>,
}

impl Table {
    /// With a head.
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| cell.to_string()).collect()], details: Vec::new() }
    }

    /// Names columns that are details.
    #[must_use]
    pub fn details(mut self, names: &[&str]) -> Self {
        let is_named = |column: &usize| names.contains(&self.rows[0][*column].as_str());
        self.details = (0..self.rows[0].len()).filter(is_named).collect();
        self
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as lines of at most `width` characters.
    pub fn fold(&self, width: usize) -> String {
        let columns = self.columns(width);
        let numeric: Vec<bool> = columns.iter().map(|&c| self.is_numeric(c)).collect();
        let texts: Vec<bool> = columns.iter().map(|&c| self.is_text(c)).collect();
        let widths = cut_widths(columns.iter().map(|&c| self.width(c)).collect(), &texts, width);
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for ((&c, &width), &is_numeric) in columns.iter().zip(&widths).zip(&numeric) {
                let cell = cut(&row[c], width);
                let pad = " ".repeat(width - length(&cell));
                let (before, after) = if is_numeric { (pad.as_str(), "") } else { ("", pad.as_str()) };
                let _ = write!(line, "{before}{cell}{after}{}", " ".repeat(GAP));
            }
            let _ = writeln!(text, "{}", line.trim_end());
            if index == 0 {
                let _ = writeln!(text, "{}", "-".repeat(total(&widths)));
            }
        }
        text
    }

    /// Columns that are shown at a width.
    fn columns(&self, width: usize) -> Vec<usize> {
        let mut columns: Vec<usize> = (0..self.rows[0].len()).collect();
        let least = |&c: &usize| if self.is_text(c) { self.width(c).min(TEXT) } else { self.width(c) };
        for detail in self.details.iter().rev() {
            if total(&columns.iter().map(least).collect::<Vec<_>>()) <= width {
                break;
            }
            columns.retain(|column| column != detail);
        }
        columns
    }

    fn width(&self, column: usize) -> usize {
        self.rows.iter().map(|row| length(&row[column])).max().unwrap_or(0)
    }

    /// Whether cells are neither numbers nor ranges of numbers.
    fn is_text(&self, column: usize) -> bool {
        let starts = |cell: &String| cell.trim_start().starts_with(|c: char| c.is_alphabetic() || c == '~');
        self.rows[1..].iter().any(|row| starts(&row[column]))
    }

    fn is_numeric(&self, column: usize) -> bool {
        let is_number = |cell: &String| {
            let digits = cell.trim_end_matches(['x', '%']);
            digits.parse::<f64>().is_ok() || digits.is_empty() || digits == "-"
        };
        self.rows.len() > 1 && self.rows[1..].iter().all(|row| is_number(&row[column]))
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
}

/// Widths of columns of which the widest columns of text are cut until all fit.
fn cut_widths(mut widths: Vec<usize>, texts: &[bool], width: usize) -> Vec<usize> {
    while total(&widths) > width {
        let is_long = |c: &usize| texts[*c] && widths[*c] > LEAST;
        match (0..widths.len()).filter(is_long).max_by_key(|&c| widths[c]) {
            Some(widest) => widths[widest] -= 1,
            None => break,
        }
    }
    widths
}

/// A text without its middle, where it is longer than `width`.
pub fn cut(text: &str, width: usize) -> String {
    let count = length(text);
    if count <= width {
        return text.to_string();
    }
    let kept = width.saturating_sub(1);
    let tail = kept / 2;
    let head: String = text.chars().take(kept - tail).collect();
    let tail: String = text.chars().skip(count - tail).collect();
    format!("{head}…{tail}")
}

/// Layers as one name: those of a block share it, as in `mixed0.{branch1x1,branch5x5_1}`.
pub fn layers_text(layers: &[String]) -> String {
    let mut blocks: Vec<(&str, Vec<&str>)> = Vec::new();
    for layer in layers {
        let (block, name) = layer.split_once('.').unwrap_or(("", layer));
        match blocks.last_mut() {
            Some((last, names)) if *last == block => names.push(name),
            _ => blocks.push((block, vec![name])),
        }
    }
    let text = |(block, names): &(&str, Vec<&str>)| match (*block, &names[..]) {
        ("", names) => names.join(" "),
        (block, [name]) => format!("{block}.{name}"),
        (block, names) => format!("{block}.{{{}}}", names.join(",")),
    };
    blocks.iter().map(text).collect::<Vec<_>>().join(" ")
}

/// Words in lines of at most `width` characters, unless one is longer; lines after the first are indented by
/// `indent`.
pub fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut words = text.trim_start().split(' ');
    let lead = " ".repeat(text.len() - text.trim_start().len());
    let mut lines = vec![lead + words.next().unwrap_or_default()];
    for word in words {
        let last = lines.last_mut().expect("a line");
        if length(last) + 1 + length(word) > width {
            lines.push(" ".repeat(indent) + word);
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["layer", "us", "tuning", "error"]).details(&["error"]);
        let layer = "mixed0.{branch1x1,branch5x5_1,branch3x3dbl_1}";
        table.row([layer, "12.5", "m=4,pixels=14", "1e-7"].map(str::to_string));
        table
    }

    #[test]
    fn a_table_that_fits_is_whole() {
        let text = sample().fold(usize::MAX);
        assert!(text.contains("branch3x3dbl_1}  12.5  m=4,pixels=14   1e-7\n"), "{text}");
    }

    #[test]
    fn a_narrow_table_leaves_out_details_then_cuts_texts_but_never_numbers() {
        for width in 30..80 {
            let text = sample().fold(width);
            assert!(text.lines().all(|line| length(line) <= width), "{width}:\n{text}");
            assert!(text.contains("12.5"), "{text}");
        }
        let text = sample().fold(40);
        assert!(text.contains('…') && !text.contains("error"), "{text}");
        assert!(sample().fold(1).contains("12.5"), "numbers stay");
    }

    #[test]
    fn a_range_of_numbers_is_not_cut() {
        let mut table = Table::new(&["kernel", "ratio, 95%"]);
        table.row(["winograd_avx512", "0.42 (0.40 .. 0.48)"].map(str::to_string));
        assert!(table.fold(30).contains("0.42 (0.40 .. 0.48)"), "{}", table.fold(30));
    }

    #[test]
    fn a_cut_keeps_both_ends() {
        assert_eq!(cut("abcdefghij", 10), "abcdefghij");
        assert_eq!(cut("abcdefghij", 5), "ab…ij");
        assert_eq!(cut("abcdefghij", 4), "ab…j");
    }

    #[test]
    fn layers_of_a_block_share_its_name() {
        let of = |layers: &[&str]| layers_text(&layers.iter().map(|l| l.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&["mixed0.branch1x1"]), "mixed0.branch1x1");
        assert_eq!(of(&["mixed0.a", "mixed0.b", "mixed1.a"]), "mixed0.{a,b} mixed1.a");
        assert_eq!(of(&["input"]), "input");
    }

    #[test]
    fn words_wrap() {
        assert_eq!(wrap("one two three", 8, 2), "one two\n  three");
        assert_eq!(wrap("  one two", 6, 4), "  one\n    two");
    }
}
