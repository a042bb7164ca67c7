//! Parquet: `image`, then lists `class`, `label` and `probability` of the highest classes, or one list
//! of all values; null behind an image that failed, and `error` says why.

use std::fs::File;
use std::io;
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::parser::parse_message_type;

use crate::cli::Failure;
use crate::cli::classes::highest;
use crate::cli::results::rows::{Columns, Content, Format, Names, Resumed, Row, Rows};

pub(super) const FORMAT: Format = Format { ending: "parquet", create, resume };

/// Values of a group of rows, which are in memory until it is written.
const GROUP_VALUES: usize = 1 << 20;

struct Parquet {
    out: SerializedFileWriter<File>,
    columns: Columns,
    /// Rows of a group.
    group: usize,
    images: Column<ByteArray>,
    errors: Column<ByteArray>,
    classes: Column<i32>,
    labels: Column<ByteArray>,
    values: Column<f32>,
}

/// A column of a group of rows: values, how much of the path to each is there, and whether it goes on
/// with the list of the row.
struct Column<T> {
    values: Vec<T>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self { values: Vec::new(), definition: Vec::new(), repetition: Vec::new() }
    }
}

impl<T> Column<T> {
    /// A row of a column with or without a value.
    fn optional(&mut self, value: Option<T>) {
        self.definition.push(i16::from(value.is_some()));
        self.values.extend(value);
    }

    /// A row of a column of lists, which may have none.
    fn list(&mut self, list: Option<impl IntoIterator<Item = T>>) {
        let before = self.values.len();
        let is_list = list.is_some();
        self.values.extend(list.into_iter().flatten());
        let added = self.values.len() - before;
        self.definition.extend(std::iter::repeat_n(2, added));
        self.repetition.extend((0..added).map(|place| i16::from(place > 0)));
        if added == 0 {
            self.definition.push(i16::from(is_list));
            self.repetition.push(0);
        }
    }

    fn write<D: DataType<T = T>>(
        &mut self,
        group: &mut SerializedRowGroupWriter<File>,
    ) -> Result<(), ParquetError> {
        let Some(mut column) = group.next_column()? else { return Ok(()) };
        let Self { values, definition, repetition } = std::mem::take(self);
        let levels = |levels: Vec<i16>| Some(levels).filter(|levels| !levels.is_empty());
        let (definition, repetition) = (levels(definition), levels(repetition));
        column.typed::<D>().write_batch(&values, definition.as_deref(), repetition.as_deref())?;
        column.close()
    }
}

fn schema(content: &Content) -> String {
    let list = |name: &str, element: &str| {
        format!("optional group {name} (LIST) {{ repeated group list {{ required {element}; }} }} ")
    };
    let lists = match content {
        Content::All(name) => list(name, "float element"),
        Content::Classes { labels, unit, .. } => {
            let of_labels =
                if labels.is_empty() { String::new() } else { list("label", "binary element (STRING)") };
            list("class", "int32 element") + &of_labels + &list(unit, "float element")
        }
    };
    format!("message results {{ required binary image (STRING); optional binary error (STRING); {lists} }}")
}

fn create(file: File, columns: &Columns) -> io::Result<Box<dyn Rows>> {
    let schema = Arc::new(parse_message_type(&schema(&columns.content))?);
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_compression(Compression::UNCOMPRESSED)
        .build();
    let of_row = match columns.content {
        Content::All(_) => columns.size(),
        Content::Classes { top, .. } => top.min(columns.size()),
    };
    Ok(Box::new(Parquet {
        out: SerializedFileWriter::new(file, schema, Arc::new(properties))?,
        columns: columns.clone(),
        group: (GROUP_VALUES / of_row.max(1)).max(1),
        images: Column::default(),
        errors: Column::default(),
        classes: Column::default(),
        labels: Column::default(),
        values: Column::default(),
    }))
}

fn resume(_: File, _: &Columns, _: &Names) -> Result<Resumed, Failure> {
    let why = "of which a part cannot be gone on with";
    Err(format!("found Parquet, {why}, expected .npy, .csv or .jsonl for --resume").into())
}

impl Parquet {
    fn write_group(&mut self) -> Result<(), ParquetError> {
        if self.images.values.is_empty() {
            return Ok(());
        }
        let mut group = self.out.next_row_group()?;
        self.images.write::<ByteArrayType>(&mut group)?;
        self.errors.write::<ByteArrayType>(&mut group)?;
        if let Content::Classes { labels, .. } = &self.columns.content {
            self.classes.write::<Int32Type>(&mut group)?;
            if !labels.is_empty() {
                self.labels.write::<ByteArrayType>(&mut group)?;
            }
        }
        self.values.write::<FloatType>(&mut group)?;
        group.close().map(drop)
    }
}

impl Rows for Parquet {
    fn write(&mut self, row: &Row) -> io::Result<()> {
        let text = |text: &str| ByteArray::from(text);
        self.images.values.push(text(row.image));
        self.errors.optional(row.values.err().map(text));
        match &self.columns.content {
            Content::All(_) => self.values.list(row.values.ok().map(|values| values.iter().copied())),
            Content::Classes { labels, top, .. } => {
                let top = row.values.ok().map(|values| highest(values, *top).collect::<Vec<_>>());
                let classes = || top.iter().flatten().map(|(class, _)| *class);
                let is_there = |_: &()| top.is_some();
                let there = || Some(()).filter(is_there);
                self.classes.list(there().map(|()| classes().map(|class| class as i32)));
                let label = |class: usize| text(labels.get(class).map_or("", String::as_str));
                self.labels.list(there().map(|()| classes().map(label)));
                self.values.list(there().map(|()| top.iter().flatten().map(|(_, value)| *value)));
            }
        }
        if self.images.values.len() == self.group {
            self.write_group()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<File> {
        self.write_group()?;
        Ok(self.out.into_inner()?)
    }
}
