//! All files of a report.

use std::path::{Path, PathBuf};

use engine::plan::schema::Plan;
use engine::util::error::Failure;
use engine::util::files::{create_folder, write_atomically};

use crate::report::{charts, data, page, strip};

/// The Markdown page.
const PAGE: &str = "report.md";

/// Draws all files of a report, then writes them to a folder: the path of the page, and the number of pictures.
///
/// # Errors
/// If a picture can't be drawn or the folder not be written.
pub fn write(plan: &Plan, folder: &Path) -> Result<(PathBuf, usize), Failure> {
    let files = files(plan)?;
    create_folder(folder)?;
    for (name, text) in &files {
        write_atomically(&folder.join(name), text)?;
    }
    Ok((folder.join(PAGE), files.len() - 1))
}

/// All files of a report: names and contents, the page last.
///
/// # Errors
/// If a picture can't be drawn.
pub fn files(plan: &Plan) -> Result<Vec<(String, String)>, Failure> {
    let steps = data::steps(plan);
    let problems = data::convolutions(plan);
    let mut files = vec![
        (page::NETWORK.to_string(), strip::network(plan, &steps)?),
        (page::CONTEST.to_string(), charts::contest(plan)?),
    ];
    for problem in problems.iter().filter(|p| !p.rows().is_empty()) {
        files.push((problem.file.clone(), charts::problem(problem)?));
    }
    files.push((PAGE.to_string(), page::page(plan, &steps, &problems)));
    Ok(files)
}
