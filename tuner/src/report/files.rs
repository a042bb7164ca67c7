//! All files of a report.

use std::path::{Path, PathBuf};

use engine::util::create_folder;
use engine::util::files::write_atomically;
use engine::{InputError, Plan};
use serde_json::{Value, json};

use crate::report::canvas::DrawError;
use crate::report::facts::facts;
use crate::report::html::Page;
use crate::report::roofline::peaks;
use crate::report::roofs::roofs;
use crate::report::sections::{Section, sections};
use crate::report::{data, numbers, page};

/// Why there is no report; one line.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error(transparent)]
    Draw(#[from] DrawError),
    #[error("the page: {0}")]
    Page(#[from] minijinja::Error),
    #[error("a table: {0}")]
    Table(#[from] csv::Error),
    #[error("report.json: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    File(#[from] InputError),
}

/// The page with everything in it.
pub const PAGE: &str = "index.html";

/// The same in Markdown, which shows the pictures that are other files.
const MARKDOWN: &str = "report.md";

/// The numbers of all charts.
pub const NUMBERS: &str = "report.json";

const SCHEMA: &str = "convolution-report-1";

/// What was written: the page, and the number of pictures.
#[derive(Debug)]
pub struct Written {
    pub page: PathBuf,
    pub pictures: usize,
}

/// A file of a report: its name and what it contains.
pub type Named = (String, Vec<u8>);

/// Draws all files, then writes them to a folder. `others` are plans to compare with.
///
/// # Errors
/// If something cannot be drawn, which has no reason, or written.
pub fn write(plan: &Plan, others: &[Plan], folder: &Path) -> Result<Written, ReportError> {
    let files = files(plan, others)?;
    create_folder(folder)?;
    for (name, content) in &files {
        write_atomically(&folder.join(name), content)?;
    }
    let pictures = files.iter().filter(|(name, _)| name.ends_with(".svg")).count();
    Ok(Written { page: folder.join(PAGE), pictures })
}

/// Names and contents of all files, the page last.
pub fn files(plan: &Plan, others: &[Plan]) -> Result<Vec<Named>, ReportError> {
    let steps = data::steps(plan);
    let problems = data::convolutions(plan);
    let sections = sections(plan, &steps, &problems, others)?;
    let mut files = Vec::new();
    for section in &sections {
        for chart in &section.charts {
            files.push((format!("{}.svg", chart.name), chart.svg.clone().into_bytes()));
            files.push((format!("{}.csv", chart.name), chart.data.csv()?));
        }
        if let Some(index) = &section.index {
            files.push((format!("{}.csv", index.name), index.data.csv()?));
        }
    }
    let numbers = serde_json::to_string(&numbers(plan, &sections))? + "\n";
    files.push((NUMBERS.to_string(), numbers.into_bytes()));
    files.push((MARKDOWN.to_string(), page::page(plan, &steps, &problems).into_bytes()));
    files.push((PAGE.to_string(), Page::of(plan, &sections).html()?.into_bytes()));
    Ok(files)
}

/// What the plan is of, and each chart with its rows.
fn numbers(plan: &Plan, sections: &[Section]) -> Value {
    let charts = sections.iter().flat_map(|section| {
        section.charts.iter().map(|chart| {
            json!({
                "id": chart.name, "section": section.id, "title": chart.title,
                "svg": format!("{}.svg", chart.name), "csv": format!("{}.csv", chart.name),
                "rows": chart.data.objects(),
            })
        })
    });
    let facts = facts(plan).into_iter().map(|fact| (fact.name.to_string(), json!(fact.text)));
    let indexes = sections.iter().filter_map(|section| section.index.as_ref());
    json!({
        "schema": SCHEMA,
        "model": plan.model,
        "threads": plan.threads,
        "batch": plan.batch,
        "machine": plan.machine,
        "tool": plan.tool,
        "commit": plan.commit,
        "created": plan.created,
        "predicted_ms": plan.predicted_ms,
        "measured_ms": plan.measured_ms,
        "rel_error": plan.rel_error,
        "max_rel_error": plan.max_rel_error,
        "facts": facts.collect::<serde_json::Map<_, _>>(),
        "peaks": numbers::peaks(&peaks(plan)).objects(),
        "roofs": numbers::roofs(&roofs(plan)).objects(),
        "problems": indexes.flat_map(|index| index.data.objects()).collect::<Vec<_>>(),
        "charts": charts.collect::<Vec<_>>(),
    })
}
