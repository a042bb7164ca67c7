//! The classes of images, their names, and tensors in one line.

use std::io::Write;
use std::path::Path;

use engine::InputError;
use engine::util::files::file_name;

use crate::cli::Failure;

/// Reads `classes` labels, one a line of UTF-8; a line break after the last one is optional.
pub fn load_labels(path: &Path, classes: usize) -> Result<Vec<String>, InputError> {
    let file = file_name(path);
    let bytes = std::fs::read(path).map_err(|source| InputError::Read { file: file.clone(), source })?;
    let Ok(text) = String::from_utf8(bytes) else {
        let (found, expected) = ("bytes that are not UTF-8".to_owned(), "text, one label a line".to_owned());
        return Err(InputError::Format { file, found, expected });
    };
    let labels: Vec<_> = text.trim_start_matches('\u{feff}').lines().map(|l| l.trim().to_owned()).collect();
    if labels.len() != classes {
        return Err(InputError::Labels { file, found: labels.len(), expected: classes });
    }
    Ok(labels)
}

/// A tensor in one line: how many values, their mean and root mean square, the first of them.
fn print_tensor(name: &str, values: &[f32], out: &mut dyn Write) -> Result<(), Failure> {
    let n = values.len();
    let mean = values.iter().map(|&v| v as f64).sum::<f64>() / n as f64;
    let rms = (values.iter().map(|&v| (v as f64).powi(2)).sum::<f64>() / n as f64).sqrt();
    let head = values.iter().take(3).map(|v| format!("{v:.6}")).collect::<Vec<_>>().join(" ");
    Ok(writeln!(out, "{name}: {n} values, mean {mean:.6}, rms {rms:.6}, first {head}")?)
}

/// How to name classes, and how many of them; outputs are no classes where `top` is none.
pub struct Classes<'a> {
    pub labels: &'a [String],
    pub top: Option<usize>,
}

impl Classes<'_> {
    /// Prints the likeliest classes of each image, or its tensor where there are no classes.
    pub fn print(&self, output: &[f32], names: &[String], out: &mut dyn Write) -> Result<(), Failure> {
        for (name, values) in names.iter().zip(output.chunks(output.len() / names.len().max(1))) {
            let Some(top) = self.top else {
                print_tensor(name, values, out)?;
                continue;
            };
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
            writeln!(out, "{name}:")?;
            for class in order.into_iter().take(top) {
                let label = self.labels.get(class).map_or(String::new(), |label| format!("  {label}"));
                writeln!(out, "  {:8.4}%  class {class}{label}", values[class] * 100.0)?;
            }
        }
        Ok(())
    }
}
