//! Parquet: `image`, then lists `class`, `label` and `probability` of the highest classes, or one list
//! of all values; null behind an image that failed, and `error` says why.
//!
//! A file of Parquet ends with the places of its columns, and can't be added to. So a run that goes on
//! copies the groups of rows into another file, which takes the place of the first once it has an end.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::column::reader::ColumnReader;
use ::parquet::column::writer::ColumnCloseResult;
use ::parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::parser::parse_message_type;

use crate::cli::Failure;
use crate::cli::classes::highest;
use crate::cli::results::rows::{
    Columns, Content, Format, Names, Resumed, Row, Rows, other_image, other_values, too_many,
};

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
    /// Where it goes on with a file.
    next: Option<NextFile>,
}

/// The file that is written, which takes the place of another once it is whole.
struct NextFile {
    written: PathBuf,
    replaced: PathBuf,
    /// The other, whose lock keeps other runs away.
    _held: File,
}

impl Drop for NextFile {
    fn drop(&mut self) {
        // It is there no more where it has taken its place.
        let _ = std::fs::remove_file(&self.written);
    }
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
    Ok(Box::new(Parquet::new(file, columns)?))
}

fn resume(file: File, path: &Path, columns: &Columns, names: &Names) -> Result<Resumed, Failure> {
    let reader = SerializedFileReader::new(file.try_clone()?).map_err(|_| {
        "found Parquet without its end, which a run that was killed leaves, expected that of one that was stopped"
    })?;
    let expected = parse_message_type(&schema(&columns.content))?;
    if reader.metadata().file_metadata().schema() != &expected {
        let names = expected.get_fields().iter().map(|field| field.name()).collect::<Vec<_>>();
        return Err(format!("found other columns, expected {}", names.join(", ")).into());
    }
    let mut rows = 0;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        for found in images(&*group)? {
            if rows == columns.rows {
                return Err(too_many(columns.rows));
            }
            let (found, expected) = (String::from_utf8_lossy(found.data()).into_owned(), names(rows));
            if found != expected {
                return Err(other_image(rows, &found, &expected));
            }
            rows += 1;
        }
        if first_list(&*group)?.is_some_and(|length| length != columns.shown()) {
            return Err(other_values(rows, "values", columns));
        }
    }
    let mut written = path.as_os_str().to_owned();
    written.push(".next");
    let next = NextFile { written: written.into(), replaced: path.to_owned(), _held: file.try_clone()? };
    let mut parquet = Parquet::new(File::create(&next.written)?, columns)?;
    parquet.next = Some(next);
    for group in 0..reader.num_row_groups() {
        parquet.copy(&file, &*reader.get_row_group(group)?)?;
    }
    Ok((Box::new(parquet), rows))
}

/// The names of a group's images.
fn images(group: &dyn RowGroupReader) -> Result<Vec<ByteArray>, ParquetError> {
    let (mut names, count) = (Vec::new(), group.metadata().num_rows() as usize);
    if let ColumnReader::ByteArrayColumnReader(mut column) = group.get_column_reader(0)? {
        while names.len() < count && column.read_records(count, None, None, &mut names)?.0 > 0 {}
    }
    Ok(names)
}

/// How many values the first row has that has some.
fn first_list(group: &dyn RowGroupReader) -> Result<Option<usize>, ParquetError> {
    let last = group.num_columns().saturating_sub(1);
    let ColumnReader::FloatColumnReader(mut column) = group.get_column_reader(last)? else { return Ok(None) };
    let (mut values, mut definition, mut repetition) = (Vec::new(), Vec::new(), Vec::new());
    while values.is_empty() {
        let (rows, ..) = column.read_records(1, Some(&mut definition), Some(&mut repetition), &mut values)?;
        if rows == 0 {
            return Ok(None);
        }
    }
    Ok(Some(values.len()))
}

impl Parquet {
    fn new(file: File, columns: &Columns) -> Result<Self, ParquetError> {
        let schema = Arc::new(parse_message_type(&schema(&columns.content))?);
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_compression(Compression::UNCOMPRESSED)
            .build();
        Ok(Self {
            out: SerializedFileWriter::new(file, schema, Arc::new(properties))?,
            columns: columns.clone(),
            group: (GROUP_VALUES / columns.shown().max(1)).max(1),
            images: Column::default(),
            errors: Column::default(),
            classes: Column::default(),
            labels: Column::default(),
            values: Column::default(),
            next: None,
        })
    }

    /// A group of rows from another file.
    fn copy(&mut self, file: &File, group: &dyn RowGroupReader) -> Result<(), ParquetError> {
        let mut out = self.out.next_row_group()?;
        for column in group.metadata().columns() {
            let close = ColumnCloseResult {
                bytes_written: column.compressed_size() as u64,
                rows_written: group.metadata().num_rows() as u64,
                metadata: column.clone(),
                bloom_filter: None,
                column_index: None,
                offset_index: None,
            };
            out.append_column(file, close)?;
        }
        out.close().map(drop)
    }

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
        let file = self.out.into_inner()?;
        if let Some(next) = &self.next {
            file.sync_all()?;
            std::fs::rename(&next.written, &next.replaced)?;
        }
        Ok(file)
    }
}
