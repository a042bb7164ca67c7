//! An array of numpy: all values, `[images, ..]`; those of an image that failed are no numbers.

use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::Path;

use crate::cli::Failure;
use crate::cli::npy::{bytes, header, read_shape};
use crate::cli::results::rows::{Columns, Format, Names, Resumed, Row, Rows, cut, too_many};

pub(super) const FORMAT: Format = Format { ending: "npy", create, resume };

struct Npy {
    out: BufWriter<File>,
    /// `[images, ..]`
    shape: Vec<usize>,
    rows: usize,
}

fn shape(columns: &Columns) -> Vec<usize> {
    [&[columns.rows], &columns.shape[..]].concat()
}

fn create(file: File, columns: &Columns) -> io::Result<Box<dyn Rows>> {
    let (mut out, shape) = (BufWriter::new(file), shape(columns));
    out.write_all(&header(&shape))?;
    Ok(Box::new(Npy { out, shape, rows: 0 }))
}

fn resume(file: File, _: &Path, columns: &Columns, _: &Names) -> Result<Resumed, Failure> {
    let (shape, size) = (shape(columns), columns.size() as u64 * size_of::<f32>() as u64);
    let start = header(&shape);
    let (found, length) = read_shape(&file)?;
    if found.get(1..) != Some(&columns.shape[..]) || length != start.len() {
        return Err(format!("found an array of shape {found:?}, expected {shape:?}").into());
    }
    let rows = (file.metadata()?.len().saturating_sub(length as u64) / size) as usize;
    if rows > columns.rows {
        return Err(too_many(columns.rows));
    }
    cut(&file, length as u64 + rows as u64 * size)?;
    Ok((Box::new(Npy { out: BufWriter::new(file), shape, rows }), rows))
}

impl Rows for Npy {
    fn write(&mut self, row: &Row) -> io::Result<()> {
        self.rows += 1;
        match row.values {
            Ok(values) => self.out.write_all(&bytes(values)),
            Err(_) => {
                let size = self.shape[1..].iter().product();
                self.out.write_all(&bytes(&vec![f32::NAN; size]))
            }
        }
    }

    fn finish(mut self: Box<Self>) -> io::Result<File> {
        self.out.flush()?;
        self.shape[0] = self.rows;
        let mut file = self.out.into_inner()?;
        // What is no regular file has all rows, or a reader that knows that it was stopped.
        if file.metadata()?.is_file() {
            file.rewind()?;
            file.write_all(&header(&self.shape))?;
        }
        Ok(file)
    }
}
