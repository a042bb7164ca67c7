//! Text tables that fit a width.
//!
//! A table that is wider than it may be is folded by three rules, one after the other:
//!
//! 1. Details are left out, the last one first, while texts count as `TEXT` wide at most.
//! 2. The widest texts are cut to one width, at least `LEAST`: `…` stands for their middle.
//! 3. Numbers, ranges of numbers among them, are never cut.

use std::fmt::{Display, Write};

/// A column of text keeps so many characters before details are left out.
const TEXT: usize = 24;

/// The fewest characters to which a cell is cut.
const LEAST: usize = 8;

/// What is between two columns.
const GAP: &str = "  ";

/// Rows of cells; columns of numbers are set to the right.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    details: Vec<usize>,
}

impl Table {
    /// With the names of its columns, ` | ` between two; those in parentheses are details.
    pub fn new(head: &str) -> Self {
        let (mut names, mut details) = (Vec::new(), Vec::new());
        for (column, name) in head.split(" | ").enumerate() {
            let detail = name.strip_prefix('(').and_then(|name| name.strip_suffix(')'));
            details.extend(detail.map(|_| column));
            names.push(detail.unwrap_or(name).to_string());
        }
        Self { rows: vec![names], details }
    }

    pub fn row(&mut self, cells: &[&dyn Display]) {
        self.rows.push(cells.iter().map(ToString::to_string).collect());
    }

    /// The table as lines of at most `width` characters.
    pub fn fold(&self, width: usize) -> String {
        let columns = self.columns(width);
        let numeric: Vec<bool> = columns.iter().map(|&c| self.is_numeric(c)).collect();
        let widths = self.cut_widths(&columns, width);
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let cells = columns.iter().zip(&widths).zip(&numeric).map(|((&c, &width), is_numeric)| {
                let cell = cut(&row[c], width);
                if *is_numeric { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join(GAP).trim_end());
            if index == 0 {
                let _ = writeln!(text, "{}", "-".repeat(total(&widths)));
            }
        }
        text
    }

    /// As [`Self::fold`]; nothing where there is no row.
    pub fn fold_rows(&self, width: usize) -> String {
        if self.rows.len() > 1 { self.fold(width) } else { String::new() }
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

    /// Widths of columns, of which the widest ones of text are cut until all fit.
    fn cut_widths(&self, columns: &[usize], width: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = columns.iter().map(|&c| self.width(c)).collect();
        let texts: Vec<bool> = columns.iter().map(|&c| self.is_text(c)).collect();
        while total(&widths) > width {
            let is_long = |c: &usize| texts[*c] && widths[*c] > LEAST;
            match (0..widths.len()).filter(is_long).max_by_key(|&c| widths[c]) {
                Some(widest) => widths[widest] -= 1,
                None => break,
            }
        }
        widths
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
    widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
}

/// A text without its middle, where it is longer than `width`.
fn cut(text: &str, width: usize) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new("layer | us | tuning | (error)");
        let layer = "mixed0.{branch1x1,branch5x5_1,branch3x3dbl_1}";
        table.row(&[&layer, &"12.5", &"m=4,pixels=14", &"1e-7"]);
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
        let mut table = Table::new("kernel | ratio, 95%");
        table.row(&[&"winograd_avx512", &"0.42 (0.40 .. 0.48)"]);
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
}
