//! The classes of images, and tensors in one line.

use std::io::Write;

use engine::network::model::Model;
use engine::util::error::Failure;

/// A tensor in one line: how many values, their mean and root mean square, the first of them.
pub(crate) fn print_tensor(name: &str, values: &[f32], out: &mut dyn Write) -> Result<(), Failure> {
    let count = values.len() as f64;
    let mean = values.iter().map(|&v| v as f64).sum::<f64>() / count;
    let rms = (values.iter().map(|&v| (v as f64).powi(2)).sum::<f64>() / count).sqrt();
    let head: Vec<String> = values.iter().take(3).map(|v| format!("{v:.6}")).collect();
    writeln!(out, "{name}: {} values, mean {mean:.6}, rms {rms:.6}, first {}", values.len(), head.join(" "))?;
    Ok(())
}

/// How to name classes, and how many of them.
pub struct Classes<'a> {
    pub model: &'a Model,
    pub labels: &'a [String],
    pub top: usize,
}

impl Classes<'_> {
    /// Prints the likeliest classes of each image, or its tensor where there are no classes.
    pub fn print(&self, output: &[f32], names: &[String], out: &mut dyn Write) -> Result<(), Failure> {
        for (name, values) in names.iter().zip(output.chunks(output.len() / names.len().max(1))) {
            if !self.model.has_top() {
                print_tensor(name, values, out)?;
                continue;
            }
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
            writeln!(out, "{name}:")?;
            for class in order.into_iter().take(self.top) {
                let label = self.labels.get(class).map_or(String::new(), |label| format!("  {label}"));
                writeln!(out, "  {:8.4}%  class {class}{label}", values[class] * 100.0)?;
            }
        }
        Ok(())
    }
}
