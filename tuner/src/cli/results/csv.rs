//! Text with commas: the image, then the highest classes or all values; nothing behind an image that
//! failed.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::cli::Failure;
use crate::cli::classes::highest;
use crate::cli::results::rows::{
    Columns, Content, Format, Names, Resumed, Row, Rows, cut, other_image, too_many,
};

pub(super) const FORMAT: Format = Format { ending: "csv", create, resume };

struct Csv {
    out: ::csv::Writer<File>,
    columns: Columns,
}

fn head(columns: &Columns) -> Vec<String> {
    let fields: Vec<String> = match &columns.content {
        Content::Classes { labels, top, unit } => {
            let of = |place: usize| {
                let label = (!labels.is_empty()).then(|| format!("label_{place}"));
                [Some(format!("class_{place}")), label, Some(format!("{unit}_{place}"))].into_iter().flatten()
            };
            (1..=columns.size().min(*top)).flat_map(of).collect()
        }
        Content::All(name) => (0..columns.size()).map(|index| format!("{name}_{index}")).collect(),
    };
    ["image".to_owned()].into_iter().chain(fields).collect()
}

fn rows(out: ::csv::Writer<File>, columns: &Columns) -> Box<dyn Rows> {
    Box::new(Csv { out, columns: columns.clone() })
}

fn create(file: File, columns: &Columns) -> io::Result<Box<dyn Rows>> {
    let mut out = ::csv::Writer::from_writer(file);
    out.write_record(head(columns))?;
    Ok(rows(out, columns))
}

fn resume(file: File, _: &Path, columns: &Columns, name: &Names) -> Result<Resumed, Failure> {
    let mut reader = ::csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(&file);
    let (head, length) = (head(columns), file.metadata()?.len());
    let ends_line = ends_line(&file, length)?;
    let mut record = ::csv::StringRecord::new();
    let (mut done, mut end) = (None, 0);
    while reader.read_record(&mut record)? {
        let position = reader.position().byte();
        // The last row is whole if it has all fields and ends a line.
        if position == length && !(ends_line && record.len() == head.len()) {
            break;
        }
        done = Some(match done {
            None if record.iter().eq(head.iter().map(String::as_str)) => 0,
            None => return Err(other_columns(&record, &head).into()),
            Some(row) if row == columns.rows => return Err(too_many(columns.rows)),
            Some(row) if record.len() != head.len() => {
                let (found, expected) = (record.len(), head.len());
                return Err(format!("row {}: found {found} fields, expected {expected}", row + 1).into());
            }
            Some(row) if record[0] != name(row) => return Err(other_image(row, &record[0], &name(row))),
            Some(row) => row + 1,
        });
        end = position;
    }
    drop(reader);
    cut(&file, end)?;
    match done {
        Some(done) => Ok((rows(::csv::Writer::from_writer(file), columns), done)),
        None => Ok((create(file, columns)?, 0)),
    }
}

fn other_columns(found: &::csv::StringRecord, expected: &[String]) -> String {
    let first = |names: &mut dyn Iterator<Item = &str>| names.take(4).collect::<Vec<_>>().join(",");
    let (names, wanted) = (first(&mut found.iter()), first(&mut expected.iter().map(String::as_str)));
    format!("found {} columns {names}.., expected {} columns {wanted}..", found.len(), expected.len())
}

/// Whether the last byte of a file ends a line.
fn ends_line(file: &File, length: u64) -> io::Result<bool> {
    let mut last = [0];
    engine::util::read_at(file, &mut last, length.saturating_sub(1))?;
    Ok(last == *b"\n")
}

impl Rows for Csv {
    fn write(&mut self, row: &Row) -> io::Result<()> {
        self.out.write_field(row.image)?;
        match (row.values, &self.columns.content) {
            (Err(_), _) => {
                let fields = 1..head(&self.columns).len();
                fields.into_iter().try_for_each(|_| self.out.write_field(""))?;
            }
            (Ok(values), Content::All(_)) => {
                values.iter().try_for_each(|value| self.out.write_field(number(*value)))?;
            }
            (Ok(values), Content::Classes { labels, top, .. }) => {
                for (class, value) in highest(values, *top) {
                    self.out.write_field(class.to_string())?;
                    if !labels.is_empty() {
                        self.out.write_field(labels.get(class).map_or("", String::as_str))?;
                    }
                    self.out.write_field(number(value))?;
                }
            }
        }
        self.out.write_record(None::<&[u8]>)?;
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<File> {
        self.out.into_inner().map_err(|error| error.into_error())
    }
}

/// The shortest text that is read as this number.
fn number(value: f32) -> String {
    serde_json::to_string(&value).unwrap_or_default()
}
