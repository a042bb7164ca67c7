//! A chart and the numbers that it shows, as JSON, as CSV and as cells of a table.

use serde_json::{Map, Value};

use crate::report::text::short;

/// A picture and its numbers.
pub struct Chart {
    /// Name of its files, without an ending.
    pub name: String,
    pub title: String,
    pub svg: String,
    pub data: Dataset,
}

/// Rows of values below named columns.
pub struct Dataset {
    /// The key of a column, which ends with its unit, and its head in a table.
    columns: Vec<[&'static str; 2]>,
    rows: Vec<Vec<Value>>,
}

/// A dataset as a page shows it.
pub struct Shown {
    pub heads: Vec<Head>,
    /// A cell a head.
    pub rows: Vec<Vec<String>>,
}

/// What heads a column.
pub struct Head {
    pub text: &'static str,
    /// Whether all its cells are numbers.
    pub is_number: bool,
}

impl Dataset {
    pub fn new(columns: &[[&'static str; 2]]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: a value a column.
    pub fn row(&mut self, values: impl Into<Vec<Value>>) {
        let values = values.into();
        debug_assert_eq!(values.len(), self.columns.len());
        self.rows.push(values);
    }

    /// An object a row.
    pub fn objects(&self) -> Vec<Map<String, Value>> {
        let keys = || self.columns.iter().map(|[key, _]| key.to_string());
        self.rows.iter().map(|row| keys().zip(row.iter().cloned()).collect()).collect()
    }

    /// A line a row, below the keys; nothing stands for a value that is not known.
    ///
    /// # Errors
    /// None that a writer to memory has a reason for.
    pub fn csv(&self) -> Result<Vec<u8>, csv::Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(self.columns.iter().map(|[key, _]| key))?;
        for row in &self.rows {
            writer.write_record(row.iter().map(exact))?;
        }
        writer.into_inner().map_err(|error| error.into_error().into())
    }

    pub fn shown(&self) -> Shown {
        let is_number = |column: usize| {
            let mut values = self.rows.iter().map(|row| &row[column]).filter(|value| !value.is_null());
            values.all(Value::is_number)
        };
        let heads = self.columns.iter().enumerate();
        Shown {
            heads: heads.map(|(i, [_, text])| Head { text, is_number: is_number(i) }).collect(),
            rows: self.rows.iter().map(|row| row.iter().map(rounded).collect()).collect(),
        }
    }
}

impl Shown {
    /// How many rows there are below the heads.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
}

fn exact(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value as a person reads it: numbers in three digits.
fn rounded(value: &Value) -> String {
    let number = value.as_f64().filter(|_| value.is_f64());
    match (value, number) {
        (Value::Bool(is), _) => if *is { "yes" } else { "" }.to_string(),
        (_, Some(0.0)) => "0".to_string(),
        (_, Some(number)) if number.abs() < 0.01 => format!("{number:.1e}"),
        (_, Some(number)) => short(number),
        _ => exact(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dataset_is_the_same_rows_as_objects_lines_and_cells() {
        let mut data = Dataset::new(&[["kernel", "kernel"], ["time_us", "µs"], ["tie", "tie"]]);
        data.row([json!("a,\"b\""), json!(1234.5), json!(true)]);
        data.row([json!("c"), json!(f64::NAN), json!(false)]);
        let objects = json!(data.objects());
        assert_eq!(objects[0], json!({ "kernel": "a,\"b\"", "time_us": 1234.5, "tie": true }));
        let csv = String::from_utf8(data.csv().expect("CSV")).expect("text");
        assert_eq!(csv, "kernel,time_us,tie\n\"a,\"\"b\"\"\",1234.5,true\nc,,false\n");
        let shown = data.shown();
        assert_eq!(shown.rows, [["a,\"b\"", "1234", "yes"], ["c", "", ""]]);
        assert_eq!(shown.heads.iter().map(|h| h.is_number).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn numbers_are_rounded_to_what_is_read() {
        let values = [json!(0.0), json!(1.25e-7), json!(0.05), json!(7), json!(null)];
        assert_eq!(values.each_ref().map(rounded), ["0", "1.2e-7", "0.050", "7", ""]);
    }
}
