//! All files of a report.

use std::path::{Path, PathBuf};

use engine::util::create_folder;
use engine::util::files::write_atomically;
use engine::{InputError, Plan};

use crate::report::canvas::DrawError;
use crate::report::{charts, data, page, strip};

/// Why there is no report; one line.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error(transparent)]
    Draw(#[from] DrawError),
    #[error(transparent)]
    File(#[from] InputError),
}

const PAGE: &str = "report.md";

/// Draws all files, then writes them to a folder: the path of the page, the number of pictures.
pub fn write(plan: &Plan, folder: &Path) -> Result<(PathBuf, usize), ReportError> {
    let files = files(plan)?;
    create_folder(folder)?;
    for (name, text) in &files {
        write_atomically(&folder.join(name), text)?;
    }
    Ok((folder.join(PAGE), files.len() - 1))
}

/// Names and contents of all files, the page last.
pub fn files(plan: &Plan) -> Result<Vec<(String, String)>, DrawError> {
    let steps = data::steps(plan);
    let problems = data::convolutions(plan);
    let mut files = vec![(page::NETWORK.to_string(), strip::network(plan, &steps)?)];
    if !plan.is_of_list() {
        files.push((page::CONTEST.to_string(), charts::contest(plan)?));
    }
    if !plan.pareto.is_empty() {
        files.push((page::PARETO.to_string(), charts::pareto(plan)?));
    }
    for problem in problems.iter().filter(|p| !p.rows().is_empty()) {
        files.push((problem.file.clone(), charts::problem(problem)?));
    }
    files.push((PAGE.to_string(), page::page(plan, &steps, &problems)));
    Ok(files)
}
