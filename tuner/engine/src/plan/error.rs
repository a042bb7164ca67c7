//! Why a plan is not used.

use std::path::Path;

use kernels::Tier;

use crate::network::ScaleError;
use crate::util::files::{InputError, cut, one_line, quoted};
use crate::util::words;

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{file}: {source}")]
    Read { file: String, source: std::io::Error },
    /// It is no JSON object.
    #[error("{file}: {found}, expected a plan: JSON that `tuner tune` writes")]
    NoPlan { file: String, found: String },
    /// A field is missing or of another type.
    #[error("{file}: {field}: {}", words::of_json(source))]
    Json {
        file: String,
        /// Path of the field, `plan` for the whole.
        field: String,
        source: serde_json::Error,
    },
    /// A field does not hold what it must.
    #[error("{file}: {field} is {found}, expected {expected}")]
    Field { file: String, field: String, found: String, expected: String },
    /// Tensors are of u8 that have no scales.
    #[error("{file}: {source}")]
    Scale { file: String, source: ScaleError },
    /// A folder has no plan.
    #[error("{folder}: found no plan, expected --plan PLAN.json or one that `tuner --model M` made")]
    None { folder: String },
    /// No kernel of the processor gives results with the bits of other processors.
    #[error("{problem}: tier {tier} gives other bits than other processors, expected avx2 or above")]
    NotReproducible { tier: Tier, problem: String },
    #[error(transparent)]
    Write(#[from] InputError),
}

pub(crate) fn json_error(path: &Path, field: impl Into<String>, source: serde_json::Error) -> PlanError {
    PlanError::Json { file: path.display().to_string(), field: quoted(&field.into()), source }
}

pub(crate) fn field(path: &Path, field: &str, found: impl ToString, expected: impl ToString) -> PlanError {
    PlanError::Field {
        file: path.display().to_string(),
        field: quoted(field),
        found: quoted(&found.to_string()),
        expected: cut(&one_line(&expected.to_string()), EXPECTED),
    }
}

/// The most characters of what is expected.
const EXPECTED: usize = 160;
