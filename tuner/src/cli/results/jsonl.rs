//! Lines of JSON: `{"image": .., "top": [{"class": .., "label": .., "probability": ..}]}`, or the
//! values by their name, or `"error"`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};

use crate::cli::Failure;
use crate::cli::classes::highest;
use crate::cli::results::rows::{
    Columns, Content, Format, Names, Resumed, Row, Rows, cut, other_image, other_values, too_many,
};

pub(super) const FORMAT: Format = Format { ending: "jsonl", create, resume };

/// The field of classes.
const TOP: &str = "top";

struct Lines {
    out: BufWriter<File>,
    content: Content,
}

fn rows(file: File, columns: &Columns) -> Box<dyn Rows> {
    Box::new(Lines { out: BufWriter::new(file), content: columns.content.clone() })
}

fn create(file: File, columns: &Columns) -> io::Result<Box<dyn Rows>> {
    Ok(rows(file, columns))
}

fn resume(file: File, _: &Path, columns: &Columns, name: &Names) -> Result<Resumed, Failure> {
    let key = match columns.content {
        Content::All(name) => name,
        Content::Classes { .. } => TOP,
    };
    let mut reader = BufReader::new(&file);
    let (mut done, mut end, mut line) = (0, 0, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        if done == columns.rows {
            return Err(too_many(columns.rows));
        }
        let no_row = || format!("line {}: found no object with \"image\", expected one a line", done + 1);
        let row: Map<String, Value> = serde_json::from_slice(&line).map_err(|_| no_row())?;
        let image = row.get("image").and_then(Value::as_str).ok_or_else(no_row)?;
        let expected = name(done);
        if image != expected {
            return Err(other_image(done, image, &expected));
        }
        let values = row.get(key).and_then(Value::as_array).map(Vec::len);
        if !row.contains_key("error") && values != Some(columns.shown()) {
            return Err(other_values(done, key, columns));
        }
        (done, end) = (done + 1, end + line.len() as u64);
        line.clear();
    }
    cut(&file, end)?;
    Ok((rows(file, columns), done))
}

/// A row as an object.
struct Object<'a> {
    row: &'a Row<'a>,
    content: &'a Content,
}

/// A class as an object.
struct Class<'a> {
    class: usize,
    label: Option<&'a str>,
    unit: &'static str,
    value: f32,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("image", self.row.image)?;
        match (self.row.values, self.content) {
            (Err(error), _) => map.serialize_entry("error", error)?,
            (Ok(values), Content::All(name)) => map.serialize_entry(name, values)?,
            (Ok(values), Content::Classes { labels, top, unit }) => {
                let of = |(class, value)| {
                    let label = labels.get(class).map(String::as_str);
                    Class { class, label, unit, value }
                };
                map.serialize_entry(TOP, &highest(values, *top).map(of).collect::<Vec<_>>())?;
            }
        }
        map.end()
    }
}

impl Serialize for Class<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("class", &self.class)?;
        if let Some(label) = self.label {
            map.serialize_entry("label", label)?;
        }
        map.serialize_entry(self.unit, &self.value)?;
        map.end()
    }
}

impl Rows for Lines {
    fn write(&mut self, row: &Row) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, &Object { row, content: &self.content })?;
        self.out.write_all(b"\n")
    }

    fn finish(self: Box<Self>) -> io::Result<File> {
        Ok(self.out.into_inner()?)
    }
}
